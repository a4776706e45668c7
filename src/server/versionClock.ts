import type { Version, WallMs } from "../types.ts"

/** 2020-01-01T00:00:00Z. Versions are whole microseconds since then. Stored in every key: do not change. */
const epochMs = 1_577_836_800_000

/** A stamp from here on is refused: 2^40 us (13 days) before the last number that is exact (in the year 2305). */
export const versionLimit = 2 ** 53 - 2 ** 40

/** The version that a wall clock reads; 0 for a clock before 2020. */
export function versionOfWall(wallMs: WallMs): Version {
  return Math.max(0, Math.floor((wallMs - epochMs) * 1000))
}

/**
 * The base of a new entry: the clock, but always above `floor`, the version of the last command in the leader's log (or the range's
 * time). So versions rise in log order whatever clocks do.
 */
export function nextBase(wallMs: WallMs, floor: Version): Version {
  return Math.max(versionOfWall(wallMs), floor + 1)
}
