import type { Pace } from "../lsm/table/tableWriter.ts"
import { easyFullness } from "./writeRate.ts"

export type { Pace }

/** A job was told to stop in the middle: its thread is wanted for something else, or the store closes. */
export class JobCancelled extends Error {
  override readonly name = "JobCancelled"
}

/**
 * Words of the shared memory by which a store steers the thread that works for it. All are 32-bit integers; the store writes them with `Atomics`, the
 * thread reads them.
 */
export const paceWords = {
  /** KiB a second that a job may read and write; 0 = as fast as it can. */
  kibPerSecond: 0,
  /** 1: stop the job under way at its next block. */
  cancel: 1,
  /** Counts up at each change, so that a sleeping thread wakes: `Atomics.wait` is on this word. */
  change: 2,
  /** KiB that jobs have read and written since the start, modulo 2^31. Written by the thread. */
  spentKib: 3,
  length: 4,
} as const

/** What a pace is made of. */
export interface PaceSettings {
  /** A latency of the foreground above which background work gives way. */
  readonly limitMs: number
  readonly leastBytesPerSecond: number
  readonly mostBytesPerSecond: number
}

/** How much of the debt that would stop writers there is, from 0 to 1: above 1 they are slowed already. */
export function debtOf(fullness: number): number {
  return Math.min(1, Math.max(0, (fullness - 0.2) / (easyFullness - 0.2)))
}

/**
 * How fast background work may go, from how the foreground fares. Pure; call `step` a few times a second.
 *
 * Work that must be done is done at full speed while the foreground does not feel it. When its latency rises above the limit the pace halves, and it grows
 * again by a tenth a step; but never below what keeps up with the writes (a multiple of what comes in), because debt that grows would stop
 * the foreground altogether. With writers held back already, the pace is unlimited.
 */
export class PaceController {
  private readonly limitMs: number
  private readonly leastBytesPerSecond: number
  private readonly mostBytesPerSecond: number
  private current: number

  constructor(options: PaceSettings) {
    this.limitMs = options.limitMs
    this.leastBytesPerSecond = options.leastBytesPerSecond
    this.mostBytesPerSecond = options.mostBytesPerSecond
    this.current = options.mostBytesPerSecond
  }

  /** Bytes per second from now on; 0 = unlimited. */
  step(sample: {
    /** p99 of the foreground's turns or syncs since the last step; `undefined` when there were none. */
    readonly latencyMs: number | undefined
    /** 0 = none, 1 = so much that writers are held back. */
    readonly debt: number
  }): number {
    const { latencyMs, debt } = sample
    if (debt >= 1) return 0
    if (latencyMs !== undefined && latencyMs > this.limitMs) this.current /= 2
    else this.current *= 1.1
    const floor =
      this.leastBytesPerSecond + (this.mostBytesPerSecond - this.leastBytesPerSecond) * debt
    this.current = Math.min(this.mostBytesPerSecond, Math.max(floor, this.current))
    return this.current >= this.mostBytesPerSecond ? 0 : Math.round(this.current)
  }
}
