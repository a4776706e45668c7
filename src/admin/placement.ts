import { type Standing, spreadOf } from "../topology/spread.ts"
import type { NodeId, RangeDescriptor } from "../types.ts"

/** A node that may take a replica, and where it stands. */
export interface Candidate extends Standing {
  readonly host: string
}

/** Replicas on each node. */
export function loadsOf(ranges: ReadonlyArray<RangeDescriptor>): Map<NodeId, number> {
  const loads = new Map<NodeId, number>()
  for (const { replicas } of ranges) {
    for (const { node } of replicas) loads.set(node, (loads.get(node) ?? 0) + 1)
  }
  return loads
}

export interface PlacementOptions {
  readonly candidates: ReadonlyArray<Candidate>
  readonly loads: ReadonlyMap<NodeId, number>
  /** Nodes that the result must hold. */
  readonly keep: ReadonlyArray<NodeId>
  /** Nodes that need no copy of the data, which counts for one replica less. */
  readonly present: ReadonlyArray<NodeId>
  readonly count: number
}

/**
 * `count` nodes for the voters of a range, in order of id; fewer when there are not enough. One after another: where it adds most to the zones, racks and hosts that the chosen ones are in,
 * then where there are the fewest replicas, then where the data is already, then the lowest id.
 */
export function placeVoters(options: PlacementOptions): ReadonlyArray<NodeId> {
  const { candidates, loads, present, count } = options
  const standing = new Map<NodeId, Standing>(candidates.map((each) => [each.node, each]))
  const chosen = options.keep.map((node): Standing => standing.get(node) ?? { node })
  const cost = (candidate: Candidate): ReadonlyArray<number> => {
    const { node } = candidate
    const isPresent = present.includes(node)
    return [
      -spreadOf([...chosen, candidate]),
      (loads.get(node) ?? 0) - (isPresent ? 1 : 0),
      isPresent ? 0 : 1,
      node,
    ]
  }
  while (chosen.length < count) {
    const left = candidates.filter(({ node }) => chosen.every((each) => each.node !== node))
    const costs = new Map(left.map((candidate) => [candidate.node, cost(candidate)]))
    const best = left.sort((one, other) =>
      compare(costs.get(one.node) ?? [], costs.get(other.node) ?? []),
    )[0]
    if (best === undefined) break
    chosen.push(best)
  }
  return chosen.map(({ node }) => node).sort((left, right) => left - right)
}

/** Whether voters that change from some nodes to others are in fewer zones, racks or hosts afterwards. */
export function isCrowded(
  nodes: ReadonlyArray<Standing>,
  before: ReadonlyArray<NodeId>,
  after: ReadonlyArray<NodeId>,
): boolean {
  const standing = new Map(nodes.map((each) => [each.node, each]))
  const of = (ids: ReadonlyArray<NodeId>) =>
    spreadOf(ids.map((node) => standing.get(node) ?? { node }))
  return of(after) < of(before)
}

function compare(left: ReadonlyArray<number>, right: ReadonlyArray<number>): number {
  for (let i = 0; i < left.length; i++) {
    const difference = (left[i] as number) - (right[i] as number)
    if (difference !== 0) return difference
  }
  return 0
}
