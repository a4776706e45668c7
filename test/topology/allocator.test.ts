import { describe, expect, test } from "bun:test"
import { slotCount } from "../../src/lib/slot.ts"
import { loadsOf } from "../../src/topology/allocator.ts"
import type { RingMember, Strategy } from "../../src/topology/member.ts"
import { placementOf } from "../../src/topology/slotTable.ts"
import { type ClusterOptions, membersOf } from "./harness.ts"

const copies = [1, 2, 3, 5, 7]

/** The load of the most loaded member by weight, over the mean. */
function unevenness(
  members: ReadonlyArray<RingMember>,
  strategy: Strategy,
  replicas: number,
): number {
  const loads = loadsOf(members, strategy, replicas)
  const weight = members.reduce((sum, { tokens }) => sum + tokens.length, 0)
  const mean = loads.reduce((sum, load) => sum + load, 0) / weight
  return Math.max(...members.map(({ tokens }, i) => loads[i] / (tokens.length || 1) / mean))
}

/** Of all copies of slots the share that is at a new place. */
function movedShare(
  before: ReadonlyArray<RingMember>,
  after: ReadonlyArray<RingMember>,
  options: { readonly strategy: Strategy; readonly replicas: number },
): number {
  const { strategy, replicas } = options
  const old = placementOf(before, strategy)
  const young = placementOf(after, strategy)
  let moved = 0
  for (let slot = 0; slot < slotCount; slot++) {
    const owners = old.lists.nodesOf(old.of[slot]).slice(0, replicas)
    const newOwners = young.lists.nodesOf(young.of[slot]).slice(0, replicas)
    moved += newOwners.filter((node) => !owners.includes(node)).length
  }
  return moved / (slotCount * replicas)
}

describe("the allocator", () => {
  test("ten nodes of 16 virtual nodes: the most loaded holds at most 1.15 of the mean, for 1 to 7 copies", () => {
    const members = membersOf(10)
    for (const replicas of copies) {
      expect(unevenness(members, "simple", replicas)).toBeLessThanOrEqual(1.15)
    }
  })

  test("an eleventh node moves at most 1/11 and 5 % of the data, and leaves the ring as even", () => {
    const members = membersOf(11)
    for (const replicas of copies) {
      const moved = movedShare(members.slice(0, 10), members, { strategy: "simple", replicas })
      expect(moved).toBeLessThanOrEqual(1 / 11 + 0.05)
      expect(moved).toBeGreaterThanOrEqual(1 / 11 - 0.02)
      expect(unevenness(members, "simple", replicas)).toBeLessThanOrEqual(1.15)
    }
  })

  test("a cluster stays even at every size from 3 to 24, each node moving little more than its share", () => {
    const members = membersOf(24)
    for (let size = 4; size <= 24; size++) {
      const now = members.slice(0, size)
      expect(unevenness(now, "simple", 3)).toBeLessThanOrEqual(1.15)
      const options = { strategy: "simple", replicas: 3 } as const
      const moved = movedShare(members.slice(0, size - 1), now, options)
      expect(moved).toBeLessThanOrEqual(1 / size + 0.02)
    }
  })

  test("three zones of four nodes: even, and every key in all three", () => {
    const options: ClusterOptions = { strategy: "zone", zones: 3, racks: 2 }
    const members = membersOf(12, options)
    for (const replicas of [1, 2, 3, 6]) {
      expect(unevenness(members, "zone", replicas)).toBeLessThanOrEqual(1.15)
    }
  })

  test("a node of twice the capacity holds twice as much", () => {
    const members = membersOf(10, { virtualNodes: (node) => (node % 3 === 0 ? 32 : 16) })
    for (const replicas of [1, 2, 3]) {
      expect(unevenness(members, "simple", replicas)).toBeLessThanOrEqual(1.15)
    }
    const loads = loadsOf(members, "simple", 3)
    expect(loads[2] / loads[1]).toBeGreaterThan(1.7)
  })

  test("a newcomer's tokens depend on nothing but the members", () => {
    expect(membersOf(9)).toEqual(membersOf(9))
  })
})
