import { compareBytes } from "../lib/bytes.ts"
import type { Position, RangeDescriptor } from "../types.ts"
import type { RangeReport } from "../wire/answers.ts"

/**
 * One report per range out of what several nodes said: of the newest bounds, then of the latest term, then one that knows a
 * leader, then the furthest applied. In order of start, without ranges that others have taken in.
 */
export function mergeReports(reports: ReadonlyArray<RangeReport>): ReadonlyArray<RangeReport> {
  const best = new Map<number, RangeReport>()
  for (const report of reports) {
    const known = best.get(report.descriptor.id)
    if (known === undefined || isBetter(report, known)) best.set(report.descriptor.id, report)
  }
  const sorted = [...best.values()].sort((left, right) =>
    compareBytes(left.descriptor.start, right.descriptor.start),
  )
  // Nearly always so, and there may be thousands.
  const isTiling = sorted.every(
    ({ descriptor }, i) => i === 0 || !holds(sorted[i - 1]?.descriptor, descriptor.start),
  )
  return isTiling ? sorted : sorted.filter((report) => !isTakenIn(report, sorted))
}

function holds(range: RangeDescriptor | undefined, position: Position): boolean {
  if (range === undefined || compareBytes(range.start, position) > 0) return false
  return range.end.length === 0 || compareBytes(position, range.end) < 0
}

/** A node that has not heard of a merge still tells of the range that is gone: another of a later version begins where it did, or before. */
function isTakenIn({ descriptor }: RangeReport, others: ReadonlyArray<RangeReport>): boolean {
  const { id, boundsVersion, start } = descriptor
  return others.some(
    (other) =>
      other.descriptor.id !== id &&
      other.descriptor.boundsVersion > boundsVersion &&
      holds(other.descriptor, start),
  )
}

function isBetter(report: RangeReport, known: RangeReport): boolean {
  const left = rank(report)
  const right = rank(known)
  for (let i = 0; i < left.length; i++) {
    if (left[i] !== right[i]) return (left[i] as number) > (right[i] as number)
  }
  return false
}

function rank({ descriptor, term, leader, index }: RangeReport): ReadonlyArray<number> {
  const { boundsVersion, membersVersion } = descriptor
  return [boundsVersion, membersVersion, term, leader === undefined ? 0 : 1, index]
}
