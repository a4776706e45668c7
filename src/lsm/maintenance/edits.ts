import type { Edit, Fragment, Measure, Run, Version } from "../manifest/version.ts"
import { deepestLevel, moving, replacing } from "../manifest/version.ts"
import type { TableSummary } from "../table/tableWriter.ts"
import type { EngineJob } from "./jobs.ts"

const allLevels = Array.from({ length: deepestLevel + 1 }, (_, level) => level)
const nothing: Edit = { removedFiles: [], added: [] }

/** The edit of `version` that makes the tables which a job wrote count. */
export function editOf(
  job: EngineJob,
  tables: ReadonlyArray<TableSummary>,
  version: Version,
  measure: Measure,
): Edit {
  switch (job._tag) {
    case "Flush":
      // Numbers of files only rise, so that of a run's first table orders the runs of level 0.
      return {
        removedFiles: [],
        added: fragmentsOf(job, tables, { level: 0, run: job.firstFileNumber }),
      }
    case "Compact": {
      const { inputLevels: levels, outputLevel: level, lower, upper } = job
      const run = level === 0 ? newestRun(job.runs) : 0
      const added = fragmentsOf(job, tables, { level, run })
      const { only } = job
      return replacing({ version, levels, only, intervals: [{ lower, upper }], added, measure })
    }
    case "Move": {
      const { inputLevels: levels, outputLevel, lower, upper } = job
      return moving({ version, levels, interval: { lower, upper }, outputLevel, measure })
    }
    case "Ingest":
    case "IngestTables": {
      // Nothing lies under the deepest level, and all above it is cut away.
      const baseSequence = job._tag === "Ingest" ? 0 : job.sequence
      const added = fragmentsOf(job, tables, { level: deepestLevel, run: 0, baseSequence })
      return replacing({ version, levels: allLevels, intervals: job.intervals, added, measure })
    }
    case "LetGo":
      return { removedFiles: job.files, added: [] }
    case "Checkpoint":
    case "Scrub":
      return nothing
    default:
      throw job satisfies never
  }
}

/**
 * Where runs of level 0 are merged with each other in one slice, the result takes the place that the
 * newest of them had there: so level 0 has no more runs than before.
 */
function newestRun(runs: ReadonlyArray<Run>): number {
  let newest = 0
  for (const run of runs) for (const fragment of run) newest = Math.max(newest, fragment.run)
  return newest
}

function fragmentsOf(
  job: EngineJob,
  tables: ReadonlyArray<TableSummary>,
  place: { readonly level: number; readonly run: number; readonly baseSequence?: number },
): ReadonlyArray<Fragment> {
  const { level, run, baseSequence = 0 } = place
  return tables.map((table, i) => ({
    level,
    run,
    fileNumber: job.firstFileNumber + i,
    tableId: table.tableId,
    baseSequence,
    sizeBytes: table.sizeBytes,
    checksum: table.checksum,
    entries: table.entries,
    liveBytes: table.sizeBytes,
    lower: table.lower,
    upper: table.upper,
    deletes: table.deletes,
    tombstones: table.tombstones,
    createdSeconds: job.createdSeconds,
    compression: table.compression,
  }))
}
