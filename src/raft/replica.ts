import { assert } from "../lib/assert.ts"
import type { Prng } from "../lib/prng.ts"
import type { LogIndex, MonotonicMs, ReplicaId, Term } from "../types.ts"
import type { LogStorage } from "./log.ts"
import { isVoter, type Membership, MembershipLog } from "./membership.ts"
import { type Entry, entryKinds, type HardState, type Message } from "./message.ts"
import { RaftLog } from "./raftLog.ts"
import type { ConfirmedRead, SnapshotToInstall } from "./ready.ts"

export type Role = "follower" | "preCandidate" | "candidate" | "leader"

/** What a replica is made from. Times in ticks are multiples of whatever the caller ticks by. */
export interface RaftOptions {
  readonly id: ReplicaId
  /** As of `appliedIndex`; `noMembership` for a replica that has nothing yet. What the log says after that is found there. */
  readonly membership: Membership
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
  /** False: it is new here, and can have promised nothing to a leader before its start. */
  readonly startSilence?: boolean
  /** A leader answers reads without asking for this long after a round that a quorum echoed. 0 = off. */
  readonly leaseMs: number
  /** A lease ends when wall and monotonic clock have moved apart by so much. */
  readonly clockSlipMs: number
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
  protected readonly options: RaftOptions
  protected readonly log: RaftLog
  private readonly memberships: MembershipLog
  private lacksMembership = false

  private currentRole: Role = "follower"
  private currentTerm: Term
  private currentLeader: ReplicaId | undefined
  protected vote: ReplicaId

  protected nowMs: MonotonicMs
  private silentUntilMs: MonotonicMs
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
    assert(
      options.electionTicksMin > options.heartbeatTicks &&
        options.electionTicksMax >= options.electionTicksMin,
      "heartbeats must be shorter than elections",
    )
    assert(
      options.leaseMs === 0 || options.voteSilenceMs > options.leaseMs + options.clockSlipMs,
      "voters must be silent for longer than a lease",
    )
    const { appliedIndex, membership } = options
    this.memberships = new MembershipLog({ index: appliedIndex, membership })
    this.log = new RaftLog({
      storage: options.storage,
      commitIndex: hardState.commit,
      appliedIndex,
      listener: {
        appended: (entry) => this.entryAppended(entry),
        truncated: (from) => this.logTruncated(from),
      },
    })
    assert(
      hardState.term >= this.log.lastTerm,
      `term ${hardState.term} is behind the log's ${this.log.lastTerm}`,
    )
    this.currentTerm = hardState.term
    this.vote = hardState.vote
    this.nowMs = nowMs
    this.readMemberships()
    // Who was alone in the group, and is to be, has promised nothing to anyone else.
    const wasAlone = this.isAlone && this.membershipIndex === appliedIndex
    const silent = options.startSilence !== false && !wasAlone
    this.silentUntilMs = silent ? nowMs + options.voteSilenceMs : nowMs
    this.drawElectionTimeout()
  }

  /** Membership entries that are in the log and not yet applied are in force nevertheless. */
  private readMemberships(): void {
    let from = this.log.appliedIndex + 1
    while (from <= this.log.lastIndex) {
      const entries = this.log.entries(from, this.options.maxCommittedBytes)
      // Bytes are lost that may hold a membership.
      this.lacksMembership = entries.length === 0
      if (this.lacksMembership) return
      for (const entry of entries) this.entryAppended(entry)
      from += entries.length
    }
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

  /** The one in force: the last in the log, committed or not. */
  get membership(): Membership {
    return this.memberships.inForce.membership
  }

  get committedMembership(): Membership {
    return this.memberships.committed(this.commitIndex).membership
  }

  /** The entry that holds the membership in force, or where a snapshot or the start had it from. */
  get membershipIndex(): LogIndex {
    return this.memberships.inForce.index
  }

  // The rules of membership (Raft paper 6; Raft thesis 4.1, 4.3)

  protected entryAppended(entry: Entry): void {
    if (entry.kind === entryKinds.members) this.memberships.appended(entry, this.commitIndex)
  }

  /** A membership that was never committed goes with its entry. */
  protected logTruncated(from: LogIndex): void {
    this.memberships.truncated(from)
  }

  protected membershipInstalled(index: LogIndex, membership: Membership): void {
    this.memberships.reset({ index, membership })
  }

  /** The sets of which each must agree by majority, to elections, commits, rounds and quorum checks alike. Learners are in none. */
  protected quorums(): ReadonlyArray<ReadonlyArray<ReplicaId>> {
    const { voters, outgoing } = this.membership
    return outgoing.length === 0 ? [voters] : [voters, outgoing]
  }

  /**
   * A replica that decides nothing does not ask to lead. But one that a change leaves out must, until it knows that to be committed: it may be
   * the only one with the entry that the others need (Raft thesis 4.2.2). Its own vote does not count then. Votes are given by everyone, since
   * a replica's own membership may be an old one.
   */
  protected get mayLead(): boolean {
    if (this.lacksMembership) return false
    return isVoter(this.membership, this.id) || isVoter(this.committedMembership, this.id)
  }

  /** Damage took from it what it may have acknowledged (pitfall 36): until that is back, it does not campaign. Who leads already knows its log by heart, and goes on. */
  protected get lacksLog(): boolean {
    return this.log.voteFloor !== undefined
  }

  /** The only voter of its group. */
  protected get isAlone(): boolean {
    const { voters, outgoing } = this.membership
    return voters.length === 1 && outgoing.length === 0 && voters[0] === this.id
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

  /**
   * False for who is no voter, while a snapshot is about to replace the log or damage took from it, and in the silence: who campaigns votes for
   * itself, and that is a vote like any other. Ticks alone could come too soon for it.
   */
  protected get mayCampaign(): boolean {
    const isReady = this.snapshot === undefined && !this.lacksLog
    return this.mayLead && isReady && this.nowMs >= this.silentUntilMs
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

  /** The election timer goes on. `heardAtMs`: when the leader was last heard for this replica while it slept. */
  protected resumeFollowing(heardAtMs: MonotonicMs | undefined): void {
    this.drawElectionTimeout()
    if (heardAtMs === undefined) return
    this.silentUntilMs = Math.max(this.silentUntilMs, heardAtMs + this.options.voteSilenceMs)
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
      this.takeBackAcknowledgements()
    }
    this.currentRole = "follower"
    this.currentLeader = leader
    if (before !== "follower") this.drawElectionTimeout()
    if (before === "leader") this.leadershipLost()
  }

  /**
   * Acknowledgements of an earlier term that were not handed out yet: the next leader may truncate what they speak of before it is ever written, so
   * that they would promise what no disk has held.
   */
  protected takeBackAcknowledgements(): void {
    this.messagesAfterPersist = this.messagesAfterPersist.filter(
      (message) => message._tag !== "AppendResponse" || !message.accepted,
    )
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
    assert(this.currentRole !== "leader" && this.vote === this.id, "who leads has its own vote")
    this.currentRole = "leader"
    this.currentLeader = this.id
    this.leadershipWon()
  }

  protected abstract leadershipWon(): void
  protected abstract leadershipLost(): void
}
