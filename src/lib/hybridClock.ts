/**
 * A hybrid logical clock (Kulkarni et al., 2014) in one safe integer: microseconds of the wall clock, counted from
 * wherever the caller counts them, and one more than the last stamp where the wall has not moved on. So a stamp is
 * larger than every stamp that this clock gave or took before, and stays near the wall as long as no clock runs ahead.
 */
export class HybridClock {
  private last: number

  /** `last` is the largest stamp given or taken before a restart, or 0. */
  constructor(last = 0) {
    this.last = last
  }

  get latest(): number {
    return this.last
  }

  /** A new stamp; `wallUs` is the wall clock now. */
  stamp(wallUs: number): number {
    this.last = Math.max(wallUs, this.last + 1)
    return this.last
  }

  /**
   * Takes a stamp from elsewhere, so that later ones of this clock are larger. `false`, and nothing changes, when it lies
   * more than `aheadUsMax` above the wall clock: one clock far ahead would drag all others with it, and every write
   * made meanwhile would lose to it.
   */
  take(stamp: number, wallUs: number, aheadUsMax: number): boolean {
    if (stamp - wallUs > aheadUsMax) return false
    if (stamp > this.last) this.last = stamp
    return true
  }
}
