import type { OptionSet } from "./metamorphicOptions.ts"
import { optionSets } from "./metamorphicOptions.ts"
import { MetamorphicRun } from "./metamorphicRun.ts"
import { makeTrace } from "./metamorphicTrace.ts"

export interface MetamorphicReport {
  readonly seed: number
  readonly operations: number
  readonly optionSets: number
  /** Jobs done by all engines, by kind. */
  readonly jobs: Record<string, number>
}

/**
 * Does the same random operations to engines that are set up in as many ways as there are option sets; every answer of each must be that of a
 * sorted map, and so that of each other. Throws `Mismatch` at the first that is not, with the seed and the set.
 */
export function runMetamorphic(
  seed: number,
  operations: number,
  sets: ReadonlyArray<OptionSet> = optionSets,
): MetamorphicReport {
  const trace = makeTrace(seed, operations)
  const jobs: Record<string, number> = {}
  for (const set of sets) {
    const run = new MetamorphicRun(set, seed)
    try {
      run.run(trace)
    } catch (error) {
      const where = `seed ${seed}, ${operations} operations, options "${set.name}"`
      throw new Error(`${where}: ${error instanceof Error ? error.message : error}`, {
        cause: error,
      })
    }
    for (const [kind, count] of run.jobs) jobs[kind] = (jobs[kind] ?? 0) + count
  }
  return { seed, operations: trace.length, optionSets: sets.length, jobs }
}
