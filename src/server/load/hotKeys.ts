import { equalBytes } from "../../lib/bytes.ts"
import type { Position } from "../../types.ts"

export interface HotKey {
  readonly position: Position
  /** Its part of the requests, from 0 to 1; in truth at most as much, and less by `error` at most. */
  readonly share: number
  readonly error: number
}

interface Counter {
  position: Position
  count: number
  /** What the counter had when this key took it over: it may have come that much less often. */
  error: number
}

const countersMax = 16
/** Counts are halved when they have seen so many: what was hot an hour ago is not hot now. */
const seenMax = 2048

/**
 * The keys that come most often in a stream, in constant memory: Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in
 * data streams", 2005, section 3). Any key with more than 1/16 of the stream has a counter; a counter is too high by at most 1/16 of the stream.
 */
export class HotKeys {
  private counters: Array<Counter> = []
  private seen = 0

  /** Keeps the bytes. */
  add(position: Position): void {
    if (++this.seen > seenMax) this.halve()
    const known = this.counters.find((each) => equalBytes(each.position, position))
    if (known !== undefined) {
      known.count++
    } else if (this.counters.length < countersMax) {
      this.counters.push({ position, count: 1, error: 0 })
    } else {
      const least = this.counters.reduce((low, each) => (each.count < low.count ? each : low))
      least.error = least.count
      least.position = position
      least.count++
    }
  }

  private halve(): void {
    this.seen >>>= 1
    for (const counter of this.counters) {
      counter.count >>>= 1
      counter.error >>>= 1
    }
    this.counters = this.counters.filter(({ count }) => count > 0)
  }

  /** Those that surely have at least this share, the hottest first. */
  above(share: number): ReadonlyArray<HotKey> {
    const { seen } = this
    return this.counters
      .filter(({ count, error }) => count - error >= share * seen)
      .sort((left, right) => right.count - left.count)
      .map(({ position, count, error }) => {
        return { position, share: count / seen, error: error / seen }
      })
  }
}
