import { describe, expect, test } from "bun:test"
import { LoopCluster, learner, voter } from "./loopCluster.ts"

const voters = [voter(1), voter(2), voter(3)]

/**
 * A leader that is cut off from the other voters puts a learner on node 4 into its log, and is heard there; the others elect one of themselves, whose
 * membership is the one that is committed. Returns the leader that was.
 */
function contested(cluster: LoopCluster, replica: number): number {
  for (let i = 0; i < 20; i++) cluster.put(`key${i}`, "v".repeat(200))
  cluster.start(4)
  const first = cluster.untilLeader(1).id
  cluster.loses = (from, to, message) => {
    if (message.range !== 1) return false
    const isCutOff = (from === first) !== (to === first)
    return message._tag.startsWith("Snapshot") || (isCutOff && from !== 4 && to !== 4)
  }
  const { membersVersion } = cluster.descriptor(1)
  const replicas = [...voters, learner(4, replica)]
  cluster.begin({ _tag: "ChangeMembers", range: 1, membersVersion, replicas })
  cluster.until("node 4 has an empty replica", () => cluster.replica(4, 1) !== undefined, 2000)
  expect(cluster.replica(4, 1)?.machine.replica).toBe(replica)
  cluster.until("the others have a leader", () => leads(cluster, first), 10_000)
  return first
}

function leads(cluster: LoopCluster, except: number): boolean {
  return [1, 2, 3].some((id) => id !== except && cluster.replica(id, 1)?.leadsNoticed === true)
}

/** Asks whoever leads but `except`. */
function order(cluster: LoopCluster, except: number, replica: number): void {
  const id = [1, 2, 3].find((each) => {
    return each !== except && cluster.replica(each, 1)?.leadsNoticed === true
  })
  const node = cluster.node(id as number)
  const { membersVersion } = cluster.replica(node.id, 1)!.machine.descriptor
  const replicas = [...voters, learner(4, replica)]
  const token = node.request((token) => {
    const asked = { range: 1, membersVersion, replicas, deadlineMs: 10_000 }
    return { _tag: "ChangeMembers", token, ...asked }
  })
  expect(cluster.answer(node, token)?._tag).toBe("Changed")
}

describe("pitfall 28: two orders at once for one node, of which one comes to nothing", () => {
  for (const [early, late] of [
    [12, 11],
    [11, 12],
  ] as const) {
    test(`replica ${early} makes room for replica ${late}`, () => {
      const cluster = new LoopCluster({ seed: early })
      const first = contested(cluster, early)
      order(cluster, first, late)
      cluster.loses = () => false
      cluster.expectWhole()
      expect(cluster.replica(4, 1)?.machine.replica).toBe(late)
      cluster.restart(4)
      cluster.expectWhole()
      expect(cluster.replica(4, 1)?.machine.replica).toBe(late)
    })
  }

  test("what a deposed leader goes on sending takes no room from a replica of a later term", () => {
    const cluster = new LoopCluster({ seed: 3 })
    const first = contested(cluster, 12)
    // The new leader's snapshot is on its way all the time, so its replica is empty while the old leader writes for the other one.
    order(cluster, first, 11)
    cluster.until("replica 11 is here", () => cluster.replica(4, 1)?.machine.replica === 11, 3000)
    const late = [...cluster.node(first).loop.replicas.values()].find(({ range }) => range === 1)!
    for (let i = 0; i < 50; i++) {
      cluster.node(4).loop.receive(first, {
        _tag: "Raft",
        range: 1,
        message: {
          ...{ _tag: "Heartbeat", from: late.machine.replica, to: 12, term: 1 },
          ...{ commit: 0, round: 1 },
        },
      } as never)
      cluster.pass(20)
      expect(cluster.replica(4, 1)?.machine.replica).toBe(11)
    }
    cluster.loses = () => false
    cluster.expectWhole()
  })

  test("a replica that nobody ever committed rests, and what it promised is kept", () => {
    const cluster = new LoopCluster({ seed: 4 })
    contested(cluster, 12)
    const { term } = cluster.replica(4, 1)!.raft
    expect(term).toBeGreaterThan(0)
    cluster.loses = () => false
    cluster.until("it rests", () => cluster.replica(4, 1) === undefined, 20_000)
    const { journal } = cluster.node(4).loop.storage
    expect(journal.group({ range: 1, replica: 12 }).hardState.term).toBe(term)
    expect(cluster.node(4).loop.storage.tombstones.get(1)).toBeUndefined()
    cluster.expectWhole()
    // After a start it is there again, since the journal names it, and rests again.
    cluster.restart(4)
    expect(cluster.replica(4, 1)?.raft.term).toBe(term)
    cluster.until("it rests again", () => cluster.replica(4, 1) === undefined, 20_000)
  })

  test("a resting replica goes on as what it was when its leader writes again", () => {
    const cluster = new LoopCluster({ seed: 5 })
    cluster.start(4)
    cluster.loses = (_, __, message) => message._tag.startsWith("Snapshot")
    const reply = cluster.members(1, [...voters, learner(4, 12)])
    expect(reply?._tag).toBe("Changed")
    cluster.until("node 4 has an empty replica", () => cluster.replica(4, 1) !== undefined, 2000)
    const { term } = cluster.replica(4, 1)!.raft
    cluster.loses = (from, to) => from === 4 || to === 4
    cluster.until("it rests", () => cluster.replica(4, 1) === undefined, 20_000)
    cluster.loses = (_, __, message) => message._tag.startsWith("Snapshot")
    cluster.until("it is there again", () => cluster.replica(4, 1) !== undefined, 2000)
    expect(cluster.replica(4, 1)?.raft.term).toBeGreaterThanOrEqual(term)
    cluster.loses = () => false
    cluster.expectWhole()
    expect(cluster.replica(4, 1)?.machine.replica).toBe(12)
  })
})
