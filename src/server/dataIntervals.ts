import { compareBytes } from "../lib/bytes.ts"
import type { RangeDescriptor } from "../types.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"

interface Interval {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/** The data of ranges, in order; as one interval where they meet. */
export function dataIntervals(ranges: ReadonlyArray<RangeDescriptor>): ReadonlyArray<Interval> {
  const sorted = ranges
    .map(({ start, end }): Interval => ({ lower: dataKey(start), upper: dataEnd(end) }))
    .sort((left, right) => compareBytes(left.lower, right.lower))
  const joined: Array<Interval> = []
  for (const interval of sorted) {
    const last = joined[joined.length - 1]
    if (last === undefined || compareBytes(last.upper, interval.lower) < 0) joined.push(interval)
    else if (compareBytes(last.upper, interval.upper) < 0) {
      joined[joined.length - 1] = { lower: last.lower, upper: interval.upper }
    }
  }
  return joined
}
