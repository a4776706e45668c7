import { describe, expect, test } from "bun:test"
import { slotCount } from "../../src/lib/slot.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { nextRing, reportersOf, slotsToMove, transfersOf } from "../../src/topology/ringChange.ts"
import { decodeRing, encodeRing } from "../../src/topology/ringCodec.ts"
import {
  isRefusal,
  withNewcomer,
  withParting,
  withReplacement,
} from "../../src/topology/ringMembers.ts"
import { newcomerOf, promptReports, ringFrom, ringOf, versionsToRest } from "./harness.ts"

const last = (rings: ReadonlyArray<Ring>): Ring => rings[rings.length - 1]
const refusalOf = (result: Ring | { readonly why: string }) => ("why" in result ? result.why : "")

/** Every version of a change must be a step from the one before, for every slot. */
function checkSteps(rings: ReadonlyArray<Ring>, slotsAtOnceMax: number): void {
  for (const [i, ring] of rings.entries()) {
    expect(ring.changes().length).toBeLessThanOrEqual(slotsAtOnceMax)
    if (i === 0) continue
    const before = rings[i - 1]
    expect(ring.version).toBe(before.version + 1)
    for (let slot = 0; slot < slotCount; slot += 7) {
      const was = before.changeOf(slot)
      const is = ring.changeOf(slot)
      const moved = ring.listOf(slot).join() !== before.listOf(slot).join()
      // Owners change only from filled to owned, and only to what they were said to become.
      if (moved) expect([was?.state, is, was?.to]).toEqual(["filled", undefined, ring.listOf(slot)])
      else if (is?.state === "filled" && was?.state !== "filled") {
        expect([was?.state, was?.to]).toEqual(["pending", is.to])
      } else if (is?.state === "pending") expect(["pending", undefined]).toContain(was?.state)
      const isSame = JSON.stringify(was) === JSON.stringify(is) && !moved
      if (!isSame) expect(ring.table.since[slot]).toBe(ring.version)
    }
  }
}

describe("a change of the ring", () => {
  test("a join ends where the tokens place the slots, with k slots at a time", () => {
    const joined = ringFrom(withNewcomer(ringOf(4), newcomerOf(5), 16))
    expect(slotsToMove(joined, joined.goal())).toBeGreaterThan(1000)
    const rings = versionsToRest(joined, 1500)
    checkSteps(rings, 1500)
    const end = last(rings)
    const goal = end.goal()
    for (let slot = 0; slot < slotCount; slot++) {
      expect(end.listOf(slot)).toEqual(goal.lists.nodesOf(goal.of[slot]))
    }
    expect(slotsToMove(end, goal)).toBe(0)
  })

  test("who leaves serves until the last slot is handed over, and is dropped then", () => {
    const leaving = ringFrom(withParting(ringOf(5), 2, "leaving"))
    const rings = versionsToRest(leaving, 4000)
    checkSteps(rings, 4000)
    expect(last(rings).members.map(({ node }) => node)).toEqual([1, 3, 4, 5])
    expect(rings[1].members.map(({ node }) => node)).toContain(2)
    expect(last(rings).isOwner(0, 7, 2)).toBe(false)
  })

  test("a replacement in the same place moves the old member's slots and no other", () => {
    const before = ringOf(6)
    const newcomer = { ...newcomerOf(3), node: 17 }
    const replaced = ringFrom(withReplacement(before, { node: 3, state: "gone", newcomer }))
    const end = last(versionsToRest(replaced, slotCount))
    for (let slot = 0; slot < slotCount; slot++) {
      const expected = before.listOf(slot).map((node) => (node === 3 ? 17 : node))
      expect(end.listOf(slot)).toEqual(expected)
    }
  })

  test("slots with an owner that is gone come before those of a join", () => {
    const joined = ringFrom(withNewcomer(ringOf(9), newcomerOf(10), 16))
    const wounded = ringFrom(withParting(joined, 4, "gone"))
    const goal = wounded.goal()
    const options = { goal, reports: promptReports, slotsAtOnceMax: 200 }
    const first = nextRing(wounded, options) as Ring
    expect(first.changes()).toHaveLength(200)
    for (const { from } of first.changes()) expect(from).toContain(4)
  })

  test("a slot is filled on the word of every new owner about this very step, owned once all owners know", () => {
    const joined = ringFrom(withNewcomer(ringOf(11), newcomerOf(12), 16))
    const goal = joined.goal()
    let filledSince = 0
    let confirmed = 0
    const reports = {
      confirmedBy: (node: number) => (node === 2 ? confirmed : 1000),
      isFilled: (_: number, __: number, since: number) => since === filledSince,
    }
    const options = { goal, reports, slotsAtOnceMax: slotCount }
    const pending = nextRing(joined, options) as Ring
    filledSince = pending.version - 1
    expect(nextRing(pending, options)).toBeUndefined()
    filledSince = pending.version
    const filled = nextRing(pending, options) as Ring
    expect(filled.changes().every(({ state }) => state === "filled")).toBe(true)
    confirmed = filled.version - 1
    const early = nextRing(filled, options)
    const waiting = early?.changes() ?? []
    expect(waiting.length).toBeGreaterThan(0)
    for (const { from, to } of waiting) expect([...from, ...to]).toContain(2)
    confirmed = filled.version
    expect(nextRing(early ?? filled, options)?.changes()).toEqual([])
  })

  test("slots that an owner has lost change once, as they are, on their way or at rest", () => {
    const joined = ringFrom(withNewcomer(ringOf(4), newcomerOf(5), 16))
    const none = { confirmedBy: () => 0, isFilled: () => false }
    const options = { goal: joined.goal(), slotsAtOnceMax: 1000 }
    const pending = nextRing(joined, { ...options, reports: none }) as Ring
    const moving = pending.changes()[0]?.slot ?? 0
    const resting = Array.from({ length: slotCount }, (_, slot) => slot).find(
      (slot) => pending.changeOf(slot) === undefined,
    ) as number
    const lost = [{ known: pending.version, slots: [moving, 1, resting, 1] }]
    const fenced = nextRing(pending, { ...options, reports: { ...none, lost } }) as Ring
    expect(fenced.changedAt(moving)).toBe(fenced.version)
    expect(fenced.changedAt(resting)).toBe(fenced.version)
    expect(fenced.changeOf(moving)).toMatchObject({ state: "pending", since: fenced.version })
    expect(fenced.listOf(resting)).toEqual(pending.listOf(resting))
    expect(fenced.verdictOf(resting, pending.version)).toBe("moved")
    expect(fenced.changes().length).toBe(pending.changes().length)
    expect(nextRing(fenced, { ...options, reports: { ...none, lost } })).toBeUndefined()
    expect(decodeRing(encodeRing(fenced)).changedAt(resting)).toBe(fenced.version)
  })

  test("a slot on its way to somebody who is gone turns round or goes elsewhere, its owners unchanged", () => {
    const joined = ringFrom(withNewcomer(ringOf(5), newcomerOf(6), 16))
    const goal = joined.goal()
    const options = { goal, reports: promptReports, slotsAtOnceMax: slotCount }
    const pending = nextRing(joined, options) as Ring
    for (const start of [pending, nextRing(pending, options) as Ring]) {
      const wounded = ringFrom(withParting(start, 6, "gone"))
      const turned = nextRing(wounded, { ...options, goal: wounded.goal() }) as Ring
      expect(turned.changes()).toEqual([])
      for (let slot = 0; slot < slotCount; slot++) {
        expect(turned.listOf(slot)).toEqual(joined.listOf(slot))
      }
      expect(turned.members.map(({ node }) => node)).toEqual([1, 2, 3, 4, 5])
    }
  })

  test("a member that was given up may change its mind only by joining again", () => {
    const ring = ringFrom(withParting(ringOf(4), 4, "leaving"))
    expect(refusalOf(withParting(ring, 4, "leaving"))).toContain("leaving")
    const gone = ringFrom(withParting(ring, 4, "gone"))
    expect(refusalOf(withParting(gone, 4, "leaving"))).toContain("gone")
    expect(refusalOf(withNewcomer(gone, newcomerOf(4), 16))).toContain("is in the ring, as gone")
    const end = last(versionsToRest(gone, slotCount))
    expect(isRefusal(withNewcomer(end, newcomerOf(4), 16))).toBe(false)
  })

  test("what the ring cannot take is refused", () => {
    const ring = ringOf(2)
    expect(refusalOf(withNewcomer(ring, newcomerOf(9), 3))).toContain("limit is 4 to 128")
    expect(refusalOf(withParting(ring, 7, "gone"))).toContain("n7 is not in the ring")
    const alone = ringFrom(withParting(ring, 1, "leaving"))
    expect(refusalOf(withParting(alone, 2, "leaving"))).toContain("n2 is the last member")
    const newcomer = newcomerOf(2)
    const options = { node: 1, state: "gone" as const, newcomer }
    expect(refusalOf(withReplacement(ring, options))).toContain("n2 is in the ring")
  })

  test("the floor rises to what everybody has, and rings at rest become short", () => {
    const joined = ringFrom(withNewcomer(ringOf(4), newcomerOf(5), 16))
    const slow = { ...promptReports, confirmedBy: (node: number) => (node === 3 ? 1 : 1000) }
    const stuck = last(versionsToRest(joined, 3000, slow))
    expect(stuck.floor).toBe(1)
    const end = last(versionsToRest(joined, 3000))
    expect(end.floor).toBe(end.version - 1)
  })
})

describe("what is streamed for a change", () => {
  const base = { slot: 0, state: "pending", since: 9 } as const
  const nobody = () => false
  const plan = (from: Array<number>, to: Array<number>, replicas = 3, gone = nobody) =>
    transfersOf({ ...base, from, to }, replicas, gone).map(
      ({ source, target }) => `${source}>${target}`,
    )

  test("a new owner is filled by the one it replaces, for the number of copies in question", () => {
    expect(plan([1, 2, 3, 4], [1, 9, 2, 3])).toEqual(["3>9"])
    expect(plan([1, 2, 3, 4], [1, 9, 2, 3], 2)).toEqual(["2>9"])
    expect(plan([1, 2, 3, 4], [1, 9, 2, 3], 1)).toEqual([])
    expect(plan([1, 2, 3], [8, 9, 1])).toEqual(["2>8", "3>9"])
  })

  test("by all others when that one is gone, or when it replaces nobody", () => {
    const isGone = (node: number) => node === 3
    expect(transfersOf({ ...base, from: [1, 2, 3], to: [1, 9, 2] }, 3, isGone)).toEqual([
      { source: 1, target: 9 },
      { source: 2, target: 9 },
    ])
    expect(plan([1, 2], [1, 2, 9])).toEqual(["1>9", "2>9"])
  })

  test("an owner that goes without a successor gives what it has to all that stay", () => {
    expect(plan([1, 2, 3], [1, 2])).toEqual(["3>1", "3>2"])
    expect(reportersOf({ ...base, from: [1, 2, 3], to: [1, 2] })).toEqual([1, 2])
  })

  test("whoever comes to own for any number of copies reports", () => {
    expect(reportersOf({ ...base, from: [1, 2, 3, 4], to: [1, 9, 2, 3] })).toEqual([9])
    expect(reportersOf({ ...base, from: [1, 2, 3, 4], to: [1, 3, 2, 4] })).toEqual([3])
  })
})
