import { describe, expect, test } from "bun:test"
import type { LoopNode } from "./loopNode.ts"
import { said, Trio } from "./trio.ts"

/** Lets nothing through to or from a node. */
function cutOff(trio: Trio, node: LoopNode): void {
  trio.loses = (from, to) => from === node.id || to === node.id
}

describe("a leader that is cut off with commands in its log", () => {
  test("pitfall 10: what another leader's entry took the place of is never answered as done", () => {
    const trio = new Trio()
    trio.put("before", "1")
    const deposed = trio.leader()
    // All is acknowledged, so that the entry lies right behind what the others have.
    trio.pass(200)
    cutOff(trio, deposed)
    const token = deposed.mutate("lost", { put: "1" })
    trio.pass(20)
    const index = deposed.loop.replicas.get(1)!.log.lastIndex
    expect(index).toBeGreaterThan(deposed.loop.replicas.get(1)!.machine.appliedIndex)
    trio.paused.add(deposed.id)
    const leader = trio.leader()
    for (let i = 0; i < 5; i++) trio.put(`after ${i}`, "1")
    expect(leader.loop.replicas.get(1)!.machine.appliedIndex).toBeGreaterThan(index)
    // The index that it waits for is committed and applied, with another leader's entry.
    trio.paused.delete(deposed.id)
    trio.loses = () => false
    trio.pass(500)
    expect(deposed.loop.replicas.get(1)!.machine.appliedIndex).toBeGreaterThan(index)
    expect(said(trio.answer(deposed, token))).toBe("OutcomeUnknown")
    for (const node of trio.nodes) {
      expect(said(trio.answer(node, node.read("lost", { level: "local" })))).toBe("absent")
    }
  })

  for (const [what, limits, most] of [
    ["requests", { requestsPerRange: 40 }, 40],
    // A command takes some 200 bytes; one entry may gather several before the limit is met.
    ["bytes in its log", { maxUncommittedBytes: 2000 }, 30],
  ] as const) {
    test(`pitfall 42: a leader that is cut off holds only so much: so many ${what}; it refuses the rest, and goes on when it is heard`, () => {
      const trio = new Trio({ checkQuorum: false, ...limits })
      const leader = trio.leader()
      const others = trio.nodes.filter((node) => node !== leader)
      for (const other of others) trio.paused.add(other.id)
      const replica = leader.loop.replicas.get(1)!
      const before = replica.log.lastIndex
      const tokens: Array<number> = []
      for (let i = 0; i < 400; i++) {
        tokens.push(leader.mutate(`key ${i}`, { put: "x".repeat(100) }))
        if (i % 10 === 9) trio.pass(5)
      }
      trio.pass(50)
      const refused = tokens.filter((token) => said(trio.replyOf(leader, token)) === "Overloaded")
      const open = tokens.filter((token) => trio.replyOf(leader, token) === undefined)
      expect(open.length + refused.length).toBe(400)
      expect(open.length).toBeGreaterThan(0)
      expect(open.length).toBeLessThanOrEqual(most)
      expect(replica.waiting).toBe(open.length)
      const held = replica.log.entries(before + 1, replica.log.lastIndex + 1, 1 << 20)
      expect(held.reduce((sum, { data }) => sum + data.length, 0)).toBeLessThan(most * 250)
      for (const other of others) trio.paused.delete(other.id)
      for (const token of open) expect(said(trio.answer(leader, token))).toBe("Mutated")
      trio.put("after", "1")
    })
  }
})
