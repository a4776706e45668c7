import { compareBytes } from "../lib/bytes.ts"
import type { RangeReport } from "../wire/answers.ts"

/**
 * One report per range out of what several nodes said: of the newest bounds, then of the latest term, then one that knows a
 * leader, then the furthest applied. In order of start.
 */
export function mergeReports(reports: ReadonlyArray<RangeReport>): ReadonlyArray<RangeReport> {
  const best = new Map<number, RangeReport>()
  for (const report of reports) {
    const known = best.get(report.descriptor.id)
    if (known === undefined || isBetter(report, known)) best.set(report.descriptor.id, report)
  }
  return [...best.values()].sort((left, right) =>
    compareBytes(left.descriptor.start, right.descriptor.start),
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
