/**
 * What stands for one key in a tree: a hash of the key, which says where, and a hash of the key and its live dots, which is added up. Each is two numbers
 * of 32 bits. Filled and read again and again, so that a write allocates nothing:
 *
 *     hash.begin(key); forEachLiveDot(state, (actor, counter) => hash.dot(actor, counter)); if (hash.dots > 0) tree.insert(slot, hash)
 *
 * A dot is never used for two values, so that equal dots are equal values. The dots of a state are in order, so that their order is part of the hash. Two lanes of
 * MurmurHash3's 32-bit mixing with constants of their own; not proof against keys made to collide, which hide differences from whoever made them, no one
 * else. Saved and sent: do not change.
 */
export class MerkleHash {
  keyLow = 0
  keyHigh = 0
  low = 0
  high = 0
  /** Live dots since `begin`. A key without any is not in the tree. */
  dots = 0

  /** Hashes the key, or the part of `bytes` that it is. */
  begin(bytes: Uint8Array, start = 0, end: number = bytes.length): void {
    let low = 0x3c6ef372
    let high = 0x1b873593
    let at = start
    for (; at + 4 <= end; at += 4) {
      const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
      low = mixLow(low, word)
      high = mixHigh(high, word)
    }
    let rest = 0
    for (let shift = 0; at < end; at++, shift += 8) rest |= bytes[at] << shift
    low = mixLow(low, rest) ^ (end - start)
    high = mixHigh(high, rest) ^ (end - start)
    this.keyLow = finish(low ^ Math.imul(high, 0x2545f491))
    this.keyHigh = finish(high ^ Math.imul(low, 0x165667b1))
    this.low = this.keyLow
    this.high = this.keyHigh
    this.dots = 0
  }

  /** Both safe integers. */
  dot(actor: number, counter: number): void {
    this.word(actor | 0)
    this.word((actor / 2 ** 32) | 0)
    this.word(counter | 0)
    this.word((counter / 2 ** 32) | 0)
    const { low, high } = this
    this.low = finish(low ^ Math.imul(high, 0x2545f491))
    this.high = finish(high ^ Math.imul(low, 0x165667b1))
    this.dots++
  }

  private word(word: number): void {
    this.low = mixLow(this.low, word)
    this.high = mixHigh(this.high, word)
  }
}

function mixLow(state: number, word: number): number {
  const product = Math.imul(word, 0xcc9e2d51)
  const mixed = state ^ Math.imul((product << 15) | (product >>> 17), 0x1b873593)
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0
}

function mixHigh(state: number, word: number): number {
  const product = Math.imul(word, 0x239b961b)
  const mixed = state ^ Math.imul((product << 16) | (product >>> 16), 0xab0e9789)
  return (Math.imul((mixed << 17) | (mixed >>> 15), 9) + 0x561ccd1b) | 0
}

/** As an unsigned number. */
function finish(state: number): number {
  let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
