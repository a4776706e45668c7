/**
 * Bloom filter (Bloom, 1970) whose bits of one key all lie in one line of 64 bytes (Putze, Sanders
 * and Singler, 2007), so that a probe touches memory once. At 10 bits a key about 1 % of absent
 * keys pass. Content: probes u8 (0 = no filter: all pass), zero u8*3, lines; lowest bit of a byte
 * first. Stored: do not change, `keyHash` included.
 */
import { assert } from "../../lib/assert.ts"

const headerBytes = 4
const lineBytes = 64
const lineBits = 512
/** More would cost time and let no fewer pass: a line has only 512 bits. */
const maxProbes = 16
/** 2^32 divided by the golden ratio, odd: multiplying by it spreads what differs over all bits. */
const golden = 0x9e3779b1

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
 * Where the line of a key begins: the hash as a fraction of 2^32 picks the line, so the division is
 * a multiplication. Exact below 2^21 lines, and the same everywhere in any case.
 */
function lineOffset(hash: number, lines: number): number {
  return headerBytes + Math.floor((hash * lines) / 2 ** 32) * lineBytes
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

  /** The filter's content; empty again afterwards. 0 bits a key: no filter. */
  finish(bitsPerKey: number): Uint8Array {
    assert(bitsPerKey >= 0 && bitsPerKey <= 64, () => `${bitsPerKey} bits a key`)
    const { count } = this
    this.count = 0
    if (bitsPerKey === 0) return new Uint8Array(headerBytes)
    const lines = Math.max(1, Math.ceil((count * bitsPerKey) / lineBits))
    const content = new Uint8Array(headerBytes + lines * lineBytes)
    // Fewer than ln 2 times the bits a key, which is best for a filter that is not cut into lines.
    const probes = Math.max(1, Math.min(maxProbes, Math.round(bitsPerKey * 0.6)))
    content[0] = probes
    for (let i = 0; i < count; i++) {
      const hash = this.hashes[i]
      const line = lineOffset(hash, lines)
      let bits = Math.imul(hash, golden)
      for (let probe = 0; probe < probes; probe++) {
        content[line + (bits >>> 26)] |= 1 << ((bits >>> 23) & 7)
        bits = Math.imul(bits, golden)
      }
    }
    return content
  }
}

/** Whether bytes can be a filter: then `bloomMayContain` stays inside of them. */
export function isBloomFilter(content: Uint8Array): boolean {
  const lines = (content.length - headerBytes) / lineBytes
  if (content.length < headerBytes || content[0] > maxProbes) return false
  return Number.isInteger(lines) && (lines > 0 || content[0] === 0)
}

/** False = surely absent. */
export function bloomMayContain(content: Uint8Array, hash: number): boolean {
  const probes = content[0]
  const line = lineOffset(hash, (content.length - headerBytes) / lineBytes)
  let bits = Math.imul(hash, golden)
  for (let probe = 0; probe < probes; probe++) {
    if ((content[line + (bits >>> 26)] & (1 << ((bits >>> 23) & 7))) === 0) return false
    bits = Math.imul(bits, golden)
  }
  return true
}
