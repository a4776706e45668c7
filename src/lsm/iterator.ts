import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { Cursor } from "./cursor.ts"
import { compareKey } from "./cursor.ts"
import { kinds } from "./format.ts"
import { MemtableCursor } from "./memtableCursor.ts"
import { MergeCursor } from "./merge.ts"
import { RunCursor } from "./runCursor.ts"
import type { EngineSnapshot, ReadView } from "./snapshot.ts"
import type { Table } from "./tableReader.ts"
import type { Fragment } from "./version.ts"

export interface IteratorOptions {
  /** Inclusive. */
  readonly lower: Uint8Array
  /** Exclusive; `undefined` = to the end. */
  readonly upper: Uint8Array | undefined
  /** From the last key down. */
  readonly reverse?: boolean
  /** The moment to read; without it, now. It must outlive the iterator. */
  readonly snapshot?: EngineSnapshot | undefined
}

/**
 * The live pairs of [lower, upper) at one moment, in order: `while (iterator.next())
 * use(iterator.key, iterator.value)`, then `close`. Later writes, flushes, compactions and ingests
 * do not show.
 */
export class EngineIterator {
  private readonly cursor: Cursor
  private readonly lower: Uint8Array
  private readonly upper: Uint8Array | undefined
  private readonly reverse: boolean
  private readonly onClose: () => void
  /** The cursor stands on an entry that `next` has not handed out yet. */
  private ahead = true
  private onPair = false
  private closed = false
  private keyCopy: Uint8Array | undefined
  private valueCopy: Uint8Array | undefined

  constructor(options: {
    range: IteratorOptions
    view: ReadView
    tableOf: (fragment: Fragment) => Table
    onClose: () => void
  }) {
    const { range, view, tableOf } = options
    this.lower = range.lower
    this.upper = range.upper
    this.reverse = range.reverse ?? false
    this.onClose = options.onClose
    const bounds = { tableOf, reverse: this.reverse, lower: range.lower, upper: range.upper }
    const sources: Array<Cursor> = []
    for (const memtable of view.memtables) {
      sources.push(new MemtableCursor(memtable, { sequence: view.sequence, reverse: this.reverse }))
    }
    for (const run of view.version.runs) sources.push(new RunCursor(run, bounds))
    this.cursor = sources.length === 1 ? sources[0] : new MergeCursor(sources, bounds)
    this.cursor.seek(this.reverse ? this.upper : this.lower)
  }

  /** To the next pair; false at the end. Only after `true` may key and value be read. */
  next(): boolean {
    assert(!this.closed, "an iterator is used before it is closed")
    this.keyCopy = undefined
    this.valueCopy = undefined
    const cursor = this.cursor
    if (this.ahead) this.ahead = false
    else if (cursor.valid) cursor.advance()
    while (cursor.valid && cursor.kind === kinds.delete) cursor.advance()
    this.onPair = cursor.valid && this.isInside(cursor)
    return this.onPair
  }

  /**
   * Moves, in either direction, so that `next` gives the first pair at or after `key`; of a reverse
   * iterator: the last pair before `key`. A key outside the bounds means the bound.
   */
  seek(key: Uint8Array): void {
    assert(!this.closed, "an iterator is used before it is closed")
    const { lower, upper } = this
    let target = compareBytes(key, lower) < 0 ? lower : key
    if (upper !== undefined && compareBytes(target, upper) > 0) target = upper
    this.cursor.seek(target)
    this.ahead = true
    this.onPair = false
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
   * The cursor under the iterator, for those who read its stretches of bytes in place: valid until
   * it moves.
   */
  get pair(): Cursor {
    assert(this.onPair, "an iterator is read after next gave true")
    return this.cursor
  }

  /** Frees what it holds. A second call does nothing. */
  close(): void {
    if (this.closed) return
    this.closed = true
    this.onPair = false
    this.onClose()
  }

  private isInside(cursor: Cursor): boolean {
    if (this.reverse) return compareKey(cursor, this.lower) >= 0
    return this.upper === undefined || compareKey(cursor, this.upper) < 0
  }
}
