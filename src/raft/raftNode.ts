/**
 * Consensus: one replica of one Raft group, as a machine without IO, clock or chance of its own.
 *
 * The idea. A group keeps one log on all its members. One of them leads a term; only it adds
 * entries, and an entry stored by a majority of voters in the leader's own term is committed, with all before
 * it: no later leader lacks it, since a vote is refused to any log that ends before the voter's
 * own. The state machine applies committed entries in order, so that all replicas pass through the
 * same states.
 *
 * The flow.
 *   1. `tick`, `step`, `propose` and `readIndex` change memory only, and gather outputs.
 *   2. `ready` hands the outputs out: a hard state and entries to write, messages that may leave at
 *      once, messages that must wait for the write, committed entries, confirmed reads. Each field
 *      of `Ready` states its ordering rule.
 *   3. Writes run while the replica goes on; the next `ready` may be taken meanwhile. `persisted`
 *      tells that a write is durable. A leader sends its appends in parallel with its own write,
 *      and counts itself only when that is done (Raft thesis 10.2.1).
 *   4. `applied` tells what the state machine has applied; then the next committed entries are
 *      given.
 *
 * Who takes part. A membership (`membership.ts`) travels in the log, and is in force on a replica from when its entry is
 * appended until it is replaced, committed or not. Voters change by way of a joint membership, in which the majorities of
 * the voters before and after must both agree: to elections, commits, rounds and quorum checks alike, so that the quorums
 * of consecutive memberships always meet. Learners get the log and decide nothing. A message is taken from anyone: what a
 * replica knows of the membership may be old.
 *
 * Who leads. A leader can hand over: the one chosen campaigns at once, and the silence in which voters give no vote does
 * not hold for it. On that silence leases rest (`lease.ts`): while one holds, reads need no round. Followers ask their
 * leader for read indexes.
 *
 * The classes, each built on the one before: `Replica` (state that outlives roles, memberships),
 * `Follower` (votes, follows), `Candidate` (campaigns), `Replicator` (brings the log to the others,
 * commits), `Leader` (beats, checks its quorum, confirms reads, has a lease), `Steward` (takes
 * proposals, changes members, hands over), and here the dispatch by role and the assembly of `Ready`.
 * `RaftLog` is the log, `MembershipLog` the memberships along it, `Progress` a leader's view of one
 * member, `ReadQueue` its reads, `quorum.ts` the counting. Protected one-liners are the rules: a test
 * breaks each of them in turn.
 *
 * Invariants, asserted where they could break:
 *   - A term has one leader; terms never fall; a replica votes once per term, and never forgets it.
 *   - Nothing that promises leaves before what it promises is durable: votes, requests for votes,
 *     acknowledgements.
 *   - A leader never changes an entry of its own log; a committed entry is never replaced; terms
 *     never fall along a log; equal (index, term) means equal logs up to there.
 *   - applied <= committed and durable here; commitIndex never falls.
 *   - A leader commits by counting only entries of its own term.
 *   - An answer of an earlier term changes nothing. Messages may be lost, doubled, reordered, and
 *     late by any time.
 *   - A read index is given out only after an entry of the leader's own term is committed, and a
 *     quorum has echoed a heartbeat round begun after the read came, or under a lease.
 *   - A leader has one membership uncommitted at most, and none before an entry of its own term is
 *     committed. Joint is left only when the joint membership is committed.
 *   - A lease lasts from the sending of a round that a quorum has echoed, for less than voters are
 *     silent after it; the term's leader that sent TimeoutNow has none. A replica's vote for itself
 *     waits for the silence like any other.
 *   - Everything has a limit: appends under way by count and bytes, committed entries under way,
 *     data not yet applied, reads of other replicas. The number of a replica's own waiting reads is
 *     limited by the caller.
 *
 * Sleep. A group in which everyone knows that all is committed needs no beats of its own: `maySleep`, `maySleepUnder` say so, and the
 * caller, who then watches whole nodes instead (server/beats.ts), neither ticks nor steps a sleeping replica, and tells it at `wake` what
 * was heard for it meanwhile.
 *
 * Left out, until something needs it: a joint membership is never given up, only
 * completed: should its new voters be lost for good before that, the group stands still. Snapshots
 * are only decided on here: making, sending and installing them is the caller's, and so are the
 * entries of memberships, which hold more than the core knows. A leader whose own disk stalls goes on
 * to lead: only its caller sees the disk.
 *
 * Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm (Extended
 * Version)", 2014 ("Raft paper"); Ongaro, "Consensus: Bridging Theory and Practice", 2014 ("Raft
 * thesis"), and his "bug in single-server membership changes", raft-dev, 2015; etcd-io/raft, for
 * progress states, asynchronous storage and the ABA problem in it.
 */
import { assert } from "../lib/assert.ts"
import type { LogIndex, MonotonicMs, ReplicaId, Term } from "../types.ts"
import type { ClockMark } from "./leader.ts"
import { isJoint } from "./membership.ts"
import type { Entry, HardState, Message } from "./message.ts"
import type { Ready, SnapshotToInstall } from "./ready.ts"
import type { RaftOptions } from "./replica.ts"
import { Steward } from "./steward.ts"

export type { RaftOptions, Role } from "./replica.ts"

/** What a node has learned for a sleeping replica. */
export interface Meanwhile {
  readonly leaderHeardAtMs: MonotonicMs | undefined
  readonly heard: ReadonlyArray<ReplicaId>
  readonly confirmed: ClockMark | undefined
}

const none: ReadonlyArray<never> = []

export class RaftNode extends Steward {
  private writtenTerm: Term
  private writtenVote: number
  private writtenCommit: LogIndex
  private commitUnwrittenTicks = 0
  private commitDue = false
  private snapshotToHandOut: SnapshotToInstall | undefined

  constructor(options: RaftOptions) {
    super(options)
    this.writtenTerm = options.hardState.term
    this.writtenVote = options.hardState.vote
    this.writtenCommit = options.hardState.commit
  }

  // Inputs

  /** One tick of the election and heartbeat timers has passed. */
  tick(nowMs: MonotonicMs): void {
    this.nowMs = nowMs
    if (this.role === "leader") this.tickLeader()
    else this.tickElection()
    if (this.writtenCommit < this.commitIndex) {
      if (++this.commitUnwrittenTicks >= this.options.electionTicksMin) this.commitDue = true
    }
  }

  // Sleep of idle groups (DESIGN section 3, "Hibernation")

  /** A leader need not beat: all is committed everywhere, everyone knows, and nobody waits for anything. The caller then neither ticks nor steps it until `wake`. */
  get maySleep(): boolean {
    return this.isSettled && !this.transferring && !isJoint(this.membership) && !this.hasReady()
  }

  /** A follower need not watch this leader, as long as somebody watches its node: it is in the very state in which the leader went to sleep. */
  maySleepUnder(leader: ReplicaId, term: Term, index: LogIndex): boolean {
    return (
      this.role === "follower" &&
      this.leader === leader &&
      this.term === term &&
      this.lastIndex === index &&
      this.commitIndex === index &&
      this.durableIndex === index &&
      this.snapshot === undefined &&
      !this.lacksLog &&
      !isJoint(this.membership) &&
      !this.hasReady()
    )
  }

  /**
   * Ends the sleep: timers begin anew. What was heard in its stead meanwhile counts as if it had been awake: when the leader was heard, by a follower; who was
   * heard, and the readings before a quorum was asked that has confirmed since, by a leader.
   */
  wake(nowMs: MonotonicMs, meanwhile: Meanwhile): void {
    this.nowMs = nowMs
    if (this.role === "leader") this.resumeLeading(meanwhile.heard, meanwhile.confirmed)
    else this.resumeFollowing(meanwhile.leaderHeardAtMs)
  }

  /**
   * Gives leadership up, for a caller whose disk stands still: it could commit by its peers' disks, but apply and answer nothing. The
   * others elect when they miss its heartbeats.
   */
  stepDown(): void {
    if (this.role === "leader" && !this.isAlone) this.becomeFollower(this.term, undefined)
  }

  /**
   * A message came in, of any age, also from a replica that is no member as far as is known here: the membership here may be an old one.
   * `nowMs` is read after the message was received: silence counts from it.
   */
  step(message: Message, nowMs: MonotonicMs): void {
    this.nowMs = nowMs
    assert(message.to === this.id, () => `message for replica ${message.to} came to ${this.id}`)
    switch (message._tag) {
      case "VoteRequest":
        this.stepVoteRequest(message)
        return
      case "VoteResponse":
        this.stepVoteResponse(message)
        return
      case "AppendRequest":
        this.stepAppend(message)
        return
      case "AppendResponse":
        this.stepAppendResponse(message)
        return
      case "Heartbeat":
        this.stepHeartbeat(message)
        return
      case "HeartbeatResponse":
        this.stepHeartbeatResponse(message)
        return
      case "SnapshotOffer":
        this.stepSnapshotOffer(message)
        return
      case "TimeoutNow":
        this.stepTimeoutNow(message)
        return
      case "ReadIndexRequest":
        this.stepReadIndexRequest(message)
        return
      case "ReadIndexResponse":
        this.stepReadIndexResponse(message)
        return
      default:
        message satisfies never
    }
  }

  /**
   * The entries of a `ready` are durable; (index, term) are those of its last entry. Called in the
   * order of the readies; one call may stand for all up to it.
   */
  persisted(index: LogIndex, term: Term): void {
    if (this.log.persisted(index, term) && this.role === "leader") this.ownLogDurable()
  }

  /** The state machine has applied everything up to `index`. */
  applied(index: LogIndex): void {
    this.log.appliedTo(index)
  }

  /**
   * Another group's log proves that the entry at `index`, of `term`, is committed in this one. False where this log does not hold it.
   */
  learnCommitted(index: LogIndex, term: Term): boolean {
    if (index <= this.commitIndex) return true
    if (index > this.lastIndex || this.log.term(index) !== term) return false
    this.log.commitTo(index)
    return true
  }

  protected snapshotOffered(): void {
    this.snapshotToHandOut = this.snapshot
  }

  // Outputs

  /** True when `ready` has something to hand out. */
  hasReady(): boolean {
    return (
      this.messages.length > 0 ||
      this.roundDue ||
      this.appendsDue ||
      this.leaveJointDue ||
      this.snapshotToHandOut !== undefined ||
      (this.log.hasCommitted && this.snapshot === undefined) ||
      this.confirmedReads.length > 0 ||
      this.lostReads.length > 0 ||
      this.snapshotsWanted.length > 0 ||
      (this.hasPersistent && !this.log.mustAwaitWrite)
    )
  }

  /** True when something waits to be written, or to be sent after a write. */
  private get hasPersistent(): boolean {
    return (
      this.messagesAfterPersist.length > 0 ||
      this.log.hasUnwritten ||
      this.termOrVoteChanged ||
      this.commitDue
    )
  }

  private get termOrVoteChanged(): boolean {
    return this.term !== this.writtenTerm || this.vote !== this.writtenVote
  }

  /** Everything there is to do now. Each thing is handed out once. */
  ready(): Ready {
    if (this.roundDue) this.beginRound()
    if (this.appendsDue) this.sendAppends()
    const write = this.log.mustAwaitWrite ? nothingToWrite : this.takeWrite()
    const snapshot = this.snapshotToHandOut
    this.snapshotToHandOut = undefined
    const { leaveJointDue } = this
    this.leaveJointDue = false
    const ready: Ready = {
      hardState: write.hardState,
      entries: write.entries,
      mustSync: write.mustSync,
      leaveJointDue,
      messagesAfterPersist: write.messages,
      snapshot,
      messages: takeAll(this.messages),
      committed: this.takeCommitted(),
      reads: takeAll(this.confirmedReads),
      readsLost: takeAll(this.lostReads),
      snapshotsWanted: takeAll(this.snapshotsWanted),
    }
    this.resetOutputs(ready)
    return ready
  }

  /** Arrays that were handed out belong to the caller now. */
  private resetOutputs(ready: Ready): void {
    if (ready.messages.length > 0) this.messages = []
    if (ready.messagesAfterPersist.length > 0) this.messagesAfterPersist = []
    if (ready.reads.length > 0) this.confirmedReads = []
    if (ready.readsLost.length > 0) this.lostReads = []
    if (ready.snapshotsWanted.length > 0) this.snapshotsWanted = []
  }

  private takeWrite(): Write {
    const entries = this.log.takeUnwritten()
    const changed = this.termOrVoteChanged
    const commitToo = entries.length > 0 || this.commitDue
    const hardState =
      changed || (commitToo && this.commitIndex !== this.writtenCommit)
        ? this.hardStateToWrite()
        : undefined
    if (hardState !== undefined) {
      this.writtenTerm = this.term
      this.writtenVote = this.vote
      this.writtenCommit = this.commitIndex
      this.commitUnwrittenTicks = 0
    }
    this.commitDue = false
    const messages = takeAll(this.messagesAfterPersist)
    return { hardState, entries, messages, mustSync: changed || entries.length > 0 }
  }

  /**
   * Term and vote, which a replica must find again after a crash, in one piece with each other
   * (Raft paper, Figure 2). The commit index may be forgotten, so its change alone is written
   * seldom, and never synced.
   */
  protected hardStateToWrite(): HardState {
    return { term: this.term, vote: this.vote, commit: this.commitIndex }
  }

  private takeCommitted(): ReadonlyArray<Entry> {
    if (this.snapshot !== undefined) return none
    const entries = this.log.takeCommitted(this.options.maxCommittedBytes)
    if (this.role === "leader") {
      for (const entry of entries) {
        if (entry.term === this.term) this.uncommittedBytes -= entry.data.length
      }
    }
    return entries
  }
}

interface Write {
  readonly hardState: HardState | undefined
  readonly entries: ReadonlyArray<Entry>
  readonly messages: ReadonlyArray<Message>
  readonly mustSync: boolean
}

const nothingToWrite: Write = {
  hardState: undefined,
  entries: none,
  messages: none,
  mustSync: false,
}

/** The gathered outputs, or the one empty array when there are none. */
function takeAll<A>(outputs: ReadonlyArray<A>): ReadonlyArray<A> {
  return outputs.length === 0 ? none : outputs
}
