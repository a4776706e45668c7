import { concatBytes } from "../lib/bytes.ts"
import { namespaceStart, slotStart } from "../lib/position.ts"
import { slotCount } from "../lib/slot.ts"
import type { NamespaceId, Position } from "../types.ts"

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
