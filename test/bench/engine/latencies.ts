/**
 * Counts of latencies in buckets whose width is a 32nd of their power of two, so that a percentile is right to about 3 % and recording allocates
 * nothing. Values are in microseconds.
 */
const stepsPerDoubling = 32
const doublings = 40

export class Latencies {
  private readonly counts = new Float64Array(stepsPerDoubling * doublings)
  count = 0
  maxUs = 0

  record(us: number): void {
    this.count++
    if (us > this.maxUs) this.maxUs = us
    const nanoseconds = us * 1000
    const bucket = nanoseconds < 1 ? 0 : Math.floor(Math.log2(nanoseconds) * stepsPerDoubling)
    this.counts[Math.min(bucket, this.counts.length - 1)]++
  }

  /** In microseconds; `share` 0.999 is p99.9. */
  percentile(share: number): number {
    if (this.count === 0) return 0
    let left = Math.ceil(this.count * share)
    for (let bucket = 0; bucket < this.counts.length; bucket++) {
      left -= this.counts[bucket] as number
      if (left <= 0) return Math.min(2 ** ((bucket + 1) / stepsPerDoubling) / 1000, this.maxUs)
    }
    return this.maxUs
  }
}
