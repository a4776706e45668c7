import type { MonotonicMs } from "../types.ts"

export interface DiskLimits {
  /** A journal write that has been under way for longer hangs. */
  readonly stallMs: number
  /** Writes that take longer than this on average are slow. */
  readonly slowMs: number
  /** Slow for so long, the disk counts as slow. */
  readonly slowForMs: number
  /** Good for so long, it counts as good again; twice as long after each relapse, up to `recoverMsMax`. */
  readonly recoverMs: number
  readonly recoverMsMax: number
}

/**
 * What a node may do with such a disk:
 *
 * - `good`: anything;
 * - `wary`: it was bad lately: the node campaigns later than others would, and goes on with what it leads;
 * - `slow`: it had better hand over what it leads, once;
 * - `hangs`: it can lead nothing: it would answer nobody.
 */
export type DiskVerdict = "good" | "wary" | "slow" | "hangs"

/** Weight of the newest write in the average: about the last five count. */
const newest = 0.2

/**
 * How a node's disk does, by how long its journal writes take to be durable. A write that is under way counts with the time it has taken so far, so that
 * a disk that stands still is noticed before it answers.
 *
 * It comes back slowly: a disk that hangs for a second every few seconds would else take its ranges back each time, and hold them up each time. And a node
 * hands over once for each time that its disk turns bad, not again and again: where the disks of all nodes are slow, as on one machine, somebody has to
 * lead.
 */
export class DiskScore {
  private readonly limits: DiskLimits
  private averageMs = 0
  /** Of the write under way. */
  private beganMs: MonotonicMs | undefined
  /** Since when writes have been slow without a break. */
  private slowSinceMs: MonotonicMs | undefined
  /** The disk is not good again before. */
  private waryUntilMs: MonotonicMs = Number.NEGATIVE_INFINITY
  private recoverMs: number
  private wasBad = false

  constructor(limits: DiskLimits) {
    this.limits = limits
    this.recoverMs = limits.recoverMs
  }

  /** A journal write began. */
  began(nowMs: MonotonicMs): void {
    this.beganMs = nowMs
  }

  /** The write under way is durable; nothing when none was. */
  ended(nowMs: MonotonicMs): void {
    if (this.beganMs === undefined) return
    this.averageMs += (nowMs - this.beganMs - this.averageMs) * newest
    this.beganMs = undefined
  }

  /** Called at every tick. */
  verdict(nowMs: MonotonicMs): DiskVerdict {
    const { stallMs, slowMs, slowForMs } = this.limits
    const underWayMs = this.beganMs === undefined ? 0 : nowMs - this.beganMs
    if (Math.max(this.averageMs, underWayMs) > slowMs) this.slowSinceMs ??= nowMs
    else this.slowSinceMs = undefined
    const hangs = underWayMs > stallMs
    const isSlow = this.slowSinceMs !== undefined && nowMs - this.slowSinceMs >= slowForMs
    if (hangs || isSlow) {
      this.noteBad(nowMs)
      return hangs ? "hangs" : "slow"
    }
    this.wasBad = false
    if (nowMs < this.waryUntilMs) return "wary"
    // Good for as long again as it was wary: what comes now is no relapse.
    if (nowMs > this.waryUntilMs + this.recoverMs) this.recoverMs = this.limits.recoverMs
    return "good"
  }

  private noteBad(nowMs: MonotonicMs): void {
    if (!this.wasBad) {
      const isRelapse = nowMs < this.waryUntilMs + this.recoverMs
      if (isRelapse) this.recoverMs = Math.min(2 * this.recoverMs, this.limits.recoverMsMax)
    }
    this.wasBad = true
    this.waryUntilMs = nowMs + this.recoverMs
  }
}
