/** Latencies of a run, in whole microseconds, for percentiles: four bytes each, so that a minute at full speed is a few megabytes. */
export class Latencies {
  private values = new Uint32Array(1024)
  private length = 0

  get count(): number {
    return this.length
  }

  add(microseconds: number): void {
    if (this.length === this.values.length) {
      const larger = new Uint32Array(2 * this.values.length)
      larger.set(this.values)
      this.values = larger
    }
    this.values[this.length++] = microseconds
  }

  /** Forgets everything, as between the loading of keys and the run. */
  clear(): void {
    this.length = 0
  }

  /** The nearest-rank percentiles for `fractions` (0 to 1); zeros when nothing was recorded. */
  percentiles(fractions: ReadonlyArray<number>): ReadonlyArray<number> {
    const sorted = this.values.slice(0, this.length).sort()
    return fractions.map((fraction) => {
      const rank = Math.min(sorted.length - 1, Math.max(0, Math.ceil(fraction * sorted.length) - 1))
      return sorted[rank] ?? 0
    })
  }
}
