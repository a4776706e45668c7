import type { Engine } from "../../lsm/engine.ts"
import type { BoundsVersion, LogIndex, MonotonicMs, RangeId } from "../../types.ts"
import { dataEnd, dataKey } from "../engineKeys.ts"
import type { Replica } from "../replica.ts"
import type { HotKey } from "./hotKeys.ts"

/** What a range that is led here holds, and what is asked of it. */
export interface RangeMeasure {
  readonly range: RangeId
  readonly boundsVersion: BoundsVersion
  /** About the bytes that it takes in tables and memtables, older values included, and their number. */
  readonly bytes: number
  readonly entries: number
  readonly requestsPerSecond: number
  readonly hot: ReadonlyArray<HotKey>
}

interface Sized {
  readonly atMs: MonotonicMs
  readonly index: LogIndex
  readonly boundsVersion: BoundsVersion
  readonly bytes: number
  readonly entries: number
}

/** A range that is written to is measured again after so long, and one that is not after so long: compaction makes it smaller. */
const writtenMs = 2000
const quietMs = 60_000
/** A look takes some ten microseconds a range: of more than these the others keep their last measure. */
const looksMax = 64
const loadEveryMs = 1000

export class RangeMeasures {
  private readonly engine: Engine
  private readonly sizes = new Map<RangeId, Sized>()
  private loadsAtMs: MonotonicMs = 0

  constructor(engine: Engine) {
    this.engine = engine
  }

  tick(replicas: ReadonlyArray<Replica>, nowMs: MonotonicMs): void {
    if (nowMs - this.loadsAtMs < loadEveryMs) return
    this.loadsAtMs = nowMs
    for (const { load, machine } of replicas) load.tick(nowMs, machine.descriptor.boundsVersion)
  }

  /** Of those led here. */
  take(replicas: ReadonlyArray<Replica>, nowMs: MonotonicMs): ReadonlyArray<RangeMeasure> {
    const led = replicas.filter(({ isLeader, isEmpty }) => isLeader && !isEmpty)
    const due = led.filter((replica) => this.isDue(replica, nowMs))
    due.sort((left, right) => this.measuredAt(left.range) - this.measuredAt(right.range))
    for (const replica of due.slice(0, looksMax)) this.look(replica, nowMs)
    if (this.sizes.size > 2 * led.length + looksMax) this.forgetOthers(led)
    return led.map(({ range, load, machine }) => {
      const { bytes, entries } = this.sizes.get(range) ?? { bytes: 0, entries: 0 }
      const { boundsVersion } = machine.descriptor
      const { requestsPerSecond } = load
      return { range, boundsVersion, bytes, entries, requestsPerSecond, hot: load.hot() }
    })
  }

  private measuredAt(range: RangeId): MonotonicMs {
    return this.sizes.get(range)?.atMs ?? Number.NEGATIVE_INFINITY
  }

  private isDue({ range, machine }: Replica, nowMs: MonotonicMs): boolean {
    const last = this.sizes.get(range)
    if (last === undefined || last.boundsVersion !== machine.descriptor.boundsVersion) return true
    return nowMs - last.atMs >= (last.index === machine.appliedIndex ? quietMs : writtenMs)
  }

  private look({ range, machine }: Replica, nowMs: MonotonicMs): void {
    const { start, end, boundsVersion } = machine.descriptor
    const interval = { lower: dataKey(start), upper: dataEnd(end) }
    const size = this.engine.approximateSize(interval)
    this.sizes.set(range, { atMs: nowMs, index: machine.appliedIndex, boundsVersion, ...size })
  }

  private forgetOthers(led: ReadonlyArray<Replica>): void {
    const kept = new Set(led.map(({ range }) => range))
    for (const range of this.sizes.keys()) if (!kept.has(range)) this.sizes.delete(range)
  }
}
