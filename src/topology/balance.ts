import type { NodeId, RangeId } from "../types.ts"
import { type Domains, domainsOf, spreadNumber, spreadOf } from "./spread.ts"

/**
 * Which replicas and leaders should be elsewhere, so that no node carries much more than its share.
 *
 * The idea. A node's *share* is what it carries, divided by its capacity. Whatever moves goes from the node with the largest share to the one with the smallest that may take it, and
 * only where the two are further apart than a threshold and come nearer by it: so each move lowers the sum of squares of all shares, which ends, and noise moves nothing. A surplus is
 * moved once, straight to where there is room, so that there are no more moves than the surplus asks for.
 *
 * Failure domains come first. A range is *spread* by how many different zones its replicas are in, then racks, then hosts. No move makes that less, and where a range could be
 * spread better it is moved for that alone, whatever it costs in balance.
 *
 * Pure: the same cluster gives the same plan. A plan is a beginning: at most `movesMax` steps, after which the caller looks again at what there is then.
 *
 * Sources: Kubernetes and CockroachDB for domains as constraints, TiKV's scheduler for thresholds against moving to and fro.
 */
export interface BalancedNode {
  readonly node: NodeId
  /** Names of the failure domains that it is in; empty = not told, which counts as one of its own. */
  readonly zone: string
  readonly rack: string
  readonly host: string
  /** What it can carry, in comparison with others. */
  readonly capacity: number
  /** It may be given replicas. */
  readonly takes: boolean
}

export interface BalancedRange {
  readonly id: RangeId
  /** Nodes of its voters. */
  readonly replicas: ReadonlyArray<NodeId>
  readonly leader: NodeId | undefined
  /** What a replica of it costs its node: bytes, requests, or 1 for each. */
  readonly weight: number
}

export type Step =
  | {
      readonly _tag: "Move"
      readonly range: RangeId
      readonly from: NodeId
      readonly to: NodeId
      readonly why: "spread" | "share"
    }
  | { readonly _tag: "Lead"; readonly range: RangeId; readonly from: NodeId; readonly to: NodeId }

export interface BalanceOptions {
  /** Two shares may be apart by this part of the mean, and nothing moves. */
  readonly threshold: number
  readonly movesMax: number
}

export const balanceDefaults: BalanceOptions = { threshold: 0.04, movesMax: 64 }

interface Place {
  readonly node: BalancedNode
  weight: number
  leads: number
  /** Ranges that have a replica here, by id. */
  readonly held: Set<RangeId>
}

/** The next steps, the most urgent first; none = all is well. */
export function planBalance(
  nodes: ReadonlyArray<BalancedNode>,
  ranges: ReadonlyArray<BalancedRange>,
  options: BalanceOptions = balanceDefaults,
): ReadonlyArray<Step> {
  return new Balance(nodes, ranges, options).plan()
}

class Balance {
  private readonly options: BalanceOptions
  private readonly places = new Map<NodeId, Place>()
  /** Those that may take replicas, in order of id. */
  private readonly takers: ReadonlyArray<Place>
  private readonly ranges: ReadonlyMap<RangeId, BalancedRange>
  /** As the steps of the plan leave them. */
  private readonly replicas = new Map<RangeId, ReadonlyArray<NodeId>>()
  private readonly leaders = new Map<RangeId, NodeId>()
  /** A range is moved once in a plan. */
  private readonly moved = new Set<RangeId>()
  private readonly steps: Array<Step> = []

  constructor(
    nodes: ReadonlyArray<BalancedNode>,
    ranges: ReadonlyArray<BalancedRange>,
    options: BalanceOptions,
  ) {
    this.options = options
    const sorted = [...nodes].sort((left, right) => left.node - right.node)
    for (const node of sorted) {
      this.places.set(node.node, { node, weight: 0, leads: 0, held: new Set() })
    }
    this.takers = [...this.places.values()].filter(({ node }) => node.takes)
    this.ranges = new Map(ranges.map((range) => [range.id, range]))
    for (const { id, replicas, leader, weight } of ranges) {
      this.replicas.set(id, replicas)
      for (const node of replicas) this.place(node, id, weight)
      if (leader === undefined) continue
      this.leaders.set(id, leader)
      const place = this.places.get(leader)
      if (place !== undefined) place.leads++
    }
  }

  private place(node: NodeId, range: RangeId, weight: number): void {
    const place = this.places.get(node)
    if (place === undefined) return
    place.weight += weight
    place.held.add(range)
  }

  plan(): ReadonlyArray<Step> {
    if (this.takers.length === 0) return []
    this.spreadOut()
    while (this.steps.length < this.options.movesMax && this.moveOne()) {}
    while (this.steps.length < this.options.movesMax && this.handOver()) {}
    return this.steps
  }

  // ---- Failure domains

  private spreadOf(nodes: ReadonlyArray<NodeId>): number {
    return spreadOf(nodes.map((node) => this.places.get(node)?.node ?? { node }))
  }

  private spreadOut(): void {
    const most = this.mostDomains()
    for (const [id, replicas] of this.replicas) {
      if (this.steps.length >= this.options.movesMax) return
      const present = this.spreadOf(replicas)
      const count = replicas.length
      const bound = spreadNumber({
        zones: Math.min(count, most.zones),
        racks: Math.min(count, most.racks),
        hosts: Math.min(count, most.hosts),
      })
      if (present >= bound) continue
      const best = this.bestSwap(id, replicas, present)
      if (best !== undefined) this.move(id, best, "spread")
    }
  }

  /** Of those that may take replicas: no range can be spread over more. */
  private mostDomains(): Domains {
    return domainsOf(this.takers.map(({ node }) => node))
  }

  /** The exchange of one replica that spreads the range best; of equal ones that to the node with the smallest share. */
  private bestSwap(id: RangeId, replicas: ReadonlyArray<NodeId>, present: number) {
    let best: { from: NodeId; to: NodeId } | undefined
    let bestSpread = present
    let bestShare = Number.POSITIVE_INFINITY
    for (const from of replicas) {
      const rest = replicas.filter((node) => node !== from)
      for (const taker of this.takers) {
        const to = taker.node.node
        if (replicas.includes(to)) continue
        const spread = this.spreadOf([...rest, to])
        const share = shareOf(taker)
        if (spread < bestSpread || (spread === bestSpread && share >= bestShare)) continue
        if (spread === present) continue
        best = { from, to }
        bestSpread = spread
        bestShare = share
      }
    }
    return this.moved.has(id) ? undefined : best
  }

  // ---- Shares of replicas

  /** Moves one replica from where there is much to where there is little. False when nothing is worth it. */
  private moveOne(): boolean {
    const slack = this.options.threshold * this.meanShare()
    const byShare = [...this.takers].sort(
      (left, right) => shareOf(left) - shareOf(right) || left.node.node - right.node.node,
    )
    const least = Math.max(0, byShare.length - lookedAtMax)
    for (let high = byShare.length - 1; high >= least; high--) {
      const source = byShare[high] as Place
      for (const target of byShare.slice(0, lookedAtMax)) {
        if (shareOf(source) - shareOf(target) <= slack) break
        if (this.moveBetween(source, target)) return true
      }
    }
    return false
  }

  private meanShare(): number {
    let weight = 0
    let capacity = 0
    for (const place of this.takers) {
      weight += place.weight
      capacity += place.node.capacity
    }
    return capacity === 0 ? 0 : weight / capacity
  }

  /** The replica that brings the two nearest to each other, of those that may go. */
  private moveBetween(source: Place, target: Place): boolean {
    const gap = shareOf(source) - shareOf(target)
    const per = 1 / source.node.capacity + 1 / target.node.capacity
    let best: RangeId | undefined
    let bestRest = gap
    for (const id of source.held) {
      const { weight } = this.ranges.get(id) as BalancedRange
      // What is left of the gap after it; a move that turns the gap round is worth it only if less of it is left.
      const rest = Math.abs(gap - weight * per)
      if (weight === 0 || rest >= bestRest || this.moved.has(id) || target.held.has(id)) continue
      if (rest >= gap - this.options.threshold * weight * per) continue
      const replicas = this.replicas.get(id) as ReadonlyArray<NodeId>
      const after = replicas.map((node) => (node === source.node.node ? target.node.node : node))
      if (this.spreadOf(after) < this.spreadOf(replicas)) continue
      best = id
      bestRest = rest
      // Ranges of equal weight are as good as each other.
      if (rest < weight * per) break
    }
    if (best === undefined) return false
    this.move(best, { from: source.node.node, to: target.node.node }, "share")
    return true
  }

  private move(
    id: RangeId,
    { from, to }: { readonly from: NodeId; readonly to: NodeId },
    why: "spread" | "share",
  ): void {
    const { weight } = this.ranges.get(id) as BalancedRange
    const replicas = this.replicas.get(id) as ReadonlyArray<NodeId>
    this.replicas.set(
      id,
      replicas.map((node) => (node === from ? to : node)),
    )
    this.moved.add(id)
    const source = this.places.get(from)
    if (source !== undefined) {
      source.weight -= weight
      source.held.delete(id)
    }
    this.place(to, id, weight)
    if (this.leaders.get(id) === from) {
      // Who takes the place of a leader that goes is not known: it counts for nobody until it is.
      this.leaders.delete(id)
      if (source !== undefined) source.leads--
    }
    this.steps.push({ _tag: "Move", range: id, from, to, why })
  }

  // ---- Leaders

  /** Hands one range over from a node that leads more than its part to one that leads less. */
  private handOver(): boolean {
    const all = [...this.places.values()]
    const mean = this.leaders.size / Math.max(1, this.takers.length)
    const slack = Math.max(1, this.options.threshold * mean)
    const bySurplus = all.sort(
      (left, right) => right.leads - left.leads || left.node.node - right.node.node,
    )
    for (const source of bySurplus) {
      if (source.leads <= mean + slack && source.node.takes) return false
      let best: { range: RangeId; target: Place } | undefined
      for (const id of source.held) {
        if (this.leaders.get(id) !== source.node.node || this.moved.has(id)) continue
        for (const node of this.replicas.get(id) ?? []) {
          const target = this.places.get(node)
          if (target === undefined || !target.node.takes || target.leads + 1 >= source.leads)
            continue
          if (best === undefined || target.leads < best.target.leads) best = { range: id, target }
        }
      }
      if (best === undefined) continue
      const { range, target } = best
      const [from, to] = [source.node.node, target.node.node]
      this.leaders.set(range, to)
      this.moved.add(range)
      source.leads--
      target.leads++
      this.steps.push({ _tag: "Lead", range, from, to })
      return true
    }
    return false
  }
}

/** Of the nodes with the largest and the smallest shares so many are looked at for one move: where domains forbid all of those, the next look is at a changed cluster. */
const lookedAtMax = 48

function shareOf({ weight, node }: Place): number {
  return weight / node.capacity
}
