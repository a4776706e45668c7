/**
 * Where keys were found: (table, hash of the key) -> (block, restart). It spares a read the search
 * of the index. An entry is a hint: two keys may share it, and what it says is verified against the
 * block before it is believed, so nothing need be invalidated, and a key may be missing at any time.
 *
 * Two hints share a place; the newer one comes first, and one that is used comes first again.
 */

/** Tag and place. */
const hintBytes = 8
const ways = 2
const blockLimit = 2 ** 24
const restartLimit = 2 ** 8
const none = 0xffffffff

export class KeyCache {
  readonly budgetBytes: number
  /** Hints that were right, and lookups that gave none or a wrong one. */
  hits = 0
  misses = 0
  private readonly tags: Uint32Array
  private readonly places: Uint32Array
  private readonly shift: number

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes
    const bits = Math.floor(Math.log2(Math.max(1, budgetBytes / (hintBytes * ways))))
    const size = budgetBytes < hintBytes * ways ? 0 : ways * 2 ** Math.min(bits, 30)
    this.shift = 32 - Math.min(bits, 30)
    this.tags = new Uint32Array(size)
    this.places = new Uint32Array(size).fill(none)
  }

  get isOff(): boolean {
    return this.tags.length === 0
  }

  get sizeBytes(): number {
    return this.tags.length * hintBytes
  }

  /** Block * 256 + restart, or -1. `owner` names the table among all that are open. */
  find(owner: number, hash: number): number {
    const tag = tagOf(owner, hash)
    const at = this.slotOf(tag)
    if (this.tags[at] === tag && this.places[at] !== none) return this.places[at]
    if (this.tags[at + 1] !== tag || this.places[at + 1] === none) return -1
    const place = this.places[at + 1]
    this.tags[at + 1] = this.tags[at]
    this.places[at + 1] = this.places[at]
    this.tags[at] = tag
    this.places[at] = place
    return place
  }

  put(owner: number, hash: number, block: number, restart: number): void {
    if (block >= blockLimit - 1 || restart >= restartLimit) return
    const tag = tagOf(owner, hash)
    const at = this.slotOf(tag)
    if (this.tags[at] !== tag) {
      this.tags[at + 1] = this.tags[at]
      this.places[at + 1] = this.places[at]
      this.tags[at] = tag
    }
    this.places[at] = block * restartLimit + restart
  }

  private slotOf(tag: number): number {
    // A shift by 32 would be one by 0.
    return this.shift === 32 ? 0 : (Math.imul(tag, 0x85ebca6b) >>> this.shift) * ways
  }
}

function tagOf(owner: number, hash: number): number {
  return (hash ^ Math.imul(owner, 0x9e3779b1)) >>> 0
}
