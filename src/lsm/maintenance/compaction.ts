/**
 * Decides what to compact next. Pure: a function of the version and of a reading of the clock.
 *
 * Levels in use. Flushed memtables are the runs of level 0. Below it lie as few levels as keep each
 * at most `levelRatioMax` times the one above: with all data on level 6, and `baseBytes` as the size
 * that level 0 comes down with, n levels are in use when (bytes of level 6 / baseBytes)^(1/n) is at
 * most that ratio; their targets are in geometric progression, which makes every step down equally
 * dear (O'Neil et al., 1996, section 3.2). Level 0 goes to the first level in use. So a small engine
 * has one level under level 0, 2 GiB have two, 16 GiB three; and what lies above the first level in
 * use, after much was deleted, goes down.
 *
 * What goes first. Level 0 scores its runs over `level0Trigger`, another level its bytes over its
 * target; the highest score above 1 wins, and a full level 0 before all. (Level 0 waits for
 * `lazyLevel0Runs` where little of it lies over much: each pass rewrites all that it lies over.) A job merges a *slice* of the key space, cut where tables
 * end, of about `compactionBytes`, however large the levels are: so a flush never waits long, and a
 * pass over level 0 takes in the runs that came while it was under way. Slices of a deeper level go
 * round. Runs of level 0 that are small against what lies under them are merged with each other
 * first, so that small flushes (before a barrier) do not rewrite a large level each time. A slice
 * with nothing under it is moved, not rewritten, when it was written with the compression that the
 * lower level asks for.
 *
 * When no level is too large, tables that hold deletes for too long, or mostly deletes, go down one
 * level until the deletes have met what they delete.
 *
 * Deletes are dropped where no older run can hold the key. Snapshots need no regard: each keeps the
 * files that it began with. A quarantined interval is left alone, and so is all that would be merged
 * with it: damage is not rewritten under a new checksum.
 */
import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { Fragment, Measure, Run, RunsOfLevel0, Version } from "../manifest/version.ts"
import {
  deepestLevel,
  findFragment,
  firstFragmentAfter,
  overlapping,
  overlaps,
} from "../manifest/version.ts"

export interface CompactionOptions {
  readonly memtableBytes: number
  /** Runs of level 0 from which on they are merged down. */
  readonly level0Trigger: number
  /** As many runs are merged down even where they are little against what lies under them. */
  readonly lazyLevel0Runs: number
  /** Runs of level 0 above which nothing is flushed. */
  readonly maxLevel0Runs: number
  /** The size that level 0 comes down with; the first level in use has it as its least target. */
  readonly baseBytes: number
  /** A level is at most this many times as large as the one above. */
  readonly levelRatioMax: number
  /** About the bytes that go into one job; one table and what lies under it may exceed it. */
  readonly compactionBytes: number
  /** A delete above the deepest level goes down after this time. */
  readonly tombstoneAgeSeconds: number
}

/** Level 0 is little against a level under it that is more than so many times as large. */
const smallShare = 4

/** Level 0 waits over a level that is more than so many times as large. */
const waitShare = 2

/** What the planner looks at. */
export interface PlannerInput {
  readonly version: Version
  readonly options: CompactionOptions
  /** Of each level, where its last slice ended: the next one begins there. */
  readonly cursors: ReadonlyMap<number, Uint8Array>
  readonly nowSeconds: number
  readonly measure: Measure
  /** Disjoint and in order. */
  readonly quarantined: ReadonlyArray<QuarantinedSlice>
  /** Whether a fragment has the compression that `level` asks for its keys. */
  readonly fits: (fragment: Fragment, level: number) => boolean
}

/** Keys that lie in a damaged fragment. Nothing is merged with it. */
export interface QuarantinedSlice extends Slice {
  /** The runs of level 0 that are damaged there, from the first to the last; `undefined` = none is. */
  readonly damagedRuns: RunsOfLevel0 | undefined
}

/** Merge [lower, upper) of the input levels into the output level. */
export interface CompactionPlan {
  readonly inputLevels: ReadonlyArray<number>
  readonly outputLevel: number
  readonly lower: Uint8Array
  readonly upper: Uint8Array
  /** Nothing older lies under the slice. */
  readonly dropDeletes: boolean
  /** Which runs of level 0 take part; `undefined` = all. */
  readonly only?: RunsOfLevel0
  /** The slice goes down as it is: an edit of the manifest and no other work. */
  readonly move: boolean
  readonly reason: "runs" | "size" | "deletes"
}

interface Slice {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/** The first level in use under level 0, and the bytes that each level should hold at most. */
export interface LevelShape {
  readonly first: number
  /** By level; 0 above the first one, infinite for the deepest. */
  readonly targets: ReadonlyArray<number>
}

export function levelShape(version: Version, options: CompactionOptions): LevelShape {
  const { baseBytes, levelRatioMax } = options
  const steps = Math.max(1, liveBytes(version.levels[deepestLevel] as Run) / baseBytes)
  let count = 1
  while (count < deepestLevel && steps ** (1 / count) > levelRatioMax) count++
  const ratio = steps ** (1 / count)
  const first = deepestLevel + 1 - count
  const targets: Array<number> = []
  for (let level = 0; level < deepestLevel; level++) {
    targets.push(level < first ? 0 : baseBytes * ratio ** (level - first + 1))
  }
  targets.push(Number.POSITIVE_INFINITY)
  return { first, targets }
}

export function planCompaction(input: PlannerInput): CompactionPlan | undefined {
  const { version, options } = input
  const shape = levelShape(version, options)
  const due: Array<{ level: number; score: number }> = []
  if (isLevel0Due(version, options, shape.first)) {
    // Where nothing more can be flushed, writers wait for nothing else.
    const isFull = version.level0.length >= options.maxLevel0Runs
    const score = isFull ? Number.POSITIVE_INFINITY : version.level0.length / options.level0Trigger
    due.push({ level: 0, score })
  }
  for (let level = 1; level < deepestLevel; level++) {
    const score = liveBytes(version.levels[level] as Run) / (shape.targets[level] as number)
    if (score > 1) due.push({ level, score })
  }
  // Equal scores: the upper level, because reads look there first.
  due.sort((left, right) => right.score - left.score || left.level - right.level)
  for (const { level } of due) {
    const plan = level === 0 ? planLevel0(input, shape.first, "runs") : planLevel(input, level)
    if (plan !== undefined) return plan
  }
  return planDeletes(input, shape.first)
}

/** A pass over level 0 rewrites what lies under it. Where that is much, it waits for more to bring down. */
function isLevel0Due(version: Version, options: CompactionOptions, first: number): boolean {
  const { level0 } = version
  if (level0.length < options.level0Trigger) return false
  if (level0.length >= options.lazyLevel0Runs) return true
  const whole = boundsOf(level0)
  const target = version.levels[highestOver(version, whole, first)] as Run
  const level0Bytes = level0.reduce((sum, run) => sum + liveBytes(run), 0)
  return liveBytes(overlapping(target, whole)) <= waitShare * level0Bytes
}

function planLevel0(
  input: PlannerInput,
  first: number,
  reason: "runs" | "deletes",
): CompactionPlan | undefined {
  const { version, options, measure } = input
  const { level0 } = version
  const whole = boundsOf(level0)
  const target = highestOver(version, whole, first)
  const targetRun = version.levels[target] as Run
  const level0Bytes = level0.reduce((sum, run) => sum + liveBytes(run), 0)
  const under = overlapping(targetRun, whole)
  const small = level0Bytes <= options.memtableBytes && liveBytes(under) > smallShare * level0Bytes
  if (small && level0.length > 1 && reason === "runs") {
    const dropDeletes = isEmptyUnder(version, 0, whole)
    if (!input.quarantined.some((slice) => overlaps(slice, whole))) {
      return { inputLevels: [0], outputLevel: 0, ...whole, dropDeletes, move: false, reason }
    }
  }
  // From where the oldest run begins; a newer one decides only when damage holds that one back.
  for (let i = level0.length - 1; i >= 0; i--) {
    const run = level0[i] as Run
    let start: Uint8Array | undefined = (run[0] as Fragment).lower
    while (start !== undefined) {
      const around = quarantineAround(input, start)
      if (around === undefined) {
        const { compactionBytes: budgetBytes } = options
        const sources = { sources: level0, target: targetRun }
        const slice = clip(input, planSlice({ ...sources, start, budgetBytes, measure }), start)
        const dropDeletes = isEmptyUnder(version, target, slice)
        const move = canMove(input, { levels: [0], to: target, slice })
        const inputLevels = [0, target]
        return { inputLevels, outputLevel: target, ...slice, dropDeletes, move, reason }
      }
      const plan = planBesideDamage(version, around)
      if (plan !== undefined) return plan
      start = nextStart(run, around.upper)
    }
  }
  return undefined
}

/**
 * Around damage, level 0 cannot come down: there the runs over it become one, and so do those under
 * it if it is in level 0 itself, so that flushes still find room.
 */
function planBesideDamage(version: Version, slice: QuarantinedSlice): CompactionPlan | undefined {
  const { lower, upper, damagedRuns } = slice
  const numbers: Array<number> = []
  for (const run of version.level0) {
    if (run.some((fragment) => overlaps(fragment, slice))) numbers.push((run[0] as Fragment).run)
  }
  const newer = numbers.filter((run) => damagedRuns === undefined || run > damagedRuns.newest)
  const older = numbers.filter((run) => damagedRuns !== undefined && run < damagedRuns.oldest)
  const merged = newer.length > 1 ? newer : older
  if (merged.length < 2) return undefined
  // Newest first.
  const only = { oldest: merged[merged.length - 1] as number, newest: merged[0] as number }
  const plan = { inputLevels: [0], outputLevel: 0, lower, upper, dropDeletes: false }
  return { ...plan, only, move: false, reason: "runs" }
}

function quarantineAround(input: PlannerInput, key: Uint8Array): QuarantinedSlice | undefined {
  return input.quarantined.find(
    ({ lower, upper }) => compareBytes(lower, key) <= 0 && compareBytes(key, upper) < 0,
  )
}

/** What of a slice can be had around `start`, which is not in quarantine, without touching any. */
function clip(input: PlannerInput, slice: Slice, start: Uint8Array): Slice {
  let { lower, upper } = slice
  for (const damaged of input.quarantined) {
    if (compareBytes(damaged.upper, start) <= 0) {
      if (compareBytes(damaged.upper, lower) > 0) lower = damaged.upper
    } else if (compareBytes(damaged.lower, upper) < 0) upper = damaged.lower
  }
  return { lower, upper }
}

/**
 * Level 0 must not pass over data: it goes to the first level in use, or to a higher one that still
 * holds something under these bounds.
 */
function highestOver(version: Version, bounds: Slice, first: number): number {
  for (let level = 1; level < first; level++) {
    if ((version.levels[level] as Run).some((fragment) => overlaps(fragment, bounds))) return level
  }
  return first
}

function planLevel(input: PlannerInput, level: number): CompactionPlan | undefined {
  const { version, cursors } = input
  const run = version.levels[level] as Run
  const from = cursors.get(level)
  const next = from === undefined ? 0 : firstFragmentAfter(run, from)
  for (let i = 0; i < run.length; i++) {
    const fragment = run[(next + i) % run.length] as Fragment
    const goesOn = i === 0 && from !== undefined && next < run.length
    const start = goesOn && compareBytes(fragment.lower, from) < 0 ? from : fragment.lower
    const plan = planDown(input, { level, start, reason: "size" })
    if (plan !== undefined) return plan
  }
  return undefined
}

/** A slice of `level`, from `start` on, into the level under it. */
function planDown(
  input: PlannerInput,
  options: { level: number; start: Uint8Array; reason: "size" | "deletes" },
): CompactionPlan | undefined {
  const { version, measure } = input
  const { level, start, reason } = options
  if (quarantineAround(input, start) !== undefined) return undefined
  const run = version.levels[level] as Run
  const target = version.levels[level + 1] as Run
  const budgetBytes = input.options.compactionBytes
  const whole = planSlice({ sources: [run], target, start, budgetBytes, measure })
  const slice = clip(input, whole, start)
  const dropDeletes = isEmptyUnder(version, level + 1, slice)
  const move = canMove(input, { levels: [level], to: level + 1, slice })
  const inputLevels = [level, level + 1]
  return { inputLevels, outputLevel: level + 1, ...slice, dropDeletes, move, reason }
}

function planDeletes(input: PlannerInput, first: number): CompactionPlan | undefined {
  const { version } = input
  // Any of its runs: what a newer one deletes may lie on the deepest level.
  if (version.level0.some((run) => run.some((fragment) => isDueForDeletes(fragment, input)))) {
    const plan = planLevel0(input, first, "deletes")
    if (plan !== undefined) return plan
  }
  for (let level = 1; level < deepestLevel; level++) {
    for (const fragment of version.levels[level] as Run) {
      if (!isDueForDeletes(fragment, input)) continue
      const plan = planDown(input, { level, start: fragment.lower, reason: "deletes" })
      if (plan !== undefined) return plan
    }
  }
  return undefined
}

function isDueForDeletes(fragment: Fragment, input: PlannerInput): boolean {
  const deletes = fragment.deletes + fragment.tombstones
  if (deletes === 0) return false
  const { nowSeconds, options } = input
  if (nowSeconds - fragment.createdSeconds >= options.tombstoneAgeSeconds) return true
  // Level 0 comes down by itself soon enough.
  return fragment.level > 0 && 2 * deletes > fragment.entries
}

/**
 * Whether a slice of the levels may become part of `to` as it is: nothing of `to` lies in it, its
 * own pieces are one run, and they are compressed as `to` wants it. What holds deletes is rewritten,
 * so that they go.
 */
function canMove(
  input: PlannerInput,
  options: { levels: ReadonlyArray<number>; to: number; slice: Slice },
): boolean {
  const { version, fits } = input
  const { levels, to, slice } = options
  if ((version.levels[to] as Run).some((fragment) => overlaps(fragment, slice))) return false
  const pieces = levels.flatMap((level) =>
    version.runsOf(level).flatMap((run) => run.filter((fragment) => overlaps(fragment, slice))),
  )
  pieces.sort((left, right) => compareBytes(left.lower, right.lower))
  return pieces.every((piece, i) => {
    const before = pieces[i - 1]
    const apart = before === undefined || compareBytes(before.upper, piece.lower) <= 0
    return apart && fits(piece, to) && piece.deletes + piece.tombstones === 0
  })
}

/** True when no level under `level` holds a key of the slice. */
function isEmptyUnder(version: Version, level: number, slice: Slice): boolean {
  for (let under = level + 1; under <= deepestLevel; under++) {
    if ((version.levels[under] as Run).some((fragment) => overlaps(fragment, slice))) return false
  }
  return true
}

/** Where `run` has a key at or after `from`, at the earliest. */
function nextStart(run: Run, from: Uint8Array): Uint8Array | undefined {
  const fragment = run[firstFragmentAfter(run, from)]
  if (fragment === undefined) return undefined
  return compareBytes(fragment.lower, from) < 0 ? from : fragment.lower
}

/**
 * The largest interval around `start`, from there or from where the target's fragment around it
 * begins, that holds up to `budgetBytes` of sources and target,
 * and at least up to the first cut. A fragment of the target is cut only where the sources over it
 * alone are too much for one job.
 */
function planSlice(options: {
  sources: ReadonlyArray<Run>
  target: Run
  start: Uint8Array
  budgetBytes: number
  measure: Measure
}): Slice {
  const { sources, target, start, budgetBytes, measure } = options
  const lower = fragmentAround(target, start)?.lower ?? start
  const end = boundsOf(sources).upper
  const sourceCuts = sources.flatMap((run) => cutsAfter(run, start, budgetBytes))
  const targetCuts = cutsAfter(target, start, budgetBytes)
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
 * Where fragments of a run end after `start`, as far as a slice can reach: up to the first end at
 * which the run alone is beyond the budget.
 */
function cutsAfter(run: Run, start: Uint8Array, budgetBytes: number): Array<Uint8Array> {
  const cuts: Array<Uint8Array> = []
  let bytes = 0
  for (let i = firstFragmentAfter(run, start); i < run.length; i++) {
    const fragment = run[i] as Fragment
    cuts.push(fragment.upper)
    // The first one may lie before `start` in part.
    if (cuts.length > 1) bytes += fragment.liveBytes
    if (bytes > budgetBytes) break
  }
  return cuts
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
  let upper = cuts[0] as Uint8Array
  let work = 0
  let from = lower
  for (const cut of cuts) {
    let more = 0
    for (const run of runs) {
      for (let i = firstFragmentAfter(run, from); i < run.length; i++) {
        const fragment = run[i] as Fragment
        if (compareBytes(fragment.lower, cut) >= 0) break
        more += measure(fragment, from, cut)
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

function boundsOf(runs: ReadonlyArray<Run>): Slice {
  const [[{ lower: firstLower, upper: firstUpper }]] = runs as [[Fragment]]
  let lower = firstLower
  let upper = firstUpper
  for (const run of runs) {
    const first = run[0] as Fragment
    if (compareBytes(first.lower, lower) < 0) lower = first.lower
    const last = run[run.length - 1] as Fragment
    if (compareBytes(last.upper, upper) > 0) upper = last.upper
  }
  return { lower, upper }
}

export function liveBytes(run: ReadonlyArray<Fragment>): number {
  let sum = 0
  for (const fragment of run) sum += fragment.liveBytes
  return sum
}
