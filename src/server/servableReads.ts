import type { TimedRead } from "./pendingReads.ts"
import type { Replica } from "./replica.ts"

/** A read, and the replica that is to serve it. */
export interface PlacedRead {
  readonly replica: Replica
  readonly read: TimedRead
}

/**
 * Reads that may be served: in the order in which they came to be, as long as a turn can serve them all. Where it could not, the ranges take turns from then on, so
 * that a read waits for as many of each other range as its own has before it, and not for a busy range's whole queue. How many wait of each range is limited where
 * they are admitted (`Replica.servableReads` counts them).
 */
export class ServableReads {
  private queue: Array<PlacedRead> = []
  /** The last turn left some. */
  private isBehind = false

  push(replica: Replica, read: TimedRead): void {
    replica.servableReads++
    this.queue.push({ replica, read })
  }

  /** Hands out reads until what `serve` says they took has used up the budget. True when some are left. */
  serve(budgetBytes: number, serve: (placed: PlacedRead) => number): boolean {
    if (this.queue.length === 0) return false
    if (this.isBehind) this.queue = inTurns(this.queue)
    const { queue } = this
    let budget = budgetBytes
    let served = 0
    while (served < queue.length && budget > 0) {
      const placed = queue[served++] as PlacedRead
      placed.replica.servableReads--
      budget -= serve(placed)
    }
    this.isBehind = served < queue.length
    this.queue = this.isBehind ? queue.slice(served) : []
    return this.isBehind
  }

  /** Takes out the reads of a replica. */
  remove(replica: Replica): ReadonlyArray<TimedRead> {
    const removed = this.queue.filter((placed) => placed.replica === replica)
    this.queue = this.queue.filter((placed) => placed.replica !== replica)
    replica.servableReads = 0
    return removed.map(({ read }) => read)
  }
}

/** The first of each range, then the second of each, and so on; the range whose turn it was to be next remains first. */
function inTurns(queue: ReadonlyArray<PlacedRead>): Array<PlacedRead> {
  const byReplica = new Map<Replica, Array<PlacedRead>>()
  for (const placed of queue) {
    const list = byReplica.get(placed.replica)
    if (list === undefined) byReplica.set(placed.replica, [placed])
    else list.push(placed)
  }
  const turns: Array<PlacedRead> = []
  for (let at = 0; turns.length < queue.length; at++) {
    for (const [replica, list] of byReplica) {
      turns.push(list[at] as PlacedRead)
      if (at + 1 === list.length) byReplica.delete(replica)
    }
  }
  return turns
}
