import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import type { LogIndex, MonotonicMs, ReplicaId, WallMs } from "../types.ts"
import { Lease } from "./lease.ts"
import { entryKinds, type HeartbeatResponse, type ReadIndexRequest } from "./message.ts"
import type { Progress } from "./progress.ts"
import { majority } from "./quorum.ts"
import { ReadQueue } from "./reads.ts"
import type { RaftOptions } from "./replica.ts"
import { Replicator } from "./replicator.ts"

/** What the clocks of this node showed. */
export interface ClockMark {
  readonly monotonicMs: MonotonicMs
  readonly wallMs: WallMs
}

const roundOf = (progress: Progress): number => progress.round

/**
 * How a leader knows that it still leads (Raft paper 5.2, 8; Raft thesis 6.2, 6.4): it begins its term with an entry of its own, beats, checks
 * that a quorum hears it, and confirms reads, by rounds of heartbeats or by the lease that such rounds give.
 *
 * Heartbeats are gathered in `ready` like appends: all reads of a turn share one round.
 */
export abstract class Leader extends Replicator {
  private readonly reads = new ReadQueue()
  private readonly lease: Lease
  private leaseIsGivenUp = false
  /** Not a number, and no lease, until the first reading. */
  private observedMonotonicMs: MonotonicMs = Number.NaN
  private observedWallMs: WallMs = Number.NaN
  /** Index of the empty entry that opened this term. */
  private openingIndex: LogIndex = 0
  private round = 0
  private heartbeatElapsed = 0
  /** The first round that told every member that the whole log, up to `settledIndex`, is committed; 0 = none has. */
  private settledRound = 0
  private settledIndex: LogIndex = 0
  private quorumElapsed = 0
  protected roundDue = false

  constructor(options: RaftOptions) {
    super(options)
    this.lease = new Lease(options)
  }

  protected leadershipWon(): void {
    this.gatherFollowers()
    this.openingIndex = this.log.lastIndex + 1
    this.round = 0
    this.heartbeatElapsed = 0
    this.quorumElapsed = 0
    this.settledRound = 0
    this.uncommittedBytes = 0
    this.lease.reset()
    this.leaseIsGivenUp = false
    this.ownProgress.acknowledged(this.log.durableIndex)
    this.ownProgress.becomeReplicate()
    this.ownProgress.recentActive = true
    // Only an entry of this term can be counted to commit those before it (Raft paper 5.4.2, 8).
    this.appendOwn(entryKinds.empty, emptyBytes)
  }

  protected leadershipLost(): void {
    this.forgetFollowers()
    this.reads.abandon(this.lostReads)
    this.lease.reset()
    this.roundDue = false
  }

  protected committedMore(): void {
    if (this.reads.hasWaiting && this.hasCommittedInTerm) this.roundDue = true
  }

  /** Then, and not before, the commit index covers all that earlier leaders committed. */
  protected get hasCommittedInTerm(): boolean {
    return this.commitIndex >= this.openingIndex
  }

  // Heartbeats and quorum (Raft paper 5.2; Raft thesis 6.2)

  protected tickLeader(): void {
    if (++this.quorumElapsed >= this.options.electionTicksMin) {
      this.quorumElapsed = 0
      if (this.options.checkQuorum && !this.hearsQuorum()) {
        this.becomeFollower(this.term, undefined)
        return
      }
    }
    if (++this.heartbeatElapsed >= this.options.heartbeatTicks) {
      this.heartbeatElapsed = 0
      // Without others it needs no heartbeats, but a round may be due for reads.
      if (this.followers.length > 1) this.roundDue = true
      for (const follower of this.followers) follower.checkDue = true
    }
  }

  /** True when a majority of each deciding set was heard since the last call. */
  private hearsQuorum(): boolean {
    this.ownProgress.recentActive = true
    const hears = this.deciding.every(
      (set) => set.filter((voter) => voter.recentActive).length >= majority(set.length),
    )
    for (const follower of this.followers) follower.rollActive()
    return hears
  }

  /** Begins a round of heartbeats, for the timer, for the reads that wait, or for both. */
  protected beginRound(): void {
    this.roundDue = false
    this.round++
    this.lease.begin(this.round, this.observedMonotonicMs, this.observedWallMs)
    this.noticeSettled()
    if (this.hasCommittedInTerm) this.reads.begin(this.round, this.commitIndex)
    for (const follower of this.followers) {
      if (follower.replica === this.id) continue
      this.messages.push({
        _tag: "Heartbeat",
        from: this.id,
        to: follower.replica,
        term: this.term,
        commit: Math.min(follower.match, this.commitIndex),
        round: this.round,
      })
    }
    this.ownProgress.round = this.round
    this.confirmRound()
  }

  // Sleep

  private noticeSettled(): void {
    const { lastIndex } = this
    const isSettled =
      this.commitIndex === lastIndex && this.followers.every(({ match }) => match === lastIndex)
    if (!isSettled) this.settledRound = 0
    else if (this.settledRound === 0 || this.settledIndex !== lastIndex) {
      this.settledRound = this.round
      this.settledIndex = lastIndex
    }
  }

  /** Every member, voter or learner, has the whole log and knows that all of it is committed; nothing is under way. */
  protected get isSettled(): boolean {
    if (this.role !== "leader" || !this.hasCommittedInTerm || this.reads.hasWaiting) return false
    const { lastIndex, settledRound } = this
    if (this.commitIndex !== lastIndex || this.durableIndex !== lastIndex) return false
    if (this.followers.length === 1) return true
    if (settledRound === 0 || this.settledIndex !== lastIndex) return false
    // Of the latest round, so that no echo is on its way.
    return this.followers.every(({ round, match }) => round === this.round && match === lastIndex)
  }

  /** The timers go on; who was heard lately is told by the caller, who heard for this group meanwhile. */
  protected resumeLeading(heard: ReadonlyArray<ReplicaId>, confirmed: ClockMark | undefined): void {
    this.heartbeatElapsed = 0
    this.quorumElapsed = 0
    for (const follower of this.followers) {
      if (heard.includes(follower.replica)) follower.recentActive = true
    }
    if (this.followers.length > 1) this.roundDue = true
    if (confirmed !== undefined) this.lease.grant(confirmed.monotonicMs, confirmed.wallMs)
  }

  /** Tells all followers at once what is committed, for those who wait for it to act. */
  broadcastCommit(): void {
    if (this.role === "leader" && this.followers.length > 1) this.roundDue = true
  }

  private confirmRound(): void {
    const round = this.quorumOf(roundOf)
    this.lease.confirm(round)
    this.reads.confirm(round, this.confirmedReads, (read, index) => {
      const { from: to, session, context } = read
      const { id: from, term } = this
      this.messages.push({ _tag: "ReadIndexResponse", from, to, term, session, context, index })
    })
  }

  protected stepHeartbeatResponse(response: HeartbeatResponse): void {
    if (response.term > this.term) {
      this.becomeFollower(response.term, undefined)
      return
    }
    if (this.role !== "leader" || response.term !== this.term) return
    const follower = this.followerOf(response.from)
    // Of one that is no member any more.
    if (follower === undefined) return
    follower.recentActive = true
    this.noteFull(follower, response.full)
    assert(response.round <= this.round, () => `round ${response.round} of ${this.round} echoed`)
    if (response.round > follower.round) {
      follower.round = response.round
      this.confirmRound()
    }
    if (follower.checkDue) this.checkFollower(follower)
  }

  // Reads (Raft thesis 6.4)

  /**
   * Asks for an index at which a read would be linearizable; it comes in `ready().reads`, or in `readsLost`. A leader confirms it by its
   * lease or by a round, another replica asks its leader, whose answer may never come. False = no leader is known. Each context is given once.
   */
  readIndex(context: number): boolean {
    if (this.role !== "leader") return this.askReadIndex(context)
    if (this.leaseHolds(this.observedMonotonicMs, this.observedWallMs)) {
      this.confirmedReads.push({ context, index: this.commitIndex, byLease: true })
      return true
    }
    this.reads.register(context)
    if (this.hasCommittedInTerm) this.roundDue = true
    return true
  }

  /**
   * Another replica asks. The lease does not help it: between a look at the clock here and the arrival of the answer nobody looks again, and
   * this process may have slept in between.
   */
  protected stepReadIndexRequest(request: ReadIndexRequest): void {
    if (this.role !== "leader" || !this.reads.registerRemote(request)) return
    if (this.hasCommittedInTerm) this.roundDue = true
  }

  // The lease (Raft thesis 6.4.1)

  /** The clocks of this node now: call it before the inputs of a turn. A lease counts from no later than the reading before a round. */
  observeClocks(monotonicMs: MonotonicMs, wallMs: WallMs): void {
    this.observedMonotonicMs = monotonicMs
    this.observedWallMs = wallMs
  }

  /**
   * True when no other replica can lead at the time that the clocks show, so that what is committed here is all there is. Reads that were
   * confirmed by it are asked about again right before their answers leave.
   */
  leaseHolds(monotonicMs: MonotonicMs, wallMs: WallMs): boolean {
    if (this.role !== "leader" || this.leaseIsGivenUp || !this.hasCommittedInTerm) return false
    return this.lease.holds(monotonicMs, wallMs)
  }

  /** Whoever was told to campaign breaks the silence, now or at any later time in this term. */
  protected giveUpLease(): void {
    this.leaseIsGivenUp = true
  }
}
