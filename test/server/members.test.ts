import { describe, expect, test } from "bun:test"
import { allLocalInterval, dataEnd, dataKey } from "../../src/server/engineKeys.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { ReplicaPlace } from "../../src/types.ts"
import { ChangingLife } from "./changingLife.ts"
import { LoopCluster, learner, unflushed, voter } from "./loopCluster.ts"
import { type LoopNode, outcomeOf } from "./loopNode.ts"

const keys = (count: number) => Array.from({ length: count }, (_, i) => `key${i}`)

function filled(options: ConstructorParameters<typeof LoopCluster>[0] = {}): LoopCluster {
  const cluster = new LoopCluster(options)
  for (const key of keys(40)) cluster.put(key, key.padEnd(300, "."))
  return cluster
}

function changed(cluster: LoopCluster, replicas: ReadonlyArray<ReplicaPlace>): void {
  const reply = cluster.members(1, replicas)
  expect(reply?._tag === "Refused" ? reply.refusal : reply?._tag).toEqual("Changed")
}

/** Keys of a node's engine in the interval of range 1, and range-local ones. */
function keysHeld(node: LoopNode): { data: number; local: number } {
  const { engine } = node.loop.storage
  const { start, end } = node.loop.descriptors.get(1)!
  let [data, local] = [0, 0]
  const iterator = engine.iterator({ lower: dataKey(start), upper: dataEnd(end) })
  while (iterator.next()) data++
  iterator.close()
  const locals = engine.iterator(allLocalInterval())
  while (locals.next()) if (locals.key[9] === 1) local++
  locals.close()
  return { data, local }
}

describe("members of a range", () => {
  test("pitfall 29: a learner is added, becomes a voter, and the leader is removed", () => {
    const cluster = filled()
    cluster.start(4)
    changed(cluster, [voter(1), voter(2), voter(3), learner(4)])
    expect(cluster.descriptor(1).replicas.map(({ role }) => role)).toEqual([
      "voter",
      "voter",
      "voter",
      "learner",
    ])
    changed(
      cluster,
      [1, 2, 3, 4].map((id) => voter(id)),
    )
    const old = cluster.untilLeader(1).id
    const rest = [1, 2, 3, 4].filter((id) => id !== old)
    changed(
      cluster,
      rest.map((id) => voter(id)),
    )
    cluster.until("the old leader's replica is gone", () => {
      return cluster.replica(old, 1) === undefined && cluster.node(old).loop.set.dying.size === 0
    })
    for (const key of keys(10)) cluster.put(key, "later")
    cluster.expectWhole()
    expect(cluster.descriptor(1).replicas).toEqual(rest.map((id) => voter(id)))
  })

  test("a replica moves to a new node, and nothing of it is left on the old one but its tombstone", () => {
    const cluster = filled()
    cluster.start(4)
    changed(cluster, [voter(1), voter(2), voter(4, 10)])
    cluster.until("replica 3 is gone", () => cluster.replica(3, 1) === undefined)
    cluster.expectWhole()
    expect(keysHeld(cluster.node(3))).toEqual({ data: 0, local: 1 })
    expect(cluster.node(3).loop.storage.tombstones.get(1)?.replica).toBe(3)
    const groups = cluster.node(3).loop.storage.journal.list()
    expect(groups.some(({ key }) => key.range === 1)).toBe(false)
    cluster.restart(3)
    expect(cluster.replica(3, 1)).toBeUndefined()
    cluster.expectWhole()
  })

  test("what was still in memory goes with the replica too", () => {
    const cluster = filled({ settings: unflushed })
    cluster.start(4)
    changed(cluster, [voter(1), voter(2), voter(4, 10)])
    cluster.until("replica 3 is buried", () => cluster.node(3).loop.storage.tombstones.has(1))
    cluster.pass(500)
    expect(keysHeld(cluster.node(3))).toEqual({ data: 0, local: 1 })
    cluster.restart(3)
    expect(cluster.replica(3, 1)).toBeUndefined()
    cluster.expectWhole()
  })

  test("a tombstoned replica is never made again, whatever late message names it", () => {
    const cluster = filled()
    cluster.start(4)
    const late: Array<{ from: number; message: PeerMessage }> = []
    cluster.loses = (from, to, message) => {
      if (to === 3 && message.range === 1 && late.length < 500) late.push({ from, message })
      return false
    }
    changed(cluster, [voter(1), voter(2), voter(4, 10)])
    cluster.until("replica 3 is gone", () => cluster.replica(3, 1) === undefined)
    for (const restarts of [false, true]) {
      if (restarts) cluster.restart(3)
      for (const { from, message } of late) cluster.node(3).loop.receive(from, message)
      cluster.pass(3000)
      expect(cluster.replica(3, 1)).toBeUndefined()
    }
    changed(cluster, [voter(1), voter(2), voter(4, 10), learner(3, 11)])
    cluster.expectWhole()
    expect(cluster.replica(3, 1)?.machine.replica).toBe(11)
  })

  test("pitfall 28: a wiped node comes back under a new replica id only", () => {
    const cluster = filled()
    cluster.crash(3)
    cluster.disks.delete(3)
    const reused = cluster.members(1, [voter(1), voter(2)])
    expect(reused?._tag).toBe("Changed")
    const again = cluster.members(1, [voter(1), voter(2), voter(3, 3)])
    expect(again === undefined ? "none" : outcomeOf(again)).toBe("InvalidRequest")
    const founders = [...cluster.founders]
    ;(cluster.founders as Array<number>).splice(founders.indexOf(3), 1)
    cluster.loses = (_, to, message) => to === 3 && message.range !== 1
    cluster.start(3)
    changed(cluster, [voter(1), voter(2), voter(3, 11)])
    cluster.until("replica 11 has it all", () => {
      const leader = cluster.leader(1)?.loop.replicas.get(1)
      return cluster.replica(3, 1)?.machine.appliedIndex === leader?.machine.appliedIndex
    })
    for (const key of keys(40)) expect(cluster.get(key)).toBe(key.padEnd(300, "."))
  })

  test("a removed replica that nobody told asks, and goes", () => {
    const cluster = filled()
    cluster.start(4)
    changed(cluster, [voter(1), voter(2), voter(3), learner(4)])
    cluster.until("the learner has it all", () => cluster.isSettled)
    cluster.loses = (from, to) => from === 4 || to === 4
    changed(cluster, [voter(1), voter(2), voter(3)])
    cluster.pass(1000)
    expect(cluster.replica(4, 1)).toBeDefined()
    cluster.loses = () => false
    cluster.until("the learner is gone", () => cluster.replica(4, 1) === undefined)
    cluster.expectWhole()
  })

  test("a removed replica finds out also when all members that it knows have moved away before it was removed", () => {
    const cluster = filled()
    for (const id of [4, 5]) cluster.start(id)
    cluster.loses = (from, to) => from === 3 || to === 3
    changed(cluster, [voter(1), voter(2), voter(3), learner(4), learner(5)])
    cluster.pass(500)
    changed(cluster, [voter(4), voter(5), voter(3)])
    cluster.until("the old members are buried", () =>
      [1, 2].every((id) => cluster.replica(id, 1) === undefined),
    )
    changed(cluster, [voter(4), voter(5)])
    cluster.loses = () => false
    cluster.until("replica 3 is told", () => cluster.replica(3, 1) === undefined)
    cluster.expectWhole()
  }, 60_000)

  test("pitfall 27: what can't be had is refused and says why", () => {
    const cluster = filled()
    const outcome = (replicas: ReadonlyArray<ReplicaPlace>) => {
      const reply = cluster.members(1, replicas)
      return reply === undefined ? "none" : outcomeOf(reply)
    }
    expect(outcome([])).toBe("InvalidRequest")
    expect(outcome([voter(1), voter(2), learner(3)])).toBe("InvalidRequest")
    expect(outcome([voter(1), voter(2), voter(3), voter(4, 2)])).toBe("InvalidRequest")
    expect(outcome([voter(1), voter(2), voter(3), learner(3, 9)])).toBe("InvalidRequest")
    // Node 4 is not up: its learner never catches up.
    expect(outcome([voter(1), voter(2), voter(3), voter(4)])).toBe("InvalidRequest")
    changed(cluster, [voter(1), voter(2), voter(3)])
    cluster.expectWhole()
  })

  test("leadership is handed over when asked", () => {
    const cluster = filled()
    const from = cluster.untilLeader(1).id
    const to = from === 2 ? 3 : 2
    const reply = cluster.change({ _tag: "Transfer", range: 1, to })
    expect(reply?._tag).toBe("Changed")
    cluster.pass(50)
    expect(cluster.untilLeader(1).id).toBe(to)
    cluster.expectWhole()
  })

  test("a range is emptied, on all replicas alike", () => {
    const cluster = filled()
    const { boundsVersion } = cluster.descriptor(1)
    expect(cluster.change({ _tag: "Clear", range: 1, boundsVersion })?._tag).toBe("Changed")
    cluster.acknowledged.clear()
    cluster.put("key1", "new")
    cluster.expectWhole()
    expect(cluster.get("key2")).toBeUndefined()
    for (const id of [1, 2, 3]) expect(keysHeld(cluster.node(id)).data).toBe(1)
  })
})

describe("crashes amid changes", () => {
  let restarts = 0
  for (let seed = 1; seed <= 12; seed++) {
    test(`nodes restart in the middle of each change; seed ${seed}`, () => {
      const life = new ChangingLife(seed)
      life.run()
      restarts += life.restarts
    }, 60_000)
  }

  test("the seeds above met crashes", () => expect(restarts).toBeGreaterThan(30))
})
