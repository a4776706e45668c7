import type { MonotonicMs } from "../../types.ts"

/** What was not used adds up to so many seconds at most. */
const savedSeconds = 0.1

/**
 * Bytes that exchanges may cost in a second, of either role. Whoever is about to begin something asks whether it is spent; a page that was begun is sent whole, and what it took too
 * much is made up for by waiting.
 */
export class ExchangeBudget {
  bytesPerSecond: number
  private left: number
  private refilledMs: MonotonicMs

  constructor(bytesPerSecond: number, nowMs: MonotonicMs) {
    this.bytesPerSecond = bytesPerSecond
    this.left = bytesPerSecond * savedSeconds
    this.refilledMs = nowMs
  }

  isSpent(nowMs: MonotonicMs): boolean {
    const earned = ((nowMs - this.refilledMs) * this.bytesPerSecond) / 1000
    this.refilledMs = nowMs
    this.left = Math.min(this.bytesPerSecond * savedSeconds, this.left + earned)
    return this.left < 0
  }

  spend(bytes: number): void {
    this.left -= bytes
  }
}
