/**
 * Keys and values as RocksDB's db_bench makes them (tools/db_bench_tool.cc), so that both engines store the same bytes: `GenerateKeyFromInt` writes the
 * number in eight bytes, the highest first, and fills up with the character 0; `RandomGenerator` cuts values from a mebibyte of pieces of 100 bytes, each
 * 50 random characters twice, for a compression ratio of a half. readmissing makes the key one byte longer, so that it lies between keys that are there.
 */
export const keyBytes = 16
export const valueBytes = 100
const fill = 0x30

/** One buffer that becomes one key after the other. `prefixBytes` in front are left as they are. */
export class Keys {
  readonly key: Uint8Array
  private readonly at: number

  constructor(options: { readonly prefix: Uint8Array; readonly sizeBytes?: number }) {
    const { prefix, sizeBytes = keyBytes } = options
    this.key = new Uint8Array(prefix.length + sizeBytes).fill(fill)
    this.key.set(prefix)
    this.at = prefix.length
  }

  /** The key of a number below 2^53. */
  of(number: number): Uint8Array {
    const { key, at } = this
    const high = Math.floor(number / 2 ** 32)
    key[at] = 0
    key[at + 1] = high >>> 16
    key[at + 2] = high >>> 8
    key[at + 3] = high
    key[at + 4] = number >>> 24
    key[at + 5] = number >>> 16
    key[at + 6] = number >>> 8
    key[at + 7] = number
    return key
  }
}

/** Numbers drawn evenly, the same for the same seed: xorshift128 (Marsaglia, 2003). Streams of two seeds have nothing in common. */
export class Draws {
  private x: number
  private y: number
  private z: number
  private w: number

  constructor(seed: number) {
    this.x = scattered(seed)
    this.y = scattered(this.x ^ 0x9e3779b9)
    this.z = scattered(this.y ^ 0x9e3779b9)
    this.w = scattered(this.z ^ 0x9e3779b9) | 1
  }

  /** 32 bits. */
  next(): number {
    const t = this.x ^ (this.x << 11)
    this.x = this.y
    this.y = this.z
    this.z = this.w
    this.w = this.w ^ (this.w >>> 19) ^ (t ^ (t >>> 8))
    return this.w >>> 0
  }

  below(count: number): number {
    return Math.floor((this.next() / 2 ** 32) * count)
  }
}

/** MurmurHash3's finalizer: neighbouring seeds end far apart. */
function scattered(seed: number): number {
  let h = seed | 0
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return h ^ (h >>> 16)
}

/** Zipfian numbers below `count`, scattered over the keys (Gray et al., 1994; YCSB's constant 0.99). */
export class ZipfianDraws {
  private readonly draws: Draws
  private readonly count: number
  private readonly theta = 0.99
  private readonly zeta: number
  private readonly alpha: number
  private readonly eta: number

  constructor(options: { readonly seed: number; readonly count: number }) {
    const { seed, count } = options
    this.draws = new Draws(seed)
    this.count = count
    let zeta = 0
    for (let i = 1; i <= count; i++) zeta += 1 / i ** this.theta
    this.zeta = zeta
    this.alpha = 1 / (1 - this.theta)
    const zetaOfTwo = 1 + 0.5 ** this.theta
    this.eta = (1 - (2 / count) ** (1 - this.theta)) / (1 - zetaOfTwo / zeta)
  }

  next(): number {
    const u = this.draws.next() / 2 ** 32
    const uz = u * this.zeta
    let rank = 0
    if (uz >= 1) {
      rank =
        uz < 1 + 0.5 ** this.theta
          ? 1
          : Math.floor(this.count * (this.eta * u - this.eta + 1) ** this.alpha)
    }
    // Popular keys do not lie side by side.
    return (rank * 0x5bd1e995) % this.count
  }
}

/** Values, one after the other, as views of one mebibyte. */
export class Values {
  private readonly views: Array<Uint8Array> = []
  private at = 0

  constructor(seed: number) {
    const draws = new Draws(seed)
    const pieces = Math.floor(2 ** 20 / valueBytes)
    const all = new Uint8Array(pieces * valueBytes)
    for (let piece = 0; piece < pieces; piece++) {
      const start = piece * valueBytes
      const half = valueBytes / 2
      for (let i = 0; i < half; i++) {
        all[start + i] = all[start + half + i] = 0x20 + draws.below(95)
      }
      this.views.push(all.subarray(start, start + valueBytes))
    }
  }

  next(): Uint8Array {
    this.at = this.at + 1 === this.views.length ? 0 : this.at + 1
    return this.views[this.at] as Uint8Array
  }
}
