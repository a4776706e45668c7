import type { Disk } from "../disk/disk.ts"
import { segmentNumber } from "../journal/segments.ts"
import { parseName } from "../lsm/table/format.ts"
import { dumpJournal } from "./dumpJournal.ts"
import { dumpCurrent, dumpManifest } from "./dumpManifest.ts"
import { dumpTable } from "./dumpTable.ts"

/**
 * One file of a data directory in words, line by line; its name tells what it is. Throws `StorageCorruption` where nothing can be shown any
 * more, and an error of one line for a file of another kind.
 */
export function* dumpLines(disk: Disk, name: string): Generator<string, void> {
  if (segmentNumber(name) !== undefined) return yield* dumpJournal(disk, name)
  const parsed = parseName(name)
  switch (parsed?.kind) {
    case "table":
      return yield* dumpTable(disk, name)
    case "manifest":
      return yield* dumpManifest(disk, ".", parsed.fileNumber)
    case "current":
      return yield* dumpCurrent(disk, ".")
    default:
      throw new Error(
        `${name} is no file that can be shown: a table is called 00000007.table, a manifest 00000007.manifest, a segment of the journal 00000007.log`,
      )
  }
}
