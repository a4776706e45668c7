/**
 * A memtable: a skiplist (Pugh, 1990) in one SharedArrayBuffer, so that a worker thread flushes it
 * where it lies. No object per entry: a node is a run of 32-bit words, a pointer is the index of
 * its first word, 0 is none.
 *
 *     word 0, 1   first eight bytes of the key as two big-endian numbers, zero-padded, where most
 *                 comparisons end
 *          2      length of the key | kind << 16 | height << 24
 *          3      length of the value
 *          4      room for the value
 *          5      byte offset of the value
 *          6, 7   sequence, low and high
 *          8...   a pointer per level, then the bytes of the key, then those of its first value
 *
 * Order is (key ascending, sequence descending). A new version of a key takes the place of the one
 * before it when no snapshot or iterator can still see that one; so a key that is written all the
 * time (a state key) does not fill the table.
 *
 * Nothing is freed: space goes by bumping a mark, and the arena goes back to its pool whole. An
 * arena that is too small is copied to one of twice the size; the old one stays as it was for
 * whoever still holds a view of it.
 */
import { assert } from "../lib/assert.ts"
import { compareRanges } from "./cursor.ts"
import { maxKeyBytes, maxValueBytes } from "./format.ts"

/** 4^12 entries before searches grow longer than logarithmic. */
const maxHeight = 12
const headerWords = 8
const head = 1
const firstFreeWord = head + headerWords + maxHeight
/** Offsets of values are 32-bit and pointers are words: 2 GiB keeps both far from their ends. */
const maxArenaBytes = 2 ** 31

/** Bytes that an empty memtable uses: below this an arena is useless. */
export const minArenaBytes = 1024

/** Bytes that a put may use besides its key and value. */
export const entryOverheadBytes = 4 * (headerWords + maxHeight) + 8

const before = new Uint32Array(maxHeight)

export class Memtable {
  /** Seals are numbered from 1; the active memtable has the number that its seal will return. */
  readonly generation: number
  arena: SharedArrayBuffer
  words: Uint32Array
  bytes: Uint8Array
  /** Holders: the engine, and each snapshot or iterator that may read it. */
  holders = 1
  /** Entries, deletes and versions kept for snapshots included. */
  count = 0
  private usedWords = firstFreeWord
  private height = 1
  private chance = 0x9e3779b9
  private prefix0 = 0
  private prefix1 = 0

  constructor(arena: SharedArrayBuffer, generation: number) {
    assert(arena.byteLength >= minArenaBytes, "an arena holds at least its head")
    this.generation = generation
    this.arena = arena
    this.words = new Uint32Array(arena)
    this.bytes = new Uint8Array(arena)
    this.words.fill(0, 0, firstFreeWord)
  }

  /** The sealed memtable in `arena`, for a reader in another thread. Nothing may be put into it. */
  static sealed(arena: SharedArrayBuffer, generation: number): Memtable {
    const memtable = Object.create(Memtable.prototype) as Memtable
    Object.assign(memtable, {
      generation,
      arena,
      words: new Uint32Array(arena),
      bytes: new Uint8Array(arena),
      holders: 1,
      count: 0,
      usedWords: 0,
      height: maxHeight,
      chance: 0,
      prefix0: 0,
      prefix1: 0,
    })
    return memtable
  }

  get usedBytes(): number {
    return (this.usedWords - firstFreeWord) * 4
  }

  get isEmpty(): boolean {
    return this.count === 0
  }

  /**
   * Puts (or, with kind `delete`, marks as deleted) `key` with the value `valueHead ‖ valueTail`.
   * `sequence` must be above all before it. Versions up to `pinnedSequence` are kept.
   */
  write(
    key: Uint8Array,
    kind: number,
    sequence: number,
    valueHead: Uint8Array,
    valueTail: Uint8Array,
    pinnedSequence: number,
  ): void {
    const valueLength = valueHead.length + valueTail.length
    assert(key.length > 0 && key.length <= maxKeyBytes, () => `a key of ${key.length} bytes`)
    assert(valueLength <= maxValueBytes, () => `a value of ${valueLength} bytes`)
    const found = this.locate(key, 0, key.length, true)
    let node = found
    if (
      found !== 0 &&
      this.sameKey(found, key, 0, key.length) &&
      this.sequenceOf(found) > pinnedSequence
    ) {
      if (valueLength > this.words[found + 4]) {
        const at = this.allocate((valueLength + 3) >>> 2)
        this.words[found + 4] = valueLength
        this.words[found + 5] = at * 4
      }
      const words = this.words
      words[found + 2] = (words[found + 2] & 0xff00ffff) | (kind << 16)
    } else {
      node = this.insert(key, kind, valueLength)
    }
    const words = this.words
    const valueOffset = words[node + 5]
    words[node + 3] = valueLength
    words[node + 6] = sequence >>> 0
    words[node + 7] = Math.floor(sequence / 2 ** 32)
    if (valueHead.length > 0) this.bytes.set(valueHead, valueOffset)
    if (valueTail.length > 0) this.bytes.set(valueTail, valueOffset + valueHead.length)
  }

  /** The newest node of `key` with a sequence up to `sequence`, or 0. */
  find(key: Uint8Array, sequence: number): number {
    return this.visible(key, 0, key.length, sequence)
  }

  kindOf(node: number): number {
    return (this.words[node + 2] >>> 16) & 0xff
  }

  sequenceOf(node: number): number {
    return this.words[node + 7] * 2 ** 32 + this.words[node + 6]
  }

  /** Byte offset of the value in `bytes`. */
  valueOffset(node: number): number {
    return this.words[node + 5]
  }

  valueLength(node: number): number {
    return this.words[node + 3]
  }

  /**
   * A copy, not shared: readers may keep it, and what cannot read shared memory (TextDecoder) can
   * read it.
   */
  copyValue(node: number): Uint8Array {
    const offset = this.valueOffset(node)
    return this.bytes.slice(offset, offset + this.valueLength(node))
  }

  keyOffset(node: number): number {
    return (node + headerWords + (this.words[node + 2] >>> 24)) * 4
  }

  keyLength(node: number): number {
    return this.words[node + 2] & 0xffff
  }

  /** The node after `node` in order, or 0. */
  next(node: number): number {
    return this.words[node + headerWords]
  }

  first(): number {
    return this.words[head + headerWords]
  }

  last(): number {
    let node = head
    for (let level = this.height - 1; level >= 0; level--) {
      for (;;) {
        const next = this.words[node + headerWords + level]
        if (next === 0) break
        node = next
      }
    }
    return node === head ? 0 : node
  }

  /** The first node of the first key at or after the given one, or 0. */
  lowerBound(bytes: Uint8Array, offset: number, length: number): number {
    return this.locate(bytes, offset, length, false)
  }

  /** The last node of the last key before the given one, or 0. */
  lastBefore(bytes: Uint8Array, offset: number, length: number): number {
    this.locate(bytes, offset, length, true)
    return before[0] === head ? 0 : before[0]
  }

  /** `find` for a key that is a stretch of bytes. */
  visible(bytes: Uint8Array, offset: number, length: number, sequence: number): number {
    let node = this.locate(bytes, offset, length, false)
    while (node !== 0 && this.sameKey(node, bytes, offset, length)) {
      if (this.sequenceOf(node) <= sequence) return node
      node = this.next(node)
    }
    return 0
  }

  sameKey(node: number, bytes: Uint8Array, offset: number, length: number): boolean {
    return (
      this.keyLength(node) === length &&
      compareRanges(this.bytes, this.keyOffset(node), length, bytes, offset, length) === 0
    )
  }

  /**
   * The first node at or after a key. With `remember`, `before` then holds the node before it on
   * every level.
   */
  private locate(bytes: Uint8Array, offset: number, length: number, remember: boolean): number {
    const words = this.words
    const prefix0 = prefixWord(bytes, offset, length)
    const prefix1 = prefixWord(bytes, offset + 4, length - 4)
    this.prefix0 = prefix0
    this.prefix1 = prefix1
    let node = head
    let next = 0
    let known = 0
    for (let level = this.height - 1; level >= 0; level--) {
      for (;;) {
        next = words[node + headerWords + level]
        // A node already found to lie at or after the key on the level above need not be compared
        // again.
        if (next === 0 || next === known) break
        const first = words[next]
        if (first !== prefix0) {
          if (first > prefix0) break
        } else {
          const second = words[next + 1]
          if (second !== prefix1) {
            if (second > prefix1) break
          } else if (this.compareBeyond(next, bytes, offset, length) >= 0) break
        }
        node = next
      }
      known = next
      if (remember) before[level] = node
    }
    return next
  }

  /** A node's key against another one with the same eight padded bytes in front. */
  private compareBeyond(node: number, bytes: Uint8Array, offset: number, length: number): number {
    const nodeLength = this.keyLength(node)
    if (nodeLength <= 8 || length <= 8) return nodeLength - length
    const at = this.keyOffset(node)
    return compareRanges(this.bytes, at + 8, nodeLength - 8, bytes, offset + 8, length - 8)
  }

  /** A new node before the one that `locate` found, linked in, its value still to be filled. */
  private insert(key: Uint8Array, kind: number, valueLength: number): number {
    const height = this.drawHeight()
    while (this.height < height) before[this.height++] = head
    const dataBytes = key.length + valueLength
    const node = this.allocate(headerWords + height + ((dataBytes + 3) >>> 2))
    const words = this.words
    const keyOffset = (node + headerWords + height) * 4
    words[node] = this.prefix0
    words[node + 1] = this.prefix1
    words[node + 2] = key.length | (kind << 16) | (height << 24)
    words[node + 4] = valueLength
    words[node + 5] = keyOffset + key.length
    this.bytes.set(key, keyOffset)
    for (let level = 0; level < height; level++) {
      const link = before[level] + headerWords + level
      words[node + headerWords + level] = words[link]
      words[link] = node
    }
    this.count++
    return node
  }

  /** 1 + geometric(1/4), from an own xorshift32, so that equal inputs make equal arenas. */
  private drawHeight(): number {
    let x = this.chance
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.chance = x
    let height = 1
    for (let bits = x >>> 8; height < maxHeight && (bits & 3) === 0; bits >>>= 2) height++
    return height
  }

  private allocate(wordCount: number): number {
    const at = this.usedWords
    if ((at + wordCount) * 4 > this.arena.byteLength) this.grow((at + wordCount) * 4)
    this.usedWords = at + wordCount
    return at
  }

  private grow(neededBytes: number): void {
    let sizeBytes = this.arena.byteLength
    while (sizeBytes < neededBytes) sizeBytes *= 2
    assert(sizeBytes <= maxArenaBytes, () => `a memtable of ${neededBytes} bytes`)
    const arena = new SharedArrayBuffer(sizeBytes)
    const words = new Uint32Array(arena)
    words.set(this.words.subarray(0, this.usedWords))
    this.arena = arena
    this.words = words
    this.bytes = new Uint8Array(arena)
  }
}

/** Up to four bytes as one big-endian number, zero-padded; `length` may be below zero. */
function prefixWord(bytes: Uint8Array, offset: number, length: number): number {
  if (length >= 4) {
    return (
      ((bytes[offset] << 24) |
        (bytes[offset + 1] << 16) |
        (bytes[offset + 2] << 8) |
        bytes[offset + 3]) >>>
      0
    )
  }
  let word = 0
  for (let i = 0; i < 4; i++) word = (word << 8) | (i < length ? bytes[offset + i] : 0)
  return word >>> 0
}

/**
 * Arenas of one size, kept for the next memtable: a new one of 24 MiB costs milliseconds, because
 * it comes zeroed.
 */
export class ArenaPool {
  private readonly arenaBytes: number
  private readonly kept: Array<SharedArrayBuffer> = []
  private readonly keepCount: number

  constructor(options: { arenaBytes: number; keepCount: number; readyCount: number }) {
    this.arenaBytes = options.arenaBytes
    this.keepCount = options.keepCount
    for (let i = 0; i < options.readyCount; i++) {
      this.kept.push(new SharedArrayBuffer(options.arenaBytes))
    }
  }

  take(): SharedArrayBuffer {
    return this.kept.pop() ?? new SharedArrayBuffer(this.arenaBytes)
  }

  /** An arena that had to grow is not kept: the next one starts small again. */
  give(arena: SharedArrayBuffer): void {
    if (arena.byteLength === this.arenaBytes && this.kept.length < this.keepCount)
      this.kept.push(arena)
  }
}
