import type {
  AppendResponse,
  Entry,
  HardState,
  Message,
  ReadIndexRequest,
  ReadIndexResponse,
  TimeoutNow,
  VoteRequest,
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
  "votes within the silence": class extends RaftNode {
    protected override get inVoteSilence(): boolean {
      return false
    }
  },
  "votes for itself within the silence": class extends RaftNode {
    protected override get mayCampaign(): boolean {
      return this.mayLead
    }
  },
  "does not campaign once a change leaves it out": class extends RaftNode {
    protected override get mayLead(): boolean {
      return this.quorums().some((set) => set.includes(this.id))
    }
  },
  "keeps a membership whose entry was replaced": class extends RaftNode {
    protected override logTruncated(): void {}
  },
  "changes members before an entry of its own term is committed": class extends RaftNode {
    protected override mayChangeMembers(): boolean {
      return this.membershipIndex <= this.commitIndex
    }
  },
  "leaves joint before that is committed": class extends RaftNode {
    protected override mayChangeMembers(): boolean {
      return this.hasCommittedInTerm
    }
  },
  "asks only the new voters while joint": class extends RaftNode {
    protected override quorums(): ReadonlyArray<ReadonlyArray<number>> {
      return [this.membership.voters]
    }
  },
  "counts learners": class extends RaftNode {
    protected override quorums(): ReadonlyArray<ReadonlyArray<number>> {
      return super.quorums().map((set) => [...set, ...this.membership.learners])
    }
  },
  "counts itself after its removal": class extends RaftNode {
    protected override quorums(): ReadonlyArray<ReadonlyArray<number>> {
      const sets = super.quorums()
      if (this.role !== "leader" || this.membership.voters.includes(this.id)) return sets
      return sets.map((set) => (set.includes(this.id) ? set : [...set, this.id]))
    }
  },
  "does not take the membership of a snapshot": class extends RaftNode {
    protected override membershipInstalled(): void {}
  },
  "gives no vote while it believes to be a learner": class extends RaftNode {
    protected override mayVoteFor(request: VoteRequest): boolean {
      return this.mayLead && super.mayVoteFor(request)
    }
  },
  "makes a voter of a learner that lacks the log": class extends RaftNode {
    protected override isCaughtUp(): boolean {
      return true
    }
  },
  "obeys a TimeoutNow of an earlier term": class extends RaftNode {
    protected override obeysTimeoutNow(message: TimeoutNow): boolean {
      return message.term <= this.term && this.role === "follower"
    }
  },
  "waits for a transfer without end": class extends RaftNode {
    protected override transferIsOverdue(): boolean {
      return false
    }
  },
  "keeps its lease after TimeoutNow": class extends RaftNode {
    protected override giveUpLease(): void {}
  },
  "trusts the monotonic clock alone": class extends RaftNode {
    override observeClocks(monotonicMs: number): void {
      super.observeClocks(monotonicMs, monotonicMs)
    }
    override leaseHolds(monotonicMs: number): boolean {
      return super.leaseHolds(monotonicMs, monotonicMs)
    }
  },
  "takes an answer that was meant for an earlier life": class extends RaftNode {
    protected override stepReadIndexResponse({ context, index }: ReadIndexResponse): void {
      this.confirmedReads.push({ context, index, byLease: false })
    }
  },
  "answers a follower by its lease": class extends RaftNode {
    protected override stepReadIndexRequest(request: ReadIndexRequest): void {
      const { session, context, from: to } = request
      const { id: from, term, commitIndex: index } = this
      if (this.role !== "leader") return
      this.messages.push({ _tag: "ReadIndexResponse", from, to, term, session, context, index })
    }
  },
} satisfies Readonly<Record<string, new (options: RaftOptions) => RaftNode>>
