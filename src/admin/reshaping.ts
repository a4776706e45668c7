import type { NodeId, RangeDescriptor, ReplicaId, ReplicaPlace } from "../types.ts"

/** What to do next so that a range has exactly the wanted nodes as voters, and no other replica. */
export type Step =
  | { readonly _tag: "Done" }
  /** A change is under way: its group finishes it by itself. */
  | { readonly _tag: "Wait" }
  /** These nodes need replicas first that catch up without a vote. */
  | { readonly _tag: "Learn"; readonly nodes: ReadonlyArray<NodeId> }
  /** One joint change: those wanted become the voters, all others go. */
  | { readonly _tag: "Settle"; readonly replicas: ReadonlyArray<ReplicaPlace> }

/**
 * The next step towards `wanted`. It depends on nothing but the present descriptor, so that a procedure that died anywhere goes on by being asked
 * for again. A voter is never added before it has caught up as a learner: until then it would only weaken the majority.
 */
export function nextStep(descriptor: RangeDescriptor, wanted: ReadonlyArray<NodeId>): Step {
  const { replicas } = descriptor
  if (replicas.some(({ role }) => role === "incoming" || role === "outgoing")) {
    return { _tag: "Wait" }
  }
  const nodes = wanted.filter((node) => !replicas.some((place) => place.node === node))
  if (nodes.length > 0) return { _tag: "Learn", nodes }
  const isSettled =
    replicas.length === wanted.length && replicas.every(({ role }) => role === "voter")
  if (isSettled) return { _tag: "Done" }
  const settled = replicas
    .filter(({ node }) => wanted.includes(node))
    .map((place): ReplicaPlace => ({ ...place, role: "voter" }))
  return { _tag: "Settle", replicas: settled }
}

/** The places of a range with learners added; `ids` are new replica ids, one a node. */
export function withLearners(
  descriptor: RangeDescriptor,
  learners: ReadonlyArray<{ readonly node: NodeId; readonly replica: ReplicaId }>,
): ReadonlyArray<ReplicaPlace> {
  const added = learners.map((learner): ReplicaPlace => ({ ...learner, role: "learner" }))
  return [...descriptor.replicas, ...added].sort((left, right) => left.replica - right.replica)
}

/** Nodes that vote, as far as a change under way lets one say. */
export function votersOf(descriptor: RangeDescriptor): ReadonlyArray<NodeId> {
  return descriptor.replicas
    .filter(({ role }) => role === "voter" || role === "incoming")
    .map(({ node }) => node)
}

/**
 * Who should lead before the settling change: a voter that stays, when the present leader goes and another stays; else nobody, and the leader finishes
 * the change without counting itself.
 */
export function heirOf(
  descriptor: RangeDescriptor,
  wanted: ReadonlyArray<NodeId>,
  leader: NodeId | undefined,
): NodeId | undefined {
  if (leader === undefined || wanted.includes(leader)) return undefined
  return descriptor.replicas.find(({ node, role }) => role === "voter" && wanted.includes(node))
    ?.node
}
