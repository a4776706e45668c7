import type { MonotonicMs } from "../types.ts"

/** By how much the rate falls at a tick, and by how much it rises when nobody is there. */
const step = 2
/** By how much it rises while requests are served that do not feel it. */
const carefulStep = 1.25
/** Requests feel background work when they take more than so many times as long as without one. */
const feltFactor = 2
/** A measure counts for no more than so many times what is usual: one slow answer says little of the others. */
const outlierFactor = 4
/** What is shorter is nothing that anybody feels. */
const leastFeltMs = 1
/** A quarter of each new measure counts. */
const smoothing = 0.25

/**
 * How fast work goes on that nobody waits for (snapshots that leave, exchanges between owners), between two bounds, reckoned anew at every tick. With nobody to serve, the rate doubles.
 * While requests are served it goes by what they feel: their mean latency while such work is under way against that of times without it; felt, it halves, and not felt,
 * it rises by a quarter. With no latency known, or no answer to it within a tick, it halves as well. So the work gives way, never stands still, and takes what is free.
 * What has begun is done whole; the next waits until it has been paid for.
 */
export class BackgroundRate {
  private readonly least: number
  private readonly most: number
  private present: number
  private nextAtMs: MonotonicMs = 0
  private isBusy = false
  /** Since the last tick. */
  private latencySumMs = 0
  private latencyCount = 0
  /** Smoothed, of requests: without such work, and with it. */
  private quietMs: number | undefined
  private ladenMs: number | undefined

  constructor(settings: {
    readonly leastBytesPerSecond: number
    readonly mostBytesPerSecond: number
  }) {
    this.least = settings.leastBytesPerSecond
    this.most = settings.mostBytesPerSecond
    this.present = this.least
  }

  get bytesPerSecond(): number {
    return this.present
  }

  /** True when so many bytes may leave now; they are then counted. */
  takes(nowMs: MonotonicMs, bytes: number): boolean {
    if (nowMs < this.nextAtMs) return false
    this.nextAtMs = nowMs + (bytes * 1000) / this.present
    return true
  }

  /** Milliseconds until something may leave. */
  waitMs(nowMs: MonotonicMs): number {
    return Math.max(0, this.nextAtMs - nowMs)
  }

  noteForeground(): void {
    this.isBusy = true
  }

  /** How long a request waited for its answer. */
  noticeLatency(ms: number): void {
    this.latencySumMs += ms
    this.latencyCount++
  }

  /** `isUnderWay`: some of the work is. */
  tick(isUnderWay: boolean): void {
    const isFelt = this.takeIsFelt(isUnderWay)
    const next = isFelt && this.isBusy ? 1 / step : this.isBusy ? carefulStep : step
    this.present = Math.min(this.most, Math.max(this.least, this.present * next))
    this.isBusy = false
  }

  private takeIsFelt(isUnderWay: boolean): boolean {
    const { latencyCount, latencySumMs } = this
    this.latencySumMs = 0
    this.latencyCount = 0
    if (!isUnderWay) this.ladenMs = undefined
    // One that waits since before the last tick is felt, too.
    if (latencyCount === 0) return true
    const ms = latencySumMs / latencyCount
    if (!isUnderWay) {
      this.quietMs = smoothed(this.quietMs, ms)
      return true
    }
    if (this.quietMs === undefined) return true
    const usualMs = Math.max(this.quietMs, leastFeltMs)
    this.ladenMs = smoothed(this.ladenMs, Math.min(ms, outlierFactor * usualMs))
    return this.ladenMs > feltFactor * usualMs
  }
}

function smoothed(before: number | undefined, measure: number): number {
  return before === undefined ? measure : before + (measure - before) * smoothing
}
