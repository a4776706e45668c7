import { expect } from "bun:test"
import { describeMessage } from "../../src/raft/describe.ts"
import {
  accepted,
  append,
  askVote,
  give,
  heartbeat,
  leadBy,
  logText,
  type NodeClass,
  plainCluster,
  refused,
  texts,
  vote,
} from "./messages.ts"
import type { plantedBugs } from "./plantedBugs.ts"

/** A rule with its place in the literature, and a planted bug that must break it. */
export interface Rule {
  readonly name: string
  readonly bug?: keyof typeof plantedBugs
  readonly check: (Node: NodeClass) => void
}

/** The rules of Figure 2 of the extended Raft paper. */
export const figure2Rules: ReadonlyArray<Rule> = [
  {
    name: "Figure 2, state: term and vote are durable before a vote leaves, in one piece",
    check: (Node) => {
      const cluster = plainCluster(Node)
      const voter = cluster.replica(2)
      voter.holdsWrites = true
      expect(give(cluster, askVote("1>2@1", "0@0"))).toEqual([])
      expect(voter.durableState).toEqual({ term: 0, vote: 0, commit: 0 })
      voter.persist()
      expect(voter.durableState).toEqual({ term: 1, vote: 1, commit: 0 })
      expect(texts(cluster.network)).toEqual(["n2@1 -> n1 VoteResponse granted"])
    },
  },
  {
    name: "Figure 2, state: a restarted voter does not vote twice in a term",
    bug: "forgets its vote in a crash",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, askVote("1>2@1", "0@0"))
      cluster.replica(2).crash()
      cluster.replica(2).restart()
      const answers = give(cluster, askVote("3>2@1", "0@0"))
      expect(texts(answers)).toEqual(["n2@1 -> n3 VoteResponse refused"])
    },
  },
  {
    name: "Figure 2, state: an acknowledgement leaves when the entries are durable",
    bug: "acknowledges before it is durable",
    check: (Node) => {
      const cluster = plainCluster(Node)
      const follower = cluster.replica(2)
      follower.holdsWrites = true
      expect(give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a"))).toEqual([])
      follower.persist()
      expect(texts(cluster.network)).toEqual(["n2@1 -> n1 AppendResponse accepted=2"])
    },
  },
  {
    name: "Figure 2, state: an acknowledgement of entries being written waits for them too",
    bug: "acknowledges before it is durable",
    check: (Node) => {
      const cluster = plainCluster(Node)
      const follower = cluster.replica(2)
      follower.holdsWrites = true
      const request = append("1>2@1", "0@0", 0, "1@1")
      expect(give(cluster, request, request)).toEqual([])
      follower.persist()
      expect(cluster.network).toHaveLength(1)
    },
  },
  {
    name: "Figure 2, RequestVote 1: a request of an earlier term is refused, with the present term",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, heartbeat("3>2@5", 0))
      const answers = give(cluster, askVote("1>2@4", "9@4"))
      expect(texts(answers)).toEqual(["n2@5 -> n1 VoteResponse refused"])
    },
  },
  {
    name: "Figure 2, RequestVote 2: the same candidate is granted the vote again, another is not",
    bug: "grants two votes in a term",
    check: (Node) => {
      const cluster = plainCluster(Node)
      const ask = askVote("1>2@1", "0@0")
      expect(texts(give(cluster, ask, ask, askVote("3>2@1", "0@0")))).toEqual([
        "n2@1 -> n1 VoteResponse granted",
        "n2@1 -> n1 VoteResponse granted",
        "n2@1 -> n3 VoteResponse refused",
      ])
    },
  },
  {
    name: "Figure 2, RequestVote 2: a candidate that steps down in its term keeps its own vote",
    bug: "grants two votes in a term",
    check: (Node) => {
      const cluster = plainCluster(Node)
      cluster.campaign(2)
      give(cluster, heartbeat("1>2@1", 0))
      expect(cluster.node(2).role).toBe("follower")
      const answers = give(cluster, askVote("3>2@1", "0@0"))
      expect(texts(answers)).toEqual(["n2@1 -> n3 VoteResponse refused"])
    },
  },
  {
    name: "Figure 2, AppendEntries 1: an earlier leader is refused, and learns the present term",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, heartbeat("3>2@5", 0))
      expect(texts(give(cluster, append("1>2@4", "0@0", 0, "1@4")))).toEqual([
        "n2@5 -> n1 AppendResponse refused=0 hint=0@0",
      ])
      expect(texts(give(cluster, heartbeat("1>2@4", 0, 3)))).toEqual([
        "n2@5 -> n1 HeartbeatResponse round=0",
      ])
      expect(cluster.node(2).lastIndex).toBe(0)
    },
  },
  {
    name: "Figure 2, AppendEntries 2: an append after a gap, or after another term, is refused",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a"))
      expect(texts(give(cluster, append("1>2@3", "3@3", 0, "4@3")))).toEqual([
        "n2@3 -> n1 AppendResponse refused=3 hint=2@1",
      ])
      expect(texts(give(cluster, append("1>2@3", "2@2", 0, "3@3")))).toEqual([
        "n2@3 -> n1 AppendResponse refused=2 hint=2@1",
      ])
      expect(logText(cluster, 2)).toBe("1@1 2@1=a")
    },
  },
  {
    name: "Figure 2, AppendEntries 3: a conflicting entry and all that follow it are deleted",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a", "3@1=b"))
      give(cluster, append("3>2@2", "1@1", 0, "2@2=c"))
      expect(logText(cluster, 2)).toBe("1@1 2@2=c")
    },
  },
  {
    name: "Figure 2, AppendEntries 3: a truncation lowers what is known to be durable",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a", "3@1=b"))
      const replica = cluster.replica(2)
      replica.holdsWrites = true
      give(cluster, append("3>2@2", "1@1", 2, "2@2=c"))
      expect(replica.node.durableIndex).toBe(1)
      expect(replica.node.commitIndex).toBe(2)
      expect(replica.applied).toHaveLength(1)
      replica.persist()
      replica.settle()
      expect(replica.applied).toHaveLength(2)
    },
  },
  {
    name: "Figure 2, AppendEntries 4: entries already there stay, with all that follow them",
    bug: "cuts the log on every append",
    check: (Node) => {
      const cluster = plainCluster(Node)
      const late = append("1>2@1", "0@0", 0, "1@1", "2@1=a")
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a", "3@1=b"))
      expect(texts(give(cluster, late))).toEqual(["n2@1 -> n1 AppendResponse accepted=2"])
      expect(cluster.node(2).lastIndex).toBe(3)
    },
  },
  {
    name: "Figure 2, AppendEntries 5: commit goes no further than the last new entry",
    bug: "commits up to its last entry",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a", "3@1=other"))
      give(cluster, append("3>2@2", "2@1", 3))
      expect(cluster.node(2).commitIndex).toBe(2)
    },
  },
  {
    name: "Figure 2, all servers: committed entries are applied in order, each once",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { maxCommittedBytes: 1 })
      give(cluster, append("1>2@1", "0@0", 0, "1@1", "2@1=a", "3@1=b"))
      give(cluster, heartbeat("1>2@1", 2), heartbeat("1>2@1", 3), heartbeat("1>2@1", 2))
      expect(cluster.replica(2).applied.map(({ index }) => index)).toEqual([1, 2, 3])
      expect(cluster.node(2).commitIndex).toBe(3)
    },
  },
  {
    name: "Figure 2, all servers; 5.1: whoever sees a later term follows in it, in any role",
    check: (Node) => {
      const cluster = plainCluster(Node)
      cluster.campaign(1)
      give(cluster, vote("2>1@3", false))
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["follower", 3])
      leadBy(cluster, 4)
      expect(cluster.node(1).role).toBe("leader")
      give(cluster, refused("2>1@6", 0))
      expect([cluster.node(1).role, cluster.node(1).term]).toEqual(["follower", 6])
      give(cluster, askVote("3>1@8", "0@0"))
      expect(cluster.node(1).term).toBe(8)
    },
  },
  {
    name: "Figure 2, followers: one that hears nothing for its timeout campaigns",
    check: (Node) => {
      const cluster = plainCluster(Node)
      for (let tick = 0; tick < 60; tick++) {
        give(cluster, heartbeat("1>2@1", 0, tick + 1))
        cluster.tick(2)
        cluster.tick(3)
      }
      expect(cluster.node(2).role).toBe("follower")
      expect(cluster.node(3).role).toBe("candidate")
    },
  },
  {
    name: "Figure 2, followers: a vote given starts the timeout anew, a refused one does not",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { electionTicksMin: 10, electionTicksMax: 10 })
      give(cluster, append("1>2@1", "0@0", 0, "1@1"), append("1>3@1", "0@0", 0, "1@1"))
      for (let tick = 0; tick < 9; tick++) for (const id of [2, 3]) cluster.tick(id)
      give(cluster, askVote("1>2@2", "1@1"), askVote("1>3@2", "0@0"))
      for (const id of [2, 3]) cluster.tick(id)
      expect(cluster.node(2).role).toBe("follower")
      expect(cluster.node(3).role).toBe("candidate")
    },
  },
  {
    name: "Figure 2, candidates: a new term, its own vote, a new timeout, requests to all others",
    check: (Node) => {
      const cluster = plainCluster(Node)
      cluster.campaign(1)
      expect(cluster.node(1).term).toBe(1)
      expect(cluster.replica(1).durableState).toEqual({ term: 1, vote: 1, commit: 0 })
      expect(texts(cluster.network)).toEqual([
        "n1@1 -> n2 Vote last=0@0",
        "n1@1 -> n3 Vote last=0@0",
      ])
    },
  },
  {
    name: "Figure 2, candidates: request and own vote count when both are durable",
    check: (Node) => {
      const cluster = plainCluster(Node, 3)
      cluster.replica(1).holdsWrites = true
      cluster.campaign(1)
      expect(cluster.network).toEqual([])
      give(cluster, vote("2>1@1", true))
      expect(cluster.node(1).role).toBe("candidate")
      cluster.replica(1).persist()
      expect(cluster.node(1).role).toBe("leader")
    },
  },
  {
    name: "Figure 2, candidates: one that hears the leader of its term follows it",
    check: (Node) => {
      const cluster = plainCluster(Node)
      cluster.campaign(1)
      give(cluster, append("2>1@1", "0@0", 0, "1@1"))
      expect([cluster.node(1).role, cluster.node(1).leader]).toEqual(["follower", 2])
    },
  },
  {
    name: "Figure 2, candidates: one whose timeout passes begins another election",
    check: (Node) => {
      const cluster = plainCluster(Node)
      for (let tick = 0; tick < 45; tick++) cluster.tick(1)
      expect(cluster.node(1).role).toBe("candidate")
      expect(cluster.node(1).term).toBeGreaterThanOrEqual(2)
    },
  },
  {
    name: "Figure 2, leaders: heartbeats in idle times keep followers quiet",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      cluster.stabilize()
      cluster.run(200)
      expect(cluster.node(1).role).toBe("leader")
      expect(cluster.replicas.map(({ node }) => node.term)).toEqual([1, 1, 1])
    },
  },
  {
    name: "Figure 2, leaders: after a refusal the next append begins where the logs may agree",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("2>1@3", "0@0", 0, "1@1", "2@1", "3@3", "4@3"))
      leadBy(cluster, 4)
      const [next] = give(cluster, refused("3>1@4", 4, "3@2"))
      expect(next && describeMessage(next)).toBe(
        "n1@4 -> n3 Append after=2@1 commit=0 [3@3 empty, 4@3 empty, 5@4 empty]",
      )
    },
  },
  {
    name: "Figure 2, leaders: an old refusal, after a success, takes nothing back",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      give(cluster, accepted("2>1@1", 1))
      expect(give(cluster, refused("2>1@1", 0))).toEqual([])
      expect(cluster.node(1).progress()[1]).toMatchObject({ match: 1, state: "replicate" })
    },
  },
]
