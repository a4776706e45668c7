import { assert } from "../../src/lib/assert.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { defaultNamespace } from "../../src/server/bootstrap.ts"
import type { Position, RangeDescriptor } from "../../src/types.ts"

/** A key of the workload and where it lies. */
export interface KeyPlace {
  readonly number: number
  readonly position: Position
  readonly range: RangeDescriptor
}

/** Keys with names that give them places in as many of the ranges as there are. */
export function placeKeys(
  ranges: ReadonlyArray<RangeDescriptor>,
  count: number,
  prng: Prng,
): ReadonlyArray<KeyPlace> {
  const keys: Array<KeyPlace> = []
  for (let candidate = 0; keys.length < count; candidate++) {
    const name = new TextEncoder().encode(`k${candidate}`)
    const position = hashPosition(defaultNamespace, name)
    const range = ranges.findLast((one) => Buffer.compare(one.start, position) <= 0)
    assert(range !== undefined, "the ranges cover the namespace")
    // The first keys go one to each range, so that no range is without.
    const wanted = ranges[keys.length]
    if (wanted !== undefined && wanted !== range) continue
    keys.push({ number: keys.length, position, range })
  }
  return prng.shuffle(keys)
}
