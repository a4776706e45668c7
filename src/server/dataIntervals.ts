import { compareBytes } from "../lib/bytes.ts"
import type { RangeDescriptor } from "../types.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"

/** The data of a range, as one interval where the two descriptors adjoin. */
export function dataIntervals(
  descriptor: RangeDescriptor,
  held: RangeDescriptor | undefined,
): ReadonlyArray<{ readonly lower: Uint8Array; readonly upper: Uint8Array }> {
  const interval = { lower: dataKey(descriptor.start), upper: dataEnd(descriptor.end) }
  if (held === undefined) return [interval]
  const other = { lower: dataKey(held.start), upper: dataEnd(held.end) }
  const [first, second] =
    compareBytes(interval.lower, other.lower) <= 0 ? [interval, other] : [other, interval]
  if (compareBytes(first.upper, second.lower) < 0) return [first, second]
  const upper = compareBytes(first.upper, second.upper) < 0 ? second.upper : first.upper
  return [{ lower: first.lower, upper }]
}
