import { expect, test } from "bun:test"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { accepted, echo, give, leadBy, plainCluster } from "./messages.ts"

test("a follower that was silent when its next entry left the log gets a snapshot once it is heard again, even in an idle group", () => {
  const cluster = plainCluster(RaftNode, 3, { checkQuorum: true, maxInflightAppends: 1 })
  leadBy(cluster, 1)
  const leader = cluster.replica(1)
  const { node } = leader
  give(cluster, accepted("2>1@1", 1), accepted("3>1@1", 1))
  // One append to n3 is out; the rest waits for its answer. n2 makes everything committed.
  for (let index = 2; index <= 4; index++) {
    expect(node.propose(Uint8Array.of(index))).toBe(index)
    leader.settle()
    give(cluster, accepted("2>1@1", index))
  }
  expect(node.appliedIndex).toBe(4)
  leader.visibleLog.release(3)
  // n3's late answer comes in a turn that ends with a check of the quorum: nothing was sent in between.
  node.step(accepted("3>1@1", 2), 0)
  for (let tick = 0; tick < 3 * cluster.settings.electionTicksMax; tick++) {
    node.tick(0)
    node.step(echo("2>1@1", 0), 0)
  }
  leader.settle()
  expect(leader.wanted).toEqual([])
  const round = Math.max(0, ...cluster.network.map((m) => (m._tag === "Heartbeat" ? m.round : 0)))
  node.step(echo("3>1@1", round), 0)
  leader.settle()
  expect(leader.wanted).toEqual([3])
})

test("a follower that has all that was released, though it had said to have lost it, is found out when it takes no snapshot", () => {
  const cluster = plainCluster(RaftNode, 3, { checkQuorum: true })
  leadBy(cluster, 1)
  const leader = cluster.replica(1)
  const { node } = leader
  give(cluster, accepted("2>1@1", 1), accepted("3>1@1", 1))
  for (let index = 2; index <= 4; index++) {
    expect(node.propose(Uint8Array.of(index))).toBe(index)
    leader.settle()
    give(cluster, accepted("2>1@1", index), accepted("3>1@1", index))
  }
  leader.visibleLog.release(4)
  node.reportLost(3, 1)
  leader.settle()
  expect(leader.wanted).toEqual([3])
  // It has got back what damage had taken, and a split in it has to be replayed before any snapshot.
  node.snapshotSent(3, "failed", 4)
  const before = cluster.network.length
  for (let tick = 0; tick <= cluster.settings.heartbeatTicks; tick++) node.tick(0)
  leader.settle()
  const round = Math.max(0, ...cluster.network.map((m) => (m._tag === "Heartbeat" ? m.round : 0)))
  node.step(echo("3>1@1", round), 0)
  leader.settle()
  const sent = cluster.network.slice(before).filter((m) => m._tag === "AppendRequest")
  expect(sent).toMatchObject([{ to: 3, previousIndex: 4, previousTerm: 1, entries: [] }])
  give(cluster, accepted("3>1@1", 4))
  expect(node.progress().find(({ replica }) => replica === 3)).toMatchObject({ match: 4 })
  expect(leader.wanted).toEqual([3])
})
