/**
 * What the engine holds at one moment: an immutable list of sorted runs, newest first. Readers keep
 * the version with which they began; a file goes when no version that holds it is kept any more.
 *
 * A run is a list of *fragments*, disjoint and in order: a fragment is an interval of the keys of
 * one table file. Most fragments are whole tables; one is cut when a compaction takes only a slice
 * of it, or when its keys are replaced by an ingested snapshot. So hiding an interval costs a read
 * nothing, and a compaction can be as small as we like.
 */
import { assert } from "../../lib/assert.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { TableIdentity } from "../table/tableReader.ts"

/** Plain data: it stands in the manifest and in jobs. */
export interface Fragment extends TableIdentity {
  /** 0 to `deepestLevel`. Level 0 has several runs, the others one each. */
  readonly level: number
  /** Orders the runs of level 0, larger = newer; 0 on other levels. */
  readonly run: number
  /** About the bytes of the file that belong to the fragment; above 0. */
  readonly liveBytes: number
  /** Inclusive. Neither bound need be a key of the table. */
  readonly lower: Uint8Array
  /** Exclusive. */
  readonly upper: Uint8Array
  /** Entries of the file that are deletes. */
  readonly deletes: number
  /** Range tombstones of the file. */
  readonly tombstones: number
  /** When its oldest delete was written, or else the file; seconds since 2020, 0 = not known. */
  readonly createdSeconds: number
  /** The kind of compression that was asked for (compression.ts). */
  readonly compression: number
}

export type Run = ReadonlyArray<Fragment>

/** A half-open interval of keys; `undefined` = to the end. */
export interface Interval {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
}

/** Levels below level 0; each is one sorted run. */
export const deepestLevel = 6

/** Estimates the bytes of a fragment that lie in [lower, upper). */
export type Measure = (fragment: Fragment, lower: Uint8Array, upper: Uint8Array) => number

/**
 * What tables hold at one time. Never changed: `after` an edit there is another one, which shares
 * the levels that the edit does not touch.
 */
export class Version {
  /** Newest first. */
  readonly level0: ReadonlyArray<Run>
  /** By level, from 1 on; the one at 0 is empty. */
  readonly levels: ReadonlyArray<Run>
  /** All runs that are not empty, in the order in which a read must look. */
  readonly runs: ReadonlyArray<Run>
  /** Of each run that has any, the fragments with range tombstones; in the same order. */
  readonly tombstoneRuns: ReadonlyArray<Run>
  /**
   * The engine while the version is the present one, and each snapshot or iterator that began with
   * it.
   */
  holders = 0
  private all: ReadonlyArray<Fragment> | undefined
  private numbers: Set<number> | undefined

  private constructor(level0: ReadonlyArray<Run>, levels: ReadonlyArray<Run>) {
    this.level0 = level0
    this.levels = levels
    this.runs = [...level0, ...levels].filter((run) => run.length > 0)
    this.tombstoneRuns = this.runs
      .map((run) => run.filter(({ tombstones }) => tombstones > 0))
      .filter((run) => run.length > 0)
  }

  static of(fragments: ReadonlyArray<Fragment>): Version {
    const parts = byRun(fragments)
    const levels: Array<Run> = [[]]
    for (let level = 1; level <= deepestLevel; level++) {
      levels.push(sortedRun(parts[level]?.get(0) ?? []))
    }
    const numbers = [...(parts[0]?.keys() ?? [])].sort((left, right) => right - left)
    const level0 = numbers.map((number) => sortedRun(parts[0]?.get(number) ?? []))
    return new Version(level0, levels)
  }

  /** The version after an edit. Takes time by the levels touched, and compares keys only there. */
  after(edit: Edit): Version {
    const removed = new Set(edit.removedFiles)
    const parts = byRun(edit.added)
    const changed = (run: Run, added: Array<Fragment> | undefined): Run => {
      const kept =
        removed.size === 0 ? run : run.filter(({ fileNumber }) => !removed.has(fileNumber))
      if (added === undefined) return kept.length === run.length ? run : kept
      return mergedRun(kept, sortedRun(added))
    }
    const levels: Array<Run> = [[]]
    for (let level = 1; level <= deepestLevel; level++) {
      levels.push(changed(this.levels[level] as Run, parts[level]?.get(0)))
    }
    const runs = new Map<number, Run>()
    for (const run of this.level0) {
      const { run: number } = run[0] as Fragment
      runs.set(number, changed(run, parts[0]?.get(number)))
      parts[0]?.delete(number)
    }
    for (const [number, added] of parts[0] ?? []) runs.set(number, sortedRun(added))
    const numbers = [...runs.keys()].sort((left, right) => right - left)
    const level0 = numbers.map((number) => runs.get(number) as Run).filter((run) => run.length > 0)
    return new Version(level0, levels)
  }

  /** In the order of `runs`. */
  get fragments(): ReadonlyArray<Fragment> {
    this.all ??= this.runs.flat()
    return this.all
  }

  /** The runs of a level, newest first; empty ones left out. */
  runsOf(level: number): ReadonlyArray<Run> {
    if (level === 0) return this.level0
    const run = this.levels[level] as Run
    return run.length === 0 ? [] : [run]
  }

  /** The numbers of all table files, each once. */
  files(): ReadonlySet<number> {
    if (this.numbers === undefined) {
      const numbers = new Set<number>()
      for (const { fileNumber } of this.fragments) numbers.add(fileNumber)
      this.numbers = numbers
    }
    return this.numbers
  }
}

/** Fragments by level, then by number of the run. */
function byRun(
  fragments: ReadonlyArray<Fragment>,
): Array<Map<number, Array<Fragment>> | undefined> {
  const parts: Array<Map<number, Array<Fragment>> | undefined> = []
  for (const fragment of fragments) {
    const { level, run } = fragment
    assert(level >= 0 && level <= deepestLevel, () => `level ${level}`)
    assert(level === 0 || run === 0, () => `run ${run} on level ${level}`)
    let runs = parts[level]
    if (runs === undefined) {
      runs = new Map()
      parts[level] = runs
    }
    const known = runs.get(run)
    if (known === undefined) runs.set(run, [fragment])
    else known.push(fragment)
  }
  return parts
}

function sortedRun(fragments: Array<Fragment>): Run {
  fragments.sort((left, right) => compareBytes(left.lower, right.lower))
  for (let i = 0; i < fragments.length; i++) {
    const fragment = fragments[i] as Fragment
    assert(compareBytes(fragment.lower, fragment.upper) < 0, "a fragment is not empty")
    assertApart(fragments[i - 1], fragment)
  }
  return fragments
}

function assertApart(left: Fragment | undefined, right: Fragment | undefined): void {
  if (left === undefined || right === undefined) return
  assert(compareBytes(left.upper, right.lower) <= 0, "fragments of a run are disjoint")
}

/** Two sorted runs as one. Places are found by halving; only new neighbours are compared. */
function mergedRun(kept: Run, added: Run): Run {
  const result: Array<Fragment> = []
  let from = 0
  for (const fragment of added) {
    const at = firstFragmentFrom(kept, fragment.lower)
    for (; from < at; from++) result.push(kept[from] as Fragment)
    assertApart(result.at(-1), fragment)
    assertApart(fragment, kept[at])
    result.push(fragment)
  }
  for (; from < kept.length; from++) result.push(kept[from] as Fragment)
  return result
}

/**
 * Index of the first fragment whose upper bound lies after `key`: the only one that can hold it.
 */
export function firstFragmentAfter(run: Run, key: Uint8Array): number {
  let low = 0
  let high = run.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (compareBytes(run[middle].upper, key) <= 0) low = middle + 1
    else high = middle
  }
  return low
}

/**
 * Index of the first fragment whose lower bound is at or after `key`; those before it can hold keys
 * before `key`.
 */
export function firstFragmentFrom(run: Run, key: Uint8Array): number {
  let low = 0
  let high = run.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (compareBytes(run[middle].lower, key) < 0) low = middle + 1
    else high = middle
  }
  return low
}

/** The fragment of `run` that may hold `key`. */
export function findFragment(run: Run, key: Uint8Array): Fragment | undefined {
  const index = firstFragmentAfter(run, key)
  if (index === run.length) return undefined
  const fragment = run[index]
  return compareBytes(fragment.lower, key) <= 0 ? fragment : undefined
}

export function overlaps(
  fragment: { lower: Uint8Array; upper: Uint8Array },
  interval: Interval,
): boolean {
  return (
    compareBytes(fragment.upper, interval.lower) > 0 &&
    (interval.upper === undefined || compareBytes(fragment.lower, interval.upper) < 0)
  )
}

/** True when the intervals are not empty, in order and apart. */
export function areDisjoint(intervals: ReadonlyArray<Interval>): boolean {
  return intervals.every(({ lower, upper }, i) => {
    const next = intervals[i + 1]
    const end = upper === undefined || compareBytes(lower, upper) < 0
    return (
      end && (next === undefined || (upper !== undefined && compareBytes(upper, next.lower) <= 0))
    )
  })
}

/** The fragments of a run that reach into [lower, upper). */
export function overlapping(run: Run, { lower, upper }: Interval): Run {
  const from = firstFragmentAfter(run, lower)
  const to = upper === undefined ? run.length : firstFragmentFrom(run, upper)
  return from < to ? run.slice(from, to) : []
}

/** What is left of a fragment without an interval: none, one or two pieces. */
function without(fragment: Fragment, interval: Interval, measure: Measure): Array<Fragment> {
  const pieces: Array<Fragment> = []
  const keep = (lower: Uint8Array, upper: Uint8Array) => {
    const liveBytes = measure(fragment, lower, upper)
    // No block and no tombstone reaches into the piece: it holds nothing.
    if (liveBytes > 0) pieces.push({ ...fragment, lower, upper, liveBytes })
  }
  if (compareBytes(fragment.lower, interval.lower) < 0) keep(fragment.lower, interval.lower)
  if (interval.upper !== undefined && compareBytes(interval.upper, fragment.upper) < 0) {
    keep(interval.upper, fragment.upper)
  }
  return pieces
}

/** What of a fragment lies in an interval, if anything. */
function within(fragment: Fragment, interval: Interval, measure: Measure): Fragment | undefined {
  const isCutBelow = compareBytes(fragment.lower, interval.lower) < 0
  const isCutAbove =
    interval.upper !== undefined && compareBytes(interval.upper, fragment.upper) < 0
  if (!isCutBelow && !isCutAbove) return fragment
  const lower = isCutBelow ? interval.lower : fragment.lower
  const upper = isCutAbove ? (interval.upper as Uint8Array) : fragment.upper
  const liveBytes = measure(fragment, lower, upper)
  return liveBytes > 0 ? { ...fragment, lower, upper, liveBytes } : undefined
}

export interface Edit {
  /** Every fragment of these files goes. */
  readonly removedFiles: ReadonlyArray<number>
  /** Then these come; what is left of a file that was cut is among them. */
  readonly added: ReadonlyArray<Fragment>
}

/** Runs of level 0 by number, both ends inclusive. */
export interface RunsOfLevel0 {
  readonly oldest: number
  readonly newest: number
}

/** Whether a run is one of those of level 0, or of another level. `undefined` = all. */
export function takesPart(run: Run, only: RunsOfLevel0 | undefined): boolean {
  const first = run[0]
  if (only === undefined || first === undefined || first.level > 0) return true
  return only.oldest <= first.run && first.run <= only.newest
}

/** The files that an edit takes away or cuts, and the fragments that they have now. */
function touched(options: {
  version: Version
  levels: ReadonlyArray<number>
  only?: RunsOfLevel0 | undefined
  intervals: ReadonlyArray<Interval>
}): { files: Set<number>; fragments: Array<Fragment> } {
  const { version, levels, only, intervals } = options
  const files = new Set<number>()
  for (const level of levels) {
    for (const run of version.runsOf(level)) {
      if (!takesPart(run, only)) continue
      for (const interval of intervals) {
        for (const { fileNumber } of overlapping(run, interval)) files.add(fileNumber)
      }
    }
  }
  const fragments = version.fragments.filter(({ fileNumber }) => files.has(fileNumber))
  return { files, fragments }
}

/** The edit that takes the keys of `intervals` away from the given levels and adds `added`. */
export function replacing(options: {
  version: Version
  levels: ReadonlyArray<number>
  /** Of level 0 only these runs; `undefined` = all. */
  only?: RunsOfLevel0 | undefined
  intervals: ReadonlyArray<Interval>
  added: ReadonlyArray<Fragment>
  measure: Measure
}): Edit {
  const { levels, intervals, measure } = options
  const { files, fragments } = touched(options)
  const kept: Array<Fragment> = []
  for (const fragment of fragments) {
    let pieces = [fragment]
    // A file that was moved down in part has fragments on two levels.
    if (levels.includes(fragment.level)) {
      for (const interval of intervals) {
        pieces = pieces.flatMap((piece) =>
          overlaps(piece, interval) ? without(piece, interval, measure) : [piece],
        )
      }
    }
    kept.push(...pieces)
  }
  return { removedFiles: [...files], added: [...kept, ...options.added] }
}

/** The edit that puts what lies in an interval of the given levels on `outputLevel`, as it is. */
export function moving(options: {
  version: Version
  levels: ReadonlyArray<number>
  interval: Interval
  outputLevel: number
  measure: Measure
}): Edit {
  const { version, levels, interval, outputLevel, measure } = options
  assert(outputLevel > 0, "a slice moves down")
  const { fragments } = touched({ version, levels, intervals: [interval] })
  const moved: Array<Fragment> = []
  for (const fragment of fragments) {
    if (!levels.includes(fragment.level) || !overlaps(fragment, interval)) continue
    const piece = within(fragment, interval, measure)
    if (piece !== undefined) moved.push({ ...piece, level: outputLevel, run: 0 })
  }
  return replacing({ version, levels, intervals: [interval], added: moved, measure })
}
