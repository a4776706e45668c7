import type { MonotonicMs, ReplicaId, Term } from "../types.ts"
import { Follower } from "./follower.ts"
import type { TimeoutNow, VoteResponse } from "./message.ts"
import { type Ballot, jointVoteResult } from "./quorum.ts"

/**
 * What a replica does to become leader (Raft paper 5.2): first a pre-vote, which changes no term,
 * so that a replica that was cut off comes back without disturbing anyone (Raft thesis 9.6); then
 * the election.
 *
 * Its request for votes leaves only when its term, its own vote and its whole log are durable: a
 * candidate that forgot them in a crash would ask again in the same term, with a shorter log, and
 * count votes given to the longer one. Its own vote comes back to it as a message for the same
 * reason.
 */
export abstract class Candidate extends Follower {
  /** By whoever answered, voter or not: who counts is decided when they are counted. */
  private readonly ballots = new Map<ReplicaId, Ballot>()

  /** Campaigns without waiting for the timer, unless something forbids it: for a group that never had a leader. */
  hasten(nowMs: MonotonicMs = this.nowMs): void {
    this.nowMs = nowMs
    if (this.mayCampaign) this.campaign()
  }

  /**
   * Leads the first term of its group without a vote, for the one replica of which all others know by the way in which the group came to be: who led the parent
   * in the term of the entry that split it, and still does (server/rangeLife.ts). Nobody else ever leads or votes in that term, since who campaigns enters a later one;
   * nor does this replica again after a restart. False where it can't: the term is over, or the replica is no voter.
   */
  leadFirst(firstTerm: Term, nowMs: MonotonicMs): boolean {
    this.nowMs = nowMs
    const isFirst = this.term === firstTerm && this.vote === 0 && this.leader === undefined
    if (!isFirst || this.role !== "follower" || !this.mayLead || this.lacksLog) return false
    if (this.snapshot !== undefined || this.log.lastTerm !== firstTerm) return false
    this.vote = this.id
    this.becomeLeader()
    return true
  }

  /** Campaigns now, whatever the timer and the silence say; not if it is no voter. For tests: what was promised to a leader is broken. */
  campaign(): void {
    if (this.role === "leader" || !this.mayLead || this.lacksLog) return
    if (this.snapshot !== undefined) return
    if (this.options.preVote) this.seekPreVotes()
    else this.seekVotes(false)
  }

  /**
   * The leader hands over: a campaign without pre-vote, whose requests break the silence. The leader relies on that no longer, but only the
   * one of this very term has said so: a late word of an earlier one is void.
   */
  protected stepTimeoutNow(message: TimeoutNow): void {
    if (!this.obeysTimeoutNow(message) || !this.mayLead || this.lacksLog) return
    if (this.snapshot !== undefined) return
    this.seekVotes(true)
  }

  protected obeysTimeoutNow(message: TimeoutNow): boolean {
    return message.term === this.term && this.role === "follower" && this.leader === message.from
  }

  /** A voter alone in its group has nobody to wait for. */
  protected tickElection(): void {
    this.electionElapsed++
    const due = this.electionElapsed >= this.electionTimeout
    if ((due || (this.isAlone && this.role === "follower")) && this.mayCampaign) this.campaign()
  }

  private seekPreVotes(): void {
    this.becomePreCandidate()
    this.ballots.clear()
    this.ballots.set(this.id, "granted")
    this.requestVotes({ preVote: true, transfer: false })
    this.decide()
  }

  /** `transfer` is said of this one election: after it there may be a leader who relies on silence. */
  private seekVotes(transfer: boolean): void {
    this.becomeCandidate()
    this.ballots.clear()
    this.requestVotes({ preVote: false, transfer })
    this.messagesAfterPersist.push({
      _tag: "VoteResponse",
      from: this.id,
      to: this.id,
      term: this.term,
      preVote: false,
      granted: true,
    })
  }

  private requestVotes(kind: { readonly preVote: boolean; readonly transfer: boolean }): void {
    const { preVote, transfer } = kind
    const target = preVote ? this.messages : this.messagesAfterPersist
    const voters = [...new Set(this.quorums().flat())].sort((left, right) => left - right)
    for (const voter of voters) {
      if (voter === this.id) continue
      target.push({
        _tag: "VoteRequest",
        from: this.id,
        to: voter,
        term: preVote ? this.term + 1 : this.term,
        preVote,
        transfer,
        lastIndex: this.log.lastIndex,
        lastTerm: this.log.lastTerm,
      })
    }
  }

  protected stepVoteResponse(response: VoteResponse): void {
    // A granted pre-vote carries the term asked for, which nobody has entered yet.
    const names = response.preVote && response.granted ? this.term : response.term
    if (names > this.term) {
      this.becomeFollower(names, undefined)
      return
    }
    if (!this.countsVote(response)) return
    if (!this.ballots.has(response.from)) {
      this.ballots.set(response.from, response.granted ? "granted" : "refused")
    }
    this.decide()
  }

  /** Only answers to the question of this role and term are votes; any other is an old one. */
  protected countsVote(response: VoteResponse): boolean {
    if (!response.preVote) return this.role === "candidate" && response.term === this.term
    if (this.role !== "preCandidate") return false
    return !response.granted || response.term === this.term + 1
  }

  private decide(): void {
    const sets = this.quorums().map((set) => set.map((voter) => this.ballots.get(voter)))
    const result = jointVoteResult(sets)
    if (result === "lost") this.becomeFollower(this.term, undefined)
    else if (result === "won" && this.role === "preCandidate") this.seekVotes(false)
    else if (result === "won") this.becomeLeader()
  }
}
