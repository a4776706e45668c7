import { describe, expect, test } from "bun:test"
import { ReadRequest } from "../../../src/dynamo/coordinator/readRequest.ts"
import { hasOverlap, type Level, type SlotPlan } from "../../../src/dynamo/coordinator/slotPlan.ts"
import { canBegin, WriteRequest } from "../../../src/dynamo/coordinator/writeRequest.ts"
import { SlotOwners } from "../../../src/topology/slotOwners.ts"
import type { NodeId } from "../../../src/types.ts"

/** Owners n1 to nN, the odd ones in the coordinator's zone; stand-ins from n11 on, the odd ones there too. */
function planOf(copies: number, standInCount: number): SlotPlan {
  const owners = new SlotOwners()
  owners.count = copies
  let localMask = 0
  for (let i = 0; i < copies; i++) {
    owners.nodes[i] = i + 1
    owners.oldMask |= 1 << i
    if (i % 2 === 0) localMask |= 1 << i
  }
  owners.newMask = owners.oldMask
  const standIns = Array.from({ length: standInCount }, (_, i) => {
    return { node: 11 + i, isLocal: i % 2 === 0 }
  })
  const readOrder = Array.from({ length: copies }, (_, i) => i)
  return { ringVersion: 1, copies, owners, localMask, readOrder, standIns }
}

/** The coordinator is n1, the owners above `up` are down, all stand-ins are up. */
function write(plan: SlotPlan, level: Level, strict: boolean, up: number) {
  const request = new WriteRequest({
    plan,
    self: 1,
    level,
    strict,
    lsn: 5,
    patienceMs: 10,
    deadlineMs: 100,
  })
  request.durable(4, 0)
  expect(request.take().messages).toEqual([])
  request.durable(5, 0)
  for (;;) {
    const { messages, reply, done } = request.take()
    if (reply !== undefined) return { reply, done }
    expect(messages.length).toBeGreaterThan(0)
    for (const { target } of messages) {
      if (target <= up || target > 10) request.storedBy(target)
      else request.failedAt(target)
    }
  }
}

/** The same in the dumbest words: how many owners and stand-ins there are, and how many it takes. */
function twin(options: { level: Level; copies: number; up: number; standIns: number }): boolean {
  const { level, copies, up, standIns } = options
  if (level === "one") return up + standIns >= 1
  if (level === "all") return up + standIns >= copies
  if (level === "quorum") return 2 * Math.min(copies, up + standIns) > copies
  const local = Math.ceil(copies / 2)
  return 2 * Math.min(local, Math.ceil(up / 2) + Math.ceil(standIns / 2)) > local
}

const levels: ReadonlyArray<Level> = ["one", "quorum", "all", "localQuorum"]

describe("levels", () => {
  test("AP pitfall 11: every level with every number of owners up, strict and sloppy, does what its words say", () => {
    let rows = 0
    for (const level of levels) {
      for (let copies = 1; copies <= 7; copies++) {
        for (let up = 0; up <= copies; up++) {
          for (const strict of [false, true]) {
            const row = `${level} N=${copies} up=${up} ${strict ? "strict" : "sloppy"}`
            const standIns = copies + 1
            const plan = planOf(copies, standIns)
            const isUp = (node: NodeId) => node <= up || node > 10
            const expected = twin({ level, copies, up, standIns: strict ? 0 : standIns })
            const byOwners = twin({ level, copies, up, standIns: 0 })
            expect(`${row} ${canBegin(plan, { level, strict }, isUp)}`).toBe(`${row} ${expected}`)
            expect(`${row} ${read(plan, level, up)}`).toBe(
              `${row} ${byOwners ? "read" : "QuorumUnavailable"}`,
            )
            rows++
            if (up === 0) continue
            const { reply } = write(plan, level, strict, up)
            expect(`${row} ${reply._tag}`).toBe(`${row} ${expected ? "written" : "OutcomeUnknown"}`)
            expect(`${row} ${reply.receipt.sloppy}`).toBe(`${row} ${!byOwners}`)
            if (strict) expect(reply.receipt.standIns).toEqual([])
          }
        }
      }
    }
    expect(rows).toBe(4 * 2 * (2 + 3 + 4 + 5 + 6 + 7 + 8))
  })

  test("AP pitfall 20: a slot that gets a new owner asks one acknowledgement more of a write, and reads none of it", () => {
    const plan = planOf(3, 0)
    const owners = plan.owners as SlotOwners
    owners.nodes[3] = 4
    owners.count = 4
    owners.newMask = 0b1110
    owners.state = "pending"
    expect(write(plan, "quorum", true, 2).reply._tag).toBe("OutcomeUnknown")
    expect(write(plan, "quorum", true, 3).reply._tag).toBe("written")
    const request = new ReadRequest({
      plan,
      level: "all",
      patienceMs: 10,
      startedAtMs: 0,
      deadlineMs: 100,
    })
    const first = request.take()
    expect([...first.asks, ...first.digestAsks]).toEqual([1, 2, 3])
    request.failedAt(1, 1)
    const { asks, digestAsks, reply } = request.take()
    expect([...asks, ...digestAsks]).toEqual([])
    expect(reply?._tag).toBe("QuorumUnavailable")
  })

  test("a stand-in in another zone does not help a quorum of this one", () => {
    const far = { ...planOf(3, 0), standIns: [{ node: 12, isLocal: false }] }
    expect(write(far, "localQuorum", false, 2).reply._tag).toBe("OutcomeUnknown")
    expect(canBegin(far, { level: "localQuorum", strict: false }, (node) => node !== 3)).toBe(false)
    const near = { ...far, standIns: [{ node: 12, isLocal: true }] }
    expect(write(near, "localQuorum", false, 2).reply._tag).toBe("written")
  })

  test("any R and W owners have one in common exactly where the levels overlap", () => {
    const sizeOf = (level: Level, copies: number) =>
      level === "one" ? 1 : level === "all" ? copies : Math.floor(copies / 2) + 1
    for (let copies = 1; copies <= 7; copies++) {
      for (const [r, w] of levels.slice(0, 3).flatMap((r) => levels.map((w) => [r, w] as const))) {
        if (w === "localQuorum") continue
        let always = true
        for (let a = 0; a < 1 << copies; a++) {
          for (let b = 0; b < 1 << copies; b++) {
            if (bitsOf(a) !== sizeOf(r, copies) || bitsOf(b) !== sizeOf(w, copies)) continue
            always &&= (a & b) !== 0
          }
        }
        expect(hasOverlap({ read: r, write: w, copies })).toBe(always)
      }
    }
  })
})

function bitsOf(mask: number): number {
  let count = 0
  for (let left = mask; left !== 0; left &= left - 1) count++
  return count
}

function read(plan: SlotPlan, level: Level, up: number): string {
  const request = new ReadRequest({
    plan,
    level,
    patienceMs: 10,
    startedAtMs: 0,
    deadlineMs: 100,
  })
  for (;;) {
    const { asks, digestAsks, reply } = request.take()
    if (reply !== undefined) return reply._tag
    const nodes = [...asks, ...digestAsks]
    expect(nodes.length).toBeGreaterThan(0)
    for (const node of nodes) {
      if (node <= up) request.answeredBy(node, undefined, 1)
      else request.failedAt(node, 1)
    }
  }
}
