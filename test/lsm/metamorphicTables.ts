import type { Disk } from "../../src/disk/disk.ts"
import { compareBytes, toHex } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { EntryCursor } from "./fuzzSamples.ts"
import { bytesOfKey, type Pair } from "./metamorphicModel.ts"
import type { Bounds } from "./metamorphicTrace.ts"

/**
 * Tables as another node would send them: numbered as it likes, every sequence 0, durable with their names. None reaches over the end of an
 * interval. Returns their paths in the order of keys.
 */
export function writeFinishedTables(
  disk: Disk,
  directory: string,
  pairs: ReadonlyArray<Pair>,
  intervals: ReadonlyArray<Bounds>,
  prng: Prng,
): ReadonlyArray<string> {
  const paths: Array<string> = []
  let writer: TableWriter | undefined
  const finish = () => {
    writer?.finish()
    writer = undefined
  }
  disk.makeDirectory(directory)
  disk.syncDirectory("")
  for (const { lower, upper } of intervals) {
    for (const [hex, value] of pairs) {
      const key = bytesOfKey(hex)
      if (compareBytes(key, lower) < 0) continue
      if (upper !== undefined && compareBytes(key, upper) >= 0) continue
      if (writer === undefined) {
        const path = `${directory}/${paths.length}.table`
        paths.push(path)
        writer = new TableWriter({
          disk,
          path,
          tableId: prng.uint32(),
          options: {
            blockBytes: prng.pick([1, 100, 4096]),
            bloomBitsPerKey: prng.pick([0, 10]),
            compression: prng.int(0, 3),
          },
        })
      }
      writer.add(new EntryCursor(key, value))
      // A delete says nothing where all that was there is replaced.
      const next = bytesOfKey(`${hex}00`)
      const isFree = !pairs.some(([other]) => other === toHex(next))
      const isInside = upper === undefined || compareBytes(next, upper) < 0
      if (isFree && isInside && prng.chance(0.1)) writer.add(new EntryCursor(next, undefined))
      if (prng.chance(0.15)) finish()
    }
    finish()
  }
  if (paths.length > 0) disk.syncDirectory(directory)
  return paths
}
