import type { Disk } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { Interval } from "../manifest/version.ts"
import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import { compressionAt, policyAt, type WriteSettings } from "../options.ts"
import type { Cursor } from "../read/cursor.ts"
import { compareKey } from "../read/cursor.ts"
import { kinds, tablePath } from "../table/format.ts"
import type { Pace, TableSummary } from "../table/tableWriter.ts"
import { TableWriter } from "../table/tableWriter.ts"

export interface TableOutputOptions {
  readonly disk: Disk
  readonly directory: string
  readonly firstFileNumber: number
  readonly createdSeconds: number
  readonly writing: WriteSettings
  /** The level that the tables are for. */
  readonly level: number
  /** Tables end where the first byte of keys changes. */
  readonly treesApart: boolean
  /** Ascending and disjoint. Entries that they cover are left out. */
  readonly tombstones?: ReadonlyArray<RangeTombstone>
  /** Nothing older lies under what is written: deletes and tombstones need not be. */
  readonly dropDeletes?: boolean
  /** Keys lie in these intervals, and no table spans the gap between two of them. */
  readonly intervals?: ReadonlyArray<Interval>
  readonly pace?: Pace | undefined
}

/** Keys that are written alike, and into tables of their own. */
interface Zone {
  readonly start: Uint8Array | undefined
  readonly end: Uint8Array | undefined
}

/**
 * Cuts a sorted stream of entries, and the range tombstones that go with it, into tables. A table
 * ends when it is large enough, and where a tree, a policy or an interval ends. A key has one entry
 * in the stream, so a cut never falls between two versions of a key; a tombstone that reaches over a
 * cut is cut there, so that no table speaks of keys of another one.
 *
 * Of the next key: tombstones that end before it are in tables already, the one that covers it is
 * cut and written up to `pieceLower`.
 */
export class TableOutput {
  private readonly options: TableOutputOptions
  private readonly tombstones: ReadonlyArray<RangeTombstone>
  private readonly dropDeletes: boolean
  private readonly tables: Array<TableSummary> = []
  private writer: TableWriter | undefined
  private zoneEnd: Uint8Array | undefined
  /** Of the tombstones in the open table, about. */
  private tombstoneBytes = 0
  /** The first tombstone that is not written to its end, and where what is left of it begins. */
  private at = 0
  private pieceLower: Uint8Array | undefined

  constructor(options: TableOutputOptions) {
    this.options = options
    this.tombstones = options.tombstones ?? []
    this.dropDeletes = options.dropDeletes ?? false
    this.pieceLower = this.tombstones[0]?.lower
  }

  /** Adds the entry under a cursor, unless a tombstone covers it. Keys ascend. */
  add(cursor: Cursor): void {
    if (this.at < this.tombstones.length && this.isCovered(cursor)) return
    if (this.dropDeletes && cursor.kind === kinds.delete) return
    const { writer, zoneEnd } = this
    if (writer !== undefined) {
      if (zoneEnd !== undefined && compareKey(cursor, zoneEnd) >= 0) this.cutAt(zoneEnd)
      else if (this.isLarge(writer)) this.cutAt(keyOf(cursor))
    }
    if (this.writer === undefined) this.openFor(cursor)
    this.writer?.add(cursor)
  }

  /** Ends the last table; returns all of them, durable once the folder is synced. */
  finish(): ReadonlyArray<TableSummary> {
    while (this.at < this.tombstones.length) this.passTombstone()
    this.endTable()
    return this.tables
  }

  /** Closes the open file after an error. */
  abandon(): void {
    this.writer?.abandon()
    this.writer = undefined
  }

  private isCovered(cursor: Cursor): boolean {
    const { tombstones } = this
    while (compareKey(cursor, (tombstones[this.at] as RangeTombstone).upper) >= 0) {
      this.passTombstone()
      if (this.at === tombstones.length) return false
    }
    const { lower, sequence } = tombstones[this.at] as RangeTombstone
    return cursor.sequence < sequence && compareKey(cursor, lower) >= 0
  }

  /** Writes the rest of the present tombstone. All entries so far lie before its end. */
  private passTombstone(): void {
    const { upper } = this.tombstones[this.at] as RangeTombstone
    this.writeTombstone(upper)
    this.at++
    this.pieceLower = this.tombstones[this.at]?.lower
    if (this.writer !== undefined && this.isLarge(this.writer)) this.endTable()
  }

  /** Writes what the present tombstone covers before `end`, table by table. */
  private writeTombstone(end: Uint8Array): void {
    const tombstone = this.tombstones[this.at]
    let lower = this.pieceLower
    if (tombstone === undefined || lower === undefined || compareBytes(lower, end) >= 0) return
    this.pieceLower = end
    if (this.dropDeletes) return
    while (compareBytes(lower, end) < 0) {
      if (this.zoneEnd !== undefined && compareBytes(this.zoneEnd, lower) <= 0) this.endTable()
      if (this.writer === undefined) this.open(lower)
      const limit: Uint8Array | undefined = this.zoneEnd
      const upper: Uint8Array = limit !== undefined && compareBytes(limit, end) < 0 ? limit : end
      this.writer?.addTombstone({ lower, upper, sequence: tombstone.sequence })
      this.tombstoneBytes += lower.length + upper.length + 12
      lower = upper
    }
  }

  /** Ends the open table; the next one begins at `end` or after. */
  private cutAt(end: Uint8Array): void {
    this.writeTombstone(end)
    this.endTable()
  }

  /** Opens the table of the key under a cursor. */
  private openFor(cursor: Cursor): void {
    const key = keyOf(cursor)
    if (this.pieceLower !== undefined && compareBytes(this.pieceLower, key) < 0) {
      const { start } = zoneOf(this.options, key)
      // What the tombstone covers before this zone has tables of its own.
      if (start !== undefined) this.cutAt(start)
    }
    this.open(key)
  }

  private open(key: Uint8Array): void {
    const { disk, directory, firstFileNumber, createdSeconds, writing, level, pace } = this.options
    const { compression, bloomBitsPerKey } = policyAt(writing, key)
    const tableId = firstFileNumber + this.tables.length
    const { blockBytes, indexPageBytes } = writing
    this.writer = new TableWriter({
      disk,
      path: tablePath(directory, tableId),
      tableId,
      options: {
        blockBytes,
        indexPageBytes,
        bloomBitsPerKey,
        compression: compressionAt(compression, level),
      },
      createdSeconds,
      pace,
    })
    this.zoneEnd = zoneOf(this.options, key).end
  }

  private endTable(): void {
    if (this.writer === undefined) return
    this.tables.push(this.writer.finish())
    this.writer = undefined
    this.zoneEnd = undefined
    this.tombstoneBytes = 0
  }

  private isLarge(writer: TableWriter): boolean {
    return writer.sizeBytes + this.tombstoneBytes >= this.options.writing.tableBytes
  }
}

/** Writes all that a cursor shows, syncs it, and makes its names durable. */
export function writeTables(
  cursor: Cursor,
  options: TableOutputOptions,
): ReadonlyArray<TableSummary> {
  const output = new TableOutput(options)
  try {
    for (cursor.seek(undefined); cursor.valid; cursor.advance()) output.add(cursor)
    const tables = output.finish()
    if (tables.length > 0) options.disk.syncDirectory(options.directory)
    return tables
  } catch (error) {
    output.abandon()
    throw error
  }
}

function keyOf(cursor: Cursor): Uint8Array {
  return cursor.keyBytes.slice(cursor.keyOffset, cursor.keyOffset + cursor.keyLength)
}

function zoneOf(options: TableOutputOptions, key: Uint8Array): Zone {
  const policy = policyAt(options.writing, key)
  let zone: Zone = { start: policy.start, end: policy.end }
  if (options.treesApart) {
    const tree = key[0] as number
    const end = tree === 0xff ? undefined : Uint8Array.of(tree + 1)
    zone = narrower(zone, { start: Uint8Array.of(tree), end })
  }
  if (options.intervals !== undefined) {
    const interval = options.intervals.find(
      ({ upper }) => upper === undefined || compareBytes(key, upper) < 0,
    )
    const isInside = interval !== undefined && compareBytes(interval.lower, key) <= 0
    assert(isInside, "what is ingested lies inside the intervals that it replaces")
    zone = narrower(zone, { start: interval.lower, end: interval.upper })
  }
  return zone
}

function narrower(left: Zone, right: Zone): Zone {
  const start =
    left.start === undefined || (right.start && compareBytes(left.start, right.start) < 0)
      ? right.start
      : left.start
  const end =
    left.end === undefined || (right.end && compareBytes(right.end, left.end) < 0)
      ? right.end
      : left.end
  return { start, end }
}
