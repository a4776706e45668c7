/**
 * The engine's long work, as free functions over a `Disk`: a job is plain data that crosses to a
 * worker thread (arenas are shared, not copied), and so is its result. Nothing here knows an
 * `Engine`.
 *
 * A job writes tables, syncs each, then syncs the folder; only then does the engine make the
 * manifest edit that counts them in. So it may be killed at any moment: what it wrote is named by no
 * edit, and goes by `abandon` or with the next `open`.
 */
import type { Disk } from "../../disk/disk.ts"
import type { ManifestState, ManifestWrite } from "../manifest/manifest.ts"
import { runManifestWrite } from "../manifest/manifestWrite.ts"
import type { Fragment, Interval, Run, RunsOfLevel0 } from "../manifest/version.ts"
import { overlapping } from "../manifest/version.ts"
import { Memtable } from "../memtable/memtable.ts"
import { MemtableCursor } from "../memtable/memtableCursor.ts"
import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import { clip, unionOf } from "../memtable/rangeTombstone.ts"
import type { WriteSettings } from "../options.ts"
import { MergeCursor } from "../read/merge.ts"
import { RunCursor } from "../read/runCursor.ts"
import { tablePath } from "../table/format.ts"
import type { TableIdentity } from "../table/tableReader.ts"
import { Table } from "../table/tableReader.ts"
import type { Pace, TableSummary } from "../table/tableWriter.ts"
import { writeCheckpoint } from "./checkpoint.ts"
import type { FilterRule } from "./filter.ts"
import { FilterCursor } from "./filter.ts"
import { adoptTables, ingestSpill } from "./ingest.ts"
import { scrub } from "./scrub.ts"
import { writeTables } from "./tableOutput.ts"

export type { ManifestWrite, Pace }
export { runManifestWrite }

interface JobBase {
  readonly id: number
  readonly directory: string
  /** The tables of the job are numbered from here on; nothing else takes numbers while it runs. */
  readonly firstFileNumber: number
  /** Stands in the tables: seconds since 2020. */
  readonly createdSeconds: number
  readonly writing: WriteSettings
  /** Tables end where the first byte of keys changes. */
  readonly treesApart: boolean
}

/** Write a sealed memtable as a run of level 0. */
export interface FlushJob extends JobBase {
  readonly _tag: "Flush"
  readonly generation: number
  readonly arena: SharedArrayBuffer
  /** Ascending and disjoint. */
  readonly tombstones: ReadonlyArray<RangeTombstone>
}

interface Slice {
  readonly inputLevels: ReadonlyArray<number>
  readonly outputLevel: number
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/** Merge [lower, upper) of `runs`, newest first. */
export interface CompactJob extends JobBase, Slice {
  readonly _tag: "Compact"
  readonly runs: ReadonlyArray<Run>
  /** Which runs of level 0 take part; `undefined` = all. */
  readonly only: RunsOfLevel0 | undefined
  readonly dropDeletes: boolean
  readonly filters: ReadonlyArray<FilterRule>
}

/** Put [lower, upper) one level down as it is: an edit and nothing else. */
export interface MoveJob extends JobBase, Slice {
  readonly _tag: "Move"
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

/** Adopt finished tables, which replace the keys of `intervals`. */
export interface IngestTablesJob extends JobBase {
  readonly _tag: "IngestTables"
  /** In order of their keys, which are disjoint. */
  readonly paths: ReadonlyArray<string>
  readonly intervals: ReadonlyArray<Interval>
  /** The base of their sequences. */
  readonly sequence: number
}

/** Let go of damaged tables, whole: an edit and nothing else. What lies under them comes to light. */
export interface LetGoJob extends JobBase {
  readonly _tag: "LetGo"
  readonly files: ReadonlyArray<number>
}

/** Make another folder an engine of its own that holds what tables hold now. */
export interface CheckpointJob extends JobBase {
  readonly _tag: "Checkpoint"
  readonly target: string
  readonly state: ManifestState
}

/** Read a part of a table again, from the file, in search of damage. */
export interface ScrubJob extends JobBase {
  readonly _tag: "Scrub"
  readonly table: TableIdentity
  readonly fromBlock: number
  readonly budgetBytes: number
}

export type EngineJob =
  | FlushJob
  | CompactJob
  | MoveJob
  | IngestJob
  | IngestTablesJob
  | LetGoJob
  | CheckpointJob
  | ScrubJob

export interface EngineJobResult {
  readonly id: number
  /** In order of key, numbered from the job's `firstFileNumber` on. */
  readonly tables: ReadonlyArray<TableSummary>
  /** Of a scrub: the block to go on with; `undefined` = the table is done. */
  readonly nextBlock?: number | undefined
}

/**
 * Does a job. Throws `DiskError`, `StorageCorruption`, or what `pace` throws to end it; what it
 * wrote is then an orphan, and all files are closed.
 */
export function runJob(disk: Disk, job: EngineJob, pace?: Pace): EngineJobResult {
  const { id } = job
  switch (job._tag) {
    case "Flush":
      return { id, tables: flush(disk, job, pace) }
    case "Compact":
      return { id, tables: compact(disk, job, pace) }
    case "Move":
    case "LetGo":
      return { id, tables: [] }
    case "Ingest":
      return { id, tables: ingestSpill(disk, job, pace) }
    case "IngestTables":
      return { id, tables: adoptTables(disk, job, pace) }
    case "Checkpoint":
      writeCheckpoint(disk, job)
      return { id, tables: [] }
    case "Scrub":
      return { id, tables: [], nextBlock: scrub(disk, job, pace) }
    default:
      throw job satisfies never
  }
}

function flush(disk: Disk, job: FlushJob, pace: Pace | undefined): ReadonlyArray<TableSummary> {
  const memtable = Memtable.sealed(job.arena, job.generation)
  const sequence = Number.MAX_SAFE_INTEGER
  const cursor = new MemtableCursor(memtable, { sequence, reverse: false })
  const { tombstones } = job
  return writeTables(cursor, { ...job, disk, level: 0, tombstones, pace })
}

function compact(disk: Disk, job: CompactJob, pace: Pace | undefined): ReadonlyArray<TableSummary> {
  const { lower, upper, runs, filters, dropDeletes } = job
  const tables = new Map<number, Table>()
  // Past the caches: what is rewritten is verified from the file, so damage is never copied under a
  // new checksum.
  const tableOf = (fragment: Fragment) => {
    let table = tables.get(fragment.fileNumber)
    if (table === undefined) {
      const path = tablePath(job.directory, fragment.fileNumber)
      table = new Table({ disk, path, identity: fragment, pace })
      tables.set(fragment.fileNumber, table)
    }
    return table
  }
  try {
    const options = { tableOf, reverse: false, lower, upper }
    const merged = new MergeCursor(
      runs.map((run) => new RunCursor(run, options)),
      options,
    )
    const cursor = filters.length === 0 ? merged : new FilterCursor(merged, filters)
    const tombstones = tombstonesOf(job, tableOf)
    const level = job.outputLevel
    return writeTables(cursor, { ...job, disk, level, tombstones, dropDeletes, pace })
  } finally {
    for (const table of tables.values()) table.close()
  }
}

/** All range tombstones of the slice, each clipped to its fragment: ascending and disjoint. */
function tombstonesOf(
  { runs, lower, upper }: CompactJob,
  tableOf: (fragment: Fragment) => Table,
): ReadonlyArray<RangeTombstone> {
  const lists: Array<ReadonlyArray<RangeTombstone>> = []
  for (const run of runs) {
    for (const fragment of overlapping(run, { lower, upper })) {
      if (fragment.tombstones === 0) continue
      const own = clip(tableOf(fragment).tombstones, fragment.lower, fragment.upper)
      lists.push(clip(own, lower, upper))
    }
  }
  return lists.length === 0 ? [] : unionOf(lists)
}

/**
 * Removes files that nothing refers to any more. Their names may come back after a power loss;
 * `open` removes them then.
 */
export function removeFiles(disk: Disk, paths: ReadonlyArray<string>): void {
  for (const path of paths) if (disk.exists(path)) disk.remove(path)
}
