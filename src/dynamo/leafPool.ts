import { assert } from "../lib/assert.ts"

const none = 0xffffffff
/** Words of the smallest piece; sizes are powers of two from here. */
const smallestBits = 5
const largestBits = 17

/** Pieces of one array of 32-bit words that grows, each a power of two long, with a free list per size. Off the heap of objects. */
export class LeafPool {
  words: Uint32Array = new Uint32Array(1024)
  private used = 0
  /** The first free piece of each size; its first word names the next. */
  private readonly free: Uint32Array = new Uint32Array(largestBits + 1).fill(none)

  get sizeBytes(): number {
    return this.words.byteLength
  }

  /** Where a piece of 2^bits words begins; what is in it is left from before. */
  take(bits: number): number {
    assert(bits >= smallestBits && bits <= largestBits, () => `a piece of 2^${bits} words`)
    const reused = this.free[bits]
    if (reused !== none) {
      this.free[bits] = this.words[reused]
      return reused
    }
    const start = this.used
    this.used += 2 ** bits
    if (this.used > this.words.length) {
      const larger = new Uint32Array(Math.max(this.used, this.words.length * 2))
      larger.set(this.words)
      this.words = larger
    }
    return start
  }

  give(start: number, bits: number): void {
    this.words[start] = this.free[bits]
    this.free[bits] = start
  }
}
