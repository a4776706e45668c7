import type { LogIndex, MonotonicMs } from "../types.ts"

/** One group's log as the retention rule sees it. */
export interface RetainedLog {
  /** Entries above it are live: the state key that covers them is not flushed yet. */
  readonly flushedIndex: LogIndex
  readonly lastIndex: LogIndex
  readonly sizeBytes: number
  /** Bytes of the entries above an index; takes time by the entries counted. */
  readonly bytesAbove: (index: LogIndex) => number
  /** Of a leader: the least index that some follower is known to hold. Of a follower: `undefined`. */
  readonly slowestMatch: LogIndex | undefined
  /** The last index of `retentionMs` ago; entries above it are kept for followers whatever the budget. */
  readonly agedIndex: LogIndex
}

export interface RetentionRule {
  readonly retentionBytes: number
  readonly retainedEntries: number
}

/**
 * Up to which index each group's log may be released; 0 = nothing. Flushed entries stay for followers that lack them until the logs together
 * pass the budget; then the group with the largest laggard gives up first, and that follower will get a snapshot.
 */
export function releasableIndexes(
  logs: ReadonlyArray<RetainedLog>,
  rule: RetentionRule,
): ReadonlyArray<LogIndex> {
  const released = logs.map((log) => {
    const wanted =
      log.slowestMatch ??
      Math.max(0, Math.min(log.flushedIndex, log.lastIndex - rule.retainedEntries))
    return Math.min(log.flushedIndex, wanted)
  })
  // Counting bytes takes long for a long log: not before the logs as they are pass the budget.
  if (logs.reduce((sum, log) => sum + log.sizeBytes, 0) <= rule.retentionBytes) return released
  const kept = logs.map((log, i) => log.bytesAbove(released[i] as number))
  const least = logs.map((log) => Math.min(log.flushedIndex, log.agedIndex))
  const gains = logs.map((log, i) =>
    (least[i] as number) > (released[i] as number)
      ? { i, bytes: (kept[i] as number) - log.bytesAbove(least[i] as number) }
      : { i, bytes: 0 },
  )
  let excess = kept.reduce((sum, bytes) => sum + bytes, 0) - rule.retentionBytes
  for (const { i, bytes } of gains.sort((left, right) => right.bytes - left.bytes)) {
    if (excess <= 0 || bytes <= 0) break
    released[i] = least[i] as number
    excess -= bytes
  }
  return released
}

/** Remembers last indexes over time, one mark every `retentionMs / 12`, to tell which index is old. */
export class LogAge {
  private marks: Array<{ readonly atMs: MonotonicMs; readonly index: LogIndex }> = []
  private readonly retentionMs: number

  constructor(retentionMs: number) {
    this.retentionMs = retentionMs
  }

  mark(nowMs: MonotonicMs, index: LogIndex): void {
    const newest = this.marks[this.marks.length - 1]
    if (newest !== undefined && nowMs - newest.atMs < this.retentionMs / 12) return
    this.marks.push({ atMs: nowMs, index })
    while (this.marks.length > 1 && (this.marks[1]?.atMs ?? nowMs) <= nowMs - this.retentionMs) {
      this.marks.shift()
    }
  }

  /** The last index as it was `retentionMs` ago or earlier; 0 when that is not known. */
  agedIndex(nowMs: MonotonicMs): LogIndex {
    const oldest = this.marks[0]
    return oldest !== undefined && oldest.atMs <= nowMs - this.retentionMs ? oldest.index : 0
  }
}
