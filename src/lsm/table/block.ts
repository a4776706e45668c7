/**
 * Reading a data block: entries in ascending order of key, each key stored without what it shares
 * with the one before it, except at a restart, where it is whole. A search is binary over the
 * restarts and linear between two of them. Layout: format.ts; writing: blockWriter.ts.
 */
import { StorageCorruption } from "../../disk/disk.ts"
import { emptyBytes } from "../../lib/bytes.ts"
import { compareRanges } from "../read/cursor.ts"
import { blockTailBytes } from "./blockWriter.ts"
import { maxKeyBytes } from "./format.ts"
import { readU32, readU64, readVarint, varintEnd } from "./varint.ts"

/** Whose block it is, for the report when its structure is wrong. */
export interface BlockOrigin {
  malformed(blockIndex: number, actual: string): never
}

const nowhere: BlockOrigin = {
  malformed(blockIndex, actual) {
    throw new StorageCorruption({ path: "", offset: blockIndex, expected: "a block", actual })
  },
}

/**
 * A position in one block. Subclassed by `RunCursor`, which goes on to the next block: the fields
 * of `Cursor` stay in one object.
 *
 * The block's checksum has been verified, yet a table that was made elsewhere may hold anything
 * under a right checksum. So each length is checked against the block before it is used; what does
 * not fit is reported through `origin`.
 */
export class BlockCursor {
  keyBytes: Uint8Array = emptyBytes
  readonly keyOffset = 0
  keyLength = 0
  sequence = 0
  kind = 0
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  /** True while the position is on an entry. */
  valid = false
  /** The restart from which the last search went on, for a hint (keyCache.ts). */
  searchedRestart = 0
  private origin: BlockOrigin = nowhere
  private originIndex = 0
  private baseSequence = 0
  private entryOffset = 0
  private nextOffset = 0
  private restartsOffset = 0
  private restartCount = 0

  /** Takes a block's content, number `index` of `origin`; then seek. */
  setBlock(content: Uint8Array, baseSequence = 0, origin: BlockOrigin = nowhere, index = 0): void {
    this.valid = false
    this.origin = origin
    this.originIndex = index
    this.valueBytes = content
    const tailOffset = content.length - blockTailBytes
    const restartCount = tailOffset < 0 ? 0 : readU32(content, tailOffset + 8)
    const restartsOffset = tailOffset - 4 * restartCount
    if (restartCount === 0 || restartsOffset <= 0) this.malformed("no place for entries")
    this.restartCount = restartCount
    this.restartsOffset = restartsOffset
    this.baseSequence = baseSequence + readU64(content, tailOffset)
    this.keyLength = 0
  }

  /** Lets go of the block and of the table that it came from. */
  protected forgetBlock(): void {
    this.valid = false
    this.valueBytes = emptyBytes
    this.origin = nowhere
  }

  /** To the first entry at or after the key; false when there is none. */
  seekAtOrAfter(key: Uint8Array): boolean {
    const restart = this.lastRestartBefore(key)
    this.searchedRestart = restart
    return this.scanAtOrAfter(key, restart)
  }

  /**
   * To the entry of `key` when a search from `restart` meets it. `restart` may come from a hint
   * that is wrong: then false, though the block may hold the key.
   */
  findFrom(key: Uint8Array, restart: number): boolean {
    if (restart >= this.restartCount) return false
    return this.scanAtOrAfter(key, restart) && this.isAt(key)
  }

  /** Whether the position is on `key`. */
  isAt(key: Uint8Array): boolean {
    const length = key.length
    if (this.keyLength !== length) return false
    const keyBytes = this.keyBytes
    for (let i = length - 1; i >= 0; i--) if (keyBytes[i] !== key[i]) return false
    return true
  }

  /** To the last entry before the key; false when there is none. */
  seekBefore(key: Uint8Array): boolean {
    let found = -1
    this.toRestart(this.lastRestartBefore(key))
    while (this.step()) {
      if (compareRanges(this.keyBytes, 0, this.keyLength, key, 0, key.length) >= 0) break
      found = this.entryOffset
    }
    this.valid = false
    return found >= 0 && this.scanTo(found)
  }

  seekFirst(): boolean {
    this.toRestart(0)
    return this.step()
  }

  seekLast(): boolean {
    this.toRestart(this.restartCount - 1)
    while (this.nextOffset < this.restartsOffset) this.step()
    return this.valid
  }

  /** To the next entry; false at the end of the block. */
  step(): boolean {
    let at = this.nextOffset
    if (at >= this.restartsOffset) {
      this.valid = false
      return false
    }
    const bytes = this.valueBytes
    this.entryOffset = at
    let shared = bytes[at++]
    if (shared >= 0x80) {
      shared = readVarint(bytes, at - 1)
      at = varintEnd
    }
    let unshared = bytes[at++]
    if (unshared >= 0x80) {
      unshared = readVarint(bytes, at - 1)
      at = varintEnd
    }
    this.kind = unshared & 1
    unshared >>>= 1
    const keyLength = shared + unshared
    if (!(shared <= this.keyLength && keyLength <= maxKeyBytes)) this.malformed("a key too long")
    if (keyLength > this.keyBytes.length) this.growKey(keyLength * 2)
    const keyBytes = this.keyBytes
    for (let i = shared; i < keyLength; i++) keyBytes[i] = bytes[at++]
    this.keyLength = keyLength
    this.finishEntry(at)
    return true
  }

  /**
   * Whether the restarts name entries that share nothing, from the first one on, in order. Searches
   * rely on it; the position is lost.
   */
  hasRightRestarts(): boolean {
    let restart = 0
    this.toRestart(0)
    for (let at = 0; restart < this.restartCount; at = this.nextOffset) {
      const isNamed = this.restartOffset(restart) === at
      if (isNamed && this.valueBytes[at] !== 0) return false
      if (isNamed) restart++
      else if (at === 0 || at > this.restartOffset(restart)) return false
      this.nextOffset = at
      if (!this.step()) return false
    }
    return true
  }

  /** To the entry before the present one; false at the beginning of the block. */
  stepBack(): boolean {
    const target = this.entryOffset
    if (target === 0) {
      this.valid = false
      return false
    }
    this.toRestart(this.lastRestartBelow(target))
    while (this.nextOffset < target) this.step()
    if (this.nextOffset !== target) this.malformed("entries that do not meet")
    return this.valid
  }

  /** Reads sequence and value, which stand at `offset`, and checks that they end in the block. */
  private finishEntry(offset: number): void {
    const bytes = this.valueBytes
    let at = offset
    let zigzag = bytes[at++]
    if (zigzag >= 0x80) {
      const second = bytes[at]
      const third = bytes[at + 1]
      if (second < 0x80) {
        zigzag = (zigzag & 0x7f) | (second << 7)
        at++
      } else if (third < 0x80) {
        zigzag = (zigzag & 0x7f) | ((second & 0x7f) << 7) | (third << 14)
        at += 2
      } else {
        zigzag = readVarint(bytes, at - 1)
        at = varintEnd
      }
    }
    this.sequence =
      this.baseSequence +
      (zigzag < 2 ** 31
        ? (zigzag >>> 1) ^ -(zigzag & 1)
        : zigzag % 2 === 0
          ? zigzag / 2
          : -(zigzag + 1) / 2)
    let valueLength = bytes[at++]
    if (valueLength >= 0x80) {
      valueLength = readVarint(bytes, at - 1)
      at = varintEnd
    }
    this.valueOffset = at
    this.valueLength = valueLength
    const next = at + valueLength
    this.nextOffset = next
    // Written so that NaN fails.
    if (!(next <= this.restartsOffset && this.sequence >= 0)) {
      this.valid = false
      this.malformed("an entry that does not end inside")
    }
    this.valid = true
  }

  /**
   * From a restart on, to the first entry at or after `key`. No key is built on the way: of the
   * entry before it is known in how many bytes it agrees with `key`, and it is smaller. An entry
   * that shares more than that with it is smaller too; any other one differs only behind what it
   * shares.
   */
  private scanAtOrAfter(key: Uint8Array, restart: number): boolean {
    const bytes = this.valueBytes
    const end = this.restartsOffset
    const length = key.length
    let next = this.restartOffset(restart)
    let matched = 0
    while (next < end) {
      let at = next
      let shared = bytes[at++]
      if (shared >= 0x80) {
        shared = readVarint(bytes, at - 1)
        at = varintEnd
      }
      let unshared = bytes[at++]
      if (unshared >= 0x80) {
        unshared = readVarint(bytes, at - 1)
        at = varintEnd
      }
      const kind = unshared & 1
      unshared >>>= 1
      if (shared <= matched) {
        let i = 0
        const limit = Math.min(unshared, length - shared)
        while (i < limit && bytes[at + i] === key[shared + i]) i++
        matched = shared + i
        const isBefore = i < limit ? bytes[at + i] < key[matched] : shared + unshared < length
        if (!isBefore) {
          this.entryOffset = next
          this.kind = kind
          this.takeKey(key, shared, at, unshared)
          this.finishEntry(at + unshared)
          return true
        }
      }
      next = this.skipEntry(at + unshared)
    }
    this.valid = false
    return false
  }

  /** Where the entry ends whose sequence stands at `offset`. */
  private skipEntry(offset: number): number {
    const bytes = this.valueBytes
    let at = offset
    while (bytes[at] >= 0x80) at++
    at++
    let valueLength = bytes[at++]
    if (valueLength >= 0x80) {
      valueLength = readVarint(bytes, at - 1)
      at = varintEnd
    }
    const next = at + valueLength
    if (!(next <= this.restartsOffset)) this.malformed("an entry that does not end inside")
    return next
  }

  /** Builds the key of `shared` bytes of `key` and of `unshared` bytes at `offset`. */
  private takeKey(key: Uint8Array, shared: number, offset: number, unshared: number): void {
    const keyLength = shared + unshared
    if (!(keyLength <= maxKeyBytes)) this.malformed("a key too long")
    if (keyLength > this.keyBytes.length) this.growKey(keyLength * 2)
    const keyBytes = this.keyBytes
    const bytes = this.valueBytes
    for (let i = 0; i < shared; i++) keyBytes[i] = key[i]
    for (let i = shared, at = offset; i < keyLength; i++) keyBytes[i] = bytes[at++]
    this.keyLength = keyLength
  }

  private scanTo(offset: number): boolean {
    this.toRestart(this.lastRestartBelow(offset + 1))
    while (this.nextOffset <= offset) this.step()
    return this.valid
  }

  private toRestart(restart: number): void {
    this.nextOffset = this.restartOffset(restart)
    // So that nothing is shared with what stood there before.
    this.keyLength = 0
  }

  private restartOffset(index: number): number {
    return readU32(this.valueBytes, this.restartsOffset + 4 * index)
  }

  /** Index of the last restart whose offset is below `offset`. */
  private lastRestartBelow(offset: number): number {
    let low = 0
    let high = this.restartCount - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.restartOffset(middle) < offset) low = middle
      else high = middle - 1
    }
    return low
  }

  /** Index of the last restart whose key is before `key`, or the first one. */
  private lastRestartBefore(key: Uint8Array): number {
    const bytes = this.valueBytes
    let low = 0
    let high = this.restartCount - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      // At a restart nothing is shared, so the first byte is 0 and the key lies whole behind its
      // length.
      let at = this.restartOffset(middle) + 1
      let length = bytes[at++]
      if (length >= 0x80) {
        length = readVarint(bytes, at - 1)
        at = varintEnd
      }
      if (compareRanges(bytes, at, length >>> 1, key, 0, key.length) < 0) low = middle
      else high = middle - 1
    }
    return low
  }

  private growKey(capacity: number): void {
    const larger = new Uint8Array(Math.max(capacity, 128))
    larger.set(this.keyBytes)
    this.keyBytes = larger
  }

  private malformed(actual: string): never {
    this.valid = false
    this.origin.malformed(this.originIndex, actual)
  }
}
