import { expect } from "bun:test"
import type { Membership } from "../../src/raft/membership.ts"
import { type RaftSettings, TestCluster } from "./cluster.ts"
import type { Rule } from "./figure2Rules.ts"
import { membersData } from "./members.ts"
import { accepted, askVote, give, type NodeClass, vote } from "./messages.ts"

/** A group that n1 leads, with learners that have the whole log. */
function group(
  Node: NodeClass,
  options: {
    readonly nodes: number
    readonly voters: number
    readonly settings?: Partial<RaftSettings>
  },
): TestCluster {
  const settings = { preVote: false, checkQuorum: false, voteSilenceMs: 0, ...options.settings }
  const cluster = new TestCluster({ ...options, Node, settings })
  cluster.elect(1)
  const { voters } = cluster.initial
  const learners = cluster.ids.filter((id) => !voters.includes(id))
  if (learners.length > 0) expect(cluster.change(1, voters, learners)).toBeNumber()
  cluster.stabilize()
  cluster.run(4)
  return cluster
}

function voters(cluster: TestCluster, id: number): string {
  const { voters: now, outgoing } = cluster.node(id).membership
  return outgoing.length === 0 ? `${now}` : `${now} out of ${outgoing}`
}

/** The rules of the Raft paper's section 6 and of the thesis, chapter 4 and section 3.10. */
export const membershipRules: ReadonlyArray<Rule> = [
  {
    name: "Raft paper 6: while joint, entries need both majorities",
    bug: "asks only the new voters while joint",
    check: (Node) => {
      const cluster = group(Node, { nodes: 5, voters: 3 })
      cluster.replica(1).leavesJoint = false
      cluster.change(1, [1, 4, 5])
      give(cluster, accepted("4>1@1", 3), accepted("5>1@1", 3))
      expect(cluster.node(1).commitIndex).toBe(2)
      give(cluster, accepted("2>1@1", 3))
      expect(cluster.node(1).commitIndex).toBe(3)
    },
  },
  {
    name: "Raft paper 6: while joint, an election needs both majorities",
    bug: "asks only the new voters while joint",
    check: (Node) => {
      const cluster = group(Node, { nodes: 5, voters: 3 })
      cluster.replica(1).leavesJoint = false
      cluster.change(1, [1, 4, 5])
      cluster.stabilize()
      cluster.campaign(4)
      const { term } = cluster.node(4)
      give(cluster, vote(`5>4@${term}`, true), vote(`1>4@${term}`, true))
      expect(cluster.node(4).role).toBe("candidate")
      give(cluster, vote(`2>4@${term}`, true))
      expect(cluster.node(4).role).toBe("leader")
    },
  },
  {
    name: "Raft paper 6, pitfall 25: joint is left only when the joint entry is committed",
    bug: "leaves joint before that is committed",
    check: (Node) => {
      const cluster = group(Node, { nodes: 5, voters: 3 })
      cluster.isolate(2)
      cluster.isolate(3)
      expect(cluster.change(1, [1, 4, 5])).toBe(3)
      cluster.run(6)
      expect(voters(cluster, 1)).toBe("1,4,5 out of 1,2,3")
      cluster.heal()
      cluster.run(10)
      expect(voters(cluster, 1)).toBe("1,4,5")
    },
  },
  {
    name: "Raft thesis 4.1, pitfall 23: a membership is in force when appended, and rolled back with its entry",
    bug: "keeps a membership whose entry was replaced",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 3 })
      cluster.isolate(1)
      cluster.change(1, [1, 2, 4])
      expect(voters(cluster, 1)).toBe("1,2,4 out of 1,2,3")
      cluster.campaign(2)
      cluster.stabilize()
      cluster.heal()
      cluster.run(4)
      expect(voters(cluster, 1)).toBe("1,2,3")
      expect(cluster.node(1).committedMembership).toEqual(cluster.node(1).membership)
    },
  },
  {
    name: "Ongaro 2015, pitfall 22: no change before an entry of the leader's own term is committed",
    bug: "changes members before an entry of its own term is committed",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 3 })
      cluster.isolate(1)
      cluster.campaign(2)
      const { term } = cluster.node(2)
      give(cluster, vote(`3>2@${term}`, true))
      expect(cluster.node(2).role).toBe("leader")
      const next: Membership = { voters: [1, 2, 3], outgoing: [], learners: [] }
      expect(cluster.node(2).proposeMembership(next, membersData(next))).toBe("pending")
      cluster.heal()
      cluster.run(4)
      expect(cluster.node(2).proposeMembership(next, membersData(next))).toBeNumber()
    },
  },
  {
    name: "Raft thesis 4.1: one change at a time, and voters change by way of joint only",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 3 })
      const node = cluster.node(1)
      const propose = (next: Membership) => node.proposeMembership(next, membersData(next))
      expect(propose({ voters: [1, 2], outgoing: [], learners: [4] })).toBe("unsafe")
      expect(propose({ voters: [1, 2], outgoing: [1, 2], learners: [4] })).toBe("unsafe")
      expect(propose({ voters: [1, 2, 3], outgoing: [], learners: [] })).toBe(3)
      expect(propose({ voters: [1, 2, 3], outgoing: [], learners: [4] })).toBe("pending")
      expect(cluster.change(2, [1, 2])).toBeUndefined()
      cluster.stabilize()
      expect(propose({ voters: [1, 2], outgoing: [1, 2, 3], learners: [] })).toBe(4)
      expect(propose({ voters: [1, 2], outgoing: [], learners: [] })).toBe("pending")
      expect(() => node.proposeMembership(cluster.initial, new Uint8Array(3))).toThrow()
    },
  },
  {
    name: "Raft thesis 4.2.1: learners decide no commit",
    bug: "counts learners",
    check: (Node) => {
      const cluster = group(Node, { nodes: 5, voters: 3 })
      cluster.propose(1, "a")
      give(cluster, accepted("4>1@1", 3), accepted("5>1@1", 3))
      expect(cluster.node(1).commitIndex).toBe(2)
    },
  },
  {
    name: "Raft thesis 4.2.1: learners never campaign, and are not asked for votes",
    bug: "counts learners",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 3 })
      for (let tick = 0; tick < 50; tick++) cluster.tick(4)
      expect(cluster.node(4).role).toBe("follower")
      cluster.network = []
      cluster.campaign(2)
      expect(cluster.network.map(({ to }) => to)).toEqual([1, 3])
    },
  },
  {
    name: "Raft thesis 4.2.2, pitfall 29: a leader that is left out does not count itself",
    bug: "counts itself after its removal",
    check: (Node) => {
      const cluster = group(Node, { nodes: 3, voters: 3 })
      const leader = cluster.replica(1)
      leader.leavesJoint = false
      cluster.change(1, [2, 3])
      cluster.stabilize()
      expect(leader.leaveJoint()).toBe(3)
      leader.settle()
      give(cluster, accepted("2>1@1", 3))
      expect([leader.node.role, leader.node.commitIndex]).toEqual(["leader", 2])
      const sent = give(cluster, accepted("3>1@1", 3)).map(({ _tag }) => _tag)
      expect([leader.node.role, leader.node.commitIndex]).toEqual(["follower", 3])
      expect(sent).toEqual(["Heartbeat", "Heartbeat", "TimeoutNow"])
      leader.node.campaign()
      expect(leader.node.role).toBe("follower")
    },
  },
  {
    name: "Raft thesis 4.2.2, pitfall 29: who is left out by an entry that is not committed leads once more, if needed",
    bug: "does not campaign once a change leaves it out",
    check: (Node) => {
      const cluster = new TestCluster({ nodes: 2, Node, settings: { voteSilenceMs: 0 } })
      cluster.elect(2)
      cluster.change(2, [1])
      cluster.deliver()
      cluster.deliver()
      expect(voters(cluster, 2)).toBe("1")
      cluster.network = []
      cluster.replica(2).crash()
      cluster.replica(2).restart()
      cluster.run(100)
      expect(cluster.node(1).role).toBe("leader")
      expect(cluster.node(1).committedMembership.voters).toEqual([1])
      expect(cluster.node(2).role).toBe("follower")
    },
  },
  {
    name: "pitfall 24: after a snapshot its membership is in force, and none that was known before",
    bug: "does not take the membership of a snapshot",
    check: (Node) => {
      const cluster = group(Node, { nodes: 5, voters: 3 })
      cluster.isolate(5)
      cluster.change(1, [1, 2, 4], [5])
      cluster.run(4)
      cluster.replica(1).durableLog.release(3)
      cluster.replica(1).visibleLog.release(3)
      cluster.heal()
      cluster.run(6)
      expect(cluster.replica(1).wanted).toEqual([5])
      cluster.sendSnapshot(1, 5)
      cluster.stabilize()
      expect(voters(cluster, 5)).toBe("1,2,4")
      expect(cluster.node(5).committedMembership).toEqual(cluster.node(1).membership)
    },
  },
  {
    name: "pitfall 26: who does not know yet that it votes gives its vote when asked",
    bug: "gives no vote while it believes to be a learner",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 3 })
      const [answer] = give(cluster, askVote("2>4@7", "9@7"))
      expect(answer).toMatchObject({ _tag: "VoteResponse", granted: true })
    },
  },
  {
    name: "Raft thesis 4.2.1, pitfall 27: a learner becomes a voter when it has caught up",
    bug: "makes a voter of a learner that lacks the log",
    check: (Node) => {
      const cluster = group(Node, { nodes: 3, voters: 2 })
      cluster.isolate(3)
      for (let i = 0; i < 1100; i++) cluster.propose(1, `${i}`)
      cluster.stabilize()
      cluster.heal()
      expect(cluster.change(1, [1, 2, 3])).toBe("unsafe")
      cluster.run(4)
      expect(cluster.change(1, [1, 2, 3])).toBeNumber()
    },
  },
  {
    name: "pitfall 27: a replica that was no learner, or voters of whom no majority was heard, are refused",
    check: (Node) => {
      const cluster = group(Node, { nodes: 4, voters: 2, settings: { checkQuorum: true } })
      expect(cluster.change(1, [1, 2], [3])).toBeNumber()
      cluster.stabilize()
      expect(cluster.change(1, [1, 2, 4])).toBe("unsafe")
      cluster.isolate(3)
      cluster.run(30)
      expect(cluster.change(1, [1, 3])).toBe("unsafe")
    },
  },
  {
    name: "Raft thesis 4.4: a learner that is added is sent the whole log",
    check: (Node) => {
      const cluster = group(Node, { nodes: 3, voters: 1 })
      cluster.propose(1, "a")
      cluster.run(4)
      expect(cluster.replicas.map(({ applied }) => applied.length)).toEqual([3, 3, 3])
      expect(cluster.node(3).membership).toEqual(cluster.node(1).membership)
    },
  },
  {
    name: "Raft thesis 3.10: a transfer takes no proposals, waits for the log, and has the target campaign at once",
    check: (Node) => {
      const cluster = group(Node, {
        nodes: 3,
        voters: 3,
        settings: { preVote: true, checkQuorum: true, voteSilenceMs: 300 },
      })
      cluster.propose(1, "a")
      expect(cluster.transfer(1, 3)).toBe(true)
      expect(cluster.node(1).transferee).toBe(3)
      expect(cluster.propose(1, "b")).toBe("transferring")
      expect(cluster.network.map(({ _tag }) => _tag)).not.toContain("TimeoutNow")
      cluster.stabilize()
      expect([cluster.node(3).role, cluster.node(3).term]).toEqual(["leader", 2])
      expect(cluster.node(1).transferring).toBe(false)
      expect(cluster.propose(3, "c")).toBeNumber()
    },
  },
  {
    name: "Raft thesis 3.10, pitfall 21: a transfer that fails is given up after an election timeout",
    bug: "waits for a transfer without end",
    check: (Node) => {
      const cluster = group(Node, { nodes: 3, voters: 3 })
      cluster.replica(3).crash()
      cluster.propose(1, "a")
      expect(cluster.transfer(1, 3)).toBe(true)
      cluster.run(cluster.settings.electionTicksMin - 1)
      expect(cluster.propose(1, "b")).toBe("transferring")
      cluster.run(1)
      expect(cluster.propose(1, "b")).toBeNumber()
    },
  },
]
