/**
 * A memtable: entries in one SharedArrayBuffer, so that a worker thread flushes them where they lie.
 * No object per entry: a node is a run of 32-bit words, its place is the index of the first one, 0 is
 * none.
 *
 *     word 0      length of the key | kind << 16
 *          1      length of the value
 *          2      room for the value
 *          3      byte offset of the value
 *          4, 5   sequence, low and high
 *          6      the next node in order
 *          7...   the bytes of the key, then those of its first value
 *
 * Order is (key ascending, sequence descending). A flush goes from node to node; searches go by an
 * index that only the engine's thread has (memtableIndex.ts). A new version of a key takes the place
 * of the one before it when no snapshot or iterator can still see that one; so a key that is written
 * all the time (a state key) does not fill the table.
 *
 * Nothing is freed: space goes by bumping a mark, and the arena goes back to its pool whole. An
 * arena that is too small is copied to one of twice the size; the old one stays as it was for
 * whoever still holds a view of it.
 */
import { assert } from "../../lib/assert.ts"
import { compareRanges } from "../read/cursor.ts"
import { maxKeyBytes, maxValueBytes } from "../table/format.ts"
import { indexEntryBytes, MemtableIndex } from "./memtableIndex.ts"
import { TombstoneList } from "./rangeTombstone.ts"

const headerWords = 7
const nextWord = 6
/** Stands before the first node: only its next node is read. */
const head = 1
const firstFreeWord = head + headerWords
/** Offsets of values are 32-bit and pointers are words: 2 GiB keeps both far from their ends. */
const maxArenaBytes = 2 ** 31

/** Bytes that an empty memtable uses: below this an arena is useless. */
export const minArenaBytes = 1024

/** Bytes that a put may use besides its key and value. */
export const entryOverheadBytes = 4 * headerWords + 4 + indexEntryBytes

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
  /** Off the hot path: most memtables have none, and a read sees that by one comparison. */
  tombstones: TombstoneList | undefined = undefined
  private usedWords = firstFreeWord
  private readonly index: MemtableIndex

  constructor(arena: SharedArrayBuffer, generation: number) {
    assert(arena.byteLength >= minArenaBytes, "an arena holds at least its head")
    this.generation = generation
    this.arena = arena
    this.words = new Uint32Array(arena)
    this.bytes = new Uint8Array(arena)
    this.words.fill(0, 0, firstFreeWord)
    this.index = new MemtableIndex(this)
  }

  /**
   * The sealed memtable in `arena`, for a reader in another thread, which goes through it from the
   * first node on. Nothing may be put into it or looked up.
   */
  static sealed(arena: SharedArrayBuffer, generation: number): Memtable {
    const memtable = Object.create(Memtable.prototype) as Memtable
    Object.assign(memtable, {
      generation,
      arena,
      words: new Uint32Array(arena),
      bytes: new Uint8Array(arena),
      holders: 1,
      count: 0,
      tombstones: undefined,
      usedWords: 0,
      index: undefined,
    })
    return memtable
  }

  /** Nobody reads it any more. */
  release(): void {
    this.index.release()
  }

  get usedBytes(): number {
    const tombstoneBytes = this.tombstones === undefined ? 0 : this.tombstones.usedBytes
    return (this.usedWords - firstFreeWord) * 4 + this.index.usedBytes + tombstoneBytes
  }

  get isEmpty(): boolean {
    return this.count === 0 && this.tombstones === undefined
  }

  /** Deletes what was put so far in [lower, upper), here and in all that is older. */
  deleteRange(
    lower: Uint8Array,
    upper: Uint8Array,
    sequence: number,
    pinnedSequence: number,
  ): void {
    this.tombstones ??= new TombstoneList()
    this.tombstones.add(lower, upper, sequence, pinnedSequence)
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
    const offset = this.add(key, 0, key.length, kind, sequence, valueLength, pinnedSequence)
    if (valueHead.length > 0) this.bytes.set(valueHead, offset)
    if (valueTail.length > 0) this.bytes.set(valueTail, offset + valueHead.length)
  }

  /** `write` for a key that is a stretch of `source`; its value stands behind it. */
  writeFrom(
    source: Uint8Array,
    keyOffset: number,
    keyLength: number,
    valueLength: number,
    kind: number,
    sequence: number,
    pinnedSequence: number,
  ): void {
    const offset = this.add(
      source,
      keyOffset,
      keyLength,
      kind,
      sequence,
      valueLength,
      pinnedSequence,
    )
    copyRange(source, keyOffset + keyLength, valueLength, this.bytes, offset)
  }

  /** Makes the entry, with room for its value; returns where in `bytes` that goes. */
  private add(
    key: Uint8Array,
    keyOffset: number,
    keyLength: number,
    kind: number,
    sequence: number,
    valueLength: number,
    pinnedSequence: number,
  ): number {
    assert(keyLength > 0 && keyLength <= maxKeyBytes, () => `a key of ${keyLength} bytes`)
    assert(valueLength <= maxValueBytes, () => `a value of ${valueLength} bytes`)
    this.index.locate(key, keyOffset, keyLength)
    const { found } = this.index
    let node = found
    if (
      found !== 0 &&
      this.sameKey(found, key, keyOffset, keyLength) &&
      this.sequenceOf(found) > pinnedSequence
    ) {
      if (valueLength > this.words[found + 2]) {
        const at = this.allocate((valueLength + 3) >>> 2)
        this.words[found + 2] = valueLength
        this.words[found + 3] = at * 4
      }
      this.words[found] = keyLength | (kind << 16)
    } else {
      node = this.insert(key, keyOffset, keyLength, kind, valueLength)
    }
    const words = this.words
    words[node + 1] = valueLength
    words[node + 4] = sequence >>> 0
    words[node + 5] = Math.floor(sequence / 2 ** 32)
    return words[node + 3]
  }

  /** The newest node of `key` with a sequence up to `sequence`, or 0. */
  find(key: Uint8Array, sequence: number): number {
    return this.visible(key, 0, key.length, sequence)
  }

  kindOf(node: number): number {
    return this.words[node] >>> 16
  }

  sequenceOf(node: number): number {
    return this.words[node + 5] * 2 ** 32 + this.words[node + 4]
  }

  /** Byte offset of the value in `bytes`. */
  valueOffset(node: number): number {
    return this.words[node + 3]
  }

  valueLength(node: number): number {
    return this.words[node + 1]
  }

  /**
   * A copy, not shared: readers may keep it, and what cannot read shared memory (TextDecoder) can
   * read it.
   */
  copyValue(node: number, skip = 0): Uint8Array {
    const offset = this.valueOffset(node)
    return this.bytes.slice(offset + skip, offset + this.valueLength(node))
  }

  keyOffset(node: number): number {
    return (node + headerWords) * 4
  }

  keyLength(node: number): number {
    return this.words[node] & 0xffff
  }

  /** The node after `node` in order, or 0. */
  next(node: number): number {
    return this.words[node + nextWord]
  }

  first(): number {
    return this.words[head + nextWord]
  }

  last(): number {
    return this.index.last
  }

  /** The first node of the first key at or after the given one, or 0. */
  lowerBound(bytes: Uint8Array, offset: number, length: number): number {
    this.index.locate(bytes, offset, length)
    return this.index.found
  }

  /** The last node of the last key before the given one, or 0. */
  lastBefore(bytes: Uint8Array, offset: number, length: number): number {
    this.index.locate(bytes, offset, length)
    return this.index.before
  }

  /** The entries in [lower, upper), versions included, and about their bytes. */
  approximateSize(
    lower: Uint8Array,
    upper: Uint8Array | undefined,
  ): { bytes: number; entries: number } {
    const { entries } = this.span(lower, upper)
    const bytes = entries === 0 ? 0 : Math.round((entries * this.usedBytes) / this.count)
    return { bytes, entries }
  }

  /** A key in about the middle of those in [lower, upper), but not `lower` itself. */
  middleKey(lower: Uint8Array, upper: Uint8Array | undefined): Uint8Array | undefined {
    const { from, entries } = this.span(lower, upper)
    for (let i = entries >>> 1; i < entries; i++) {
      const node = this.index.nodeAt(from, i)
      const offset = this.keyOffset(node)
      const length = this.keyLength(node)
      if (compareRanges(this.bytes, offset, length, lower, 0, lower.length) === 0) continue
      return this.bytes.slice(offset, offset + length)
    }
    return undefined
  }

  private span(lower: Uint8Array, upper: Uint8Array | undefined) {
    const { index } = this
    index.locate(lower, 0, lower.length)
    const from = { rank: index.rank, slot: index.slot }
    if (upper === undefined) index.locateEnd()
    else index.locate(upper, 0, upper.length)
    return { from, entries: Math.max(0, index.entriesTo(from)) }
  }

  /** `find` for a key that is a stretch of bytes. */
  visible(bytes: Uint8Array, offset: number, length: number, sequence: number): number {
    let node = this.lowerBound(bytes, offset, length)
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

  /** A node's key against another one with the same eight padded bytes in front. */
  compareBeyond(node: number, bytes: Uint8Array, offset: number, length: number): number {
    const nodeLength = this.keyLength(node)
    if (nodeLength <= 8 || length <= 8) return nodeLength - length
    const at = this.keyOffset(node)
    return compareRanges(this.bytes, at + 8, nodeLength - 8, bytes, offset + 8, length - 8)
  }

  /** A new node before the one that `locate` found, linked in, its value still to be filled. */
  private insert(
    key: Uint8Array,
    offset: number,
    length: number,
    kind: number,
    valueLength: number,
  ): number {
    const dataBytes = length + valueLength
    const node = this.allocate(headerWords + ((dataBytes + 3) >>> 2))
    const words = this.words
    const keyOffset = (node + headerWords) * 4
    words[node] = length | (kind << 16)
    words[node + 2] = valueLength
    words[node + 3] = keyOffset + length
    copyRange(key, offset, length, this.bytes, keyOffset)
    const before = this.index.before === 0 ? head : this.index.before
    words[node + nextWord] = words[before + nextWord]
    words[before + nextWord] = node
    this.index.insert(node)
    this.count++
    return node
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

/** Longer stretches go by the runtime's copy, which costs a view. */
const loopBytes = 40

function copyRange(
  source: Uint8Array,
  offset: number,
  length: number,
  target: Uint8Array,
  at: number,
): void {
  if (length > loopBytes) {
    target.set(source.subarray(offset, offset + length), at)
    return
  }
  for (let i = 0; i < length; i++) target[at + i] = source[offset + i]
}
