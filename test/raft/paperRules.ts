import { expect } from "bun:test"
import type { Rule } from "./figure2Rules.ts"
import {
  accepted,
  append,
  askVote,
  give,
  leadBy,
  plainCluster,
  refused,
  texts,
  vote,
} from "./messages.ts"

/** The rules of sections 5.1 to 5.4 of the extended Raft paper. */
export const paperRules: ReadonlyArray<Rule> = [
  {
    name: "5.1: an acknowledgement of an earlier term says nothing about this one",
    bug: "takes acknowledgements of earlier terms",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      give(cluster, askVote("2>1@2", "9@2"))
      leadBy(cluster, 3)
      give(cluster, accepted("2>1@1", 1))
      expect(cluster.node(1).progress()[1]).toMatchObject({ match: 0, state: "probe" })
    },
  },
  {
    name: "5.1: a vote of an earlier term does not count",
    bug: "counts votes of earlier terms",
    check: (Node) => {
      const cluster = plainCluster(Node)
      cluster.campaign(1)
      cluster.campaign(1)
      give(cluster, vote("2>1@1", true))
      expect(cluster.node(1).role).toBe("candidate")
      give(cluster, vote("2>1@2", true))
      expect(cluster.node(1).role).toBe("leader")
    },
  },
  {
    name: "5.2: a vote that comes twice counts once",
    check: (Node) => {
      const cluster = plainCluster(Node, 5)
      cluster.campaign(1)
      give(cluster, vote("2>1@1", true), vote("2>1@1", true))
      expect(cluster.node(1).role).toBe("candidate")
    },
  },
  {
    name: "5.2: a voter's first answer stands",
    check: (Node) => {
      const cluster = plainCluster(Node, 5)
      cluster.campaign(1)
      give(cluster, vote("2>1@1", false), vote("2>1@1", true), vote("3>1@1", true))
      expect(cluster.node(1).role).toBe("candidate")
      give(cluster, vote("4>1@1", true))
      expect(cluster.node(1).role).toBe("leader")
    },
  },
  {
    name: "5.2: candidates that share the votes wait differently long, and one of them wins",
    check: (Node) => {
      const cluster = plainCluster(Node, 4)
      cluster.campaign(1)
      cluster.campaign(2)
      cluster.stabilize()
      for (let tick = 0; cluster.leaders.length === 0; tick++) {
        expect(tick).toBeLessThan(200)
        cluster.run(1)
      }
      expect(cluster.leaders).toHaveLength(1)
    },
  },
  {
    name: "5.3: a leader never changes or removes an entry of its log",
    check: (Node) => {
      const cluster = plainCluster(Node)
      leadBy(cluster, 1)
      expect(() => give(cluster, append("2>1@1", "0@0", 0, "1@1=x"))).toThrow("two leaders")
    },
  },
  {
    name: "5.3: what a majority stores is committed, and followers learn it",
    check: (Node) => {
      const cluster = plainCluster(Node, 5)
      leadBy(cluster, 1)
      cluster.propose(1, "a")
      give(cluster, accepted("2>1@1", 2))
      expect(cluster.node(1).commitIndex).toBe(0)
      give(cluster, accepted("3>1@1", 1))
      expect(cluster.node(1).commitIndex).toBe(1)
      give(cluster, accepted("3>1@1", 2))
      expect(cluster.node(1).commitIndex).toBe(2)
      cluster.network = []
      cluster.tick(1)
      cluster.tick(1)
      expect(texts(cluster.network)).toEqual([
        "n1@1 -> n2 Heartbeat commit=2 round=1",
        "n1@1 -> n3 Heartbeat commit=2 round=1",
        "n1@1 -> n4 Heartbeat commit=0 round=1",
        "n1@1 -> n5 Heartbeat commit=0 round=1",
      ])
    },
  },
  {
    name: "5.4.1: a log with an earlier last term, or a shorter one, gets no vote",
    bug: "votes for a log behind its own",
    check: (Node) => {
      const cluster = plainCluster(Node)
      give(cluster, append("1>2@2", "0@0", 0, "1@1", "2@2=a"))
      const asked = (last: string, term: number) =>
        texts(give(cluster, askVote(`3>2@${term}`, last)))[0]
          ?.split(" ")
          .at(-1)
      expect(asked("9@1", 3)).toBe("refused")
      expect(asked("1@2", 4)).toBe("refused")
      expect(asked("2@2", 5)).toBe("granted")
      expect(asked("1@3", 6)).toBe("granted")
    },
  },
  {
    name: "5.4.2: an entry of an earlier term is not committed by counting (Figure 8)",
    bug: "commits entries of earlier terms by counting",
    check: (Node) => {
      const cluster = plainCluster(Node, 3, { maxAppendBytes: 1 })
      give(cluster, append("2>1@1", "0@0", 0, "1@1=a"))
      leadBy(cluster, 3)
      give(cluster, refused("3>1@3", 1))
      give(cluster, accepted("3>1@3", 1))
      expect(cluster.node(1).commitIndex).toBe(0)
      give(cluster, accepted("3>1@3", 2))
      expect(cluster.node(1).commitIndex).toBe(2)
    },
  },
]
