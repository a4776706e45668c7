import { compareBytes } from "../lib/bytes.ts"
import type { FilterRule } from "../lsm/maintenance/filter.ts"
import type { RangeMachine } from "./apply.ts"
import { dataEnd, dataKey } from "./engineKeys.ts"
import { expiryFlag, expiryOffset, flagsOffset } from "./valueRecord.ts"

/**
 * What compactions may drop: values whose expiry range time has passed, range by range. Not the time of the state in memory counts but that of the newest
 * state key that is flushed: a node that starts again goes on from there, and must find what had not expired by then, for the entries that it applies once
 * more judge by their own, earlier stamps. Both halves of a split, and whoever gets the interval by a snapshot, go on from a time that is no earlier.
 */
export function expiryRules(machines: Iterable<RangeMachine>): ReadonlyArray<FilterRule> {
  const rules: Array<FilterRule & { readonly upper: Uint8Array }> = []
  for (const { descriptor, flushedTime } of machines) {
    if (flushedTime === 0) continue
    const { start, end } = descriptor
    rules.push({
      lower: dataKey(start),
      upper: dataEnd(end),
      rule: {
        _tag: "Expired",
        offset: expiryOffset,
        flag: { offset: flagsOffset, mask: expiryFlag },
        atOrBefore: flushedTime,
      },
    })
  }
  return rules.sort((left, right) => compareBytes(left.lower, right.lower))
}
