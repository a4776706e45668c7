import type { LogIndex, Term } from "../types.ts"
import type { GroupIndex } from "./groupIndex.ts"
import type { LoggedEntry } from "./logged.ts"
import type { LogMark } from "./standing.ts"

/** Entries of a log that follow each other and are missing: it has them, and their records are lost. */
export interface Gap {
  readonly from: LogIndex
  readonly to: LogIndex
  /** The entry before them. */
  readonly before: LogMark
  /**
   * The last of them, where its term is known, else the entry after them. Whoever has that very entry has all that this log had before it. (Raft paper 5.3, Log
   * Matching)
   */
  readonly anchor: LogMark
}

/** The gaps of a log from its oldest on, `limit` of them at most. */
export function gapsOf(places: GroupIndex, limit: number): ReadonlyArray<Gap> {
  const gaps: Array<Gap> = []
  let from = places.firstMissing()
  while (from !== undefined && gaps.length < limit) {
    const to = places.endOfMissing(from)
    const isKnown = to === places.lastIndex || (places.termAt(to) as Term) >= 0
    const anchorIndex = isKnown ? to : to + 1
    gaps.push({
      from,
      to,
      before: { index: from - 1, term: places.termAt(from - 1) as Term },
      anchor: { index: anchorIndex, term: places.termAt(anchorIndex) as Term },
    })
    from = places.firstMissing(to + 1)
  }
  return gaps
}

/**
 * The first of `entries` that may be put where the log misses them: consecutive, of the terms that are known of them, and not out of order with what
 * stands on either side.
 */
export function fitting(
  places: GroupIndex,
  entries: ReadonlyArray<LoggedEntry>,
): ReadonlyArray<LoggedEntry> {
  const first = entries[0]
  if (first === undefined || first.index <= places.baseIndex) return []
  let previousTerm = places.termAt(first.index - 1) ?? Number.POSITIVE_INFINITY
  let count = 0
  for (const entry of entries) {
    const { index, term } = entry
    const isNext = index === first.index + count && index <= places.lastIndex
    if (!isNext || places.sizeAt(index) !== 0 || term < previousTerm) break
    const known = places.termAt(index) as Term
    if (known >= 0 && known !== term) break
    const nextTerm = places.termAt(index + 1)
    if (nextTerm !== undefined && nextTerm >= 0 && nextTerm < term) break
    previousTerm = term
    count++
  }
  return entries.slice(0, count)
}
