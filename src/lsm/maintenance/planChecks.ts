import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { Run, Version } from "../manifest/version.ts"
import { deepestLevel, overlapping } from "../manifest/version.ts"
import type { CompactionPlan } from "./compaction.ts"

interface Bounds {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/**
 * What comes down must not pass over older data, and deletes must not be dropped while something lies under them. The slice may reach beyond
 * what comes down, since tables of the output level are merged whole: what lies between the levels out there is passed over by nothing.
 */
export function assertPlan(version: Version, plan: CompactionPlan): void {
  const { inputLevels, outputLevel, lower, upper, dropDeletes } = plan
  const slice = { lower, upper }
  const top = inputLevels[0] as number
  const sources = version.runsOf(top).flatMap((run) => overlapping(run, slice))
  for (let level = top + 1; level <= deepestLevel; level++) {
    if (inputLevels.includes(level)) continue
    const inSlice = overlapping(version.levels[level] as Run, slice)
    if (level < outputLevel) {
      const passed = inSlice.find((other) =>
        sources.some((source) => overlapIn(source, other, slice)),
      )
      assert(passed === undefined, () => `${top} to ${outputLevel} passes over level ${level}`)
    } else if (level > outputLevel && dropDeletes) {
      assert(inSlice.length === 0, () => `deletes dropped on ${outputLevel} over level ${level}`)
    }
  }
}

/** Whether two fragments have keys of the slice in common. */
function overlapIn(left: Bounds, right: Bounds, slice: Bounds): boolean {
  const lowers = [left.lower, right.lower, slice.lower].sort(compareBytes)
  const uppers = [left.upper, right.upper, slice.upper].sort(compareBytes)
  return compareBytes(lowers[2] as Uint8Array, uppers[0] as Uint8Array) < 0
}

/**
 * Deletes keep their age when they are merged down, so that they reach the deepest level in time
 * however often they are rewritten on the way.
 */
export function oldestDeletes(runs: ReadonlyArray<Run>, nowSeconds: number): number {
  let oldest = nowSeconds
  for (const run of runs) {
    for (const { deletes, tombstones, createdSeconds } of run) {
      if (deletes + tombstones > 0 && createdSeconds < oldest) oldest = createdSeconds
    }
  }
  return oldest
}
