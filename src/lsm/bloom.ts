/**
 * Bloom filter (Bloom, 1970) with double hashing (Kirsch and Mitzenmacher, 2006). At 10 bits a key
 * about 1 % of absent keys pass. Content: probes u8, then bits, lowest bit of a byte first. Stored:
 * do not change, `keyHash` included.
 */
import { assert } from "../lib/assert.ts"

/** MurmurHash3's 32-bit body over a key. */
export function keyHash(bytes: Uint8Array, offset: number, length: number): number {
  let h = length ^ 0x5bd1e995
  let i = offset
  const end = offset + length
  for (; i + 4 <= end; i += 4) {
    let k = bytes[i] | (bytes[i + 1] << 8) | (bytes[i + 2] << 16) | (bytes[i + 3] << 24)
    k = Math.imul(k, 0xcc9e2d51)
    k = Math.imul((k << 15) | (k >>> 17), 0x1b873593)
    h ^= k
    h = Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64
  }
  let k = 0
  for (; i < end; i++) k = (k << 8) | bytes[i]
  k = Math.imul(k, 0xcc9e2d51)
  h ^= Math.imul((k << 15) | (k >>> 17), 0x1b873593)
  return finalize(h)
}

function finalize(hash: number): number {
  let h = hash
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/**
 * The second hash of the pair, from the first. Odd, so that the probes of one key never coincide at
 * once.
 */
function stepOf(hash: number): number {
  return (finalize(hash ^ 0x9e3779b9) | 1) >>> 0
}

export class BloomBuilder {
  private hashes = new Uint32Array(256)
  private count = 0

  add(hash: number): void {
    if (this.count === this.hashes.length) {
      const larger = new Uint32Array(this.hashes.length * 2)
      larger.set(this.hashes)
      this.hashes = larger
    }
    this.hashes[this.count++] = hash
  }

  /** The filter's content; empty again afterwards. */
  finish(bitsPerKey: number): Uint8Array {
    assert(bitsPerKey >= 1, "a filter has bits")
    // ln 2 times bits per key gives the fewest false positives.
    const probes = Math.max(1, Math.min(30, Math.round(bitsPerKey * Math.LN2)))
    // Tiny filters would let too much through.
    const byteCount = Math.max(8, Math.ceil((this.count * bitsPerKey) / 8))
    const content = new Uint8Array(1 + byteCount)
    content[0] = probes
    const bits = byteCount * 8
    for (let i = 0; i < this.count; i++) {
      let hash = this.hashes[i]
      const step = stepOf(hash)
      for (let probe = 0; probe < probes; probe++) {
        const bit = hash % bits
        content[1 + (bit >>> 3)] |= 1 << (bit & 7)
        hash = (hash + step) >>> 0
      }
    }
    this.count = 0
    return content
  }
}

/** False = surely absent. */
export function bloomMayContain(content: Uint8Array, hashOfKey: number): boolean {
  const probes = content[0]
  const bits = (content.length - 1) * 8
  let hash = hashOfKey
  const step = stepOf(hash)
  for (let probe = 0; probe < probes; probe++) {
    const bit = hash % bits
    if ((content[1 + (bit >>> 3)] & (1 << (bit & 7))) === 0) return false
    hash = (hash + step) >>> 0
  }
  return true
}
