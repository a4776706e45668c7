/**
 * How fast writes may come in: pure, told of time and of how full the engine's stages are.
 *
 * The fullness of the stages that a write goes through (memtables that wait for a flush, runs of level 0) is one number from 0 to 1, at which writers would
 * have to stop. Below `easy` writers are free. Above it they get the rate at which flushes have lately made room, times a factor that falls from 2 to
 * almost 0 as fullness rises: in the long run fullness settles where what comes in equals what goes out, in the middle, and every writer waits a little
 * instead of one writer long.
 */
export class WriteRate {
  /** Bytes a second that flushes have made room for, smoothed. */
  private drainBytesPerSecond: number
  private lastInstallMs: number | undefined
  /** At the last install another memtable waited, so that its flush began there and then. */
  private othersWaited = false
  /** When what was written so far is paid for. */
  private paidUntilMs = 0
  private limitBytesPerSecond = Number.POSITIVE_INFINITY

  constructor(drainBytesPerSecond: number) {
    this.drainBytesPerSecond = drainBytesPerSecond
  }

  /** `Infinity` while writers are free. */
  get bytesPerSecond(): number {
    return this.limitBytesPerSecond
  }

  /**
   * A flush of so many bytes is in force, and others wait or not. Only a flush that waited for the one before it tells how fast the engine is: another one
   * may have begun long after, and the time between was idle.
   */
  flushed(nowMs: number, bytes: number, othersWait: boolean): void {
    const { lastInstallMs, othersWaited } = this
    this.lastInstallMs = nowMs
    this.othersWaited = othersWait
    if (lastInstallMs === undefined || !othersWaited || nowMs <= lastInstallMs) return
    const measured = (bytes / (nowMs - lastInstallMs)) * 1000
    this.drainBytesPerSecond += (measured - this.drainBytesPerSecond) * smoothing
  }

  /** Milliseconds that the writer of `bytes` has to wait before it goes on; 0 = none. */
  delayMs(nowMs: number, bytes: number, fullness: number): number {
    if (fullness <= easyFullness) {
      this.limitBytesPerSecond = Number.POSITIVE_INFINITY
      this.paidUntilMs = nowMs
      return 0
    }
    const factor = Math.max(leastFactor, (2 * (1 - fullness)) / (1 - easyFullness))
    this.limitBytesPerSecond = this.drainBytesPerSecond * factor
    const costMs = (bytes / this.limitBytesPerSecond) * 1000
    this.paidUntilMs = Math.max(this.paidUntilMs, nowMs - burstMs) + costMs
    const owedMs = this.paidUntilMs - nowMs
    if (owedMs <= delayMaxMs) return Math.max(0, owedMs)
    this.paidUntilMs = nowMs + delayMaxMs
    return delayMaxMs
  }
}

/** How full the stages are that a write goes through in an engine, from 0 to 1, where writers must stop. */
export function fullnessOf(stages: {
  /** Sealed memtables, and the bytes of the active one. */
  readonly sealed: number
  readonly activeBytes: number
  readonly memtableBytes: number
  /** Memtables there may be, the active one included. */
  readonly memtables: number
  readonly pressure: "ok" | "slow" | "stop"
}): number {
  const memory = (stages.sealed + stages.activeBytes / stages.memtableBytes) / stages.memtables
  const runs = stages.pressure === "ok" ? 0 : stages.pressure === "slow" ? 0.7 : 1
  return Math.min(1, Math.max(memory, runs))
}

/** A quarter of each new measure counts. */
const smoothing = 0.25
export const easyFullness = 0.4
const leastFactor = 0.02
/** What may be written at once after a pause. */
const burstMs = 2
/** No single wait is longer: what it leaves unpaid, the fullness that rises makes up for. */
export const delayMaxMs = 10
