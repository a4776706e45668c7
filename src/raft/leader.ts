import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import type { LogIndex, ReplicaId, Term } from "../types.ts"
import { Candidate } from "./candidate.ts"
import { type AppendResponse, type Entry, entryKinds, type HeartbeatResponse } from "./message.ts"
import { Progress, type ProgressReport } from "./progress.ts"
import { majority, quorumIndex } from "./quorum.ts"
import { ReadQueue } from "./reads.ts"

/** Appends under way to one follower hold about this many full ones of data. */
const inflightAppendsOfFullSize = 8
const noEntries: ReadonlyArray<Entry> = []

/**
 * What a leader does (Raft paper 5.3, 5.4.2; Raft thesis 6.2, 6.4, 10.2): it appends, replicates,
 * commits, checks that a quorum still hears it, and confirms reads.
 *
 * Appends and heartbeats are not sent where something happens but gathered in `ready`: everything
 * proposed in a turn travels in one append per follower, all reads of a turn share one heartbeat
 * round. A commit index travels with the next append or heartbeat, it has no message of its own.
 */
export abstract class Leader extends Candidate {
  /** One per voter, this one included; empty while not leader. */
  protected followers: ReadonlyArray<Progress> = []
  private readonly reads = new ReadQueue()
  private readonly scratch: Array<number> = this.voters.map(() => 0)
  /** Index of the empty entry that opened this term. */
  private openingIndex: LogIndex = 0
  private round = 0
  private heartbeatElapsed = 0
  private quorumElapsed = 0
  /** Data of entries of this term that are not yet applied here. */
  protected uncommittedBytes = 0

  protected appendsDue = false
  protected roundDue = false
  protected snapshotsWanted: Array<ReplicaId> = []

  protected leadershipWon(): void {
    const next = this.log.lastIndex + 1
    this.followers = this.voters.map(
      (replica) =>
        new Progress({
          replica,
          next,
          maxInflightAppends: this.options.maxInflightAppends,
          maxInflightBytes: inflightAppendsOfFullSize * this.options.maxAppendBytes,
        }),
    )
    this.openingIndex = next
    this.round = 0
    this.heartbeatElapsed = 0
    this.quorumElapsed = 0
    this.uncommittedBytes = 0
    this.ownProgress.acknowledged(this.log.durableIndex)
    this.ownProgress.becomeReplicate()
    this.ownProgress.recentActive = true
    // Only an entry of this term can be counted to commit those before it (Raft paper 5.4.2, 8).
    this.appendOwn(entryKinds.empty, emptyBytes)
  }

  protected leadershipLost(): void {
    this.followers = []
    this.reads.abandon(this.lostReads)
    this.appendsDue = false
    this.roundDue = false
    this.snapshotsWanted = []
  }

  private get ownProgress(): Progress {
    return this.followers[this.position] as Progress
  }

  // Proposals

  /**
   * Appends `data` as an entry of commands, and returns its index; `undefined` = not the leader,
   * "overloaded" = too much is not yet applied. The entry is known by (index, term): at that index
   * another may be committed in the end.
   */
  propose(data: Uint8Array): LogIndex | "overloaded" | undefined {
    if (this.role !== "leader") return undefined
    const after = this.uncommittedBytes + data.length
    if (this.uncommittedBytes > 0 && after > this.options.maxUncommittedBytes) return "overloaded"
    this.uncommittedBytes = after
    return this.appendOwn(entryKinds.commands, data)
  }

  private appendOwn(kind: Entry["kind"], data: Uint8Array): LogIndex {
    assert(this.role === "leader", "only a leader adds entries of its term")
    const index = this.log.lastIndex + 1
    this.log.append([{ index, term: this.term, kind, data }])
    this.appendsDue = !this.isAlone
    return index
  }

  // Replication (Raft paper 5.3, Raft thesis 10.2.1)

  /** Gathers the appends that may leave now. */
  protected sendAppends(): void {
    this.appendsDue = false
    for (const follower of this.followers) {
      if (follower.replica === this.id) continue
      while (follower.maySend && this.sendAppend(follower)) {
        // A pipelined follower takes more until its window is full.
      }
    }
  }

  /** Sends the next append, and returns true if there may be another. */
  private sendAppend(follower: Progress): boolean {
    const { next } = follower
    const upToDate = next > this.log.lastIndex
    if (upToDate && follower.state === "replicate") return false
    const previousTerm = this.log.term(next - 1)
    if (previousTerm === undefined) {
      this.wantSnapshot(follower)
      return false
    }
    const entries = upToDate ? noEntries : this.log.entries(next, this.options.maxAppendBytes)
    let sizeBytes = 0
    for (const entry of entries) sizeBytes += entry.data.length
    this.pushAppend(follower, previousTerm, entries)
    follower.sent(next + entries.length - 1, sizeBytes)
    return true
  }

  private pushAppend(follower: Progress, previousTerm: Term, entries: ReadonlyArray<Entry>): void {
    this.messages.push({
      _tag: "AppendRequest",
      from: this.id,
      to: follower.replica,
      term: this.term,
      previousIndex: follower.next - 1,
      previousTerm,
      entries,
      commit: this.commitIndex,
    })
  }

  /** A snapshot is worth making only for someone who was heard of lately. */
  private wantSnapshot(follower: Progress): void {
    if (!follower.recentActive) return
    follower.becomeSnapshot()
    this.snapshotsWanted.push(follower.replica)
  }

  protected stepAppendResponse(response: AppendResponse): void {
    if (response.term > this.term) {
      this.becomeFollower(response.term, undefined)
      return
    }
    if (this.role !== "leader" || !this.acceptsAppendResponse(response)) return
    const follower = this.followerOf(response.from)
    follower.recentActive = true
    if (response.accepted) {
      this.acknowledge(follower, response.index)
    } else {
      if (follower.refused(response.index, this.probeHint(response))) this.appendsDue = true
    }
  }

  /**
   * The largest index where the logs may agree, after a refusal: the follower's hint, cut further
   * where this log shows that it cannot agree either. Anything lower is as right, and slower.
   */
  protected probeHint(response: AppendResponse): LogIndex {
    return this.log.lastIndexUpToTerm(response.hintIndex, response.hintTerm)
  }

  /**
   * An answer to an append of an earlier term, even this replica's own, says nothing about this
   * term.
   */
  protected acceptsAppendResponse(response: AppendResponse): boolean {
    return response.term === this.term
  }

  private acknowledge(follower: Progress, index: LogIndex): void {
    assert(index <= this.lastIndex, () => `${follower.replica} has ${index} of ${this.lastIndex}`)
    const advanced = follower.acknowledged(index)
    if (follower.state === "probe" && follower.match === index) {
      follower.becomeReplicate()
    } else if (follower.state === "snapshot" && follower.match + 1 >= this.log.firstIndex) {
      follower.becomeReplicate()
    }
    if (follower.next <= this.lastIndex) this.appendsDue = true
    if (advanced) this.maybeCommit()
  }

  private followerOf(replica: ReplicaId): Progress {
    return this.followers[this.voters.indexOf(replica)] as Progress
  }

  /** This replica's own disk has caught up to `durableIndex`: the leader's own acknowledgement. */
  protected ownLogDurable(): void {
    if (this.ownProgress.acknowledged(this.log.durableIndex)) this.maybeCommit()
  }

  // Commitment (Raft paper 5.3, 5.4.2)

  protected maybeCommit(): void {
    const { followers, scratch } = this
    for (let i = 0; i < followers.length; i++) scratch[i] = (followers[i] as Progress).match
    const index = quorumIndex(scratch)
    if (index <= this.commitIndex || !this.mayCommit(index)) return
    this.log.commitTo(index)
    if (this.reads.hasWaiting && this.hasCommittedInTerm) this.roundDue = true
  }

  /**
   * Counting replicas commits entries of this term only; those before follow. (Raft paper 5.4.2)
   */
  protected mayCommit(index: LogIndex): boolean {
    return this.log.term(index) === this.term
  }

  /** Then, and not before, the commit index covers all that earlier leaders committed. */
  private get hasCommittedInTerm(): boolean {
    return this.commitIndex >= this.openingIndex
  }

  // Heartbeats, quorum, reads (Raft paper 5.2, 8; Raft thesis 6.2, 6.4)

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
      // Alone it needs no heartbeats, but a round may be due for reads.
      if (!this.isAlone) this.roundDue = true
      for (const follower of this.followers) follower.checkDue = true
    }
  }

  /** True when a majority was heard since the last call. */
  private hearsQuorum(): boolean {
    let active = 1
    for (const follower of this.followers) {
      if (follower.replica === this.id) continue
      if (follower.recentActive) active++
      follower.recentActive = false
    }
    return active >= majority(this.voters.length)
  }

  /**
   * Asks for an index at which a read would be linearizable; it comes in `ready().reads`, or in
   * `readsLost`. False = not the leader.
   */
  readIndex(context: number): boolean {
    if (this.role !== "leader") return false
    this.reads.register(context)
    if (this.hasCommittedInTerm) this.roundDue = true
    return true
  }

  /** Begins a round of heartbeats, for the timer, for the reads that wait, or for both. */
  protected beginRound(): void {
    this.roundDue = false
    this.round++
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
    this.confirmReads()
  }

  private confirmReads(): void {
    const { followers, scratch } = this
    for (let i = 0; i < followers.length; i++) scratch[i] = (followers[i] as Progress).round
    this.reads.confirm(quorumIndex(scratch), this.confirmedReads)
  }

  protected stepHeartbeatResponse(response: HeartbeatResponse): void {
    if (response.term > this.term) {
      this.becomeFollower(response.term, undefined)
      return
    }
    if (this.role !== "leader" || response.term !== this.term) return
    const follower = this.followerOf(response.from)
    follower.recentActive = true
    assert(response.round <= this.round, () => `round ${response.round} of ${this.round} echoed`)
    if (response.round > follower.round) {
      follower.round = response.round
      this.confirmReads()
    }
    if (follower.checkDue) this.checkFollower(follower)
  }

  /**
   * Once per heartbeat period, to a follower that answers: a probe is tried again, and behind a
   * pipeline that does not move goes an empty append, whose refusal shows that something was lost.
   */
  private checkFollower(follower: Progress): void {
    const stalled = follower.checkStalled()
    if (follower.state === "probe") {
      follower.probeSent = false
      this.appendsDue = true
    } else if (stalled) {
      const previousTerm = this.log.term(follower.next - 1)
      if (previousTerm !== undefined) {
        this.pushAppend(follower, previousTerm, noEntries)
      } else {
        // The log was cut beyond what is out: from what it has, which may need a snapshot.
        follower.becomeProbe()
        this.appendsDue = true
      }
    } else if (follower.state === "replicate" && follower.next <= this.log.lastIndex) {
      // Nothing is out though something is missing: when it was to be sent, the follower had not been heard of for a snapshot.
      this.appendsDue = true
    }
  }

  // Reports from outside

  /** The snapshot sent to `replica` up to `index` has arrived there, or has not. */
  snapshotSent(replica: ReplicaId, outcome: "installed" | "failed", index: LogIndex): void {
    const follower = this.followerIf(replica)
    if (follower === undefined || follower.state !== "snapshot") return
    if (outcome === "installed") {
      follower.becomeProbe(Math.max(follower.match, index) + 1)
      this.appendsDue = true
    } else {
      follower.becomeProbe()
      // Not at once again: after the next heartbeat that it echoes.
      follower.probeSent = true
    }
  }

  /** Messages to `replica` were dropped: its pipeline has holes. */
  reportUnreachable(replica: ReplicaId): void {
    const follower = this.followerIf(replica)
    if (follower?.state !== "replicate") return
    follower.becomeProbe()
    follower.probeSent = true
  }

  private followerIf(replica: ReplicaId): Progress | undefined {
    if (this.role !== "leader" || replica === this.id) return undefined
    return this.followers.find((follower) => follower.replica === replica)
  }

  /** What the leader knows of each voter, in id order; empty on any other replica. */
  progress(): ReadonlyArray<ProgressReport> {
    return this.followers.map((follower) => follower.report())
  }
}
