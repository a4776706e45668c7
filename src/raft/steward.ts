import { assert } from "../lib/assert.ts"
import type { LogIndex, ReplicaId } from "../types.ts"
import { Leader } from "./leader.ts"
import {
  isJoint,
  type Membership,
  membershipInEntry,
  membershipProblem,
  sameMembership,
  sameReplicas,
} from "./membership.ts"
import { type EntryKind, entryKinds } from "./message.ts"
import type { Progress } from "./progress.ts"
import { majority } from "./quorum.ts"

/** Entries that a learner may lack of what is committed and still be made a voter. */
const caughtUpEntries = 1000

/**
 * What a leader does about who leads and who takes part: it takes proposals, changes the membership (Raft paper 6; Raft thesis 4) and hands
 * over (Raft thesis 3.10).
 *
 * A change of voters goes through a joint membership, in which the majorities of the voters before and after must both agree; it is entered
 * and left by one entry each, in force from when they are appended. The next change waits until the last one is committed and the group is
 * no longer joint. Learners come and go by one entry, since they decide nothing. Only learners become voters, once they have caught up.
 *
 * The entries hold more than the core knows, so the caller makes both: `Ready.leaveJointDue` says when the second is due. A leader that the
 * change leaves out goes on, without counting itself, until the last entry of it is committed, and steps down then.
 */
export abstract class Steward extends Leader {
  private transferTarget: ReplicaId | undefined
  private transferElapsed = 0
  private transferIsSent = false
  /** The membership in force may be joint, or uncommitted. */
  private changeIsOpen = false
  protected leaveJointDue = false

  protected override leadershipWon(): void {
    super.leadershipWon()
    this.endTransfer()
    this.changeIsOpen = true
    this.leaveJointDue = false
  }

  protected override leadershipLost(): void {
    super.leadershipLost()
    this.endTransfer()
    this.leaveJointDue = false
  }

  // Proposals

  /**
   * Appends `data` as an entry of this kind, and returns its index; `undefined` = not the leader,
   * "overloaded" = too much is not yet applied, "transferring" = another is about to lead. The entry is known by (index, term): at that index
   * another may be committed in the end.
   */
  propose(
    data: Uint8Array,
    kind: Exclude<EntryKind, typeof entryKinds.members> = entryKinds.commands,
  ): LogIndex | "overloaded" | "transferring" | undefined {
    if (this.role !== "leader") return undefined
    if (this.transferTarget !== undefined) return "transferring"
    const after = this.uncommittedBytes + data.length
    if (this.uncommittedBytes > 0 && after > this.options.maxUncommittedBytes) return "overloaded"
    this.uncommittedBytes = after
    return this.appendOwn(kind, data)
  }

  // Members

  /**
   * Appends `data` as an entry that brings `next` into force, which its data must hold, and returns its index. `next` is one step from the
   * membership in force: `stepTowards` or `leftJoint`. `undefined` = not the leader; "pending" = the change before is not through, or
   * nothing of this term is committed, or a transfer is under way: again later; "unsafe" = the group would be in danger of standing still:
   * a voter to be was no learner or lacks too much, or no majority of the voters to be was heard lately; "overloaded" as `propose`.
   */
  proposeMembership(
    next: Membership,
    data: Uint8Array,
  ): LogIndex | "overloaded" | "pending" | "unsafe" | undefined {
    assert(membershipProblem(next) === undefined, () => `membership: ${membershipProblem(next)}`)
    assert(sameMembership(membershipInEntry(data), next), "the entry holds another membership")
    if (this.role !== "leader") return undefined
    if (!this.mayChangeMembers() || this.transferTarget !== undefined) return "pending"
    const current = this.membership
    const leaves = isJoint(current)
    if (leaves ? !this.leavesJoint(next) : !this.isOneStep(next)) {
      return leaves ? "pending" : "unsafe"
    }
    if (!leaves && !this.staysAvailable(next)) return "unsafe"
    const after = this.uncommittedBytes + data.length
    // A group must be able to leave joint, whatever else waits.
    if (!leaves && this.uncommittedBytes > 0 && after > this.options.maxUncommittedBytes) {
      return "overloaded"
    }
    this.uncommittedBytes = after
    const index = this.appendOwn(entryKinds.members, data)
    this.gatherFollowers()
    this.appendsDue = this.followers.length > 1
    this.changeIsOpen = true
    this.leaveJointDue = false
    this.maybeCommit()
    return index
  }

  /**
   * Not while the membership in force is uncommitted, nor before an entry of this term is committed: an earlier leader's change could come
   * back and meet a quorum that does not overlap (Ongaro, "bug in single-server membership changes", 2015).
   */
  protected mayChangeMembers(): boolean {
    return this.membershipIndex <= this.commitIndex && this.hasCommittedInTerm
  }

  /** Voters change by way of joint, and nothing else does. */
  private isOneStep(next: Membership): boolean {
    const { voters } = this.membership
    return isJoint(next) ? sameReplicas(next.outgoing, voters) : sameReplicas(next.voters, voters)
  }

  private leavesJoint(next: Membership): boolean {
    return !isJoint(next) && sameReplicas(next.voters, this.membership.voters)
  }

  private staysAvailable(next: Membership): boolean {
    let heard = 0
    for (const voter of next.voters) {
      const progress = this.followerOf(voter)
      if (progress === undefined) return false
      const isNew = !this.membership.voters.includes(voter)
      if (isNew && !this.isCaughtUp(progress)) return false
      if (voter === this.id || progress.heardLately) heard++
    }
    return heard >= majority(next.voters.length)
  }

  protected isCaughtUp(learner: Progress): boolean {
    return learner.state === "replicate" && learner.match >= this.commitIndex - caughtUpEntries
  }

  protected override committedMore(): void {
    super.committedMore()
    if (this.changeIsOpen) this.followChange()
  }

  private followChange(): void {
    this.noticeJoint()
    if (isJoint(this.membership) || this.membershipIndex > this.commitIndex) return
    this.changeIsOpen = false
    if (!this.mayLead) this.retire()
  }

  /** Both majorities have the joint membership: from now on the new one alone can be agreed on. */
  private noticeJoint(): void {
    if (isJoint(this.membership) && this.mayChangeMembers()) this.leaveJointDue = true
  }

  /** The change that leaves this leader out is through. Everyone is told, and the best of them need not wait for its election. */
  private retire(): void {
    this.beginRound()
    let heir: Progress | undefined
    for (const follower of this.followers) {
      if (!this.membership.voters.includes(follower.replica) || !follower.heardLately) continue
      if (heir === undefined || follower.match > heir.match) heir = follower
    }
    if (heir !== undefined) this.sendTimeoutNow(heir.replica)
    this.becomeFollower(this.term, undefined)
  }

  // Handing over (Raft thesis 3.10)

  /** Who is to lead next, while that is under way. */
  get transferee(): ReplicaId | undefined {
    return this.transferTarget
  }

  get transferring(): boolean {
    return this.transferTarget !== undefined
  }

  /**
   * Makes `to` lead: no proposal is taken until it has the whole log and has campaigned, or an election timeout has passed, after which this
   * leader goes on. False = not the leader, another transfer is under way, or `to` can't lead or was not heard lately.
   */
  transferLeadership(to: ReplicaId): boolean {
    if (this.role !== "leader" || to === this.id) return false
    if (this.transferTarget !== undefined) return this.transferTarget === to
    const target = this.followerOf(to)
    if (!this.membership.voters.includes(to) || target === undefined) return false
    if (!target.heardLately) return false
    this.transferTarget = to
    this.transferElapsed = 0
    this.transferIsSent = false
    this.transferIfCaughtUp(target)
    return true
  }

  private transferIfCaughtUp(target: Progress): void {
    if (this.transferIsSent || target.match !== this.lastIndex) return
    this.transferIsSent = true
    this.sendTimeoutNow(target.replica)
  }

  private sendTimeoutNow(to: ReplicaId): void {
    this.giveUpLease()
    this.messages.push({ _tag: "TimeoutNow", from: this.id, to, term: this.term })
  }

  /** Writes wait for a transfer as long as an election would take, and no longer. */
  protected transferIsOverdue(): boolean {
    return this.transferElapsed >= this.options.electionTicksMin
  }

  private endTransfer(): void {
    this.transferTarget = undefined
  }

  protected override acknowledge(follower: Progress, index: LogIndex): void {
    super.acknowledge(follower, index)
    if (this.role === "leader" && follower.replica === this.transferTarget) {
      this.transferIfCaughtUp(follower)
    }
  }

  protected override tickLeader(): void {
    super.tickLeader()
    if (this.role !== "leader") return
    if (this.transferTarget !== undefined) {
      this.transferElapsed++
      if (this.transferIsOverdue()) this.endTransfer()
    }
    if (this.roundDue) this.noticeJoint()
  }
}
