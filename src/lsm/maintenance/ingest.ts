import type { Disk } from "../../disk/disk.ts"
import { StorageCorruption } from "../../disk/disk.ts"
import { compareBytes } from "../../lib/bytes.ts"
import { crc32 } from "../../lib/checksum.ts"
import { deepestLevel } from "../manifest/version.ts"
import { tablePath } from "../table/format.ts"
import { SpillCursor } from "../table/spill.ts"
import { identifyTable, Table } from "../table/tableReader.ts"
import type { Pace, TableSummary } from "../table/tableWriter.ts"
import type { IngestJob, IngestTablesJob } from "./jobs.ts"
import { writeTables } from "./tableOutput.ts"

const chunkBytes = 1024 * 1024

/** Turns a spill into tables. */
export function ingestSpill(
  disk: Disk,
  job: IngestJob,
  pace: Pace | undefined,
): ReadonlyArray<TableSummary> {
  if (job.spillPath === undefined) return []
  // Before it is looked at: a key that damage has moved would look like a broken promise.
  if (job.spillChecksum !== undefined) checkSpill(disk, job.spillPath, job.spillChecksum, pace)
  const spill = new SpillCursor(disk, job.spillPath, job.sequence)
  try {
    return writeTables(spill, { ...job, disk, level: deepestLevel, pace })
  } finally {
    spill.close()
  }
}

function checkSpill(disk: Disk, path: string, expected: number, pace: Pace | undefined): void {
  const file = disk.open(path)
  let actual = 0
  try {
    const chunk = new Uint8Array(Math.min(chunkBytes, file.sizeBytes))
    for (let offset = 0; offset < file.sizeBytes; ) {
      const read = file.read(chunk, offset)
      if (read === 0) break
      actual = crc32(chunk.subarray(0, read), actual)
      offset += read
      // It was written a moment ago, so it costs the disk nothing; but the job may be told to stop.
      pace?.spend(0)
    }
  } finally {
    file.close()
  }
  if (actual === expected) return
  const found = `checksum ${actual}`
  throw new StorageCorruption({ path, offset: 0, expected: `checksum ${expected}`, actual: found })
}

/**
 * Gives finished tables, made elsewhere, numbers of this engine by hard links. Every byte is
 * verified; they must hold keys of the intervals only, each table one interval's (and one tree's),
 * in order, with sequence 0 throughout. Throws `StorageCorruption` with the path that was given.
 * Whoever made them must not write to them any more: the link is the same file.
 */
export function adoptTables(
  disk: Disk,
  job: IngestTablesJob,
  pace: Pace | undefined,
): ReadonlyArray<TableSummary> {
  const tables: Array<TableSummary> = []
  for (const path of job.paths) {
    const table = verified(disk, path, pace)
    checkPlace(path, table, tables.at(-1), job)
    const target = tablePath(job.directory, job.firstFileNumber + tables.length)
    disk.link(path, target)
    // Its maker may not have waited for the disk.
    const file = disk.open(target)
    try {
      file.sync()
    } finally {
      file.close()
    }
    tables.push(table)
  }
  if (tables.length > 0) disk.syncDirectory(job.directory)
  return tables
}

function verified(disk: Disk, path: string, pace: Pace | undefined): TableSummary {
  const identity = identifyTable(disk, path)
  const table = new Table({ disk, path, identity, pace })
  try {
    table.verify()
    const { tableId, sizeBytes, checksum, entries } = identity
    const { deletes, smallestSequence, largestSequence, compression, firstKey, lastKey } =
      table.properties
    const { tombstones } = table
    const first = tombstones.at(0)
    const last = tombstones.at(-1)
    let lower: Uint8Array = firstKey
    // The least key after the largest one.
    let upper = new Uint8Array(lastKey.length + 1)
    upper.set(lastKey)
    if (first !== undefined && (entries === 0 || compareBytes(first.lower, lower) < 0)) {
      lower = first.lower
    }
    if (last !== undefined && (entries === 0 || compareBytes(last.upper, upper) > 0)) {
      upper = last.upper.slice()
    }
    return {
      tableId,
      sizeBytes,
      checksum,
      entries,
      deletes,
      tombstones: tombstones.length,
      smallestSequence,
      largestSequence,
      lower,
      upper,
      compression,
    }
  } finally {
    table.close()
  }
}

function checkPlace(
  path: string,
  table: TableSummary,
  before: TableSummary | undefined,
  job: IngestTablesJob,
): void {
  const refuse = (expected: string, actual: string): never => {
    throw new StorageCorruption({ path, offset: 0, expected, actual })
  }
  const { lower, upper } = table
  const isInside = job.intervals.some(
    (interval) =>
      compareBytes(interval.lower, lower) <= 0 &&
      (interval.upper === undefined || compareBytes(upper, interval.upper) <= 0),
  )
  if (!isInside) refuse("keys of one interval", "keys outside")
  // The upper bound is exclusive: it may be the very beginning of the next tree.
  if (job.treesApart && !isOneTree(lower, upper)) refuse("keys of one tree", "keys of several")
  if (before !== undefined && compareBytes(before.upper, lower) > 0) {
    refuse("keys after those of the table before it", "keys that overlap")
  }
  if (table.largestSequence !== 0) refuse("sequence 0", `sequence ${table.largestSequence}`)
}

function isOneTree(lower: Uint8Array, upper: Uint8Array): boolean {
  const tree = lower[0]
  if (tree === undefined) return false
  return upper[0] === tree || (upper.length === 1 && upper[0] === tree + 1)
}
