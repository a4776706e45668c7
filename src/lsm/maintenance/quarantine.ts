import type { StorageCorruption } from "../../disk/disk.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { Fragment, Interval, RunsOfLevel0, Version } from "../manifest/version.ts"
import { overlaps } from "../manifest/version.ts"
import type { CorruptionReport } from "../options.ts"
import type { QuarantinedSlice } from "./compaction.ts"

/**
 * Which tables are known to be damaged. All that they hold is out of reach, not only the bytes that
 * are wrong: reads that come to it throw, no compaction touches it, until the keys are replaced. A
 * newer entry in another table or in a memtable still answers. Nothing of it is stored: after a
 * restart the damage is met again by whoever comes to it first.
 */
export class Quarantine {
  private readonly damages = new Map<number, StorageCorruption>()

  get isEmpty(): boolean {
    return this.damages.size === 0
  }

  /** Tables known to be damaged. */
  get count(): number {
    return this.damages.size
  }

  has(fileNumber: number): boolean {
    return this.damages.size > 0 && this.damages.has(fileNumber)
  }

  /** Throws what was found in a table, if anything was. */
  check(fileNumber: number): void {
    const damage = this.damages.get(fileNumber)
    if (damage !== undefined) throw damage
  }

  /** False when the table is known already. */
  add(fileNumber: number, damage: StorageCorruption): boolean {
    if (this.damages.has(fileNumber)) return false
    this.damages.set(fileNumber, damage)
    return true
  }

  /** The file is gone. */
  forget(fileNumber: number): void {
    this.damages.delete(fileNumber)
  }

  /** What of a version is out of reach, in order of keys. */
  reports(version: Version): ReadonlyArray<CorruptionReport> {
    if (this.damages.size === 0) return []
    return this.fragmentsOf(version).map((fragment) => this.reportOf(fragment))
  }

  reportOf(fragment: Fragment): CorruptionReport {
    const { fileNumber, lower, upper } = fragment
    const error = this.damages.get(fileNumber) as StorageCorruption
    const { path, offset, message } = error
    return { interval: { lower, upper }, path, offset, message, error }
  }

  /** Intervals that the planner leaves alone: disjoint and in order. */
  slices(version: Version): ReadonlyArray<QuarantinedSlice> {
    if (this.damages.size === 0) return []
    const slices: Array<QuarantinedSlice> = []
    for (const { lower, upper, level, run } of this.fragmentsOf(version)) {
      const damagedRuns = level === 0 ? { oldest: run, newest: run } : undefined
      const last = slices.at(-1)
      if (last === undefined || compareBytes(last.upper, lower) <= 0) {
        slices.push({ lower, upper, damagedRuns })
        continue
      }
      slices[slices.length - 1] = {
        lower: last.lower,
        upper: compareBytes(last.upper, upper) < 0 ? upper : last.upper,
        damagedRuns: spanned(last.damagedRuns, damagedRuns),
      }
    }
    return slices
  }

  /** Throws when something in the interval is out of reach. */
  checkInterval(version: Version, interval: Interval): void {
    if (this.damages.size === 0) return
    const damaged = this.fragmentsOf(version).find((fragment) => overlaps(fragment, interval))
    if (damaged !== undefined) this.check(damaged.fileNumber)
  }

  private fragmentsOf(version: Version): Array<Fragment> {
    return version.fragments
      .filter(({ fileNumber }) => this.damages.has(fileNumber))
      .sort((left, right) => compareBytes(left.lower, right.lower))
  }
}

function spanned(
  left: RunsOfLevel0 | undefined,
  right: RunsOfLevel0 | undefined,
): RunsOfLevel0 | undefined {
  if (left === undefined || right === undefined) return left ?? right
  return {
    oldest: Math.min(left.oldest, right.oldest),
    newest: Math.max(left.newest, right.newest),
  }
}
