import { expect, test } from "bun:test"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { leadBy, plainCluster } from "./messages.ts"

test("a leader that steps down follows in its own term, keeps its vote and gives its reads up", () => {
  const cluster = plainCluster(RaftNode)
  leadBy(cluster, 1)
  const leader = cluster.replica(1)
  leader.settle()
  expect(leader.node.readIndex(5)).toBe(true)
  leader.node.stepDown()
  leader.settle()
  expect([leader.node.role, leader.node.term, leader.node.leader]).toEqual([
    "follower",
    1,
    undefined,
  ])
  expect(leader.readsLost).toEqual([5])
  expect(leader.durableState).toMatchObject({ term: 1, vote: 1 })
  expect(leader.node.propose(Uint8Array.of(1))).toBeUndefined()
})

test("a voter alone in its group does not step down: nobody else could lead", () => {
  const cluster = plainCluster(RaftNode, 1)
  const { node } = cluster.replica(1)
  node.tick(0)
  cluster.replica(1).settle()
  expect(node.role).toBe("leader")
  node.stepDown()
  expect(node.role).toBe("leader")
})
