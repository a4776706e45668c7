import { assert } from "../lib/assert.ts"
import type { LogIndex, Term } from "../types.ts"
import type { Membership } from "./membership.ts"
import type {
  AppendRequest,
  Entry,
  Heartbeat,
  ReadIndexResponse,
  SnapshotOffer,
  VoteRequest,
} from "./message.ts"
import { Replica } from "./replica.ts"

/**
 * What a replica does for others: it votes, and it follows a leader. Every answer that promises
 * something (a vote, an acknowledgement) waits in `messagesAfterPersist`; echoes of heartbeats and
 * pre-votes promise nothing and leave at once.
 *
 * The protected methods with a condition in their name are the rules themselves, one each.
 */
export abstract class Follower extends Replica {
  // Voting (Raft paper 5.2, 5.4.1; Raft thesis 4.2.3, 9.6)

  protected stepVoteRequest(request: VoteRequest): void {
    // Not even the term is taken: a replica that was cut off must not depose a leader that works.
    // A leader that hands over has no use for the silence any more.
    if (this.inVoteSilence && !request.transfer) return
    if (!request.preVote && request.term > this.term) this.becomeFollower(request.term, undefined)
    const granted = this.mayVoteFor(request) && this.isUpToDate(request.lastIndex, request.lastTerm)
    if (granted && !request.preVote) {
      this.vote = request.from
      this.electionElapsed = 0
    }
    const target = request.preVote ? this.messages : this.messagesAfterPersist
    target.push({
      _tag: "VoteResponse",
      from: this.id,
      to: request.from,
      // A pre-vote is granted for the term asked for; a refusal tells a late asker the present one.
      term: granted && request.preVote ? request.term : this.term,
      preVote: request.preVote,
      granted,
    })
  }

  /**
   * One vote per term, none beside a leader of that term; a pre-vote for a later term binds nobody.
   */
  protected mayVoteFor(request: VoteRequest): boolean {
    if (request.term < this.term) return false
    if (request.preVote && request.term > this.term) return true
    return this.vote === request.from || (this.vote === 0 && this.leader === undefined)
  }

  /** The log that ends so holds all that this one may have helped to commit. (Raft paper 5.4.1) */
  protected isUpToDate(lastIndex: LogIndex, lastTerm: Term): boolean {
    const floor = this.log.voteFloor
    if (floor !== undefined) {
      if (lastTerm < floor.term || (lastTerm === floor.term && lastIndex < floor.index))
        return false
    }
    if (lastTerm !== this.log.lastTerm) return lastTerm > this.log.lastTerm
    return lastIndex >= this.log.lastIndex
  }

  // Following (Raft paper 5.3)

  /**
   * Set by the caller while what is committed here and not applied reaches its limit: new entries are then dropped as a network would, and the leader is told
   * so with the next echo. What only waits to be committed must not count: its commit may wait for this very replica.
   */
  isFull = false

  /**
   * True when the message comes from the leader of this term, which is then followed. To a leader
   * of an earlier term the caller answers with the present one.
   */
  private follow(request: AppendRequest | Heartbeat | SnapshotOffer): boolean {
    if (request.term < this.term) return false
    if (request.term > this.term || this.leader === undefined) {
      this.becomeFollower(request.term, request.from)
    }
    assert(
      this.leader === request.from,
      () => `term ${this.term} has two leaders, ${this.leader} and ${request.from}`,
    )
    this.heardLeader()
    return true
  }

  protected stepAppend(request: AppendRequest): void {
    if (!this.follow(request)) {
      this.refuseAppend(request.from, request.previousIndex)
      return
    }
    // The log is about to be replaced: the leader probes again after that.
    if (this.snapshot !== undefined) return
    if (request.previousIndex < this.commitIndex) {
      // An old request. What is committed is in every leader's log, so it is surely a match.
      this.acceptAppend(request.from, this.commitIndex)
      return
    }
    const { previousIndex, previousTerm, entries } = request
    if (!this.log.matches(previousIndex, previousTerm)) {
      const hintIndex = this.log.lastIndexUpToTerm(previousIndex, previousTerm)
      this.refuseAppend(request.from, previousIndex, hintIndex)
      return
    }
    if (this.isFull && !this.holdsAll(entries)) return
    this.appendFromLeader(entries)
    const lastNewIndex = previousIndex + entries.length
    this.log.commitTo(this.commitFromAppend(request.commit, lastNewIndex))
    this.acceptAppend(request.from, lastNewIndex)
  }

  private holdsAll(entries: ReadonlyArray<Entry>): boolean {
    const last = entries[entries.length - 1]
    return last === undefined || this.log.matches(last.index, last.term)
  }

  /**
   * Appends what is missing. Entries already there stay, with whatever follows them: a request may
   * be old, and what follows may have been acknowledged. Only a conflict cuts the log. (Raft paper
   * 5.3)
   */
  protected appendFromLeader(entries: ReadonlyArray<Entry>): void {
    let known = 0
    while (known < entries.length) {
      const entry = entries[known] as Entry
      if (!this.log.matches(entry.index, entry.term)) break
      known++
    }
    this.log.append(known === 0 ? entries : entries.slice(known))
  }

  /**
   * Committed is what the leader says, as far as this very request has shown the logs to agree:
   * behind `lastNewIndex` there may be entries of another leader. (Raft paper, Figure 2: "index of
   * last new entry")
   */
  protected commitFromAppend(leaderCommit: LogIndex, lastNewIndex: LogIndex): LogIndex {
    return Math.min(leaderCommit, lastNewIndex)
  }

  protected acceptAppend(leader: number, index: LogIndex): void {
    this.messagesAfterPersist.push({
      _tag: "AppendResponse",
      from: this.id,
      to: leader,
      term: this.term,
      accepted: true,
      index,
      hintIndex: 0,
      hintTerm: 0,
    })
  }

  private refuseAppend(leader: number, index: LogIndex, hintIndex: LogIndex = 0): void {
    this.messagesAfterPersist.push({
      _tag: "AppendResponse",
      from: this.id,
      to: leader,
      term: this.term,
      accepted: false,
      index,
      hintIndex,
      hintTerm: this.log.term(hintIndex) ?? 0,
    })
  }

  /** The leader sends no commit index beyond what it knows to match here. */
  protected stepHeartbeat(request: Heartbeat): void {
    const following = this.follow(request)
    // What it says to match was acknowledged once; what was lost of it since, only an append can show to match again.
    if (following && !this.lacksLog) this.log.commitTo(request.commit)
    this.messages.push({
      _tag: "HeartbeatResponse",
      from: this.id,
      to: request.from,
      term: this.term,
      round: following ? request.round : 0,
      full: this.isFull,
    })
  }

  // Reads (Raft thesis 6.4)

  /** Drawn when it is first needed. */
  private readSession: number | undefined

  /** Asks the leader for a read index; false when none is known. */
  protected askReadIndex(context: number): boolean {
    if (this.role !== "follower" || this.leader === undefined) return false
    this.readSession ??= this.options.prng.uint32()
    this.messages.push({
      _tag: "ReadIndexRequest",
      from: this.id,
      to: this.leader,
      term: this.term,
      session: this.readSession,
      context,
    })
    return true
  }

  /**
   * The answer stands whatever has become of that leader since: it led after the question was asked. A context is used once in a session, and
   * the answer to a question of an earlier life of this replica would be older than the one asked now.
   */
  protected stepReadIndexResponse(response: ReadIndexResponse): void {
    if (response.session !== this.readSession) return
    const { context, index } = response
    this.confirmedReads.push({ context, index, byLease: false })
  }

  // Snapshots (Raft paper 7)

  /**
   * A snapshot has arrived. It is wanted only if the log does not reach its index with its term.
   */
  protected stepSnapshotOffer(offer: SnapshotOffer): void {
    if (!this.follow(offer)) {
      this.refuseAppend(offer.from, offer.index)
      return
    }
    if (this.snapshot !== undefined) return
    if (offer.index <= this.commitIndex) {
      this.acceptAppend(offer.from, this.commitIndex)
    } else if (this.log.matches(offer.index, offer.indexTerm)) {
      // Only committed entries are in a snapshot.
      this.log.commitTo(offer.index)
      this.acceptAppend(offer.from, offer.index)
    } else {
      this.snapshot = { index: offer.index, term: offer.indexTerm }
      this.snapshotOffered()
    }
  }

  protected abstract snapshotOffered(): void

  /**
   * The snapshot that `ready` asked for is installed durably, and storage begins after it. The
   * leader is told, if one is known. `membership` is the one in the snapshot; no other that was known before counts any more.
   */
  snapshotInstalled(index: LogIndex, term: Term, membership: Membership): void {
    assert(
      this.snapshot?.index === index && this.snapshot.term === term,
      `snapshot ${index}@${term} was not asked for`,
    )
    assert(this.role !== "leader", "a leader installs a snapshot")
    this.snapshot = undefined
    this.log.restore(index, term)
    this.membershipInstalled(index, membership)
    if (this.leader !== undefined) this.acceptAppend(this.leader, index)
  }
}
