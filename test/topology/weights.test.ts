import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { type BalancedNode, type BalancedRange, planBalance } from "../../src/topology/balance.ts"
import { weightsOf } from "../../src/topology/weights.ts"

const mebibyte = 2 ** 20

test("an average range weighs 1; bytes, requests and being there count a third each", () => {
  const even = new Map(
    [1, 2, 3].map((id) => [id, { bytes: 50 * mebibyte, requestsPerSecond: 1000 }]),
  )
  for (const id of [1, 2, 3]) expect(weightsOf(even)(id)).toBeCloseTo(1)
  const skewed = new Map([
    [1, { bytes: 90 * mebibyte, requestsPerSecond: 0 }],
    [2, { bytes: 0, requestsPerSecond: 3000 }],
    [3, { bytes: 0, requestsPerSecond: 0 }],
  ])
  const weightOf = weightsOf(skewed)
  expect(weightOf(1)).toBeCloseTo((1 + 3) / 3)
  expect(weightOf(2)).toBeCloseTo((1 + 3) / 3)
  expect(weightOf(3)).toBeCloseTo(1 / 3)
  expect(weightOf(9)).toBeCloseTo(1 / 3)
})

test("in a cluster that is as good as empty, or idle, noise weighs nothing", () => {
  const noise = new Map([
    [1, { bytes: 1000, requestsPerSecond: 0.1 }],
    [2, { bytes: 90_000, requestsPerSecond: 3 }],
  ])
  const weightOf = weightsOf(noise)
  expect(Math.abs(weightOf(1) - weightOf(2))).toBeLessThan(0.05)
})

test("nodes that carry hot or large ranges hand others over until load and bytes are even, and measures that sway move nothing then", () => {
  for (let seed = 1; seed <= 5; seed++) {
    const prng = new Prng(seed)
    const count = 300
    const truth = new Map(
      Array.from({ length: count }, (_, i) => [
        i + 1,
        // The first fifty are hot, the next fifty large; each kind begins on three nodes.
        {
          bytes: (i >= 50 && i < 100 ? 300 : 30) * mebibyte,
          requestsPerSecond: i < 50 ? 2000 : 100,
        },
      ]),
    )
    const nodes = Array.from({ length: 10 }, (_, i): BalancedNode => {
      return { node: i + 1, zone: "", rack: "", host: `h${i}`, capacity: 1, takes: true }
    })
    let ranges = [...truth.keys()].map((id): BalancedRange => {
      const first = id <= 50 ? 0 : id <= 100 ? 3 : prng.int(0, 9)
      const replicas = [0, 1, 2].map((k) => ((first + k) % 10) + 1)
      return { id, replicas, leader: replicas[0], weight: 1 }
    })
    const look = (sway: number) => {
      const measures = new Map(
        [...truth].map(([id, { bytes, requestsPerSecond }]) => {
          const factor = 1 + sway * (2 * prng.float() - 1)
          return [id, { bytes, requestsPerSecond: requestsPerSecond * factor }]
        }),
      )
      const weightOf = weightsOf(measures)
      const weighed = ranges.map((range) => ({ ...range, weight: weightOf(range.id) }))
      const moves = planBalance(nodes, weighed, { threshold: 0.1, movesMax: 4 }).filter(
        ({ _tag }) => _tag === "Move",
      )
      for (const { range, from, to } of moves) {
        ranges = ranges.map((each) => {
          if (each.id !== range) return each
          const replicas = each.replicas.map((node) => (node === from ? to : node))
          return { ...each, replicas, leader: replicas[0] }
        })
      }
      return moves.length
    }
    let looks = 0
    while (look(0.2) > 0 && looks < 1000) looks++
    expect(looks).toBeLessThan(400)
    let later = 0
    for (let i = 0; i < 200; i++) later += look(0.2)
    // Of 900 replicas.
    expect([seed, later <= 10]).toEqual([seed, true])
    const weightOf = weightsOf(truth)
    const carried = nodes.map(({ node }) =>
      ranges
        .filter(({ replicas }) => replicas.includes(node))
        .reduce((sum, { id }) => sum + weightOf(id), 0),
    )
    const mean = carried.reduce((sum, each) => sum + each, 0) / carried.length
    expect((Math.max(...carried) - Math.min(...carried)) / mean).toBeLessThan(0.15)
  }
})
