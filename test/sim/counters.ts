import type { RecordedOperation } from "./history.ts"
import { Violation } from "./violation.ts"

/** One add of a client to a counter. */
export interface Add {
  readonly delta: number
  readonly callTime: number
  returnTime: number
  outcome: RecordedOperation["outcome"]
  /** What the answer said that the counter then was. */
  sum: number | undefined
}

/**
 * Counters that clients add to: an add that is retried through leader changes, restarts, snapshots and splits counts once. In the end a counter is the sum of
 * its distinct adds, where those of unknown outcome may count or not; and each answer's sum leaves room for the adds before it.
 */
export class Counters {
  private readonly adds = new Map<number, Array<Add>>()

  begin(counter: number, delta: number, now: number): Add {
    const add: Add = { delta, callTime: now, returnTime: 0, outcome: undefined, sum: undefined }
    const known = this.adds.get(counter)
    if (known === undefined) this.adds.set(counter, [add])
    else known.push(add)
    return add
  }

  /** Throws `Violation` unless `final`, read from `readAt` on, is a sum that the adds explain. */
  check(counter: number, final: number, readAt: number): void {
    const adds = this.adds.get(counter) ?? []
    // What was answered after the read had begun may have come after it.
    const isCounted = (add: Add) => add.outcome === "ok" && add.returnTime < readAt
    const ok = adds.filter(isCounted).sort((left, right) => (left.sum ?? 0) - (right.sum ?? 0))
    let reached = 0
    let gaps = 0
    for (const add of ok) {
      const before = (add.sum ?? 0) - add.delta
      if (before < reached) {
        throw new Violation("counter", `counter ${counter}: two adds answer about ${add.sum}`)
      }
      gaps += before - reached
      reached = before + add.delta
    }
    this.checkOrder(counter, ok)
    gaps += final - reached
    const unknown = adds.filter((add) => add.outcome !== "fail" && !isCounted(add))
    const sums = new Set([0])
    for (const { delta } of unknown) for (const sum of [...sums]) sums.add(sum + delta)
    if (sums.has(gaps)) return
    const total = ok.reduce((sum, { delta }) => sum + delta, 0)
    throw new Violation(
      "counter",
      `counter ${counter} is ${final}; ${ok.length} adds that were answered make ${total}, and ${unknown.length} unknown ones no ${gaps}`,
    )
  }

  /** What was answered before another was asked for has the smaller sum. */
  private checkOrder(counter: number, ok: ReadonlyArray<Add>): void {
    let earliestReturn = Number.POSITIVE_INFINITY
    for (const add of [...ok].reverse()) {
      if (earliestReturn < add.callTime) {
        throw new Violation(
          "counter",
          `counter ${counter}: an earlier sum than ${add.sum} is later`,
        )
      }
      earliestReturn = Math.min(earliestReturn, add.returnTime)
    }
  }
}
