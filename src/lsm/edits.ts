import type { EngineJob } from "./jobs.ts"
import type { TableSummary } from "./tableWriter.ts"
import type { Edit, Fragment, Measure, Version } from "./version.ts"
import { replacing } from "./version.ts"

/** The edit of `version` that makes the tables which a job wrote count. */
export function editOf(
  job: EngineJob,
  tables: ReadonlyArray<TableSummary>,
  version: Version,
  measure: Measure,
): Edit {
  // Numbers of files only rise, so that of a run's first table orders the runs of level 0.
  const added = (level: number) =>
    tables.map((table) => toFragment(table, level, level === 0 ? job.firstFileNumber : 0))
  switch (job._tag) {
    case "Flush":
      return { removedFiles: [], added: added(0) }
    case "Compact": {
      const { inputLevels: levels, outputLevel, lower, upper } = job
      const intervals = [{ lower, upper }]
      return replacing({ version, levels, intervals, added: added(outputLevel), measure })
    }
    case "Ingest": {
      const { intervals } = job
      return replacing({ version, levels: [0, 1, 2], intervals, added: added(2), measure })
    }
    default:
      throw job satisfies never
  }
}

function toFragment(table: TableSummary, level: number, run: number): Fragment {
  // The least key after the largest one.
  const upper = new Uint8Array(table.largestKey.length + 1)
  upper.set(table.largestKey)
  return {
    fileNumber: table.fileNumber,
    sizeBytes: table.sizeBytes,
    checksum: table.checksum,
    entries: table.entries,
    level,
    run,
    liveBytes: table.sizeBytes,
    lower: table.smallestKey,
    upper,
  }
}
