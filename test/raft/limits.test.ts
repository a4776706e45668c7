import { describe, expect, test } from "bun:test"
import { RaftNode } from "../../src/raft/raftNode.ts"
import { type RaftSettings, TestCluster } from "./cluster.ts"
import { MemoryLog } from "./memoryLog.ts"
import {
  accepted,
  append,
  askVote,
  echo,
  give,
  heartbeat,
  leadBy,
  plainCluster,
  vote,
} from "./messages.ts"

/** A cluster whose replicas come back from disks that are already at (index, term). */
function agedCluster(index: number, term: number, settings: Partial<RaftSettings> = {}) {
  const cluster = new TestCluster({
    nodes: 3,
    settings: { preVote: false, checkQuorum: false, voteSilenceMs: 0, ...settings },
  })
  for (const replica of cluster.replicas) {
    replica.durableLog = new MemoryLog([], { index, term })
    replica.visibleLog = replica.durableLog.clone()
    replica.durableState = { term, vote: 0, commit: index }
  }
  const nodes = cluster.replicas.map(
    (replica) =>
      new RaftNode({
        ...cluster.settings,
        id: replica.id,
        membership: cluster.initial,
        storage: replica.visibleLog,
        hardState: replica.durableState,
        appliedIndex: index,
        prng: cluster.prng.fork(),
        nowMs: 0,
      }),
  )
  return nodes
}

describe("the limits of the core", () => {
  for (const start of [2 ** 31 - 2, 2 ** 32 - 2, 2 ** 53 - 20]) {
    test(`pitfall 16: a group works on past term and index ${start}`, () => {
      const [leader, follower] = agedCluster(start, start) as [RaftNode, RaftNode]
      leader.campaign()
      const term = start + 1
      for (const message of leader.ready().messagesAfterPersist) {
        if (message.to === leader.id) leader.step(message, 0)
        if (message.to === follower.id) follower.step(message, 0)
      }
      for (const message of follower.ready().messagesAfterPersist) leader.step(message, 0)
      expect([leader.role, leader.term, leader.lastIndex]).toEqual(["leader", term, start + 1])
      expect(leader.propose(Uint8Array.of(1))).toBe(start + 2)
      for (const message of leader.ready().messages) {
        if (message.to === follower.id) follower.step(message, 0)
      }
      expect(follower.ready().entries.map(({ index }) => index)).toEqual([start + 1, start + 2])
    })
  }

  test("pitfall 16: a replica whose terms are used up stops, and does not wrap around", () => {
    const [replica] = agedCluster(10, Number.MAX_SAFE_INTEGER) as [RaftNode]
    expect(() => replica.campaign()).toThrow("terms are used up")
  })

  test("pitfall 42: a leader cut off takes only so much, and more when it commits", () => {
    const cluster = plainCluster(RaftNode, 3, { maxUncommittedBytes: 1000 })
    leadBy(cluster, 1)
    const leader = cluster.node(1)
    let taken = 0
    while (leader.propose(new Uint8Array(100)) !== "overloaded") taken++
    expect(taken).toBe(10)
    for (let i = 0; i < 1000; i++) expect(leader.propose(new Uint8Array(100))).toBe("overloaded")
    expect(leader.lastIndex).toBe(11)
    cluster.replica(1).settle()
    give(cluster, accepted("2>1@1", 6))
    taken = 0
    while (leader.propose(new Uint8Array(100)) !== "overloaded") taken++
    expect(taken).toBe(5)
  })

  test("one proposal larger than the limit is taken when nothing else waits", () => {
    const cluster = plainCluster(RaftNode, 3, { maxUncommittedBytes: 10 })
    leadBy(cluster, 1)
    expect(cluster.node(1).propose(new Uint8Array(100))).toBe(2)
    expect(cluster.node(1).propose(new Uint8Array(1))).toBe("overloaded")
  })

  test("a slow follower is sent no more than a window of bytes", () => {
    const cluster = plainCluster(RaftNode, 3, { maxAppendBytes: 100 })
    leadBy(cluster, 1)
    give(cluster, accepted("2>1@1", 1))
    cluster.network = []
    for (let i = 0; i < 100; i++) cluster.propose(1, "x".repeat(100))
    expect(cluster.network.filter(({ to }) => to === 2)).toHaveLength(8)
  })

  test("no more is handed out to apply while the last is not applied", () => {
    const cluster = plainCluster(RaftNode, 3)
    const { node, visibleLog } = cluster.replica(2)
    node.step(append("1>2@1", "0@0", 3, "1@1", "2@1=a", "3@1=b"), 0)
    const { entries, committed } = node.ready()
    expect(committed).toEqual([])
    visibleLog.append(entries)
    node.persisted(3, 1)
    expect(node.ready().committed).toHaveLength(3)
    expect(node.hasReady()).toBe(false)
    node.applied(2)
    node.step(append("1>2@1", "3@1", 4, "4@1=c"), 0)
    visibleLog.append(node.ready().entries)
    node.persisted(4, 1)
    expect(node.hasReady()).toBe(false)
    node.applied(3)
    expect(node.ready().committed.map(({ index }) => index)).toEqual([4])
  })

  test("while a write must wait for one that ends like it, other outputs go on without it", () => {
    const cluster = plainCluster(RaftNode, 3)
    const replica = cluster.replica(2)
    replica.holdsWrites = true
    give(cluster, append("1>2@1", "0@0", 0, "1@1=a"), append("3>2@2", "0@0", 0, "1@2=b"))
    replica.node.step(append("1>2@3", "0@0", 0, "1@1=a"), 0)
    expect(replica.node.hasReady()).toBe(false)
    replica.node.step(heartbeat("1>2@3", 0), 0)
    const { messages, entries, hardState, messagesAfterPersist } = replica.node.ready()
    expect(messages).toHaveLength(1)
    expect([hardState, entries, messagesAfterPersist]).toEqual([undefined, [], []])
    replica.persist()
    const held = replica.node.ready()
    expect(held.hardState?.term).toBe(3)
    expect([held.entries, held.messagesAfterPersist].map(({ length }) => length)).toEqual([1, 1])
  })

  test("a message for another replica is a mistake of the caller", () => {
    const { node } = plainCluster(RaftNode, 3).replica(2)
    expect(() => node.step(askVote("1>3@7", "9@7"), 0)).toThrow("came to 2")
  })

  test("a leader takes no answers of strangers", () => {
    const cluster = plainCluster(RaftNode, 3)
    leadBy(cluster, 1)
    give(cluster, accepted("9>1@1", 1), accepted("8>1@1", 1), echo("9>1@1", 1))
    expect(cluster.node(1).commitIndex).toBe(0)
    expect(
      cluster
        .node(1)
        .progress()
        .map(({ replica }) => replica),
    ).toEqual([1, 2, 3])
  })

  test("reads that other replicas ask for have a limit, and make room when they are answered", () => {
    const cluster = plainCluster(RaftNode, 3)
    leadBy(cluster, 1)
    give(cluster, accepted("2>1@1", 1))
    const ask = (context: number) =>
      cluster
        .node(1)
        .step({ _tag: "ReadIndexRequest", from: 3, to: 1, term: 1, session: 7, context }, 0)
    const answered = (round: number) =>
      give(cluster, echo("2>1@1", round)).filter(({ _tag }) => _tag === "ReadIndexResponse").length
    for (let context = 1; context <= 2000; context++) ask(context)
    cluster.replica(1).settle()
    expect(answered(1)).toBe(1024)
    for (let context = 1; context <= 10; context++) ask(context)
    cluster.replica(1).settle()
    expect(answered(2)).toBe(10)
  })

  test("an idle leader or follower has nothing ready between heartbeats", () => {
    const cluster = plainCluster(RaftNode, 3)
    cluster.elect(1)
    cluster.run(20)
    let ready = 0
    for (let tick = 0; tick < 20; tick++) {
      for (const { node } of cluster.replicas) {
        node.tick(0)
        if (node.hasReady()) ready++
      }
      cluster.stabilize()
    }
    expect(ready).toBe(10)
  })

  test("a commit index alone is written once an election timeout, unsynced", () => {
    const cluster = plainCluster(RaftNode, 3)
    leadBy(cluster, 1)
    give(cluster, accepted("2>1@1", 1), vote("2>1@1", true), echo("3>1@1", 0))
    const leader = cluster.node(1)
    const writes = []
    for (let tick = 0; tick < 50; tick++) {
      leader.tick(0)
      const { hardState, mustSync } = leader.ready()
      if (hardState !== undefined) writes.push({ hardState, mustSync })
    }
    expect(writes).toEqual([{ hardState: { term: 1, vote: 1, commit: 1 }, mustSync: false }])
  })
})
