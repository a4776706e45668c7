/**
 * The engine's long work, as free functions over a `Disk`: a job is plain data that crosses to a
 * worker thread (arenas are shared, not copied), and so is its result. Nothing here knows an
 * `Engine`.
 *
 * A job writes tables, syncs each, then syncs the folder; only then does the engine make the
 * manifest edit that counts them in.
 */
import type { Disk } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { Cursor } from "./cursor.ts"
import { compareKey } from "./cursor.ts"
import { currentPath, kinds, nextCurrentPath } from "./format.ts"
import type { ManifestWrite } from "./manifest.ts"
import { Memtable } from "./memtable.ts"
import { MemtableCursor } from "./memtableCursor.ts"
import { MergeCursor } from "./merge.ts"
import { RunCursor } from "./runCursor.ts"
import { SpillCursor } from "./spill.ts"
import { Table } from "./tableReader.ts"
import type { TableSummary, TableWriterOptions } from "./tableWriter.ts"
import { TableWriter } from "./tableWriter.ts"
import type { Fragment, Interval, Run } from "./version.ts"

export type { ManifestWrite }

interface JobBase {
  readonly id: number
  readonly directory: string
  /** The tables of the job are numbered from here on; nothing else takes numbers while it runs. */
  readonly firstFileNumber: number
  /** About the size at which a table ends and the next begins. */
  readonly tableBytes: number
  readonly writer: TableWriterOptions
}

/** Write a sealed memtable as a run of level 0. */
export interface FlushJob extends JobBase {
  readonly _tag: "Flush"
  readonly generation: number
  readonly arena: SharedArrayBuffer
}

/** Merge [lower, upper) of `runs`, newest first. */
export interface CompactJob extends JobBase {
  readonly _tag: "Compact"
  readonly runs: ReadonlyArray<Run>
  readonly inputLevels: ReadonlyArray<number>
  readonly outputLevel: number
  readonly lower: Uint8Array
  readonly upper: Uint8Array
  readonly dropDeletes: boolean
}

/** Turn a spill into tables that replace the keys of `intervals`. */
export interface IngestJob extends JobBase {
  readonly _tag: "Ingest"
  /** `undefined`: only remove. */
  readonly spillPath: string | undefined
  readonly spillChecksum: number | undefined
  readonly intervals: ReadonlyArray<Interval>
  readonly sequence: number
}

export type EngineJob = FlushJob | CompactJob | IngestJob

export interface EngineJobResult {
  readonly id: number
  /** In order of key, numbered from the job's `firstFileNumber` on. */
  readonly tables: ReadonlyArray<TableSummary>
}

/** Does a job. Throws `DiskError` or `StorageCorruption`; what it wrote is then an orphan. */
export function runJob(disk: Disk, job: EngineJob): EngineJobResult {
  switch (job._tag) {
    case "Flush": {
      const memtable = Memtable.sealed(job.arena, job.generation)
      const sequence = Number.MAX_SAFE_INTEGER
      return writeTables(disk, job, new MemtableCursor(memtable, { sequence, reverse: false }))
    }
    case "Compact":
      return compact(disk, job)
    case "Ingest":
      return ingest(disk, job)
    default:
      throw job satisfies never
  }
}

function compact(disk: Disk, job: CompactJob): EngineJobResult {
  const tables = new Map<number, Table>()
  // Past the block cache: what is rewritten is verified from the file, so damage is never copied
  // into a new checksum.
  const tableOf = (fragment: Fragment) => {
    let table = tables.get(fragment.fileNumber)
    if (table === undefined) {
      table = new Table(disk, job.directory, fragment)
      tables.set(fragment.fileNumber, table)
    }
    return table
  }
  const { lower, upper } = job
  const options = { tableOf, reverse: false, lower, upper }
  const merged = new MergeCursor(
    job.runs.map((run) => new RunCursor(run, options)),
    options,
  )
  const result = writeTables(disk, job, merged, job.dropDeletes)
  for (const table of tables.values()) table.close()
  return result
}

function ingest(disk: Disk, job: IngestJob): EngineJobResult {
  if (job.spillPath === undefined) return { id: job.id, tables: [] }
  const spill = new SpillCursor(disk, job.spillPath, job.sequence)
  const result = writeTables(disk, job, spill)
  spill.close()
  if (job.spillChecksum !== undefined && job.spillChecksum !== spill.checksum) {
    throw new StorageCorruption({
      path: job.spillPath,
      offset: 0,
      expected: `checksum ${job.spillChecksum}`,
      actual: `checksum ${spill.checksum}`,
    })
  }
  for (const table of result.tables) {
    const inside = job.intervals.some(
      ({ lower, upper }) =>
        compareBytes(lower, table.smallestKey) <= 0 &&
        (upper === undefined || compareBytes(table.largestKey, upper) < 0),
    )
    assert(inside, "what is ingested lies inside the intervals that it replaces")
  }
  return result
}

function writeTables(
  disk: Disk,
  job: EngineJob,
  cursor: Cursor,
  dropDeletes = false,
): EngineJobResult {
  const tables: Array<TableSummary> = []
  const intervals = job._tag === "Ingest" ? job.intervals : []
  let interval = 0
  let writer: TableWriter | undefined
  for (cursor.seek(undefined); cursor.valid; cursor.advance()) {
    if (dropDeletes && cursor.kind === kinds.delete) continue
    // A table of an ingest never spans the gap between two intervals: it would lie over keys that
    // it does not replace.
    let crossed = false
    while (interval < intervals.length && !isBelow(cursor, intervals[interval].upper)) {
      interval++
      crossed = true
    }
    if (writer !== undefined && (crossed || writer.sizeBytes >= job.tableBytes)) {
      tables.push(writer.finish())
      writer = undefined
    }
    writer ??= new TableWriter(disk, job.directory, job.firstFileNumber + tables.length, job.writer)
    writer.add(cursor)
  }
  if (writer !== undefined) tables.push(writer.finish())
  if (tables.length > 0) disk.syncDirectory(job.directory)
  return { id: job.id, tables }
}

function isBelow(cursor: Cursor, upper: Uint8Array | undefined): boolean {
  return upper === undefined || compareKey(cursor, upper) < 0
}

/** Writes and syncs an edit; a new manifest is put in force by replacing CURRENT. */
export function runManifestWrite(disk: Disk, write: ManifestWrite): void {
  if (write.current === undefined) {
    const file = disk.open(write.path)
    file.write(write.bytes, write.offset)
    file.sync()
    file.close()
    return
  }
  writeNew(disk, write.path, write.bytes)
  // The manifest's name must be durable before CURRENT can point to it.
  disk.syncDirectory(write.directory)
  const next = nextCurrentPath(write.directory)
  if (disk.exists(next)) disk.remove(next)
  writeNew(disk, next, write.current)
  disk.rename(next, currentPath(write.directory))
  disk.syncDirectory(write.directory)
}

function writeNew(disk: Disk, path: string, bytes: Uint8Array): void {
  const file = disk.create(path)
  file.write(bytes, 0)
  file.sync()
  file.close()
}

/**
 * Removes files that nothing refers to any more. Their names may come back after a power loss;
 * `open` removes them then.
 */
export function removeFiles(disk: Disk, paths: ReadonlyArray<string>): void {
  for (const path of paths) disk.remove(path)
}
