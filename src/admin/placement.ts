import type { NodeId, RangeDescriptor } from "../types.ts"

/** A node that may take a replica. */
export interface Candidate {
  readonly node: NodeId
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
 * `count` nodes for the voters of a range, in order of id; fewer when there are not enough. One after another: on a host that holds none of them if
 * there is such a host, then where there are the fewest replicas, then where the data is already, then the lowest id.
 */
export function placeVoters(options: PlacementOptions): ReadonlyArray<NodeId> {
  const { candidates, loads, present, count } = options
  const chosen = [...options.keep]
  const hostOf = new Map(candidates.map(({ node, host }) => [node, host]))
  const hosts = new Set(chosen.map((node) => hostOf.get(node)))
  const cost = ({ node, host }: Candidate): ReadonlyArray<number> => [
    hosts.has(host) ? 1 : 0,
    (loads.get(node) ?? 0) - (present.includes(node) ? 1 : 0),
    present.includes(node) ? 0 : 1,
    node,
  ]
  while (chosen.length < count) {
    const left = candidates.filter(({ node }) => !chosen.includes(node))
    const best = left.sort((one, other) => compare(cost(one), cost(other)))[0]
    if (best === undefined) break
    chosen.push(best.node)
    hosts.add(best.host)
  }
  return chosen.sort((left, right) => left - right)
}

function compare(left: ReadonlyArray<number>, right: ReadonlyArray<number>): number {
  for (let i = 0; i < left.length; i++) {
    const difference = (left[i] as number) - (right[i] as number)
    if (difference !== 0) return difference
  }
  return 0
}
