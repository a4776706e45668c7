import { describe, expect, test } from "bun:test"
import type { Replica } from "../../src/server/replica.ts"
import { LoopCluster, unflushed } from "./loopCluster.ts"

const limitBytes = 4096
const content = "v".repeat(200)

/** Three nodes that keep their whole logs, so that nobody needs a snapshot. */
function begun(settings = {}): LoopCluster {
  const small = { maxUnappliedBytes: limitBytes, maxAppendBytes: 400 }
  const cluster = new LoopCluster({ settings: { ...unflushed, ...small, ...settings } })
  cluster.put("k", content)
  cluster.pass(500)
  return cluster
}

function followersOf(cluster: LoopCluster): ReadonlyArray<number> {
  const leader = cluster.untilLeader(1).id
  return [1, 2, 3].filter((id) => id !== leader)
}

const replicaOf = (cluster: LoopCluster, id: number) => cluster.replica(id, 1) as Replica

/** The node's engine has no room until this is called. */
function stopApplying(cluster: LoopCluster, id: number): () => void {
  const { engine } = cluster.node(id).loop.storage
  Object.defineProperty(engine, "canWrite", { value: () => false, configurable: true })
  return () => void Reflect.deleteProperty(engine, "canWrite")
}

function unappliedBytes({ log, machine }: Replica): number {
  return log.sizeBytesAbove(machine.appliedIndex)
}

/** Counts the appends with entries that go to a node. */
function countAppends(cluster: LoopCluster, id: number): { entries: number } {
  const counted = { entries: 0 }
  cluster.loses = (_, to, message) => {
    const isAppend = message._tag === "Raft" && message.message._tag === "AppendRequest"
    if (to === id && isAppend) counted.entries += message.message.entries.length
    return false
  }
  return counted
}

describe("a follower that cannot apply", () => {
  test("takes no more than the limit, is sent nothing while it is full, and catches up by its log", () => {
    const cluster = begun()
    const [slow] = followersOf(cluster) as [number]
    const replica = replicaOf(cluster, slow)
    const resume = stopApplying(cluster, slow)
    for (let i = 0; i < 60; i++) cluster.put(`k${i}`, content)
    expect(replica.raft.isFull).toBe(true)
    expect(unappliedBytes(replica)).toBeGreaterThan(limitBytes)
    // What comes between two ticks, and what is under way by then.
    expect(unappliedBytes(replica)).toBeLessThan(limitBytes + 8 * 400)
    const sent = countAppends(cluster, slow)
    for (let i = 0; i < 60; i++) cluster.put(`m${i}`, content)
    expect(sent.entries).toBe(0)
    resume()
    cluster.until("it has all", () => replica.machine.appliedIndex >= 120, 5000)
    expect(replica.raft.isFull).toBe(false)
    cluster.expectWhole()
  })

  test("drops what a leader sends that does not know", () => {
    const cluster = begun()
    const [slow] = followersOf(cluster) as [number]
    const replica = replicaOf(cluster, slow)
    stopApplying(cluster, slow)
    cluster.loses = (from, _, message) =>
      from === slow && message._tag === "Raft" && message.message._tag === "HeartbeatResponse"
    for (let i = 0; i < 60; i++) cluster.put(`k${i}`, content)
    expect(unappliedBytes(replica)).toBeLessThan(limitBytes + 8 * 400)
  })

  test("is brought along by a snapshot when its next entry has left the leader's log", () => {
    const cluster = begun({ retainedEntries: 0, engine: { memtableBytes: 8192, blockBytes: 256 } })
    const [slow] = followersOf(cluster) as [number]
    const replica = replicaOf(cluster, slow)
    const resume = stopApplying(cluster, slow)
    let wasFull = false
    const { appliedIndex } = replica.machine
    for (let i = 0; i < 150; i++) {
      cluster.put(`k${i % 70}`, `${content}${i}`)
      wasFull ||= replica.raft.isFull
    }
    expect(wasFull).toBe(true)
    cluster.until("a snapshot", () => replica.machine.appliedIndex > appliedIndex, 10_000)
    resume()
    cluster.expectWhole()
  })

  test("counts nothing that only waits to be committed, which may wait for this very follower", () => {
    const cluster = begun({ maxUncommittedBytes: 1 << 20 })
    const followers = followersOf(cluster)
    const resumes = followers.map((id) => stopApplying(cluster, id))
    // One entry is committed and cannot be applied; those after it are not committed.
    cluster.put("k", "before")
    cluster.pass(200)
    cluster.loses = (from, _, message) =>
      followers.includes(from) &&
      message._tag === "Raft" &&
      message.message._tag === "AppendResponse"
    for (let i = 0; i < 60; i++) cluster.beginPut(`k${i}`, content)
    cluster.pass(200)
    for (const id of followers) {
      expect(unappliedBytes(replicaOf(cluster, id))).toBeGreaterThan(limitBytes)
      expect(replicaOf(cluster, id).raft.isFull).toBe(false)
    }
    cluster.loses = () => false
    for (const resume of resumes) resume()
    cluster.put("k", "again")
    cluster.expectWhole()
  })

  test("where that leaves no quorum, clients are told Overloaded until there is room again", () => {
    const cluster = begun({ maxUncommittedBytes: 2000 })
    const resumes = followersOf(cluster).map((id) => stopApplying(cluster, id))
    const leader = cluster.untilLeader(1)
    for (let i = 0; i < 100; i++) {
      cluster.beginPut(`k${i}`, content)
      cluster.pass(20)
    }
    const refusals = leader.replies.flatMap((reply) =>
      reply._tag === "Refused" ? [reply.refusal._tag] : [],
    )
    expect(refusals.length).toBeGreaterThan(20)
    expect(new Set(refusals)).toEqual(new Set(["Overloaded"]))
    for (const resume of resumes) resume()
    cluster.put("k", "again")
    cluster.expectWhole()
  })
})
