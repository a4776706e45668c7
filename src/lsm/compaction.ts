/**
 * Decides what to compact next. Pure: a function of the version.
 *
 * Flushed memtables are runs of level 0. When there are `level0Trigger` of them, a slice of the key
 * space that holds part of the oldest one is merged, from all runs of level 0 and from level 1,
 * into level 1; slice by slice level 0 empties. When level 1 is above its target, slices of it go
 * round into level 2. A slice is cut where tables end, so that about `compactionBytes` go into a
 * job, however large the levels are. Runs of level 0 that are small against what lies under them
 * are merged with each other first, so that small flushes (before a barrier) do not rewrite level 1
 * each time.
 *
 * The target of level 1 is the geometric mean of the levels around it, which makes the two steps
 * down equally dear: about 15 rewrites each at 10 GiB. Three levels would be better from some 30
 * GiB on; they would cost a point read one more run.
 *
 * Deletes are dropped where no older run can hold the key. Snapshots need no regard: each keeps the
 * files that it began with.
 */
import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { Fragment, Interval, Measure, Run, Version } from "./version.ts"
import { findFragment, firstFragmentAfter, overlaps } from "./version.ts"

export interface CompactionOptions {
  readonly memtableBytes: number
  /** Runs of level 0 from which on they are merged down. */
  readonly level0Trigger: number
  /** Runs of level 0 above which nothing is flushed. */
  readonly maxLevel0Runs: number
  /** Level 1 is left alone up to this size. */
  readonly level1Bytes: number
  /** About the bytes that go into one job; one table and what lies under it may exceed it. */
  readonly compactionBytes: number
}

/** Merge [lower, upper) of the input levels into the output level. */
export interface CompactionPlan {
  readonly inputLevels: ReadonlyArray<number>
  readonly outputLevel: number
  readonly lower: Uint8Array
  readonly upper: Uint8Array
  readonly dropDeletes: boolean
}

/** `level1From`: where the last slice of level 1 ended, so that the next one begins there. */
export function planCompaction(
  version: Version,
  options: CompactionOptions,
  level1From: Uint8Array | undefined,
  measure: Measure,
): CompactionPlan | undefined {
  const { level0, level1, level2 } = version
  if (level0.length >= options.level0Trigger) return planLevel0(version, options, measure)
  const level1Bytes = liveBytes(level1)
  const balanced = Math.sqrt(
    options.maxLevel0Runs * options.memtableBytes * Math.max(1, liveBytes(level2)),
  )
  if (level1Bytes <= Math.max(options.level1Bytes, balanced)) return undefined
  const next = level1.find(
    (fragment) => level1From === undefined || compareBytes(fragment.upper, level1From) > 0,
  )
  const from = next ?? level1[0]
  const start =
    level1From !== undefined && compareBytes(from.lower, level1From) < 0 && next !== undefined
      ? level1From
      : from.lower
  const slice = planSlice([level1], level2, start, options.compactionBytes, measure)
  return { inputLevels: [1, 2], outputLevel: 2, ...slice, dropDeletes: true }
}

function planLevel0(
  version: Version,
  options: CompactionOptions,
  measure: Measure,
): CompactionPlan | undefined {
  const { level0, level1, level2 } = version
  const whole = boundsOf(level0)
  const level0Bytes = level0.reduce((sum, run) => sum + liveBytes(run), 0)
  const under = level1.filter((fragment) => overlaps(fragment, whole))
  const small = level0Bytes <= options.memtableBytes && liveBytes(under) > 4 * level0Bytes
  if (small && level0.length > 1) {
    const dropDeletes = under.length === 0 && !level2.some((fragment) => overlaps(fragment, whole))
    return { inputLevels: [0], outputLevel: 0, ...whole, dropDeletes }
  }
  const oldest = level0[level0.length - 1]
  const slice = planSlice(level0, level1, oldest[0].lower, options.compactionBytes, measure)
  const dropDeletes = !level2.some((fragment) => overlaps(fragment, slice))
  return { inputLevels: [0, 1], outputLevel: 1, ...slice, dropDeletes }
}

/**
 * The largest interval from `start` on that holds up to `budgetBytes` of sources and target, and at
 * least up to the first cut. A fragment of the target is cut only where the sources over it alone
 * are too much for one job.
 */
function planSlice(
  sources: ReadonlyArray<Run>,
  target: Run,
  start: Uint8Array,
  budgetBytes: number,
  measure: Measure,
): { lower: Uint8Array; upper: Uint8Array } {
  const lower = fragmentAround(target, start)?.lower ?? start
  const end = boundsOf(sources).upper
  const after = (cut: Uint8Array) => compareBytes(cut, lower) > 0
  const sourceCuts = sources.flatMap((run) => run.map((fragment) => fragment.upper)).filter(after)
  const targetCuts = target.map((fragment) => fragment.upper).filter(after)
  const whole = [...sourceCuts, ...targetCuts]
    .filter((cut) => fragmentAround(target, cut) === undefined)
    .sort(compareBytes)
  const runs = [...sources, target]
  const slice = farthest(whole, { runs, lower, end, budgetBytes, measure })
  if (slice.work <= budgetBytes) return { lower, upper: slice.upper }
  const inside = sourceCuts.filter((cut) => compareBytes(cut, slice.upper) <= 0).sort(compareBytes)
  if (inside.length === 0) return { lower, upper: slice.upper }
  return { lower, upper: farthest(inside, { runs, lower, end, budgetBytes, measure }).upper }
}

/**
 * The last of the ascending `cuts` up to which the work is within the budget, or the first one.
 * None is wanted beyond `end`.
 */
function farthest(
  cuts: ReadonlyArray<Uint8Array>,
  options: {
    runs: ReadonlyArray<Run>
    lower: Uint8Array
    end: Uint8Array
    budgetBytes: number
    measure: Measure
  },
): { upper: Uint8Array; work: number } {
  const { runs, lower, end, budgetBytes, measure } = options
  assert(cuts.length > 0, "a slice ends somewhere")
  let upper = cuts[0]
  let work = 0
  let from = lower
  for (const cut of cuts) {
    let more = 0
    for (const run of runs) {
      for (let i = firstFragmentAfter(run, from); i < run.length; i++) {
        if (compareBytes(run[i].lower, cut) >= 0) break
        more += measure(run[i], from, cut)
      }
    }
    if (work + more > budgetBytes && from !== lower) break
    work += more
    upper = cut
    from = cut
    if (work > budgetBytes || compareBytes(cut, end) >= 0) break
  }
  return { upper, work }
}

/** The fragment in which `key` lies, but not at one of its ends. */
function fragmentAround(run: Run, key: Uint8Array): Fragment | undefined {
  const fragment = findFragment(run, key)
  return fragment === undefined || compareBytes(fragment.lower, key) === 0 ? undefined : fragment
}

function boundsOf(runs: ReadonlyArray<Run>): { lower: Uint8Array; upper: Uint8Array } & Interval {
  let lower = runs[0][0].lower
  let upper = runs[0][0].upper
  for (const run of runs) {
    if (compareBytes(run[0].lower, lower) < 0) lower = run[0].lower
    const last = run[run.length - 1]
    if (compareBytes(last.upper, upper) > 0) upper = last.upper
  }
  return { lower, upper }
}

export function liveBytes(run: ReadonlyArray<Fragment>): number {
  return run.reduce((sum, fragment) => sum + fragment.liveBytes, 0)
}
