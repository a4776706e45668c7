import { recordTypes } from "../../../src/journal/format.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { eventualTree } from "../../../src/server/engineKeys.ts"
import { eventualLog } from "../../../src/server/eventualStore.ts"
import { fragmentsOf } from "../../lsm/maintained.ts"
import { records } from "../../server/journalRecords.ts"
import { surelyStated } from "../scatteredDamage.ts"
import type { SimulatedDisk } from "../simulatedDisk.ts"

/** Damage to what the eventual half of a node has on its disk. */

/** Paths of its tables, the largest first. */
export function eventualTables(disk: SimulatedDisk): ReadonlyArray<string> {
  const sizes = new Map<number, number>()
  for (const { fileNumber, sizeBytes, lower } of fragmentsOf(disk)) {
    if (lower[0] === eventualTree) sizes.set(fileNumber, sizeBytes)
  }
  return [...sizes]
    .sort(([, left], [, right]) => right - left)
    .map(([fileNumber]) => `engine/${String(fileNumber).padStart(8, "0")}.table`)
    .filter((path) => disk.exists(path))
}

/** Flips a bit in the first block of a table. */
export function damageTable(disk: SimulatedDisk, path: string): void {
  disk.corrupt(path, 24, 1)
}

/** Flips a bit in entries of its log, but for those whose loss could not be told from a torn tail; returns how many there were to choose from. */
export function damageLog(disk: SimulatedDisk, prng: Prng, share: number): number {
  const places = records(disk)
  const durableLsn = surelyStated(places)
  const entries = places.filter(
    ({ range, type, endLsn }) =>
      endLsn <= durableLsn &&
      // The lower half of it is all that is shown.
      range === eventualLog.range % 2 ** 32 &&
      (type === recordTypes.append || type === recordTypes.rewrite),
  )
  for (const { path, start, end } of entries) {
    if (prng.chance(share)) disk.corrupt(path, prng.int(start + 8, end - 1), 1)
  }
  return entries.length
}

/** Makes the last batches of a journal unreadable, whole, but for those whose loss could not be told from a torn tail; returns how many records were in them. */
export function damageEnd(disk: SimulatedDisk, share: number): number {
  const places = records(disk)
  const durableLsn = surelyStated(places)
  const last = places
    .slice(Math.floor(places.length * (1 - share)))
    .filter(({ endLsn }) => endLsn <= durableLsn)
  for (const { path, batchStart, start, end } of last) {
    for (const at of [batchStart + 2, batchStart + 20, start + 2, start + 5, start + 20, end - 1]) {
      disk.corrupt(path, at, 1)
    }
  }
  return last.length
}
