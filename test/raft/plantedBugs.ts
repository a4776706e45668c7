import type {
  AppendResponse,
  Entry,
  HardState,
  Message,
  VoteResponse,
} from "../../src/raft/message.ts"
import { RaftNode, type RaftOptions } from "../../src/raft/raftNode.ts"

/**
 * The classic Raft bugs, each one rule of the core broken by a subclass. They show that the checks
 * of randomCluster.ts can fail; the world simulator has its own list over whole nodes.
 */
export const plantedBugs = {
  "commits entries of earlier terms by counting": class extends RaftNode {
    protected override mayCommit(): boolean {
      return true
    }
  },
  "forgets its vote in a crash": class extends RaftNode {
    protected override hardStateToWrite(): HardState {
      return { ...super.hardStateToWrite(), vote: 0 }
    }
  },
  "cuts the log on every append": class extends RaftNode {
    protected override appendFromLeader(entries: ReadonlyArray<Entry>): void {
      this.log.append(entries)
    }
  },
  "votes for a log behind its own": class extends RaftNode {
    protected override isUpToDate(): boolean {
      return true
    }
  },
  "takes acknowledgements of earlier terms": class extends RaftNode {
    protected override acceptsAppendResponse(_response: AppendResponse): boolean {
      return true
    }
  },
  "counts votes of earlier terms": class extends RaftNode {
    protected override countsVote(response: VoteResponse): boolean {
      if (!response.preVote) return this.role === "candidate"
      return super.countsVote(response)
    }
  },
  "commits up to its last entry": class extends RaftNode {
    protected override commitFromAppend(leaderCommit: number): number {
      return Math.min(leaderCommit, this.log.lastIndex)
    }
  },
  "grants two votes in a term": class extends RaftNode {
    protected override mayVoteFor(): boolean {
      return true
    }
  },
  "acknowledges before it is durable": class extends RaftNode {
    protected override acceptAppend(leader: number, index: number): void {
      super.acceptAppend(leader, index)
      this.messages.push(this.messagesAfterPersist.pop() as Message)
    }
  },
} satisfies Readonly<Record<string, new (options: RaftOptions) => RaftNode>>
