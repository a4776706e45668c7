import { assert } from "../lib/assert.ts"
import type { LogIndex, ReplicaId, Term } from "../types.ts"
import { Candidate } from "./candidate.ts"
import { membersOf } from "./membership.ts"
import type { AppendResponse, Entry } from "./message.ts"
import { Progress, type ProgressReport } from "./progress.ts"
import { jointQuorumIndex } from "./quorum.ts"

/** Appends under way to one follower hold about this many full ones of data. */
const inflightAppendsOfFullSize = 8
const noEntries: ReadonlyArray<Entry> = []
const matchOf = (progress: Progress): number => progress.match

/**
 * How a leader's log gets to the other members, and what is committed by that (Raft paper 5.3, 5.4.2; Raft thesis 10.2.1).
 *
 * Appends are not sent where something happens but gathered in `ready`: everything proposed in a turn travels in one append per follower. A
 * commit index travels with the next append or heartbeat, it has no message of its own.
 */
export abstract class Replicator extends Candidate {
  /** Every member and, member or not, this replica itself, in order of id; empty while not leader. */
  protected followers: ReadonlyArray<Progress> = []
  /** Those of `followers` that decide: one list for each of `quorums()`. */
  protected deciding: ReadonlyArray<ReadonlyArray<Progress>> = []
  private scratch: ReadonlyArray<Array<number>> = []
  private members: ReadonlyArray<Progress> = []
  /** Data of entries of this term that are not yet applied here. */
  protected uncommittedBytes = 0
  protected appendsDue = false
  protected snapshotsWanted: Array<ReplicaId> = []

  /** Takes the membership in force: what is known of those who stay is kept. */
  protected gatherFollowers(): void {
    const members = membersOf(this.membership)
    const ids = new Set([...members, this.id])
    const next = this.log.lastIndex + 1
    this.followers = [...ids]
      .sort((left, right) => left - right)
      .map((replica) => this.followerOf(replica) ?? this.newFollower(replica, next))
    this.deciding = this.quorums().map((set) =>
      set.map((replica) => this.followerOf(replica) as Progress),
    )
    this.scratch = this.deciding.map((set) => set.map(() => 0))
    this.members = this.followers.filter(({ replica }) => members.includes(replica))
  }

  private newFollower(replica: ReplicaId, next: LogIndex): Progress {
    return new Progress({
      replica,
      next,
      maxInflightAppends: this.options.maxInflightAppends,
      maxInflightBytes: inflightAppendsOfFullSize * this.options.maxAppendBytes,
    })
  }

  protected forgetFollowers(): void {
    this.followers = []
    this.deciding = []
    this.scratch = []
    this.members = []
    this.appendsDue = false
    this.snapshotsWanted = []
  }

  protected followerOf(replica: ReplicaId): Progress | undefined {
    for (const follower of this.followers) if (follower.replica === replica) return follower
    return undefined
  }

  protected get ownProgress(): Progress {
    return this.followerOf(this.id) as Progress
  }

  /** Largest number that a majority of each deciding set reaches. */
  protected quorumOf(read: (progress: Progress) => number): number {
    const { deciding, scratch } = this
    for (let i = 0; i < deciding.length; i++) {
      const set = deciding[i] as ReadonlyArray<Progress>
      const values = scratch[i] as Array<number>
      for (let j = 0; j < set.length; j++) values[j] = read(set[j] as Progress)
    }
    return jointQuorumIndex(scratch)
  }

  protected appendOwn(kind: Entry["kind"], data: Uint8Array): LogIndex {
    assert(this.role === "leader", "only a leader adds entries of its term")
    const index = this.log.lastIndex + 1
    this.log.append([{ index, term: this.term, kind, data }])
    this.appendsDue = this.followers.length > 1
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
    if (follower.isFull && !upToDate) return false
    const entries = upToDate ? noEntries : this.log.entries(next, this.options.maxAppendBytes)
    // Missing here: it is sent when it was got back from others, or is in a snapshot.
    if (!upToDate && entries.length === 0) return false
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
    if (!follower.recentActive || !this.mayHaveState(follower.replica)) return
    follower.becomeSnapshot()
    this.snapshotsWanted.push(follower.replica)
  }

  /**
   * Only a replica of a committed membership is given a state. One whose addition is lost with this leader would keep it for ever: no later membership
   * would ever say that it was removed.
   */
  protected mayHaveState(replica: ReplicaId): boolean {
    const { voters, outgoing, learners } = this.committedMembership
    return [voters, outgoing, learners].some((members) => members.includes(replica))
  }

  protected stepAppendResponse(response: AppendResponse): void {
    if (response.term > this.term) {
      this.becomeFollower(response.term, undefined)
      return
    }
    if (this.role !== "leader" || !this.acceptsAppendResponse(response)) return
    const follower = this.followerOf(response.from)
    // Of one that is no member any more.
    if (follower === undefined) return
    follower.recentActive = true
    if (response.accepted) {
      this.acknowledge(follower, response.index)
    } else {
      if (follower.refused(response.index, this.probeHint(response))) this.appendsDue = true
    }
  }

  /** What is out to one that is full was dropped there: it is sent again once there is room. */
  protected noteFull(follower: Progress, isFull: boolean): void {
    if (follower.isFull === isFull) return
    follower.isFull = isFull
    if (!isFull) this.appendsDue = true
    else if (follower.state === "replicate") follower.becomeProbe()
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

  protected acknowledge(follower: Progress, index: LogIndex): void {
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

  /** This replica's own disk has caught up to `durableIndex`: the leader's own acknowledgement. */
  protected ownLogDurable(): void {
    if (this.ownProgress.acknowledged(this.log.durableIndex)) this.maybeCommit()
  }

  /**
   * Once per heartbeat period, to a follower that answers: a probe is tried again, and behind a
   * pipeline that does not move goes an empty append, whose refusal shows that something was lost.
   */
  protected checkFollower(follower: Progress): void {
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

  // Commitment (Raft paper 5.3, 5.4.2)

  protected maybeCommit(): void {
    const index = this.quorumOf(matchOf)
    if (index <= this.commitIndex || !this.mayCommit(index)) return
    this.log.commitTo(index)
    this.committedMore()
  }

  /** The commit index has advanced. The replica may have stopped to lead after this. */
  protected abstract committedMore(): void

  /**
   * Counting replicas commits entries of this term only; those before follow. (Raft paper 5.4.2)
   */
  protected mayCommit(index: LogIndex): boolean {
    return this.log.term(index) === this.term
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
      // It may have all that is released here, and want no snapshot: where damage hid that, or where a split in its log has to be replayed first.
      follower.becomeProbe(Math.max(follower.match + 1, this.log.firstIndex))
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

  /** Damage took from `replica` all that it had above `lastIndex`: what it acknowledged is sent to it again. */
  reportLost(replica: ReplicaId, lastIndex: LogIndex): void {
    const follower = this.followerIf(replica)
    if (follower === undefined || follower.match <= lastIndex) return
    follower.lost(lastIndex)
    this.appendsDue = true
  }

  private followerIf(replica: ReplicaId): Progress | undefined {
    if (this.role !== "leader" || replica === this.id) return undefined
    return this.followerOf(replica)
  }

  /** What the leader knows of each voter, outgoing voter and learner, in id order; empty on any other replica. */
  progress(): ReadonlyArray<ProgressReport> {
    return this.members.map((member) => member.report())
  }
}
