import { describe, expect, test } from "bun:test"
import type { LoopNode } from "./loopNode.ts"
import { said, Trio } from "./trio.ts"

/** As many writes as pass a mark or two; those that a leader refuses on its way out are passed over. */
function writeMany(trio: Trio, prefix: string): void {
  for (let i = 0; i < 10; i++) {
    const leader = trio.leader()
    trio.answer(leader, leader.mutate(`${prefix}-${i}`, { put: "1" }))
  }
}

const replicaOf = (node: LoopNode) => node.loop.replicas.get(1)!
const followersOf = (trio: Trio, leader: LoopNode) =>
  trio.nodes.filter(({ id }) => id !== leader.id) as [LoopNode, LoopNode]
const linesOf = (node: LoopNode) => node.reports.filter((line) => line.includes("out of service"))

/** Where the machine keeps its chain. */
const chainOf = (node: LoopNode) =>
  (replicaOf(node).machine as unknown as { keys: { chain: number } }).keys

/** What an apply that was not deterministic leaves behind. */
function diverge(node: LoopNode, by = 0): void {
  chainOf(node).chain ^= 1 << by
}

describe("replicas are compared by the chain of their writes (pitfall 33)", () => {
  test("equal ones go on, and nobody says a word", () => {
    const trio = new Trio({ compareEntries: 4, compareMs: 100 })
    writeMany(trio, "a")
    trio.pass(300)
    for (const node of trio.nodes) {
      expect(replicaOf(node).differs).toBeUndefined()
      expect(node.reports).toEqual([])
    }
  })

  test("a follower that differs goes out of service, and says so once", () => {
    const trio = new Trio({ compareEntries: 4, compareMs: 100 })
    const leader = trio.leader()
    const [odd, other] = followersOf(trio, leader)
    writeMany(trio, "a")
    diverge(odd)
    writeMany(trio, "b")
    trio.pass(300)
    expect(replicaOf(odd).differs).toContain("replica")
    expect(linesOf(odd).length).toBe(1)
    expect(replicaOf(other).differs).toBeUndefined()
    expect(replicaOf(leader).differs).toBeUndefined()
    expect(said(trio.answer(odd, odd.read("a-1", { level: "local" })))).toBe("StorageCorrupt")
    expect(said(trio.answer(other, other.read("a-1", { level: "local" })))).toBe("1")
    trio.put("c", "1")
  })

  test("a leader that differs gives up leading, and does not lead again", () => {
    const trio = new Trio({ compareEntries: 4, compareMs: 100 })
    const odd = trio.leader()
    writeMany(trio, "a")
    diverge(odd)
    writeMany(trio, "b")
    trio.pass(1000)
    expect(replicaOf(odd).differs).toBeDefined()
    const leader = trio.leader()
    expect(leader.id).not.toBe(odd.id)
    trio.put("c", "1")
    trio.pass(3000)
    expect(odd.isLeader).toBe(false)
  })

  test("where all three differ nobody is blamed, but it is said", () => {
    const trio = new Trio({ compareEntries: 4, compareMs: 100 })
    const leader = trio.leader()
    const [first, second] = followersOf(trio, leader)
    writeMany(trio, "a")
    diverge(first)
    diverge(second, 5)
    writeMany(trio, "b")
    trio.pass(300)
    for (const node of trio.nodes) expect(replicaOf(node).differs).toBeUndefined()
    expect(leader.reports.some((line) => line.includes("no majority"))).toBe(true)
  })

  test("one that was away is compared when it has caught up", () => {
    const trio = new Trio({ compareEntries: 4, compareMs: 100 })
    const leader = trio.leader()
    const [odd] = followersOf(trio, leader)
    writeMany(trio, "a")
    trio.pass(100)
    diverge(odd)
    trio.paused.add(odd.id)
    writeMany(trio, "b")
    trio.pass(300)
    trio.paused.delete(odd.id)
    trio.pass(300)
    writeMany(trio, "c")
    trio.pass(300)
    expect(replicaOf(odd).differs).toBeDefined()
  })
})
