import { assert } from "../../lib/assert.ts"
import { compareBytes, emptyBytes, prefixEnd } from "../../lib/bytes.ts"
import { MemtableCursor } from "../memtable/memtableCursor.ts"
import { TombstoneCursor, TombstoneSource } from "../memtable/rangeTombstone.ts"
import type { EngineSnapshot, ReadView } from "../snapshot.ts"
import { kinds } from "../table/format.ts"
import type { Cursor } from "./cursor.ts"
import type { IteratorHost } from "./iteratorHost.ts"
import { MergeCursor } from "./merge.ts"
import { RunCursor } from "./runCursor.ts"

export interface IteratorOptions {
  /** Inclusive; without it from the first key on. Bounds must not change while it is open. */
  readonly lower?: Uint8Array | undefined
  /** Exclusive; without it to the last key. */
  readonly upper?: Uint8Array | undefined
  /** Only keys that begin with it, of those within the bounds. */
  readonly prefix?: Uint8Array | undefined
  /** `next` goes down and `previous` up; nothing else changes. */
  readonly reverse?: boolean
  /** The moment to read; without it, now. It must outlive the iterator. */
  readonly snapshot?: EngineSnapshot | undefined
}

const places = { nowhere: 0, before: 1, on: 2, after: 3 } as const

/** Entries under one tombstone that are passed over one by one before their source seeks. */
const patience = 3

/**
 * The live pairs within bounds at one moment, in order: `while (iterator.next())
 * use(iterator.key, iterator.value)`, then `close`. Later writes, flushes, compactions and ingests
 * do not show.
 *
 * It stands nowhere at first, then on a pair, or before the first or after the last one. Each move
 * returns whether it stands on a pair. From nowhere `next` goes to the first pair and `previous` to
 * the last one; from after the last pair, where a `next` or `seek` that found none leaves it,
 * `previous` goes to the last one; and the other way round.
 *
 * Entries under range tombstones are not shown. A source with several of them in a row under one of
 * a newer source seeks to its end, so that however many a tombstone covers costs a few steps.
 */
export class EngineIterator {
  private readonly cursor: Cursor
  /** `cursor`, when there are several sources or tombstones. */
  private readonly merge: MergeCursor | undefined
  private readonly covers: TombstoneCursor | undefined
  /** For each source of tombstones, the rank of the first source that is older. */
  private readonly olderRanks: ReadonlyArray<number>
  private readonly runCursors: Array<RunCursor> = []
  private readonly lower: Uint8Array
  private readonly upper: Uint8Array | undefined
  private readonly isReverse: boolean
  private readonly host: IteratorHost
  private readonly ownView: ReadView | undefined
  private place: number = places.nowhere
  private closed = false
  private keyCopy: Uint8Array | undefined
  private valueCopy: Uint8Array | undefined

  /** `ownView` is released when the iterator is closed. */
  constructor(
    options: IteratorOptions,
    view: ReadView,
    ownView: ReadView | undefined,
    host: IteratorHost,
  ) {
    const { lower, upper } = boundsOf(options)
    this.lower = lower
    this.upper = upper
    this.isReverse = options.reverse === true
    this.host = host
    this.ownView = ownView
    const sources: Array<Cursor> = []
    const covers: Array<TombstoneSource> = []
    const olderRanks: Array<number> = []
    if (upper === undefined || compareBytes(lower, upper) < 0) {
      this.collect(view, sources, covers, olderRanks)
    }
    if (sources.length === 0)
      sources.push(new RunCursor([], { tableOf: host.tableOf, reverse: false }))
    const isMerged = sources.length > 1 || covers.length > 0
    this.merge = isMerged ? new MergeCursor(sources, { reverse: false }) : undefined
    this.cursor = this.merge ?? sources[0]
    this.covers = covers.length > 0 ? new TombstoneCursor(covers) : undefined
    this.olderRanks = olderRanks
  }

  /** The sources of a view, newest first, entries and tombstones. */
  private collect(
    view: ReadView,
    sources: Array<Cursor>,
    covers: Array<TombstoneSource>,
    olderRanks: Array<number>,
  ): void {
    const { host, lower, upper } = this
    const bounds = { sequence: view.sequence, reverse: false, lower, upper }
    for (const memtable of view.memtables) {
      if (memtable.count > 0) sources.push(new MemtableCursor(memtable, bounds))
      if (memtable.tombstones === undefined) continue
      covers.push(TombstoneSource.ofList(memtable.tombstones.visibleAt(view.sequence)))
      olderRanks.push(sources.length)
    }
    const { runs, tombstoneRuns } = view.version
    let covering = 0
    for (const run of runs) {
      const cursor = host.takeCursor(run, lower, upper)
      this.runCursors.push(cursor)
      sources.push(cursor)
      if (covering === tombstoneRuns.length) continue
      const fragments = tombstoneRuns[covering]
      if (fragments[0].level !== run[0].level || fragments[0].run !== run[0].run) continue
      covering++
      const piecesOf = (index: number) => host.tableOf(fragments[index]).tombstones
      covers.push(TombstoneSource.ofGroups(fragments, piecesOf))
      olderRanks.push(sources.length)
    }
  }

  /** To the next pair, the one before it when `reverse`; from nowhere to the first of all. */
  next(): boolean {
    return this.isReverse ? this.down() : this.up()
  }

  /** The other way than `next`. */
  previous(): boolean {
    return this.isReverse ? this.up() : this.down()
  }

  /** To the first pair at or after `key`. */
  seek(key: Uint8Array): boolean {
    const { lower, upper } = this
    if (upper !== undefined && compareBytes(key, upper) >= 0) return this.leave(places.after)
    return this.position(false, compareBytes(key, lower) <= 0 ? undefined : key)
  }

  /** To the last pair before `key`. */
  seekBefore(key: Uint8Array): boolean {
    const { lower, upper } = this
    if (compareBytes(key, lower) <= 0) return this.leave(places.before)
    const isBeyond = upper !== undefined && compareBytes(key, upper) >= 0
    return this.position(true, isBeyond ? undefined : key)
  }

  /** To the pair with the least key. */
  seekFirst(): boolean {
    return this.position(false, undefined)
  }

  /** To the pair with the greatest key. */
  seekLast(): boolean {
    return this.position(true, undefined)
  }

  /** Whether it stands on a pair, which may then be read. */
  get valid(): boolean {
    return this.place === places.on
  }

  /** An own copy, made once per pair. */
  get key(): Uint8Array {
    const { keyBytes, keyOffset, keyLength } = this.pair
    this.keyCopy ??= keyBytes.slice(keyOffset, keyOffset + keyLength)
    return this.keyCopy
  }

  /** An own copy, made once per pair. */
  get value(): Uint8Array {
    const { valueBytes, valueOffset, valueLength } = this.pair
    this.valueCopy ??= valueBytes.slice(valueOffset, valueOffset + valueLength)
    return this.valueCopy
  }

  /**
   * The source in front, for those who read its stretches of bytes in place: valid until the
   * iterator moves, which may put another source there. From a memtable the bytes are shared.
   */
  get pair(): Cursor {
    assert(this.place === places.on, "an iterator is read while it stands on a pair")
    return this.merge === undefined ? this.cursor : this.merge.top
  }

  /** Frees what it holds. A second call does nothing. */
  close(): void {
    if (this.closed) return
    this.closed = true
    this.place = places.nowhere
    for (const cursor of this.runCursors) this.host.giveCursor(cursor)
    this.ownView?.release()
  }

  private up(): boolean {
    if (this.place !== places.on) {
      return this.place === places.after ? this.leave(places.after) : this.seekFirst()
    }
    const { cursor } = this
    try {
      if (cursor.reverse) this.turn(false)
      cursor.advance()
      return this.settle()
    } catch (error) {
      this.fail(error)
    }
  }

  private down(): boolean {
    if (this.place !== places.on) {
      return this.place === places.before ? this.leave(places.before) : this.seekLast()
    }
    const { cursor } = this
    try {
      if (cursor.reverse) cursor.advance()
      else this.turn(true)
      return this.settle()
    } catch (error) {
      this.fail(error)
    }
  }

  /**
   * Sends all sources the other way. Up: onto the present pair again; down: before it, because a
   * seek that way goes to what is smaller.
   */
  private turn(reverse: boolean): void {
    const key = this.key
    this.cursor.reverse = reverse
    this.cursor.seek(key)
    assert(reverse || this.cursor.valid, "the pair is still there")
  }

  /** Seeks; `undefined` means from the end of the bounds where that way begins. */
  private position(reverse: boolean, key: Uint8Array | undefined): boolean {
    assert(!this.closed, "an iterator is used before it is closed")
    const { cursor } = this
    try {
      if (cursor.reverse !== reverse) cursor.reverse = reverse
      cursor.seek(key)
      return this.settle()
    } catch (error) {
      this.fail(error)
    }
  }

  private leave(place: number): boolean {
    assert(!this.closed, "an iterator is used before it is closed")
    this.place = place
    return false
  }

  /** From where the cursor is to the next live pair that way. */
  private settle(): boolean {
    this.keyCopy = undefined
    this.valueCopy = undefined
    const { cursor, covers } = this
    if (covers !== undefined) this.passCovered(covers, this.merge as MergeCursor)
    else while (cursor.valid && cursor.kind === kinds.delete) cursor.advance()
    if (cursor.valid) {
      this.place = places.on
      return true
    }
    this.place = cursor.reverse ? places.before : places.after
    return false
  }

  private passCovered(covers: TombstoneCursor, merge: MergeCursor): void {
    let passed = 0
    let lastRank = -1
    while (merge.valid) {
      const { top } = merge
      const sequence = covers.sequenceAt(top.keyBytes, top.keyOffset, top.keyLength)
      if (sequence <= top.sequence) {
        if (top.kind !== kinds.delete) return
        merge.advance()
        continue
      }
      const { rank } = merge
      passed = rank === lastRank ? passed + 1 : 1
      lastRank = rank
      if (passed <= patience || rank < this.olderRanks[covers.source]) {
        merge.advance()
        continue
      }
      passed = 0
      merge.skip((merge.reverse ? covers.coveredFrom : covers.coveredUntil) as Uint8Array)
    }
  }

  private fail(error: unknown): never {
    this.place = places.nowhere
    this.host.readFailed(error)
    throw error
  }
}

/** The bounds that lie within what was asked for and, if it was, a prefix. */
function boundsOf({ lower = emptyBytes, upper, prefix }: IteratorOptions): {
  lower: Uint8Array
  upper: Uint8Array | undefined
} {
  if (prefix === undefined) return { lower, upper }
  const end = prefixEnd(prefix)
  return {
    lower: compareBytes(prefix, lower) > 0 ? prefix : lower,
    upper: end !== undefined && (upper === undefined || compareBytes(end, upper) < 0) ? end : upper,
  }
}
