/**
 * Range tombstones: one entry that deletes every key of an interval (RocksDB's DeleteRange; the
 * lists without overlaps are its "fragmented" tombstones, O'Connor and others, 2018).
 *
 * A tombstone covers the entries of its interval with a lower sequence, and no others. Where
 * several lie over a key only the newest matters, so a list is kept cut up: its pieces are disjoint
 * and in order, and the one over a key is found by a binary search. The active memtable's list
 * remembers, in each piece, older sequences that a snapshot may need; all other lists are plain.
 *
 * Tombstones travel with their source: a memtable, or a table, in which a fragment's bounds cut
 * them off as they cut off entries. So no part of one ever covers more than it did when written.
 */
import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import { compareRanges } from "../read/cursor.ts"

/** All keys of [lower, upper) that were put before `sequence` are gone. */
export interface RangeTombstone {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
  readonly sequence: number
}

/** A piece of a memtable's list: `older` are further sequences, descending. */
interface Piece extends RangeTombstone {
  readonly older: ReadonlyArray<number>
}

const noSequences: ReadonlyArray<number> = []
const noTombstones: ReadonlyArray<RangeTombstone> = []

/** About the memory of a piece besides its bounds. */
const pieceOverheadBytes = 96

/** Index of the first piece that ends behind `key`: the only one that can lie over it. */
export function firstPieceAfter(
  pieces: ReadonlyArray<RangeTombstone>,
  bytes: Uint8Array,
  offset: number,
  length: number,
): number {
  let low = 0
  let high = pieces.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const { upper } = pieces[middle]
    if (compareRanges(upper, 0, upper.length, bytes, offset, length) <= 0) low = middle + 1
    else high = middle
  }
  return low
}

/** The sequence of the piece over `key`; 0 = none. The pieces are disjoint and in order. */
export function coveringSequence(pieces: ReadonlyArray<RangeTombstone>, key: Uint8Array): number {
  const index = firstPieceAfter(pieces, key, 0, key.length)
  if (index === pieces.length) return 0
  const piece = pieces[index]
  return compareBytes(piece.lower, key) <= 0 ? piece.sequence : 0
}

/** The tombstones of one memtable. */
export class TombstoneList {
  private list: Array<Piece> = []
  /** A reader holds `list`: it is copied before it changes. */
  private isShared = false
  private newest = 0
  private bytes = 0

  get count(): number {
    return this.list.length
  }

  get usedBytes(): number {
    return this.bytes
  }

  /**
   * Adds a tombstone, newer than all before it. Sequences up to `pinnedSequence` are kept for
   * snapshots.
   */
  add(lower: Uint8Array, upper: Uint8Array, sequence: number, pinnedSequence: number): void {
    assert(compareBytes(lower, upper) < 0, "a tombstone covers something")
    assert(sequence > this.newest, "tombstones come in the order of their sequences")
    this.newest = sequence
    const first = firstPieceAfter(this.list, lower, 0, lower.length)
    let end = first
    const pieces: Array<Piece> = []
    let at: Uint8Array = lower.slice()
    const last = upper.slice()
    for (; end < this.list.length; end++) {
      const piece = this.list[end]
      if (compareBytes(piece.lower, upper) >= 0) break
      this.bytes -= pieceBytes(piece)
      const before = compareBytes(piece.lower, at)
      if (before < 0) pieces.push({ ...piece, upper: at })
      if (before > 0) append(pieces, { lower: at, upper: piece.lower, sequence, older: [] })
      const from = before > 0 ? piece.lower : at
      const after = compareBytes(piece.upper, last)
      const to = after > 0 ? last : piece.upper
      const older = kept(piece, pinnedSequence)
      append(pieces, { lower: from, upper: to, sequence, older })
      if (after > 0) pieces.push({ ...piece, lower: last })
      at = to
    }
    if (compareBytes(at, last) < 0) {
      append(pieces, { lower: at, upper: last, sequence, older: noSequences })
    }
    for (const piece of pieces) this.bytes += pieceBytes(piece)
    if (this.isShared) this.list = this.list.slice()
    this.isShared = false
    this.list.splice(first, end - first, ...pieces)
  }

  /** The newest sequence up to `visibleSequence` of a tombstone over `key`; 0 = none. */
  sequenceAt(key: Uint8Array, visibleSequence: number): number {
    const index = firstPieceAfter(this.list, key, 0, key.length)
    if (index === this.list.length) return 0
    const piece = this.list[index]
    return compareBytes(piece.lower, key) <= 0 ? visible(piece, visibleSequence) : 0
  }

  /** What a reader of that moment sees; never changed afterwards. */
  visibleAt(sequence: number): ReadonlyArray<RangeTombstone> {
    if (this.list.length === 0) return noTombstones
    if (this.newest <= sequence) {
      this.isShared = true
      return this.list
    }
    const result: Array<RangeTombstone> = []
    for (const piece of this.list) {
      const seen = visible(piece, sequence)
      if (seen > 0) result.push({ lower: piece.lower, upper: piece.upper, sequence: seen })
    }
    return result
  }
}

function pieceBytes(piece: Piece): number {
  return piece.lower.length + piece.upper.length + pieceOverheadBytes + 8 * piece.older.length
}

function visible(piece: Piece, visibleSequence: number): number {
  if (piece.sequence <= visibleSequence) return piece.sequence
  return piece.older.find((sequence) => sequence <= visibleSequence) ?? 0
}

/** The sequences of a piece that a snapshot may need when a newer one comes over it. */
function kept(piece: Piece, pinnedSequence: number): ReadonlyArray<number> {
  if (piece.sequence <= pinnedSequence) return [piece.sequence, ...piece.older]
  return pinnedSequence < 0 ? noSequences : piece.older
}

/** Pushes a piece, or lets the last one reach over it when they say the same. */
function append(pieces: Array<Piece>, piece: Piece): void {
  const last = pieces.at(-1)
  const same =
    last !== undefined &&
    last.sequence === piece.sequence &&
    last.older.length === 0 &&
    piece.older.length === 0
  if (same) pieces[pieces.length - 1] = { ...last, upper: piece.upper }
  else pieces.push(piece)
}

/**
 * Several disjoint, ordered lists as one: disjoint, in order, of each key the newest sequence.
 * Neighbours of one sequence become one.
 */
export function unionOf(
  lists: ReadonlyArray<ReadonlyArray<RangeTombstone>>,
): Array<RangeTombstone> {
  const result: Array<RangeTombstone> = []
  const places = lists.map(() => 0)
  let at: Uint8Array | undefined
  for (;;) {
    let next: Uint8Array | undefined
    let sequence = 0
    for (let i = 0; i < lists.length; i++) {
      const list = lists[i]
      while (
        places[i] < list.length &&
        at !== undefined &&
        compareBytes(list[places[i]].upper, at) <= 0
      ) {
        places[i]++
      }
      if (places[i] === list.length) continue
      const piece = list[places[i]]
      const covers = at !== undefined && compareBytes(piece.lower, at) <= 0
      if (covers && piece.sequence > sequence) sequence = piece.sequence
      const bound = covers ? piece.upper : piece.lower
      if (next === undefined || compareBytes(bound, next) < 0) next = bound
    }
    if (next === undefined) return result
    if (at !== undefined && sequence > 0) {
      const last = result.at(-1)
      const touches = last?.sequence === sequence && compareBytes(last.upper, at) === 0
      if (touches) result[result.length - 1] = { ...last, upper: next }
      else result.push({ lower: at, upper: next, sequence })
    }
    at = next
  }
}

/** The parts of disjoint, ordered tombstones that lie in [lower, upper). */
export function clip(
  list: ReadonlyArray<RangeTombstone>,
  lower: Uint8Array,
  upper: Uint8Array | undefined,
): Array<RangeTombstone> {
  const result: Array<RangeTombstone> = []
  for (let i = firstPieceAfter(list, lower, 0, lower.length); i < list.length; i++) {
    const piece = list[i]
    if (upper !== undefined && compareBytes(piece.lower, upper) >= 0) break
    const from = compareBytes(piece.lower, lower) < 0 ? lower : piece.lower
    const to = upper !== undefined && compareBytes(piece.upper, upper) > 0 ? upper : piece.upper
    result.push({ lower: from, upper: to, sequence: piece.sequence })
  }
  return result
}

/** A stretch of keys and the tombstones in it; those of a list lie in `pieces` as a whole. */
export interface TombstoneGroup {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/**
 * One sorted source of tombstones: a list, or groups (the fragments of a run) in order whose lists
 * are asked for when the position comes to them. After `locate`, the answer for the key holds for
 * all keys of [from, until); `undefined` = no bound.
 */
export class TombstoneSource {
  sequence = 0
  from: Uint8Array | undefined
  until: Uint8Array | undefined
  private readonly groups: ReadonlyArray<TombstoneGroup> | undefined
  private readonly piecesOf: ((index: number) => ReadonlyArray<RangeTombstone>) | undefined
  private pieces: ReadonlyArray<RangeTombstone>
  private index = 0
  private group = -1

  private constructor(
    pieces: ReadonlyArray<RangeTombstone>,
    groups?: ReadonlyArray<TombstoneGroup>,
    piecesOf?: (index: number) => ReadonlyArray<RangeTombstone>,
  ) {
    this.pieces = pieces
    this.groups = groups
    this.piecesOf = piecesOf
  }

  static ofList(pieces: ReadonlyArray<RangeTombstone>): TombstoneSource {
    return new TombstoneSource(pieces)
  }

  static ofGroups(
    groups: ReadonlyArray<TombstoneGroup>,
    piecesOf: (index: number) => ReadonlyArray<RangeTombstone>,
  ): TombstoneSource {
    return new TombstoneSource(noTombstones, groups, piecesOf)
  }

  locate(bytes: Uint8Array, offset: number, length: number): void {
    this.sequence = 0
    this.from = undefined
    this.until = undefined
    if (this.groups === undefined || this.enterGroup(bytes, offset, length)) {
      this.locateInList(bytes, offset, length)
    }
  }

  /** Takes the group of a key and its bounds; false when it lies between groups. */
  private enterGroup(bytes: Uint8Array, offset: number, length: number): boolean {
    const groups = this.groups as ReadonlyArray<TombstoneGroup>
    let low = 0
    let high = groups.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const { upper } = groups[middle]
      if (compareRanges(upper, 0, upper.length, bytes, offset, length) <= 0) low = middle + 1
      else high = middle
    }
    if (low > 0) this.from = groups[low - 1].upper
    if (low === groups.length) return false
    const { lower, upper } = groups[low]
    if (compareRanges(lower, 0, lower.length, bytes, offset, length) > 0) {
      this.until = lower
      return false
    }
    this.from = lower
    this.until = upper
    if (this.group !== low) {
      this.pieces = (this.piecesOf as (index: number) => ReadonlyArray<RangeTombstone>)(low)
      this.group = low
      this.index = 0
    }
    return true
  }

  private locateInList(bytes: Uint8Array, offset: number, length: number): void {
    const { pieces } = this
    this.index = this.placeOf(bytes, offset, length)
    const { index } = this
    if (index > 0) this.from = greater(this.from, pieces[index - 1].upper)
    if (index === pieces.length) return
    const { lower, upper, sequence } = pieces[index]
    if (compareRanges(lower, 0, lower.length, bytes, offset, length) > 0) {
      this.until = lesser(this.until, lower)
      return
    }
    this.sequence = sequence
    this.from = greater(this.from, lower)
    this.until = lesser(this.until, upper)
  }

  /** The present place or the next one, which is where a scan comes; else a search. */
  private placeOf(bytes: Uint8Array, offset: number, length: number): number {
    const { pieces } = this
    for (let i = this.index; i < pieces.length && i < this.index + 2; i++) {
      const { upper } = pieces[i]
      if (compareRanges(upper, 0, upper.length, bytes, offset, length) <= 0) continue
      if (i === 0) return 0
      const before = pieces[i - 1].upper
      if (compareRanges(before, 0, before.length, bytes, offset, length) <= 0) return i
      break
    }
    return firstPieceAfter(pieces, bytes, offset, length)
  }
}

function greater(left: Uint8Array | undefined, right: Uint8Array): Uint8Array {
  return left !== undefined && compareBytes(left, right) >= 0 ? left : right
}

function lesser(left: Uint8Array | undefined, right: Uint8Array): Uint8Array {
  return left !== undefined && compareBytes(left, right) <= 0 ? left : right
}

/**
 * The newest tombstone over a key, of several sources. Keys may come in any order; where they come
 * in order, either way, most are answered by one or two comparisons, with the bounds within which
 * the last answer holds.
 */
export class TombstoneCursor {
  /** Of the last `sequenceAt`: the source with the newest tombstone, and that one's bounds. */
  source = -1
  coveredFrom: Uint8Array | undefined
  coveredUntil: Uint8Array | undefined
  private readonly sources: ReadonlyArray<TombstoneSource>
  private sequence = 0
  private from: Uint8Array | undefined
  private until: Uint8Array | undefined
  private isPlaced = false

  constructor(sources: ReadonlyArray<TombstoneSource>) {
    this.sources = sources
  }

  /** The newest sequence of a tombstone over the key; 0 = none. */
  sequenceAt(bytes: Uint8Array, offset: number, length: number): number {
    const { from, until } = this
    const holds =
      this.isPlaced &&
      (until === undefined || compareRanges(bytes, offset, length, until, 0, until.length) < 0) &&
      (from === undefined || compareRanges(bytes, offset, length, from, 0, from.length) >= 0)
    if (!holds) this.place(bytes, offset, length)
    return this.sequence
  }

  private place(bytes: Uint8Array, offset: number, length: number): void {
    this.sequence = 0
    this.source = -1
    this.from = undefined
    this.until = undefined
    this.coveredFrom = undefined
    this.coveredUntil = undefined
    for (let i = 0; i < this.sources.length; i++) {
      const source = this.sources[i]
      source.locate(bytes, offset, length)
      if (source.from !== undefined) this.from = greater(this.from, source.from)
      if (source.until !== undefined) this.until = lesser(this.until, source.until)
      if (source.sequence <= this.sequence) continue
      this.sequence = source.sequence
      this.source = i
      this.coveredFrom = source.from
      this.coveredUntil = source.until
    }
    this.isPlaced = true
  }
}
