import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { slotCount } from "../../src/lib/slot.ts"
import { type RingMember, replicasMax, type Strategy } from "../../src/topology/member.ts"
import { arcOf, tokenTable } from "../../src/topology/preference.ts"
import { placementOf } from "../../src/topology/slotTable.ts"

const strategies: ReadonlyArray<Strategy> = ["simple", "rack", "zone"]

/** Members with tokens and domains at random, uneven on purpose. */
function randomMembers(prng: Prng): ReadonlyArray<RingMember> {
  const slots = prng.shuffle(Array.from({ length: slotCount }, (_, slot) => slot))
  const count = prng.int(1, 14)
  return Array.from({ length: count }, (_, i) => {
    const tokens = slots.splice(0, prng.int(4, 12)).sort((left, right) => left - right)
    const isPlaced = i === 0 || prng.chance(0.9)
    return {
      node: i * 3 + 1,
      zone: `z${prng.int(0, 2)}`,
      rack: `r${prng.int(0, 2)}`,
      host: `h${prng.int(0, count)}`,
      state: isPlaced ? ("member" as const) : ("leaving" as const),
      tokens: isPlaced ? tokens : [],
    }
  })
}

/** The rule word for word: nothing remembered between choices, nothing cut short. */
function listByRule(
  members: ReadonlyArray<RingMember>,
  strategy: Strategy,
  slot: number,
): ReadonlyArray<number> {
  const clockwise = members
    .flatMap(({ node, tokens }) => tokens.map((token) => ({ node, token })))
    .map(({ node, token }) => ({ node, distance: (token - slot + slotCount) % slotCount }))
    .sort((left, right) => left.distance - right.distance)
  const order = [...new Set(clockwise.map(({ node }) => node))]
  const of = (node: number) => members.find((member) => member.node === node) as RingMember
  const chosen: Array<number> = []
  const usesOf = (node: number): number => {
    const { zone, rack, host } = of(node)
    const others = chosen.map(of)
    const hosts = others.filter((other) => other.host === host).length
    const racks = others.filter((other) => other.zone === zone && other.rack === rack).length
    const zones = others.filter((other) => other.zone === zone).length
    if (strategy === "simple") return hosts
    return strategy === "rack" ? racks * 100 + hosts : zones * 10_000 + racks * 100 + hosts
  }
  while (chosen.length < Math.min(replicasMax, order.length)) {
    const left = order.filter((node) => !chosen.includes(node))
    const least = Math.min(...left.map(usesOf))
    chosen.push(left.find((node) => usesOf(node) === least) as number)
  }
  return chosen
}

describe("preference lists", () => {
  test("are what the rule says, word for word, for any members and strategy", () => {
    const prng = new Prng(1)
    for (let i = 0; i < 150; i++) {
      const members = randomMembers(prng)
      const strategy = prng.pick(strategies)
      const { lists, of } = placementOf(members, strategy)
      for (let j = 0; j < 6; j++) {
        const slot = prng.int(0, slotCount - 1)
        const list = lists.nodesOf(of[slot])
        expect(list).toEqual([...listByRule(members, strategy, slot)])
      }
    }
  })

  test("span zones, racks and hosts as far as there are any", () => {
    const prng = new Prng(2)
    for (let i = 0; i < 60; i++) {
      const members = randomMembers(prng).filter(({ state }) => state === "member")
      const { lists } = placementOf(members, "zone")
      const zones = new Set(members.map(({ zone }) => zone)).size
      for (let list = 0; list < lists.count; list++) {
        const nodes = lists.nodesOf(list)
        for (let replicas = 1; replicas <= nodes.length; replicas++) {
          const held = members.filter(({ node }) => nodes.slice(0, replicas).includes(node))
          const spanned = new Set(held.map(({ zone }) => zone)).size
          expect(spanned).toBe(Math.min(zones, replicas))
        }
      }
    }
  })

  test("a slot belongs to the first token at or after it, past the last one to the first", () => {
    const base = { zone: "", rack: "", host: "a", state: "member" } as const
    const table = tokenTable([
      { ...base, node: 1, tokens: [10, 100] },
      { ...base, node: 2, tokens: [50, 16000] },
    ])
    expect([...table.slots]).toEqual([10, 50, 100, 16000])
    expect([0, 10, 11, 100, 101, 16000, 16001].map((slot) => arcOf(table.slots, slot))).toEqual([
      0, 0, 1, 2, 3, 3, 0,
    ])
  })
})
