import { assert } from "../../lib/assert.ts"
import type { Run, Version } from "../manifest/version.ts"
import { deepestLevel, overlapping } from "../manifest/version.ts"
import type { CompactionPlan } from "./compaction.ts"

/** A slice must not pass over older data, nor drop deletes while something lies under it. */
export function assertPlan(version: Version, plan: CompactionPlan): void {
  const { inputLevels, outputLevel, lower, upper, dropDeletes } = plan
  for (let level = 1; level <= deepestLevel; level++) {
    if (inputLevels.includes(level)) continue
    const isBetween = level > (inputLevels[0] as number) && level < outputLevel
    const isUnder = level > outputLevel && dropDeletes
    if (!isBetween && !isUnder) continue
    const isEmpty = overlapping(version.levels[level] as Run, { lower, upper }).length === 0
    assert(isEmpty, () => `level ${level} holds nothing of what goes to level ${outputLevel}`)
  }
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
