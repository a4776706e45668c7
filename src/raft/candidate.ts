import { Follower } from "./follower.ts"
import type { VoteResponse } from "./message.ts"
import { type Ballot, voteResult } from "./quorum.ts"

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
  private readonly ballots: Array<Ballot> = this.voters.map(() => undefined)

  /** Campaigns now, whatever the timer and the silence after the start say. */
  campaign(): void {
    if (this.role === "leader" || this.snapshot !== undefined) return
    if (this.options.preVote) this.seekPreVotes()
    else this.seekVotes()
  }

  /** A voter alone in its group has nobody to wait for. */
  protected tickElection(): void {
    this.electionElapsed++
    const due = this.electionElapsed >= this.electionTimeout
    if ((due || (this.isAlone && this.role === "follower")) && this.mayCampaign) this.campaign()
  }

  private seekPreVotes(): void {
    this.becomePreCandidate()
    this.ballots.fill(undefined)
    this.ballots[this.position] = "granted"
    this.requestVotes(true)
    this.decide()
  }

  private seekVotes(): void {
    this.becomeCandidate()
    this.ballots.fill(undefined)
    this.requestVotes(false)
    this.messagesAfterPersist.push({
      _tag: "VoteResponse",
      from: this.id,
      to: this.id,
      term: this.term,
      preVote: false,
      granted: true,
    })
  }

  private requestVotes(preVote: boolean): void {
    const target = preVote ? this.messages : this.messagesAfterPersist
    for (const voter of this.voters) {
      if (voter === this.id) continue
      target.push({
        _tag: "VoteRequest",
        from: this.id,
        to: voter,
        term: preVote ? this.term + 1 : this.term,
        preVote,
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
    const voter = this.voters.indexOf(response.from)
    this.ballots[voter] ??= response.granted ? "granted" : "refused"
    this.decide()
  }

  /** Only answers to the question of this role and term are votes; any other is an old one. */
  protected countsVote(response: VoteResponse): boolean {
    if (!response.preVote) return this.role === "candidate" && response.term === this.term
    if (this.role !== "preCandidate") return false
    return !response.granted || response.term === this.term + 1
  }

  private decide(): void {
    const result = voteResult(this.ballots)
    if (result === "lost") this.becomeFollower(this.term, undefined)
    else if (result === "won" && this.role === "preCandidate") this.seekVotes()
    else if (result === "won") this.becomeLeader()
  }
}
