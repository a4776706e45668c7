import { expect } from "bun:test"
import type { ReadIndexRequest, ReadIndexResponse } from "../../src/raft/message.ts"
import { type RaftSettings, TestCluster } from "./cluster.ts"
import type { Rule } from "./figure2Rules.ts"
import { askVote, echo, give, heartbeat, type NodeClass } from "./messages.ts"

/** A group of three that n1 leads, with leases. */
function leased(Node: NodeClass, settings: Partial<RaftSettings> = {}): TestCluster {
  const cluster = new TestCluster({ nodes: 3, Node, settings: { leaseMs: 240, ...settings } })
  cluster.elect(1)
  return cluster
}

function round(cluster: TestCluster): void {
  for (let tick = 0; tick < cluster.settings.heartbeatTicks; tick++) cluster.tick(1)
  cluster.stabilize()
}

const ask: ReadIndexRequest = {
  _tag: "ReadIndexRequest",
  from: 3,
  to: 1,
  term: 1,
  session: 5,
  context: 7,
}

/** The rules of the thesis, section 6.4.1 and 6.4 for followers, and of DESIGN, "Timing and leases". */
export const leaseRules: ReadonlyArray<Rule> = [
  {
    name: "Raft thesis 6.4.1, pitfall 19: a lease lasts from the sending of a round that a quorum echoed",
    check: (Node) => {
      const cluster = leased(Node)
      cluster.pass(1000)
      cluster.tick(1)
      cluster.tick(1)
      const { nowMs } = cluster.replica(1)
      cluster.pass(200)
      expect(cluster.replica(1).holdsLease).toBe(false)
      cluster.stabilize()
      expect(cluster.replica(1).holdsLease).toBe(true)
      expect(cluster.node(1).leaseHolds(nowMs + 239, nowMs + 239)).toBe(true)
      expect(cluster.node(1).leaseHolds(nowMs + 240, nowMs + 240)).toBe(false)
    },
  },
  {
    name: "Raft thesis 6.4.1: one echo of three is no quorum, and without leases there is none",
    check: (Node) => {
      const cluster = leased(Node)
      cluster.pass(1000)
      cluster.isolate(2)
      cluster.isolate(3)
      round(cluster)
      expect(cluster.replica(1).holdsLease).toBe(false)
      cluster.heal()
      round(cluster)
      expect(cluster.replica(1).holdsLease).toBe(true)
      const off = leased(Node, { leaseMs: 0 })
      round(off)
      expect(off.replica(1).holdsLease).toBe(false)
    },
  },
  {
    name: "Raft thesis 6.4.1: with a lease a read is confirmed at once, without it by a round",
    check: (Node) => {
      const cluster = leased(Node)
      round(cluster)
      cluster.read(1, 1)
      expect(cluster.network).toEqual([])
      cluster.pass(240)
      cluster.read(1, 2)
      expect(cluster.network).toHaveLength(2)
      cluster.stabilize()
      expect(cluster.replica(1).reads).toEqual([
        { context: 1, index: 1, byLease: true },
        { context: 2, index: 1, byLease: false },
      ])
    },
  },
  {
    name: "DESIGN 3, pitfall 19: the lease is worth nothing when the clocks have moved apart",
    bug: "trusts the monotonic clock alone",
    check: (Node) => {
      const cluster = leased(Node)
      round(cluster)
      const leader = cluster.replica(1)
      leader.wallAheadMs += 20
      expect(leader.holdsLease).toBe(false)
      leader.wallAheadMs -= 40
      expect(leader.holdsLease).toBe(false)
      leader.wallAheadMs += 1
      expect(leader.holdsLease).toBe(true)
    },
  },
  {
    name: "Raft thesis 6.4.1, pitfall 19: nobody who gave a lease votes while it may last",
    bug: "votes within the silence",
    check: (Node) => {
      const cluster = leased(Node)
      cluster.isolate(1)
      cluster.campaign(2)
      cluster.stabilize()
      expect(cluster.node(2).role).not.toBe("leader")
      expect(cluster.node(3).term).toBe(1)
    },
  },
  {
    name: "Raft thesis 6.4.1: a vote for itself is a vote too: who hears a leader waits out the silence",
    bug: "votes for itself within the silence",
    check: (Node) => {
      const cluster = leased(Node, { electionTicksMin: 10, electionTicksMax: 10 })
      const { node } = cluster.replica(2)
      // Ticks that come late come close together.
      const { nowMs } = cluster.replica(2)
      node.step(heartbeat("1>2@1", 0), nowMs)
      for (let tick = 0; tick < 20; tick++) node.tick(nowMs + 299)
      expect(node.role).toBe("follower")
      node.tick(nowMs + 300)
      expect(node.role).toBe("preCandidate")
    },
  },
  {
    name: "Raft thesis 6.4.1: a lone voter to be, that heard the leader that made it one, waits too",
    bug: "votes for itself within the silence",
    check: (Node) => {
      const cluster = leased(Node)
      cluster.isolate(3)
      cluster.replica(1).leavesJoint = false
      cluster.change(1, [2])
      cluster.stabilize()
      cluster.replica(1).leaveJoint()
      cluster.replica(1).settle()
      cluster.deliver()
      expect(cluster.node(2).membership.voters).toEqual([2])
      cluster.tick(2)
      expect(cluster.node(2).role).toBe("follower")
      // It comes back with an entry that is not committed, as far as it knows.
      cluster.replica(2).crash()
      cluster.replica(2).restart()
      cluster.tick(2)
      expect(cluster.node(2).role).toBe("follower")
    },
  },
  {
    name: "pitfall 20: a leader that sent TimeoutNow has no lease for the rest of its term",
    bug: "keeps its lease after TimeoutNow",
    check: (Node) => {
      const cluster = leased(Node)
      round(cluster)
      cluster.transfer(1, 3)
      cluster.network = []
      expect(cluster.replica(1).holdsLease).toBe(false)
      cluster.run(20)
      expect(cluster.node(1).role).toBe("leader")
      expect(cluster.replica(1).holdsLease).toBe(false)
    },
  },
  {
    name: "pitfall 20: a TimeoutNow of an earlier term breaks no silence",
    bug: "obeys a TimeoutNow of an earlier term",
    check: (Node) => {
      const cluster = leased(Node)
      give(cluster, heartbeat("2>3@5", 0))
      expect(give(cluster, { _tag: "TimeoutNow", from: 1, to: 3, term: 1 })).toEqual([])
      expect([cluster.node(3).role, cluster.node(3).term]).toEqual(["follower", 5])
    },
  },
  {
    name: "pitfall 20: the silence is broken by the one election that the leader asked for, not by the next",
    check: (Node) => {
      const cluster = leased(Node)
      const asked = give(cluster, { _tag: "TimeoutNow", from: 1, to: 3, term: 1 })
      expect(asked.map((m) => (m._tag === "VoteRequest" ? m.transfer : undefined))).toEqual([
        true,
        true,
      ])
      cluster.network = []
      cluster.campaign(3)
      expect(cluster.network.some((m) => m._tag === "VoteRequest" && m.transfer)).toBe(false)
      const answer = give(cluster, { ...askVote("3>2@2", "9@1"), transfer: true })
      expect(answer).toHaveLength(1)
    },
  },
  {
    name: "Raft thesis 6.4: a follower's read is confirmed by a round that begins after the question",
    bug: "answers a follower by its lease",
    check: (Node) => {
      const cluster = leased(Node)
      round(cluster)
      expect(cluster.replica(1).holdsLease).toBe(true)
      expect(give(cluster, ask).map(({ _tag }) => _tag)).toEqual(["Heartbeat", "Heartbeat"])
      const answers = give(cluster, echo("2>1@1", 3), echo("3>1@1", 3))
      expect(answers).toEqual([{ ...ask, _tag: "ReadIndexResponse", from: 1, to: 3, index: 1 }])
    },
  },
  {
    name: "Raft thesis 6.4: a follower takes answers to its own questions of this life",
    bug: "takes an answer that was meant for an earlier life",
    check: (Node) => {
      const cluster = leased(Node)
      const follower = cluster.replica(3)
      expect(cluster.read(3, 7)).toBe(true)
      const question = cluster.network[0] as ReadIndexRequest
      const answer = { ...question, _tag: "ReadIndexResponse", from: 1, to: 3, index: 1 } as const
      give(cluster, { ...answer, session: (question.session + 1) >>> 0 } as ReadIndexResponse)
      expect(follower.reads).toEqual([])
      give(cluster, answer as ReadIndexResponse)
      expect(follower.reads).toEqual([{ context: 7, index: 1, byLease: false }])
    },
  },
  {
    name: "Raft thesis 6.4: without a leader a follower asks nobody, and who does not lead does not answer",
    check: (Node) => {
      const cluster = leased(Node)
      expect(give(cluster, { ...ask, to: 2 })).toEqual([])
      cluster.replica(2).crash()
      cluster.replica(2).restart()
      expect(cluster.read(2, 1)).toBe(false)
    },
  },
]
