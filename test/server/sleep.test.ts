import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { contains } from "../../src/server/descriptors.ts"
import type { PeerBeats } from "../../src/server/peerBeats.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Replica } from "../../src/server/replica.ts"
import { plainRead } from "../../src/server/requests.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { LoopCluster } from "./loopCluster.ts"

const sleepTicks = 20
const quietMs = 3000

/** What each node has sent since the last look, by kind; of consensus by kind of message. */
function listen(cluster: LoopCluster): () => Record<string, number> {
  let counts: Record<string, number> = {}
  const { loses } = cluster
  cluster.loses = (from, to, message) => {
    const name = message._tag === "Raft" ? message.message._tag : message._tag
    counts[name] = (counts[name] ?? 0) + 1
    return loses(from, to, message)
  }
  return () => {
    const before = counts
    counts = {}
    return before
  }
}

function awakeOf(cluster: LoopCluster): number {
  return [...cluster.nodes.values()].reduce((sum, { loop }) => sum + loop.set.awake.length, 0)
}

function asleep(): LoopCluster {
  const cluster = new LoopCluster({ settings: { sleepTicks } })
  cluster.untilLeader(1)
  for (let i = 0; i < 10; i++) cluster.put(`key ${i}`, "1")
  cluster.until("all sleep", () => awakeOf(cluster) === 0, 10_000)
  return cluster
}

const terms = (cluster: LoopCluster) =>
  [...cluster.nodes.values()].flatMap(({ loop }) =>
    [...loop.replicas.values()].map(({ raft }) => raft.term),
  )

describe("idle groups", () => {
  test("sleep: nodes beat in their stead, and nothing else is sent, proposed or elected", () => {
    const cluster = asleep()
    const before = terms(cluster)
    const heard = listen(cluster)
    cluster.pass(quietMs)
    const counts = heard()
    expect(Object.keys(counts).sort()).toEqual(
      ["Beat", "BeatEcho", "Chain", "Clock"].filter((name) => name in counts),
    )
    expect(counts.Beat).toBeGreaterThan(0)
    expect(counts.BeatEcho).toBe(counts.Beat as number)
    // One a pair of nodes at most, however many groups there are.
    expect(counts.Beat as number).toBeLessThanOrEqual(6 * (quietMs / 60 + 1))
    expect(awakeOf(cluster)).toBe(0)
    expect(terms(cluster)).toEqual(before)
  })

  test("wake for a write and for a read without an election", () => {
    const cluster = asleep()
    const before = terms(cluster)
    cluster.put("key 1", "2")
    expect(cluster.get("key 1")).toBe("2")
    cluster.until("all sleep again", () => awakeOf(cluster) === 0, 10_000)
    expect(cluster.get("key 2")).toBe("1")
    expect(terms(cluster)).toEqual(before)
    cluster.expectWhole()
  })

  test("a leader that wakes has the lease that the beats gave it, and answers a read in the same turn", () => {
    const cluster = asleep()
    cluster.pass(500)
    const leader = cluster.untilLeader(1)
    const replica = leader.loop.replicas.get(1)
    const { monotonicMs, wallMs } = leader.loop.clock
    expect(replica?.raft.leaseHolds(monotonicMs, wallMs)).toBe(false)
    leader.loop.rouse(replica as never)
    expect(replica?.raft.leaseHolds(monotonicMs, wallMs)).toBe(true)
  })

  test("a round that was found equal before the group fell asleep gives no lease (a stale heartbeat hash)", () => {
    const cluster = asleep()
    const leader = cluster.untilLeader(1)
    const replica = leader.loop.replicas.get(1) as Replica
    cluster.loses = () => true
    // Its lease has run out, and nothing has confirmed it since.
    cluster.pass(250)
    const { asleep: since } = replica
    const { peers } = (leader.loop as unknown as { beats: { peers: Map<number, PeerBeats> } }).beats
    for (const peer of peers.values()) {
      peer.equalRound = (since?.round ?? 0) - 1
      peer.equalMark = leader.loop.clock
    }
    const { monotonicMs, wallMs } = leader.loop.clock
    leader.loop.rouse(replica)
    expect(replica.raft.leaseHolds(monotonicMs, wallMs)).toBe(false)
  })

  test("a lost connection changes nothing of a sleeper, which has nothing under way", () => {
    const cluster = asleep()
    const leader = cluster.untilLeader(1)
    for (const node of [1, 2, 3]) leader.loop.unreachable(node)
    const { raft } = leader.loop.replicas.get(1) as Replica
    const states = raft.progress().map(({ state }) => state)
    expect(states).toEqual(["replicate", "replicate", "replicate"])
  })

  test("a follower that is woken to vote keeps the silence that the last beat began", () => {
    const cluster = asleep()
    cluster.pass(1000)
    const leader = cluster.untilLeader(1)
    const [voter, candidate] = [1, 2, 3].filter((id) => id !== leader.id) as [number, number]
    const { raft, machine } = cluster.replica(voter, 1) as Replica
    const from = cluster.replica(candidate, 1)?.machine.replica as number
    const { term, lastIndex } = raft
    const request = { _tag: "VoteRequest", preVote: false, transfer: false, lastIndex } as const
    const message = { ...request, from, to: machine.replica, term: term + 5, lastTerm: term }
    cluster.node(voter).loop.receive(candidate, { _tag: "Raft", range: 1, message })
    cluster.pass(10)
    expect(raft.term).toBe(term)
    cluster.loses = () => true
    cluster.pass(310)
    cluster.node(voter).loop.receive(candidate, { _tag: "Raft", range: 1, message })
    cluster.pass(10)
    expect(raft.term).toBe(term + 5)
  })

  test("a local read lets its group sleep", () => {
    const cluster = asleep()
    const position = hashPosition(1, utf8("key 1"))
    for (const { loop } of cluster.nodes.values()) {
      const descriptors = [...loop.replicas.values()].map(({ machine }) => machine.descriptor)
      const descriptor = descriptors.find((each) => contains(each, position)) as RangeDescriptor
      const { id: range, boundsVersion } = descriptor
      const place = { range, boundsVersion, position, deadlineMs: 1000 }
      loop.request({ _tag: "Get", token: 1_000_007, ...place, ...plainRead, level: "local" })
    }
    cluster.pass(100)
    expect(awakeOf(cluster)).toBe(0)
    for (const { replies } of cluster.nodes.values()) {
      expect(replies.find(({ token }) => token === 1_000_007)?._tag).toBe("Value")
    }
  })

  test("a leader that dies asleep is followed by another", () => {
    const cluster = asleep()
    const leader = cluster.untilLeader(1)
    cluster.crash(leader.id)
    cluster.until("another leads", () => (cluster.leader(1)?.id ?? leader.id) !== leader.id, 3000)
    for (let i = 0; i < 10; i++) cluster.put(`key ${i}`, "3")
    cluster.start(leader.id)
    cluster.until("all sleep again", () => awakeOf(cluster) === 0, 20_000)
    cluster.expectWhole()
  })

  test("a follower that restarts finds its leaders, who wake for it", () => {
    const cluster = asleep()
    const leader = cluster.untilLeader(1)
    const other = [1, 2, 3].find((id) => id !== leader.id) as number
    cluster.restart(other)
    cluster.until("all sleep again", () => awakeOf(cluster) === 0, 20_000)
    cluster.put("key 1", "4")
    cluster.expectWhole()
  })

  test("a leader that is cut off has no lease from the beats, and steps down", () => {
    const cluster = asleep()
    const leader = cluster.untilLeader(1)
    cluster.loses = (from, to) => from === leader.id || to === leader.id
    cluster.until(
      "another leads",
      () => {
        return [...cluster.nodes.values()].some(
          ({ id, loop }) => id !== leader.id && loop.replicas.get(1)?.isLeader === true,
        )
      },
      5000,
    )
    const replica = leader.loop.replicas.get(1)
    leader.loop.rouse(replica as never)
    const { monotonicMs, wallMs } = leader.loop.clock
    expect(replica?.raft.leaseHolds(monotonicMs, wallMs)).toBe(false)
    cluster.until("it has stepped down", () => replica?.isLeader === false, 5000)
  })

  test("messages of this kind may be lost, doubled and late", () => {
    const cluster = asleep()
    let count = 0
    const kept: Array<{ from: number; to: number; message: PeerMessage }> = []
    cluster.loses = (from, to, message) => {
      if (!["Beat", "BeatEcho", "Rouse"].includes(message._tag)) return false
      if (++count % 7 === 0) kept.push({ from, to, message })
      return count % 3 === 0
    }
    for (let round = 0; round < 40; round++) {
      cluster.pass(200)
      if (round % 4 === 0) cluster.put(`key ${round % 10}`, `${round}`)
      for (const { from, to, message } of kept.splice(0))
        cluster.node(to).loop.receive(from, message)
    }
    cluster.loses = () => false
    cluster.until("all sleep again", () => awakeOf(cluster) === 0, 20_000)
    cluster.expectWhole()
  })
})
