import { assert } from "../lib/assert.ts"
import type { Prng } from "../lib/prng.ts"
import type { LogIndex, MonotonicMs, ReplicaId, Term } from "../types.ts"
import type { LogStorage } from "./log.ts"
import type { HardState, Message } from "./message.ts"
import { RaftLog } from "./raftLog.ts"
import type { ConfirmedRead, SnapshotToInstall } from "./ready.ts"

export type Role = "follower" | "preCandidate" | "candidate" | "leader"

/** What a replica is made from. Times in ticks are multiples of whatever the caller ticks by. */
export interface RaftOptions {
  readonly id: ReplicaId
  /** All voters, `id` among them, in any order. */
  readonly voters: ReadonlyArray<ReplicaId>
  readonly storage: LogStorage
  /** As last written; all zero for a new replica. */
  readonly hardState: HardState
  /** What the state machine has already applied; 0, or any index that the log reaches. */
  readonly appliedIndex: LogIndex
  readonly prng: Prng
  readonly nowMs: MonotonicMs
  /** A follower that hears no leader for a random number of ticks from min to max campaigns. */
  readonly electionTicksMin: number
  readonly electionTicksMax: number
  readonly heartbeatTicks: number
  /** No vote is given for this long after a leader was heard, or after the start. 0 = off. */
  readonly voteSilenceMs: number
  readonly preVote: boolean
  readonly checkQuorum: boolean
  /** Appends under way to one follower. */
  readonly maxInflightAppends: number
  /** Data of one append; a single larger entry still travels alone. */
  readonly maxAppendBytes: number
  /** Data of `ready().committed`. */
  readonly maxCommittedBytes: number
  /** A leader takes no proposal while so much data of its term is not yet applied. */
  readonly maxUncommittedBytes: number
}

/**
 * What a replica is in every role: identity, persistent and volatile state (Raft paper, Figure 2),
 * the election timer, and the outputs gathered for the next `ready`. Roles build on it.
 */
export abstract class Replica {
  readonly id: ReplicaId
  /** In id order; every array that holds something by voter has the same order. */
  readonly voters: ReadonlyArray<ReplicaId>
  protected readonly options: RaftOptions
  protected readonly log: RaftLog
  protected readonly position: number

  private currentRole: Role = "follower"
  private currentTerm: Term
  private currentLeader: ReplicaId | undefined
  protected vote: ReplicaId

  protected nowMs: MonotonicMs
  private silentUntilMs: MonotonicMs
  private readonly mayCampaignAtMs: MonotonicMs
  protected electionElapsed = 0
  protected electionTimeout = 0

  protected messages: Array<Message> = []
  protected messagesAfterPersist: Array<Message> = []
  protected confirmedReads: Array<ConfirmedRead> = []
  protected lostReads: Array<number> = []
  /** A snapshot that is to be installed, from the offer until it is. */
  protected snapshot: SnapshotToInstall | undefined

  constructor(options: RaftOptions) {
    const { id, hardState, nowMs } = options
    this.options = options
    this.id = id
    this.voters = [...options.voters].sort((left, right) => left - right)
    this.position = this.voters.indexOf(id)
    assert(this.position >= 0, `replica ${id} is not a voter of ${this.voters}`)
    assert(new Set(this.voters).size === this.voters.length, `voters ${this.voters} repeat`)
    assert(
      options.electionTicksMin > options.heartbeatTicks &&
        options.electionTicksMax >= options.electionTicksMin,
      "heartbeats must be shorter than elections",
    )
    this.log = new RaftLog({
      storage: options.storage,
      commitIndex: hardState.commit,
      appliedIndex: options.appliedIndex,
    })
    assert(
      hardState.term >= this.log.lastTerm,
      `term ${hardState.term} is behind the log's ${this.log.lastTerm}`,
    )
    this.currentTerm = hardState.term
    this.vote = hardState.vote
    this.nowMs = nowMs
    this.mayCampaignAtMs = this.isAlone ? nowMs : nowMs + options.voteSilenceMs
    this.silentUntilMs = this.mayCampaignAtMs
    this.drawElectionTimeout()
  }

  get role(): Role {
    return this.currentRole
  }

  get term(): Term {
    return this.currentTerm
  }

  /** Who leads this term, as far as known; this replica itself while it leads. */
  get leader(): ReplicaId | undefined {
    return this.currentLeader
  }

  get commitIndex(): LogIndex {
    return this.log.commitIndex
  }

  get appliedIndex(): LogIndex {
    return this.log.appliedIndex
  }

  get lastIndex(): LogIndex {
    return this.log.lastIndex
  }

  /** Entries up to here are on this replica's own disk. */
  get durableIndex(): LogIndex {
    return this.log.durableIndex
  }

  /** The only voter of its group. */
  protected get isAlone(): boolean {
    return this.voters.length === 1
  }

  /**
   * Within the silence after a leader was heard, or after the start, when a vote given before could
   * still be a promise to a leader unknown here (Raft thesis 4.2.3, 6.4.1). A leader that checks
   * its quorum hears itself.
   */
  protected get inVoteSilence(): boolean {
    if (this.options.voteSilenceMs === 0) return false
    if (this.currentRole === "leader" && this.options.checkQuorum) return true
    return this.nowMs < this.silentUntilMs
  }

  /** False in the silence after the start, and while a snapshot is about to replace the log. */
  protected get mayCampaign(): boolean {
    return this.nowMs >= this.mayCampaignAtMs && this.snapshot === undefined
  }

  protected drawElectionTimeout(): void {
    this.electionElapsed = 0
    this.electionTimeout = this.options.prng.int(
      this.options.electionTicksMin,
      this.options.electionTicksMax,
    )
  }

  /** A message of the leader of this term came in. */
  protected heardLeader(): void {
    this.electionElapsed = 0
    this.silentUntilMs = Math.max(this.silentUntilMs, this.nowMs + this.options.voteSilenceMs)
  }

  /**
   * Becomes a follower of `term`, this one or a later one. The vote outlives a change of role
   * within a term. A follower that only learns of a later term goes on waiting for its election:
   * just a leader or a vote given starts that anew (Raft paper, Figure 2).
   */
  protected becomeFollower(term: Term, leader: ReplicaId | undefined): void {
    assert(term >= this.currentTerm, `term ${this.currentTerm} would fall to ${term}`)
    const before = this.currentRole
    if (term > this.currentTerm) {
      this.currentTerm = term
      this.vote = 0
    }
    this.currentRole = "follower"
    this.currentLeader = leader
    if (before !== "follower") this.drawElectionTimeout()
    if (before === "leader") this.leadershipLost()
  }

  /** Asks for votes without a new term (Raft thesis 9.6). */
  protected becomePreCandidate(): void {
    assert(this.currentRole !== "leader", "a leader campaigns")
    this.currentRole = "preCandidate"
    this.currentLeader = undefined
    this.drawElectionTimeout()
  }

  protected becomeCandidate(): void {
    assert(this.currentRole !== "leader", "a leader campaigns")
    assert(Number.isSafeInteger(this.currentTerm + 1), "terms are used up")
    this.currentRole = "candidate"
    this.currentTerm++
    this.vote = this.id
    this.currentLeader = undefined
    this.drawElectionTimeout()
  }

  protected becomeLeader(): void {
    assert(this.currentRole === "candidate", `a ${this.currentRole} would lead`)
    this.currentRole = "leader"
    this.currentLeader = this.id
    this.leadershipWon()
  }

  protected abstract leadershipWon(): void
  protected abstract leadershipLost(): void
}
