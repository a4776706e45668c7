import type { NodeId, RingVersion } from "../../types.ts"

/** How many owners have to answer. `localQuorum`: more than half of those in the coordinator's zone. */
export type Level = "one" | "quorum" | "all" | "localQuorum"

/** What a coordinator has to know of the ring for one key. It belongs to the request: it stays as it is while that runs. */
export interface SlotPlan {
  readonly ringVersion: RingVersion
  /** N of the namespace. */
  readonly copies: number
  readonly owners: SlotOwnersPort
  /** Bits of the owners in the coordinator's zone. */
  readonly localMask: number
  /** Places of the owners in the order that a read asks them in: the coordinator, then its zone, then the others, each in order of preference. */
  readonly readOrder: ReadonlyArray<number>
  /** Nodes that may hold a hint, in the order they are asked in. None is an owner. */
  readonly standIns: ReadonlyArray<StandIn>
}

export interface StandIn {
  readonly node: NodeId
  /** Whether it is in the coordinator's zone: only then does it help a `localQuorum`. */
  readonly isLocal: boolean
}

/** The owners of a slot, old and new; owner i has bit 1 << i. While the slot changes, both sets have to agree. */
export interface SlotOwnersPort {
  readonly nodes: ArrayLike<NodeId>
  readonly count: number
  readonly writeMask: number
  readonly readMask: number
  writeMet(answered: number, copies: number): boolean
  readMet(answered: number, copies: number): boolean
  writeMetWithin(answered: number, within: number): boolean
  readMetWithin(answered: number, within: number): boolean
}

/** Who does not know the ring of a request yet is asked again after so long, then after twice as long, and so on: rings are learned within some tens of milliseconds. */
export const askAgainMs = 20

/** The owners that have these bits. */
export function nodesIn({ nodes, count }: SlotOwnersPort, mask: number): ReadonlyArray<NodeId> {
  const found: Array<NodeId> = []
  for (let i = 0; i < count; i++) if ((mask & (1 << i)) !== 0) found.push(nodes[i])
  return found
}

/** Owners that a level asks for of N copies. Of a `localQuorum` the ring says how many there are. */
export function copiesOf(level: Exclude<Level, "localQuorum">, copies: number): number {
  switch (level) {
    case "one":
      return 1
    case "quorum":
      return Math.floor(copies / 2) + 1
    case "all":
      return copies
    default:
      return level satisfies never
  }
}

/**
 * Whether a write is at its level, where `stored` are bits of owners that hold it, and `hinted` bits of owners for which a stand-in does. `hintedLocally` are
 * those of `hinted` whose stand-in is in the coordinator's zone.
 */
export function isWriteMet(
  plan: SlotPlan,
  level: Level,
  holders: { readonly stored: number; readonly hinted: number; readonly hintedLocally: number },
): boolean {
  if (level === "localQuorum") {
    const answered = holders.stored | holders.hintedLocally
    return plan.owners.writeMetWithin(answered, plan.localMask)
  }
  return plan.owners.writeMet(holders.stored | holders.hinted, copiesOf(level, plan.copies))
}

/** Whether a read is at its level, where `answered` are bits of owners. Stand-ins never count: they know too little of the slot. */
export function isReadMet(plan: SlotPlan, level: Level, answered: number): boolean {
  if (level === "localQuorum") return plan.owners.readMetWithin(answered, plan.localMask)
  return plan.owners.readMet(answered, copiesOf(level, plan.copies))
}

/**
 * Whether any R owners of a read and any W of a write have one in common, so that the read sees the write if neither used a stand-in. It is called quorum
 * overlap; it is no strong consistency: of two reads while a write is on its way, the second may miss what the first saw. (Dynamo 4.5)
 */
export function hasOverlap(levels: {
  readonly read: Level
  readonly write: Level
  readonly copies: number
}): boolean {
  const { read, write, copies } = levels
  // A quorum of one zone may lie beside any other set but `all`.
  if (read === "localQuorum" || write === "localQuorum") return read === "all" || write === "all"
  return copiesOf(read, copies) + copiesOf(write, copies) > copies
}
