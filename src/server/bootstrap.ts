import { emptyBytes } from "../lib/bytes.ts"
import { namespaceStart, slotStart } from "../lib/position.ts"
import { slotCount } from "../lib/slot.ts"
import type { NodeId, RangeDescriptor, ReplicaPlace } from "../types.ts"

/** The namespace of the meta group. Stored in positions: do not change. */
export const systemNamespace = 0
/** The namespace that every cluster begins with: strong, partitioned by hash. */
export const defaultNamespace = 1
/** The range of the meta group. */
export const metaRange = 0

const votersPerGroup = 3
const votersOfMeta = 5

/**
 * The descriptors of a new cluster: range 0 for the system, `defaultRanges` equal runs of slots for namespace `default`, and one range to
 * the end of the space that belongs to no namespace. They tile the space. Every node computes the same ones from the same list
 * of nodes, so that bootstrap needs no messages.
 *
 * A group has min(3, nodes) voters, round robin; the meta group min(5, nodes), rounded down to odd. At bootstrap a replica's id is its
 * node's id.
 */
export function bootstrapDescriptors(
  nodes: ReadonlyArray<NodeId>,
  defaultRanges = 4,
): ReadonlyArray<RangeDescriptor> {
  const sorted = [...nodes].sort((left, right) => left - right)
  const place = (first: number, count: number): ReadonlyArray<ReplicaPlace> =>
    Array.from({ length: count }, (_, i) => sorted[(first + i) % sorted.length] as NodeId)
      .sort((left, right) => left - right)
      .map((node) => ({ node, replica: node as number, role: "voter" }))
  const metaVoters = Math.min(votersOfMeta, sorted.length)
  const voters = Math.min(votersPerGroup, sorted.length)
  const versions = { boundsVersion: 1, membersVersion: 1 }
  const starts = Array.from({ length: defaultRanges }, (_, i) =>
    i === 0
      ? namespaceStart(defaultNamespace)
      : slotStart(defaultNamespace, Math.floor((i * slotCount) / defaultRanges)),
  )
  const afterDefault = namespaceStart(defaultNamespace + 1)
  return [
    {
      id: metaRange,
      namespace: systemNamespace,
      start: emptyBytes,
      end: starts[0] as Uint8Array,
      replicas: place(0, metaVoters % 2 === 0 ? metaVoters - 1 : metaVoters),
      ...versions,
    },
    ...starts.map((start, i) => ({
      id: 1 + i,
      namespace: defaultNamespace,
      start,
      end: starts[i + 1] ?? afterDefault,
      replicas: place(i, voters),
      ...versions,
    })),
    {
      id: 1 + defaultRanges,
      namespace: undefined,
      start: afterDefault,
      end: emptyBytes,
      replicas: place(defaultRanges, voters),
      ...versions,
    },
  ]
}
