import { describe, expect, test } from "bun:test"
import { slotCount } from "../../src/lib/slot.ts"
import { Ring } from "../../src/topology/ring.ts"
import { nextRing } from "../../src/topology/ringChange.ts"
import { withNewcomer, withParting } from "../../src/topology/ringMembers.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import { newcomerOf, promptReports, ringFrom, ringOf } from "./harness.ts"

/** A ring of four, to which a fifth is coming, and a slot that gets a new owner for three copies. */
function changingRing() {
  const before = ringFrom(withNewcomer(ringOf(4), newcomerOf(5), 16))
  const reports = { confirmedBy: () => before.version, isFilled: () => false }
  const goal = before.goal()
  const ring = nextRing(before, { goal, reports, slotsAtOnceMax: slotCount }) as Ring
  const slot = ring.changes().find(({ to }) => to.slice(0, 3).includes(5))?.slot as number
  return { before, ring, goal, slot }
}

const owners = new SlotOwners()

/** Bits of the nodes. */
function answeredBy(nodes: ReadonlyArray<number>): number {
  return nodes.reduce((mask, node) => mask | (1 << owners.indexOf(node)), 0)
}

describe("a ring at rest", () => {
  const ring = ringOf(9)

  test("has as owners of N copies the first N of the list, and counts to W among them", () => {
    for (let slot = 0; slot < slotCount; slot += 101) {
      for (let replicas = 1; replicas <= 7; replicas++) {
        ring.owners(slot, replicas, owners)
        const nodes = [...owners.nodes.subarray(0, owners.count)]
        expect(nodes).toEqual([...ring.listOf(slot).slice(0, replicas)])
        expect(owners.writeMask).toBe((1 << replicas) - 1)
        expect(owners.readMask).toBe(owners.writeMask)
        for (const node of [1, 5, 9]) {
          expect(ring.isOwner(slot, replicas, node)).toBe(nodes.includes(node))
        }
      }
    }
    ring.owners(7, 3, owners)
    expect([0, 1, 2, 3, 5, 7].map((mask) => owners.writeMet(mask, 2))).toEqual([
      false,
      false,
      false,
      true,
      true,
      true,
    ])
  })

  test("has fewer owners where there are fewer members", () => {
    ringOf(2).owners(0, 3, owners)
    expect(owners.count).toBe(2)
    expect(owners.writeMet(owners.writeMask, 3)).toBe(false)
  })

  test("has everybody else as stand-ins, those of the list first, none that leaves or is gone", () => {
    for (const state of ["leaving", "gone"] as const) {
      const wounded = ringFrom(withParting(ring, 4, state))
      const spread = new Set<number>()
      for (let slot = 0; slot < slotCount; slot += 37) {
        const standIns = wounded.standIns(slot, 3)
        const list = ring.listOf(slot)
        const expected = list.slice(3).filter((node) => node !== 4)
        expect(standIns.slice(0, expected.length)).toEqual(expected)
        const others = [1, 2, 3, 5, 6, 7, 8, 9].filter((node) => !list.slice(0, 3).includes(node))
        expect(standIns.toSorted()).toEqual(others)
        spread.add(ringOfFew.standIns(slot, 7)[0])
      }
      expect(spread.size).toBeGreaterThan(8)
    }
  })

  const ringOfFew = ringOf(18)

  test("tells a message that is older than the slot from one that is newer than itself", () => {
    const { ring, slot } = changingRing()
    const { version } = ring
    expect(ring.verdictOf(slot, version)).toBe("current")
    expect(ring.verdictOf(slot, version - 1)).toBe("moved")
    expect(ring.verdictOf(slot, version + 1)).toBe("ahead")
  })

  test("lets old messages pass about slots that have not changed", () => {
    const { before, goal } = changingRing()
    const reports = { ...promptReports, confirmedBy: () => 1 }
    const few = nextRing(before, { goal, reports, slotsAtOnceMax: 10 }) as Ring
    const changed = few.changes().map(({ slot }) => slot)
    expect(changed).toHaveLength(10)
    for (let slot = 0; slot < slotCount; slot++) {
      const verdict = changed.includes(slot) ? "moved" : "current"
      expect(few.verdictOf(slot, before.version)).toBe(verdict)
    }
    // What is below the floor has moved, whichever slot it is about.
    expect(few.floor).toBe(1)
    expect(few.verdictOf(slotCount - 1, 0)).toBe("moved")
  })
})

describe("a slot that changes", () => {
  test("pending: a write is sent to old and new owners and needs W of either, a read the old ones", () => {
    const { ring, slot } = changingRing()
    ring.owners(slot, 3, owners)
    const change = ring.changeOf(slot)
    const from = change?.from.slice(0, 3) ?? []
    const to = change?.to.slice(0, 3) ?? []
    const leaving = from.find((node) => !to.includes(node)) as number
    const staying = from.filter((node) => node !== leaving)
    expect(owners.count).toBe(4)
    expect(owners.state).toBe("pending")
    expect(owners.writeMet(answeredBy(staying), 2)).toBe(true)
    expect(owners.writeMet(answeredBy([leaving, staying[0]]), 2)).toBe(false)
    expect(owners.writeMet(answeredBy([5, staying[0]]), 2)).toBe(false)
    // W and one for the new owner is enough whoever they are (DESIGN section 4).
    for (const absent of [...from, 5]) {
      const others = [...from, 5].filter((node) => node !== absent)
      expect(owners.writeMet(answeredBy(others), 2)).toBe(true)
    }
    expect(owners.readMask).toBe(answeredBy(from))
    expect(owners.readMet(answeredBy([leaving, staying[0]]), 2)).toBe(true)
    expect(owners.readMet(answeredBy([5, staying[0]]), 2)).toBe(false)
  })

  test("filled: a read needs R of either list as well; owned: the new one alone", () => {
    const { ring, goal, slot } = changingRing()
    const from = ring.changeOf(slot)?.from.slice(0, 3) ?? []
    const to = ring.changeOf(slot)?.to.slice(0, 3) ?? []
    const leaving = from.find((node) => !to.includes(node)) as number
    const staying = from.filter((node) => node !== leaving)
    const options = { goal, reports: promptReports, slotsAtOnceMax: slotCount }
    const filled = nextRing(ring, options) as Ring
    filled.owners(slot, 3, owners)
    expect(owners.state).toBe("filled")
    expect(owners.readMet(answeredBy([leaving, staying[0]]), 2)).toBe(false)
    expect(owners.readMet(answeredBy([leaving, staying[0], 5]), 2)).toBe(true)
    expect(owners.readMet(answeredBy(staying), 2)).toBe(true)
    const owned = nextRing(filled, options) as Ring
    owned.owners(slot, 3, owners)
    expect(owners.state).toBe("owned")
    expect([...owners.nodes.subarray(0, 3)].toSorted()).toEqual([...to].toSorted())
    expect(owned.isOwner(slot, 3, leaving)).toBe(false)
  })

  test("a quorum of a zone is more than half of its owners, old and new", () => {
    const options = { strategy: "zone", zones: 2 } as const
    const before = ringFrom(withNewcomer(ringOf(6, options), newcomerOf(7, options), 16))
    const goal = before.goal()
    const waiting = { confirmedBy: () => 0, isFilled: () => false }
    const settings = { goal, reports: waiting, slotsAtOnceMax: slotCount }
    const pending = nextRing(before, settings) as Ring
    const filled = nextRing(pending, { ...settings, reports: promptReports }) as Ring
    // n7 takes the place of another node of its zone, which has three of the five owners.
    const change = pending.changes().find(({ from, to }) => {
      const odd = from.slice(0, 5).filter((node) => node % 2 === 1)
      return odd.length === 3 && to.slice(0, 5).includes(7) && to.slice(0, 5).length === 5
    })
    const slot = change?.slot as number
    const odd = (change?.from ?? []).slice(0, 5).filter((node) => node % 2 === 1)
    const parting = odd.find((node) => !change?.to.slice(0, 5).includes(node)) as number
    const staying = odd.filter((node) => node !== parting)
    pending.owners(slot, 5, owners)
    const zone = pending.maskOfZone(owners, "zone1")
    expect(zone).toBe(answeredBy([...odd, 7]))
    expect(owners.writeMetWithin(answeredBy(staying), zone)).toBe(true)
    expect(owners.writeMetWithin(answeredBy([parting, staying[0]]), zone)).toBe(false)
    expect(owners.readMetWithin(answeredBy([parting, staying[0]]), zone)).toBe(true)
    expect(owners.readMetWithin(answeredBy([7, staying[0]]), zone)).toBe(false)
    filled.owners(slot, 5, owners)
    expect(owners.readMetWithin(answeredBy([parting, staying[0]]), zone)).toBe(false)
    expect(owners.readMetWithin(answeredBy(staying), zone)).toBe(true)
    expect(owners.writeMetWithin(owners.writeMask, pending.maskOfZone(owners, "zone9"))).toBe(false)
  })

  test("a broken ring is not made: no list, a stranger, a slot that hangs", () => {
    const ring = ringOf(3)
    const { version, floor, strategy, members, table } = ring
    const parts = { version, floor, strategy, members, table }
    expect(() => new Ring({ ...parts, members: members.slice(1) })).toThrow("stranger")
    expect(() => new Ring({ ...parts, floor: 5 })).toThrow("floor")
    expect(() => new Ring({ ...parts, version: 9, floor: 5 })).toThrow("slot 0 changed at 1")
    const states = table.states.slice()
    states[9] = 1
    expect(() => new Ring({ ...parts, table: { ...table, states } })).toThrow("slot 9 hangs")
    const from = table.from.slice()
    from[4] = 900
    expect(() => new Ring({ ...parts, table: { ...table, from } })).toThrow("slot 4 has no list")
  })
})
