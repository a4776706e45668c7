/**
 * What the engine holds at one moment: an immutable list of sorted runs, newest first. Readers keep
 * the version with which they began; a file goes when no version that holds it is kept any more.
 *
 * A run is a list of *fragments*, disjoint and in order: a fragment is an interval of the keys of
 * one table file. Most fragments are whole tables; one is cut when a compaction takes only a slice
 * of it, or when its keys are replaced by an ingested snapshot. So hiding an interval costs a read
 * nothing, and a compaction can be as small as we like.
 */
import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { TableIdentity } from "./tableReader.ts"

/** Plain data: it stands in the manifest and in jobs. */
export interface Fragment extends TableIdentity {
  /** 0, 1 or 2. Level 0 has several runs, the others one each. */
  readonly level: number
  /** Orders the runs of level 0, larger = newer; 0 on other levels. */
  readonly run: number
  /** About the bytes of the file that belong to the fragment. */
  readonly liveBytes: number
  /** Inclusive. Neither bound need be a key of the table. */
  readonly lower: Uint8Array
  /** Exclusive. */
  readonly upper: Uint8Array
}

export type Run = ReadonlyArray<Fragment>

/** A half-open interval of keys; `undefined` = to the end. */
export interface Interval {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
}

/** Levels below level 0; each is one sorted run. */
export const deepestLevel = 2

/** Estimates the bytes of a fragment that lie in [lower, upper). */
export type Measure = (fragment: Fragment, lower: Uint8Array, upper: Uint8Array) => number

export class Version {
  /** Newest first. */
  readonly level0: ReadonlyArray<Run>
  readonly level1: Run
  readonly level2: Run
  /** All runs that are not empty, in the order in which a read must look. */
  readonly runs: ReadonlyArray<Run>
  readonly fragments: ReadonlyArray<Fragment>
  /**
   * The engine while the version is the present one, and each snapshot or iterator that began with
   * it.
   */
  holders = 0

  constructor(fragments: ReadonlyArray<Fragment>) {
    const runs = new Map<number, Array<Fragment>>()
    const deep: [Array<Fragment>, Array<Fragment>] = [[], []]
    for (const fragment of fragments) {
      const { level, run } = fragment
      assert(level >= 0 && level <= deepestLevel, () => `level ${level}`)
      assert(level === 0 || run === 0, () => `run ${run} on level ${level}`)
      if (level > 0) {
        deep[level - 1].push(fragment)
        continue
      }
      const known = runs.get(run)
      if (known === undefined) runs.set(run, [fragment])
      else known.push(fragment)
    }
    const numbers = [...runs.keys()].sort((left, right) => right - left)
    this.level0 = numbers.map((number) => sortedRun(runs.get(number) as Array<Fragment>))
    this.level1 = sortedRun(deep[0])
    this.level2 = sortedRun(deep[1])
    this.runs = [...this.level0, this.level1, this.level2].filter((run) => run.length > 0)
    this.fragments = fragments
  }

  /** The runs of a level, newest first; empty ones left out. */
  runsOf(level: number): ReadonlyArray<Run> {
    if (level === 0) return this.level0
    const run = level === 1 ? this.level1 : this.level2
    return run.length === 0 ? [] : [run]
  }

  /** The numbers of all table files, each once. */
  files(): Set<number> {
    const files = new Set<number>()
    for (const fragment of this.fragments) files.add(fragment.fileNumber)
    return files
  }
}

function sortedRun(fragments: Array<Fragment>): Run {
  fragments.sort((left, right) => compareBytes(left.lower, right.lower))
  for (let i = 0; i < fragments.length; i++) {
    const { lower, upper } = fragments[i]
    assert(compareBytes(lower, upper) < 0, "a fragment is not empty")
    const apart = i === 0 || compareBytes(fragments[i - 1].upper, lower) <= 0
    assert(apart, "fragments of a run are disjoint")
  }
  return fragments
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

export function overlaps(fragment: Fragment, interval: Interval): boolean {
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

/** What is left of a fragment without an interval: none, one or two pieces. */
function without(fragment: Fragment, interval: Interval, measure: Measure): Array<Fragment> {
  const pieces: Array<Fragment> = []
  const keep = (lower: Uint8Array, upper: Uint8Array) => {
    const liveBytes = measure(fragment, lower, upper)
    // No block reaches into the piece: it holds no key.
    if (liveBytes > 0) pieces.push({ ...fragment, lower, upper, liveBytes })
  }
  if (compareBytes(fragment.lower, interval.lower) < 0) keep(fragment.lower, interval.lower)
  if (interval.upper !== undefined && compareBytes(interval.upper, fragment.upper) < 0) {
    keep(interval.upper, fragment.upper)
  }
  return pieces
}

export interface Edit {
  /** Every fragment of these files goes. */
  readonly removedFiles: ReadonlyArray<number>
  /** Then these come; what is left of a file that was cut is among them. */
  readonly added: ReadonlyArray<Fragment>
}

/** The edit that takes the keys of `intervals` away from the given levels and adds `added`. */
export function replacing(options: {
  version: Version
  levels: ReadonlyArray<number>
  intervals: ReadonlyArray<Interval>
  added: ReadonlyArray<Fragment>
  measure: Measure
}): Edit {
  const { version, levels, intervals, measure } = options
  const removed = new Set<number>()
  for (const fragment of version.fragments) {
    if (!levels.includes(fragment.level)) continue
    if (intervals.some((interval) => overlaps(fragment, interval))) removed.add(fragment.fileNumber)
  }
  const kept: Array<Fragment> = []
  for (const fragment of version.fragments) {
    if (!removed.has(fragment.fileNumber)) continue
    let pieces = [fragment]
    for (const interval of intervals) {
      pieces = pieces.flatMap((piece) =>
        overlaps(piece, interval) ? without(piece, interval, measure) : [piece],
      )
    }
    kept.push(...pieces)
  }
  return { removedFiles: [...removed], added: [...kept, ...options.added] }
}

/** The fragments after an edit. */
export function applyEdit(fragments: ReadonlyArray<Fragment>, edit: Edit): Array<Fragment> {
  const removed = new Set(edit.removedFiles)
  const result = fragments.filter((fragment) => !removed.has(fragment.fileNumber))
  result.push(...edit.added)
  return result
}
