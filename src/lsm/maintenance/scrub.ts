import type { Disk } from "../../disk/disk.ts"
import { tablePath } from "../table/format.ts"
import { Table } from "../table/tableReader.ts"
import type { Pace } from "../table/tableWriter.ts"
import type { ScrubJob } from "./jobs.ts"

/**
 * Reads a part of a table from the file, past all caches, and verifies it. Returns the block to go
 * on with; `undefined` at the end of the table.
 */
export function scrub(disk: Disk, job: ScrubJob, pace: Pace | undefined): number | undefined {
  const path = tablePath(job.directory, job.table.fileNumber)
  const table = new Table({ disk, path, identity: job.table, pace })
  try {
    const next = table.verify(job.fromBlock, job.budgetBytes)
    return next < table.blockCount ? next : undefined
  } finally {
    table.close()
  }
}
