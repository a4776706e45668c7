import type { LogIndex, NodeId, RangeId } from "../../src/types.ts"
import { Violation } from "./violation.ts"

interface Rises {
  readonly times: Array<number>
  readonly indexes: Array<LogIndex>
}

/** A read that promises to be no older than a moment. */
export interface CurrentRead {
  readonly node: NodeId
  readonly range: RangeId
  /** What the state had applied that the read was served from. */
  readonly index: LogIndex
  /** Times of the world in microseconds. */
  readonly since: number
}

/**
 * How far each range had been applied anywhere, by time. What was applied was committed, so a linearizable read that was sent later must be served from a
 * state that holds it, whatever keys it wrote; and a bounded one from a state that holds what was applied its bound earlier. The history of a key shows the
 * same mistake only when that very key was written in between.
 */
export class ReadFloors {
  private readonly ranges = new Map<RangeId, Rises>()
  /** When followers asked for an index, by session and context of the question. */
  private readonly questions = new Map<string, number>()

  applied(range: RangeId, index: LogIndex, now: number): void {
    let rises = this.ranges.get(range)
    if (rises === undefined) {
      rises = { times: [], indexes: [] }
      this.ranges.set(range, rises)
    }
    const { times, indexes } = rises
    const last = indexes.length - 1
    if (index <= (indexes[last] ?? 0)) return
    times.push(now)
    indexes.push(index)
  }

  /** A follower asks its leader for an index that is no older than now. */
  asked(session: number, context: number, now: number): void {
    const name = `${session}/${context}`
    if (!this.questions.has(name)) this.questions.set(name, now)
  }

  /** When a follower asked that; 0 = it is not known. */
  askedAt(session: number, context: number): number {
    return this.questions.get(`${session}/${context}`) ?? 0
  }

  /** Throws `Violation` when the read is older than it may be. */
  check({ node, range, index, since }: CurrentRead): void {
    const floor = this.floorAt(range, since)
    if (index >= floor) return
    throw new Violation(
      "linearizability",
      `n${node} serves a read of r${range} at ${index}; ${floor} had been applied at ${(since / 1e6).toFixed(6)} s, before the time that it stands for`,
    )
  }

  /** The largest index applied before `time`. */
  private floorAt(range: RangeId, time: number): LogIndex {
    const rises = this.ranges.get(range)
    if (rises === undefined) return 0
    const { times, indexes } = rises
    let low = 0
    let high = times.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((times[middle] as number) < time) low = middle + 1
      else high = middle
    }
    return indexes[low - 1] ?? 0
  }
}
