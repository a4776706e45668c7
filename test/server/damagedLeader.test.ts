import { describe, expect, test } from "bun:test"
import { LoopCluster, learner, voter } from "./loopCluster.ts"
import type { LoopNode } from "./loopNode.ts"

const keys = Array.from({ length: 120 }, (_, i) => `k${i}`)
const contentOf = (key: string) => key.padEnd(100, "v")

/** Three nodes whose keys lie in tables; nothing is cached. */
function filled(): LoopCluster {
  const cluster = new LoopCluster({
    settings: { engine: { memtableBytes: 8192, blockBytes: 256, blockCacheBytes: 0 } },
  })
  for (const key of keys) cluster.put(key, contentOf(key))
  cluster.pass(3000)
  return cluster
}

/** Damages a block of every table of a node that holds keys of callers; those that hold only what the node needs to begin are small. */
function damageTables(node: LoopNode): void {
  for (const path of node.loop.storage.engine.liveFiles()) {
    const file = node.disk.open(path)
    const { sizeBytes } = file
    file.close()
    if (sizeBytes > 2048) node.disk.corrupt(path, Math.floor(sizeBytes * 0.5), 1)
  }
}

/** What a read gets that is sent once, to this node. */
function readOnce(cluster: LoopCluster, node: LoopNode, key: string): string {
  const reply = cluster.answer(node, node.read(key))
  return reply?._tag === "Refused" ? reply.refusal._tag : (reply?._tag ?? "nothing")
}

describe("a leader that stored bytes fail hands the lead to a replica that is whole", () => {
  test("after a read met the damage; the others then answer for every key", () => {
    const cluster = filled()
    const damaged = cluster.untilLeader(1)
    damageTables(damaged)
    const refused = keys.filter((key) => readOnce(cluster, damaged, key) === "StorageCorrupt")
    expect(refused.length).toBeGreaterThan(0)
    cluster.pass(1000)
    expect(cluster.untilLeader(1).id).not.toBe(damaged.id)
    for (const key of keys) expect(cluster.get(key)).toBe(contentOf(key))
  })
  test("after a snapshot for a new replica met it; that one is then filled by another leader", () => {
    const cluster = filled()
    cluster.start(4)
    const damaged = cluster.untilLeader(1)
    damageTables(damaged)
    const replicas = [voter(1), voter(2), voter(3), learner(4, 4)]
    expect(cluster.members(1, replicas)?._tag).toBe("Changed")
    const isFilled = () => (cluster.replica(4, 1)?.machine.appliedIndex ?? 0) > 100
    cluster.until("the new replica is filled", isFilled, 10_000)
    expect(cluster.untilLeader(1).id).not.toBe(damaged.id)
  })

  test("once a minute at most, so that damage on all replicas does not keep the lead on its way", () => {
    const cluster = filled()
    for (const node of cluster.nodes.values()) damageTables(node)
    let changes = 0
    let last = cluster.untilLeader(1).id
    for (let second = 0; second < 40; second++) {
      const leader = cluster.untilLeader(1)
      if (leader.id !== last) changes++
      last = leader.id
      for (const key of keys) leader.read(key)
      cluster.pass(1000)
    }
    expect(changes).toBeGreaterThan(0)
    expect(changes).toBeLessThanOrEqual(3)
  })
})
