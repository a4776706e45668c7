import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import {
  type BalancedNode,
  type BalancedRange,
  balanceDefaults,
  planBalance,
  type Step,
} from "../../src/topology/balance.ts"
import type { NodeId } from "../../src/types.ts"

interface Size {
  readonly nodes: number
  readonly ranges: number
  readonly zones: number
  readonly seed: number
}

/** A cluster of which nothing is real but its placement: plans are carried out as they are. */
class Simulated {
  readonly nodes: Array<BalancedNode> = []
  ranges: Array<BalancedRange> = []
  moves = 0
  transfers = 0
  /** Nodes that a range has left, in order. */
  readonly left = new Map<number, Array<NodeId>>()
  private readonly prng: Prng

  readonly options: Size

  constructor(options: Size) {
    this.options = options
    this.prng = new Prng(options.seed)
    for (let id = 1; id <= options.nodes; id++) this.join()
  }

  join(fields: Partial<BalancedNode> = {}): NodeId {
    const node = this.nodes.length + 1
    const zone = this.options.zones === 0 ? "" : `z${node % this.options.zones}`
    this.nodes.push({ node, zone, rack: "", host: `h${node}`, capacity: 1, takes: true, ...fields })
    return node
  }

  /** All replicas on the first so many nodes, spread over zones. */
  fill(onto: number, weightOf: (i: number) => number = () => 1): void {
    const { prng } = this
    const some = this.nodes.slice(0, onto)
    this.ranges = Array.from({ length: this.options.ranges }, (_, i) => {
      const replicas: Array<NodeId> = []
      while (replicas.length < 3) {
        const { node, zone } = prng.pick(some)
        if (replicas.includes(node)) continue
        const isApart = replicas.every((other) => this.nodes[other - 1]?.zone !== zone)
        if (this.options.zones < 3 || isApart) replicas.push(node)
      }
      return { id: i + 1, replicas, leader: replicas[0], weight: weightOf(i) }
    })
  }

  plan(movesMax = balanceDefaults.movesMax): ReadonlyArray<Step> {
    return planBalance(this.nodes, this.ranges, { ...balanceDefaults, movesMax })
  }

  carryOut(steps: ReadonlyArray<Step>): void {
    for (const step of steps) {
      const range = this.ranges[step.range - 1] as BalancedRange
      if (step._tag === "Lead") {
        expect(range.replicas).toContain(step.to)
        this.ranges[step.range - 1] = { ...range, leader: step.to }
        this.transfers++
        continue
      }
      expect(range.replicas).toContain(step.from)
      expect(range.replicas).not.toContain(step.to)
      const before = this.zonesOf(range.replicas)
      const replicas = range.replicas.map((node) => (node === step.from ? step.to : node))
      expect(this.zonesOf(replicas)).toBeGreaterThanOrEqual(before)
      const leader = range.leader === step.from ? this.prng.pick(replicas) : range.leader
      this.ranges[step.range - 1] = { ...range, replicas, leader }
      this.moves++
      this.left.set(step.range, [...(this.left.get(step.range) ?? []), step.from])
    }
  }

  zonesOf(replicas: ReadonlyArray<NodeId>): number {
    return new Set(replicas.map((node) => this.nodes[node - 1]?.zone || node)).size
  }

  /** Until nothing is left to do; the number of plans. */
  settle(movesMax?: number): number {
    for (let plans = 1; plans < 2000; plans++) {
      const steps = this.plan(movesMax)
      if (steps.length === 0) return plans
      this.carryOut(steps)
    }
    throw new Error("it does not settle")
  }

  get shares(): ReadonlyArray<number> {
    const shares = this.nodes.map(() => 0)
    for (const { replicas, weight } of this.ranges) {
      for (const node of replicas) (shares[node - 1] as number) += weight
    }
    return shares.map((share, i) => share / (this.nodes[i]?.capacity ?? 1))
  }

  get leads(): ReadonlyArray<number> {
    const leads = this.nodes.map(() => 0)
    for (const { leader } of this.ranges) if (leader !== undefined) (leads[leader - 1] as number)++
    return leads
  }

  /** The largest distance from the mean, as a part of it. */
  get imbalance(): number {
    const { shares } = this
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length
    return Math.max(...shares.map((share) => Math.abs(share - mean))) / mean
  }

  /** Replicas above the mean: what has to move at least. */
  get surplus(): number {
    const { shares } = this
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length
    return shares.reduce((sum, share) => sum + Math.max(0, share - mean), 0)
  }
}

describe("balance of replicas and leaders", () => {
  for (const [nodes, ranges, zones] of [
    [10, 1000, 0],
    [12, 1200, 3],
    [100, 10_000, 5],
  ] as const) {
    test(`${nodes} nodes, of which a half held everything, come within 5 % of their shares, with no more moves than that takes (${zones} zones)`, () => {
      const cluster = new Simulated({ nodes, ranges, zones, seed: nodes + zones })
      cluster.fill(nodes / 2)
      const least = cluster.surplus
      cluster.settle(256)
      expect(cluster.imbalance).toBeLessThan(0.05)
      expect(cluster.moves).toBeLessThanOrEqual(least * 1.05)
      const { leads } = cluster
      const mean = ranges / nodes
      expect(Math.max(...leads)).toBeLessThanOrEqual(Math.ceil(mean * 1.05) + 1)
      expect(cluster.plan()).toEqual([])
      if (zones >= 3) {
        for (const { replicas } of cluster.ranges) expect(cluster.zonesOf(replicas)).toBe(3)
      }
    })
  }

  test("1,000 nodes with 100,000 ranges take in ten more, each plan a small part of a second's work", () => {
    const cluster = new Simulated({ nodes: 990, ranges: 100_000, zones: 5, seed: 1 })
    let next = 0
    cluster.ranges = Array.from({ length: 100_000 }, (_, i) => {
      const replicas = [0, 1, 2].map((k) => ((next + k) % 990) + 1)
      next += 3
      return { id: i + 1, replicas, leader: replicas[Math.floor(i / 330) % 3], weight: 1 }
    })
    for (let i = 0; i < 10; i++) cluster.join()
    const least = cluster.surplus
    const plans = cluster.settle(500)
    expect(plans).toBeLessThan(12)
    expect(cluster.imbalance).toBeLessThan(0.05)
    expect(cluster.moves).toBeLessThanOrEqual(least * 1.05 + 10)
  }, 60_000)

  test("a node with twice the capacity gets twice the share, and one that takes nothing is given nothing", () => {
    const cluster = new Simulated({ nodes: 5, ranges: 600, zones: 0, seed: 4 })
    cluster.fill(5)
    const large = cluster.join({ capacity: 2 })
    const closed = cluster.join({ takes: false })
    cluster.settle()
    const { shares } = cluster
    expect(shares[closed - 1]).toBe(0)
    const open = shares.slice(0, large)
    expect(Math.max(...open) / Math.min(...open)).toBeLessThan(1.1)
  })

  test("zones of different sizes carry the same, and the nodes of each are even among themselves", () => {
    const cluster = new Simulated({ nodes: 10, ranges: 1000, zones: 3, seed: 3 })
    cluster.fill(6)
    cluster.settle()
    for (const zone of ["z0", "z1", "z2"]) {
      const own = cluster.shares.filter((_, i) => cluster.nodes[i]?.zone === zone)
      expect(own.reduce((sum, share) => sum + share, 0)).toBe(1000)
      expect(Math.max(...own) / Math.min(...own)).toBeLessThan(1.05)
    }
  })

  test("a range that lies in one zone is spread first, whatever it costs in balance", () => {
    const cluster = new Simulated({ nodes: 9, ranges: 30, zones: 3, seed: 5 })
    // Nodes 3, 6 and 9 are in zone 0.
    cluster.ranges = Array.from({ length: 30 }, (_, i) => {
      return { id: i + 1, replicas: [3, 6, 9], leader: 3, weight: 1 }
    })
    const first = cluster.plan(10)
    expect(first.every((step) => step._tag === "Move" && step.why === "spread")).toBe(true)
    cluster.settle()
    for (const { replicas } of cluster.ranges) expect(cluster.zonesOf(replicas)).toBe(3)
    expect(cluster.imbalance).toBeLessThan(0.2)
  })

  test("the same cluster gives the same plan, in whatever order it is told", () => {
    const cluster = new Simulated({ nodes: 12, ranges: 300, zones: 3, seed: 6 })
    cluster.fill(6)
    const shuffled = new Prng(1).shuffle([...cluster.nodes])
    expect(planBalance(shuffled, cluster.ranges)).toEqual(cluster.plan())
  })
})

describe("balance under loads that change", () => {
  /** What is measured is smoothed, as by whoever gathers it. */
  function run(weightAt: (period: number, i: number) => number, periods = 120) {
    const cluster = new Simulated({ nodes: 9, ranges: 500, zones: 3, seed: 8 })
    cluster.fill(9, (i) => weightAt(0, i))
    cluster.settle()
    cluster.moves = 0
    cluster.left.clear()
    for (let period = 1; period <= periods; period++) {
      cluster.ranges = cluster.ranges.map((range, i) => {
        return { ...range, weight: 0.9 * range.weight + 0.1 * weightAt(period, i) }
      })
      cluster.carryOut(cluster.plan())
    }
    const returns = [...cluster.left.values()].filter((left) => new Set(left).size < left.length)
    return { cluster, moves: cluster.moves, returns: returns.length }
  }

  test("noise of a tenth moves next to nothing", () => {
    const prng = new Prng(9)
    const { moves } = run(() => 0.95 + 0.1 * prng.float())
    expect(moves).toBeLessThan(10)
  })

  test("a step is followed once, and then there is rest", () => {
    const stepped = run((period, i) => (period > 10 && i % 5 === 0 ? 4 : 1), 60)
    const later = run((period, i) => (period > 10 && i % 5 === 0 ? 4 : 1), 160)
    expect(stepped.cluster.imbalance).toBeLessThan(0.06)
    // Almost nothing is left to do in the hundred periods after that.
    expect(later.moves - stepped.moves).toBeLessThan(10)
    expect(later.returns).toBeLessThan(3)
  })

  test("a wave through the ranges is not run after", () => {
    const wave = run((period, i) => 1 + 0.3 * Math.sin((2 * Math.PI * (period + i)) / 20), 200)
    expect(wave.moves).toBeLessThan(20)
    expect(wave.returns).toBeLessThan(3)
  })

  test("one range that is hotter than all others is not carried from node to node", () => {
    const hot = run((period, i) => (i === 7 && period > 5 ? 400 : 1), 120)
    const left = hot.cluster.left.get(8) ?? []
    expect(left.length).toBeLessThanOrEqual(1)
    expect(hot.returns).toBeLessThan(20)
  })
})
