import { describe, expect, test } from "bun:test"
import { actorOf } from "../../src/dynamo/dot.ts"
import { MerkleHash } from "../../src/dynamo/merkleHash.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import type { SlotTables } from "../../src/dynamo/node/slotTables.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { EventualCluster, put, seenIn, siblings } from "./eventualCluster.ts"

const place = { namespace: siblings, key: "a" }
const slot = slotOf(utf8("a"))
const windowMs = 1000

function clusterOf(count: number): EventualCluster {
  const base = new EventualCluster(1).settings.eventual
  const reap = { ...base.reap, windowMs, passMs: 300 }
  const exchange = { ...base.exchange, passMs: 500 }
  return new EventualCluster(count, { eventual: { ...base, reap, exchange } })
}

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

const shown = (cluster: EventualCluster, node = 1) =>
  seenIn(cluster.read(node, place, "quorum"), siblings, "a")

function deleteAll(cluster: EventualCluster, node = 1): void {
  const { context } = shown(cluster, node)
  written(cluster.write(node, place, { _tag: "Delete" }, { context }))
}

const isReaped = (cluster: EventualCluster) =>
  cluster.held(siblings, "a").every((state) => state === "")

test("AP pitfall 15: a tree that has drifted from its keys is put right, and said", () => {
  const cluster = clusterOf(3)
  written(cluster.write(1, place, put("one"), { level: "all" }))
  cluster.pass(2000)
  const { machine } = cluster.node(1).loop.eventual
  const { treesDrifted } = machine.status()
  expect(treesDrifted).toBe(0)
  const tables = (machine.owner as unknown as { tables: Map<number, SlotTables> }).tables
  const hash = new MerkleHash()
  hash.begin(utf8("another key"))
  hash.dot(actorOf(2, 1), 7)
  tables.get(siblings)?.tree.insert(slot, hash)
  tables.get(siblings)?.changed(slot, 0)
  const differing = () => cluster.node(2).loop.eventual.machine.owner.digest(siblings, slot)
  const own = () => machine.owner.digest(siblings, slot)
  expect({ ...own() }).not.toEqual({ ...differing() })
  cluster.until("it is right", () => machine.status().treesDrifted === 1)
  cluster.pass(2000)
  expect({ ...own() }).toEqual({ ...differing() })
  expect(machine.status().treesDrifted).toBe(1)
})

test("a slot of many keys gets leaves, which writes and restarts keep right", () => {
  const cluster = clusterOf(3)
  const write = (from: number, count: number) => {
    for (let i = from; i < from + count; i++) {
      written(cluster.write(1 + (i % 3), { namespace: siblings, key: `{a}${i}` }, put(`${i}`)))
    }
  }
  const treeOf = (node: number) => {
    const { owner } = cluster.node(node).loop.eventual.machine
    const { tree } = (owner as unknown as { tables: Map<number, SlotTables> }).tables.get(
      siblings,
    ) as SlotTables
    return { bits: tree.leafBits(slot), count: tree.count(slot) }
  }
  const everyTree = (bits: number, count: number) =>
    cluster.until(`every node has ${count} keys under 2^${bits} leaves`, () =>
      [1, 2, 3].every((id) => treeOf(id).bits === bits && treeOf(id).count === count),
    )
  write(0, 60)
  everyTree(0, 60)
  write(60, 60)
  everyTree(4, 120)
  write(120, 40)
  for (const id of [1, 2, 3]) {
    const node = cluster.node(id)
    node.loop.storage.flushWanted = true
  }
  cluster.pass(1000)
  cluster.restart(2)
  everyTree(4, 160)
  write(160, 20)
  cluster.pass(3000)
  everyTree(4, 180)
  for (const id of [1, 2, 3]) {
    expect(cluster.node(id).loop.eventual.machine.status().treesDrifted).toBe(0)
  }
})

describe("a delete", () => {
  test("goes from all owners once the window has passed, and their clocks speak for it", () => {
    const cluster = clusterOf(3)
    written(cluster.write(1, place, put("one"), { level: "all" }))
    deleteAll(cluster)
    cluster.pass(windowMs / 2)
    expect(cluster.held(siblings, "a").every((state) => state !== "")).toBe(true)
    cluster.until("it is reaped", () => isReaped(cluster))
    expect(shown(cluster).values).toEqual([])
    for (const id of [1, 2, 3]) {
      const clock = cluster.node(id).loop.eventual.machine.owner.copyClock(siblings, slot)
      expect(clock.hasNoGaps).toBe(true)
    }
    cluster.restart(2)
    cluster.pass(3000)
    expect(isReaped(cluster)).toBe(true)
  })

  test("AP pitfall 6: waits for an owner that is away, however long, and nothing comes back with it", () => {
    const cluster = clusterOf(3)
    written(cluster.write(1, place, put("one"), { level: "all" }))
    cluster.pass(200)
    cluster.crash(3)
    cluster.pass(1500)
    deleteAll(cluster)
    cluster.pass(10 * windowMs)
    expect(
      cluster.node(1).loop.eventual.machine.owner.state(siblings, slot, utf8("a")),
    ).toBeDefined()
    cluster.start(3)
    cluster.until("it is reaped", () => isReaped(cluster))
    cluster.pass(3000)
    expect(shown(cluster, 3).values).toEqual([])
  })

  test("AP pitfall 8: is not undone by a hint that comes when it was reaped everywhere", () => {
    const cluster = clusterOf(5)
    const owners = cluster.owners("a")
    const [first, second, third] = owners as [number, number, number]
    cluster.crash(third)
    cluster.pass(1500)
    const kept: Array<{ from: number; to: number; message: PeerMessage }> = []
    // All that the stand-in says to the third owner is on its way for very long, too.
    cluster.loses = (from, to, message) => {
      if (!owners.includes(from) && to === third) kept.push({ from, to, message })
      return false
    }
    written(cluster.write(first, place, put("one"), { level: "all" }))
    cluster.start(third)
    cluster.until("the third owner has it", () => !cluster.held(siblings, "a").includes(""))
    deleteAll(cluster, second)
    cluster.until("it is reaped", () => isReaped(cluster))
    expect(kept.length).toBeGreaterThan(0)
    for (const { from, to, message } of kept) cluster.node(to).loop.receive(from, message)
    cluster.pass(3000)
    expect(isReaped(cluster)).toBe(true)
    expect(shown(cluster, third).values).toEqual([])
  })

  test("comes by itself when a value's time is up", () => {
    const cluster = clusterOf(3)
    written(cluster.write(1, place, put("short", 1500), { level: "all" }))
    expect(shown(cluster).values).toEqual(["short"])
    cluster.pass(1600)
    expect(shown(cluster).values).toEqual([])
    cluster.until("it is reaped", () => isReaped(cluster))
    written(cluster.write(2, place, put("again")))
    expect(shown(cluster).values).toEqual(["again"])
  })
})
