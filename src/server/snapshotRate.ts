import type { MonotonicMs } from "../types.ts"

/** By how much the rate changes at a tick. */
const step = 2

/**
 * How fast snapshots leave. Halved at every tick in which the node had requests to serve, doubled at every other, between two bounds: so they give way at
 * once, never stand still, and take what is free. Frames leave whole; the next waits until this one has been paid for.
 */
export class SnapshotRate {
  private readonly least: number
  private readonly most: number
  private bytesPerSecond: number
  private nextAtMs: MonotonicMs = 0
  private isBusy = false

  constructor(settings: {
    readonly snapshotLeastBytesPerSecond: number
    readonly snapshotMostBytesPerSecond: number
  }) {
    this.least = settings.snapshotLeastBytesPerSecond
    this.most = settings.snapshotMostBytesPerSecond
    this.bytesPerSecond = this.least
  }

  /** True when so many bytes may leave now; they are then counted. */
  takes(nowMs: MonotonicMs, bytes: number): boolean {
    if (nowMs < this.nextAtMs) return false
    this.nextAtMs = nowMs + (bytes * 1000) / this.bytesPerSecond
    return true
  }

  /** Milliseconds until something may leave. */
  waitMs(nowMs: MonotonicMs): number {
    return Math.max(0, this.nextAtMs - nowMs)
  }

  noteForeground(): void {
    this.isBusy = true
  }

  tick(): void {
    this.bytesPerSecond = this.isBusy
      ? Math.max(this.least, this.bytesPerSecond / step)
      : Math.min(this.most, this.bytesPerSecond * step)
    this.isBusy = false
  }
}
