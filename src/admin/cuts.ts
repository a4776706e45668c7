import { compareBytes, concatBytes } from "../lib/bytes.ts"
import { namespaceStart, slotStart } from "../lib/position.ts"
import { slotCount } from "../lib/slot.ts"
import { containsPosition } from "../server/directory.ts"
import type { NamespaceId, Position, RangeDescriptor } from "../types.ts"

/**
 * Where the ranges of a new namespace begin, its own beginning first; then where the next one begins. A `hash` namespace is cut into equal runs of slots,
 * an `ordered` one by the first two bytes of its keys, since nobody knows yet which keys there will be.
 */
export function cutsOf(namespace: {
  readonly id: NamespaceId
  readonly partitioning: "hash" | "ordered"
  readonly ranges: number
}): ReadonlyArray<Position> {
  const { id, partitioning, ranges } = namespace
  const inner = Array.from({ length: ranges - 1 }, (_, i) => {
    const share = (i + 1) / ranges
    if (partitioning === "hash") return slotStart(id, Math.floor(share * slotCount))
    const first = Math.floor(share * 65536)
    return concatBytes(namespaceStart(id), Uint8Array.of(first >>> 8, first & 255))
  })
  return [namespaceStart(id), ...inner, namespaceStart(id + 1)]
}

export interface DueCut {
  readonly descriptor: RangeDescriptor
  readonly at: Position
}

/**
 * Of the cuts that no range begins with yet, the middle one of each range that holds some. `unknown`: a cut lies in none of these ranges. `cuts` are in order, and
 * so are the ranges.
 */
export function middleCuts(
  ranges: ReadonlyArray<RangeDescriptor>,
  cuts: ReadonlyArray<Position>,
): { readonly due: ReadonlyArray<DueCut>; readonly unknown: boolean } {
  const due: Array<DueCut> = []
  let held = 0
  for (const descriptor of ranges) {
    const within = cuts.filter((cut) => containsPosition(descriptor, cut))
    held += within.length
    const open = within.filter((cut) => compareBytes(cut, descriptor.start) !== 0)
    const at = open[open.length >> 1]
    if (at !== undefined) due.push({ descriptor, at })
  }
  return { due, unknown: held < cuts.length }
}
