import { expect } from "bun:test"
import { describeMessage } from "../../src/raft/describe.ts"
import { tickMs } from "./cluster.ts"
import type { Rule } from "./figure2Rules.ts"
import {
  accepted,
  append,
  askVote,
  echo,
  give,
  heartbeat,
  leadBy,
  type NodeClass,
  plainCluster,
  refused,
  vote,
} from "./messages.ts"

/** A leader of three whose first entry is committed and applied, alone with made-up answers. */
function quietLeader(Node: NodeClass, settings = {}) {
  const cluster = plainCluster(Node, 3, settings)
  leadBy(cluster, 1)
  give(cluster, accepted("2>1@1", 1))
  return cluster
}

/**
 * The rules of the Raft paper's section 8, and of the thesis, sections 4.2.3, 6.2, 6.4, 9.6,
 * 10.2.1.
 */
export const thesisRules: ReadonlyArray<Rule> = [
  {
    name: "Raft paper 8: a leader begins its term with an empty entry",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      expect(cluster.replica(1).durableLog.all.map(({ term, kind }) => [term, kind])).toEqual([
        [1, 0],
      ])
    },
  },
  {
    name: "Raft paper 8; thesis 6.4 step 1: no read before an own entry is committed",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("2>1@1", "0@0", 1, "1@1", "2@1=a"))
      leadBy(cluster, 2)
      expect(cluster.read(1, 7)).toBe(true)
      cluster.node(1).tick(0)
      cluster.node(1).tick(0)
      cluster.replica(1).settle()
      give(cluster, echo("2>1@2", 1), echo("3>1@2", 1))
      expect(cluster.replica(1).reads).toEqual([])
      const [round] = give(cluster, accepted("2>1@2", 3))
      expect(round?._tag).toBe("Heartbeat")
      give(cluster, echo("2>1@2", 2))
      expect(cluster.replica(1).reads).toEqual([{ context: 7, index: 3, byLease: false }])
    },
  },
  {
    name: "Raft thesis 6.4 step 2: the read index is the commit index of when its round began",
    check: (Node) => {
      const cluster = quietLeader(Node)
      cluster.read(1, 1)
      cluster.propose(1, "a")
      give(cluster, accepted("2>1@1", 2))
      give(cluster, echo("2>1@1", 1))
      expect(cluster.replica(1).reads).toEqual([{ context: 1, index: 1, byLease: false }])
    },
  },
  {
    name: "Raft thesis 6.4 step 3: an echo of a round begun before the read came confirms nothing",
    check: (Node) => {
      const cluster = quietLeader(Node)
      cluster.tick(1)
      cluster.tick(1)
      cluster.read(1, 1)
      cluster.read(1, 2)
      give(cluster, echo("2>1@1", 1))
      expect(cluster.replica(1).reads).toEqual([])
      give(cluster, echo("2>1@1", 2))
      expect(cluster.replica(1).reads.map(({ context }) => context)).toEqual([1])
      give(cluster, echo("2>1@1", 3))
      expect(cluster.replica(1).reads.map(({ context }) => context)).toEqual([1, 2])
    },
  },
  {
    name: "Raft thesis 6.4 step 3: a majority must echo, and one voter's echoes count once",
    check: (Node) => {
      const cluster = plainCluster(Node, 5)
      leadBy(cluster, 1)
      give(cluster, accepted("2>1@1", 1), accepted("3>1@1", 1))
      cluster.read(1, 1)
      give(cluster, echo("2>1@1", 1), echo("2>1@1", 1))
      expect(cluster.replica(1).reads).toEqual([])
      give(cluster, echo("4>1@1", 1))
      expect(cluster.replica(1).reads).toHaveLength(1)
    },
  },
  {
    name: "Raft thesis 6.4: reads that come in one turn share a round, which waits for no tick",
    check: (Node) => {
      const cluster = quietLeader(Node)
      cluster.node(1).readIndex(1)
      cluster.node(1).readIndex(2)
      cluster.replica(1).settle()
      expect(cluster.network.map(describeMessage)).toEqual([
        "n1@1 -> n2 Heartbeat commit=1 round=1",
        "n1@1 -> n3 Heartbeat commit=0 round=1",
      ])
    },
  },
  {
    name: "Raft thesis 6.4: an echo of an earlier term confirms no read",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      give(cluster, heartbeat("2>1@2", 0))
      leadBy(cluster, 3)
      give(cluster, accepted("2>1@3", 2))
      cluster.read(1, 1)
      give(cluster, echo("2>1@1", 1))
      expect(cluster.replica(1).reads).toEqual([])
    },
  },
  {
    name: "Raft thesis 6.4: a leader deposed gives its reads up, confirmed ones stay",
    check: (Node) => {
      const cluster = quietLeader(Node)
      cluster.read(1, 1)
      cluster.node(1).readIndex(2)
      give(cluster, heartbeat("3>1@2", 0))
      expect(cluster.replica(1).readsLost).toEqual([1, 2])
    },
  },
  {
    name: "Raft thesis 9.6: a pre-vote changes no term and no vote, on either side",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { preVote: true })
      cluster.campaign(1)
      expect(cluster.node(1).role).toBe("preCandidate")
      expect(cluster.node(1).term).toBe(0)
      const answers = give(
        cluster,
        askVote("1>2@1", "0@0", true),
        askVote("3>2@1", "0@0", true),
        askVote("3>2@1", "0@0"),
      )
      expect(answers.map(describeMessage)).toEqual([
        "n2@1 -> n1 PreVoteResponse granted",
        "n2@1 -> n3 PreVoteResponse granted",
        "n2@1 -> n3 VoteResponse granted",
      ])
    },
  },
  {
    name: "Raft thesis 9.6: only a majority of pre-votes begins an election",
    check: (Node) => {
      const cluster = plainCluster(Node, 5, { preVote: true })
      cluster.campaign(1)
      give(cluster, vote("2>1@1", true, true))
      expect(cluster.node(1).role).toBe("preCandidate")
      give(cluster, vote("3>1@1", true, true))
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["candidate", 1])
      give(cluster, vote("4>1@1", true, true))
      expect(cluster.node(1).role).toBe("candidate")
    },
  },
  {
    name: "Raft thesis 9.6: a pre-vote granted for an earlier question does not count",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { preVote: true })
      give(cluster, heartbeat("2>1@5", 0))
      cluster.campaign(1)
      give(cluster, vote("2>1@3", true, true))
      expect(cluster.node(1).role).toBe("preCandidate")
      give(cluster, vote("2>1@6", true, true))
      expect(cluster.node(1).role).toBe("candidate")
    },
  },
  {
    name: "Raft thesis 9.6: a majority of refusals ends it, one of a later term teaches that",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { preVote: true })
      cluster.campaign(1)
      give(cluster, vote("2>1@0", false, true), vote("3>1@0", false, true))
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["follower", 0])
      cluster.campaign(1)
      give(cluster, vote("2>1@4", false, true))
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["follower", 4])
    },
  },
  {
    name: "Raft thesis 9.6: a log behind the voter's, or a term passed, gets no pre-vote",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { preVote: true })
      give(cluster, append("1>2@3", "0@0", 0, "1@3"))
      const answers = give(
        cluster,
        askVote("3>2@4", "0@0", true),
        askVote("3>2@2", "9@2", true),
        askVote("3>2@3", "9@3", true),
        askVote("3>2@4", "1@3", true),
      )
      expect(answers.map((answer) => describeMessage(answer).split(" ").at(-1))).toEqual([
        "refused",
        "refused",
        "refused",
        "granted",
      ])
    },
  },
  {
    name: "Raft thesis 9.6: a replica cut off for an hour comes back without disturbance",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, {
        preVote: true,
        checkQuorum: true,
        voteSilenceMs: 300,
      })
      cluster.elect(1)
      cluster.isolate(3)
      cluster.run(3_600_000 / tickMs)
      cluster.heal()
      cluster.run(60)
      expect(cluster.node(1).role).toBe("leader")
      expect(cluster.replicas.map(({ node }) => node.term)).toEqual([1, 1, 1])
    },
  },
  {
    name: "Raft thesis 9.6, 6.2: one of a later term and a shorter log does not block its group",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, {
        preVote: true,
        checkQuorum: true,
        voteSilenceMs: 300,
      })
      cluster.elect(1)
      cluster.propose(1, "a")
      cluster.isolate(3)
      cluster.run(4)
      give(cluster, heartbeat("2>3@9", 0))
      cluster.heal()
      cluster.run(100)
      expect(cluster.leaders).toHaveLength(1)
      expect(cluster.leaders[0]?.term).toBeGreaterThan(9)
      cluster.propose(cluster.leaders[0]?.id as number, "b")
      cluster.run(4)
      const ends = cluster.replicas.map(({ applied }) => applied.length)
      expect(new Set(ends).size).toBe(1)
    },
  },
  {
    name: "Raft thesis 4.2.3: who heard a leader lately gives no vote, and does not take the term",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { voteSilenceMs: 300 })
      cluster.pass(1000)
      give(cluster, heartbeat("1>2@1", 0))
      cluster.pass(299)
      expect(give(cluster, askVote("3>2@2", "9@1"), askVote("3>2@2", "9@1", true))).toEqual([])
      expect(cluster.node(2).term).toBe(1)
      cluster.pass(1)
      expect(give(cluster, askVote("3>2@2", "9@1"))).toHaveLength(1)
    },
  },
  {
    name: "Raft thesis 4.2.3: after its start a voter neither votes nor campaigns for as long",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, {
        voteSilenceMs: 300,
        electionTicksMin: 3,
        electionTicksMax: 3,
      })
      for (let tick = 0; tick < 9; tick++) cluster.tick(2)
      expect(give(cluster, askVote("3>2@2", "9@1"))).toEqual([])
      expect([cluster.node(2).role, cluster.node(2).term]).toEqual(["follower", 0])
      cluster.tick(2)
      expect(cluster.node(2).role).toBe("candidate")
    },
  },
  {
    name: "Raft thesis 6.2: a leader that hears no majority for an election timeout steps down",
    check: (Node) => {
      const cluster = plainCluster(Node, 5, { checkQuorum: true })
      leadBy(cluster, 1)
      for (let round = 0; round < 3; round++) {
        give(cluster, echo("2>1@1", 0), echo("3>1@1", 0))
        for (let tick = 0; tick < 10; tick++) cluster.tick(1)
        expect(cluster.node(1).role).toBe("leader")
      }
      cluster.read(1, 5)
      give(cluster, echo("2>1@1", 0))
      for (let tick = 0; tick < 10; tick++) cluster.tick(1)
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["follower", 1])
      expect(cluster.replica(1).readsLost).toEqual([5])
      expect(cluster.propose(1, "late")).toBeUndefined()
    },
  },
  {
    name: "Raft thesis 10.2.1: a leader sends while it writes, and counts itself after that",
    check: (Node) => {
      const cluster = quietLeader(Node)
      const leader = cluster.replica(1)
      leader.holdsWrites = true
      cluster.propose(1, "a")
      expect(cluster.network.map(({ _tag }) => _tag)).toContain("AppendRequest")
      give(cluster, accepted("2>1@1", 2))
      expect(leader.node.commitIndex).toBe(1)
      leader.persist()
      expect(leader.node.commitIndex).toBe(2)
    },
  },
  {
    name: "Raft thesis 10.2.1: others may commit what the leader's own disk lacks yet",
    check: (Node) => {
      const cluster = quietLeader(Node)
      const leader = cluster.replica(1)
      leader.holdsWrites = true
      cluster.propose(1, "a")
      give(cluster, accepted("2>1@1", 2), accepted("3>1@1", 2))
      expect(leader.node.commitIndex).toBe(2)
      expect(leader.applied).toHaveLength(1)
      leader.persist()
      leader.settle()
      expect(leader.applied).toHaveLength(2)
    },
  },
  {
    name: "Raft thesis 10.2.1: a pipeline holds no more appends than its window, a probe just one",
    check: (Node) => {
      const cluster = quietLeader(Node, { maxInflightAppends: 3 })
      for (let i = 0; i < 10; i++) cluster.propose(1, `${i}`)
      const sent = (to: number) => cluster.network.filter((message) => message.to === to).length
      expect([sent(2), sent(3)]).toEqual([3, 0])
      expect(give(cluster, refused("3>1@1", 0))).toHaveLength(1)
    },
  },
]
