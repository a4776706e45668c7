import type { JournalGroup } from "../../src/journal/group.ts"
import type { Membership } from "../../src/raft/membership.ts"
import type { ReadIndexResponse } from "../../src/raft/message.ts"
import { firstTerm } from "../../src/server/apply.ts"
import type { Replica } from "../../src/server/replica.ts"
import type { LogIndex, NodeId, RangeId, ReplicaId, Term } from "../../src/types.ts"
import type { Durability } from "./durability.ts"
import type { Observer } from "./observer.ts"
import { Violation } from "./violation.ts"

/** Another node, as far as these checks look at it. */
interface Peer {
  readonly durability: Durability
  readonly leases: { termOf(range: RangeId): Term }
  /** What the replica has applied; `undefined` = it does not run now. */
  appliedIndexOf(range: RangeId, replica: ReplicaId): LogIndex | undefined
}

interface LeaderWorld {
  readonly observer: Observer
  readonly nodes: ReadonlyMap<NodeId, { readonly checks: Peer }>
}

interface Seen {
  readonly term: Term
  commit: LogIndex
  membership: Membership
  /** At the end of the turn before. */
  earlier: Membership
}

type Sets = ReadonlyArray<ReadonlyArray<ReplicaId>>

/**
 * What makes a leader and a commit, judged by what disks hold and not by what the leader believes. A mistake shows here in the turn in which it is made; what
 * becomes of it (a lost entry, an old read) needs a second accident, which few seeds have.
 *
 * - A leader has the durable votes of a majority of each deciding set, and wins while nobody else has a valid lease. Only the first term of a group that a split
 *   made is led without: in that term nobody ever votes for another.
 * - What it commits is durable on such majorities, and no replica without it could still be elected.
 * - What it believes a voter to hold is durable there: looked at whenever it commits.
 * - What a replica acknowledges is handed to the disk in the term that it acknowledges it in: the leader of a later one may have cut it off before.
 * - An index that it gives to a follower rests on a majority that has followed it since the question.
 */
export class LeaderChecks {
  private readonly node: NodeId
  private readonly world: LeaderWorld
  private readonly seen = new Map<RangeId, Seen>()

  constructor(node: NodeId, world: LeaderWorld) {
    this.node = node
    this.world = world
  }

  stopped(): void {
    this.seen.clear()
  }

  /** After a turn at whose end the replica leads. */
  leads(replica: Replica): void {
    const { raft, range, log } = replica
    const { term, commitIndex, membership } = raft
    const seen = this.seen.get(range)
    if (seen === undefined || seen.term !== term) {
      this.checkVotes(replica)
      this.checkOtherLeases(range, term)
      this.seen.set(range, { term, commit: commitIndex, membership, earlier: membership })
      return
    }
    if (commitIndex > seen.commit) {
      // The turn that commits may also have entered another membership after it.
      const isHeld = this.isHeld(replica, seen.membership) || this.isHeld(replica, membership)
      if (!isHeld) {
        this.fail("durability", `commits ${commitIndex} of r${range}, which no majority holds`)
      }
      if (log.term(commitIndex) !== term) this.checkElectable(replica, log)
      this.checkMatches(replica)
      seen.commit = commitIndex
    }
    seen.earlier = seen.membership
    seen.membership = membership
  }

  /** Looks at what the replica hands out to be written, in all the lives that it has here. */
  listen(replica: Replica): void {
    const begin = replica.begin.bind(replica)
    replica.begin = (machine, raft) => {
      begin(machine, raft)
      this.listenTo(replica.range, raft)
    }
    const restart = replica.restart.bind(replica)
    replica.restart = (raft) => {
      restart(raft)
      this.listenTo(replica.range, raft)
    }
    this.listenTo(replica.range, replica.raft)
  }

  private listenTo(range: RangeId, raft: Replica["raft"]): void {
    const ready = raft.ready.bind(raft)
    raft.ready = () => {
      const result = ready()
      // Who campaigns cuts nothing off.
      const campaigns = (raft as unknown as { readonly vote: ReplicaId }).vote === raft.id
      for (const message of result.messagesAfterPersist) {
        if (message._tag !== "AppendResponse" || !message.accepted || campaigns) continue
        const { term, index } = message
        if (term === raft.term) continue
        const what = `acknowledges entry ${index} of r${range} in term ${term}`
        this.fail("durability", `${what}, which it has left before that is written`)
      }
      return result
    }
  }

  /** A follower asked at that time, and is given an index: nobody else was elected before it asked. */
  gaveIndex(range: RangeId, { from: leader, term }: ReadIndexResponse, askedAt: number): void {
    const seen = this.seen.get(range)
    if (seen === undefined || seen.term !== term) return
    const { echoes } = this.world.observer
    // The turn that answers may also have entered another membership after it.
    for (const membership of [seen.membership, seen.earlier]) {
      if (echoes.isFollowed(range, { term, leader }, membership, askedAt)) return
    }
    this.fail("linearizability", `gives an index of r${range} that no majority has confirmed`)
  }

  private checkVotes({ raft, range }: Replica): void {
    const { term, id, membership } = raft
    const { observer } = this.world
    const voteOf = (voter: ReplicaId) => observer.voteOf(range, voter, term)
    const hasVoted = (voter: ReplicaId) => voteOf(voter) === id
    if (term === firstTerm) {
      const isFree = (voter: ReplicaId) => (voteOf(voter) ?? 0) === 0 || hasVoted(voter)
      if (setsOf(membership).flat().every(isFree)) return
    }
    if (setsOf(membership).every((set) => isMajority(set, hasVoted))) return
    this.fail("vote", `leads r${range} in term ${term} without the votes of a majority`)
  }

  private checkOtherLeases(range: RangeId, term: Term): void {
    for (const [node, { checks }] of this.world.nodes) {
      if (node === this.node) continue
      // An election may also come to its end after the next one has.
      const leaseTerm = checks.leases.termOf(range)
      if (leaseTerm === 0 || leaseTerm > term) continue
      this.fail("lease", `is elected in term ${term} of r${range} while n${node} has a lease`)
    }
  }

  private checkMatches(replica: Replica): void {
    const { range, raft, log } = replica
    for (const { replica: id, match } of raft.progress()) {
      const term = log.term(match)
      const disk = this.diskOf(replica, id)
      const group = { range, replica: id }
      if (term === undefined || match === 0 || disk === undefined || disk.mayHaveLost) continue
      if (disk.endOf(group) === undefined || disk.holds(group, match, term)) continue
      // A later leader may have cut off there what was never committed, and this one not have heard of it.
      if (disk.termOf(group) > raft.term) continue
      // A snapshot is in the engine first, and then the log begins after it.
      const applied = this.appliedBy(replica, id)
      if (applied === undefined || applied >= match) continue
      this.fail(
        "durability",
        `takes replica ${id} of r${range} to hold ${match}, which it does not`,
      )
    }
  }

  private isHeld(replica: Replica, membership: Membership): boolean {
    const { range, raft, log } = replica
    const index = raft.commitIndex
    const term = log.term(index)
    if (term === undefined) return true
    const holds = (id: ReplicaId) => {
      const disk = this.diskOf(replica, id)
      if ((this.appliedBy(replica, id) ?? 0) >= index) return true
      return disk?.mayHaveLost === true || disk?.holds({ range, replica: id }, index, term) === true
    }
    return setsOf(membership).every((set) => isMajority(set, holds))
  }

  /** An entry of an earlier term: whoever has a later one in its place could win with the votes of those who hold it. (Raft paper, Figure 8) */
  private checkElectable(replica: Replica, log: JournalGroup): void {
    const { range, raft } = replica
    const index = raft.commitIndex
    const term = log.term(index)
    if (term === undefined) return
    const sets = setsOf(raft.membership)
    for (const candidate of new Set(sets.flat())) {
      const own = this.diskOf(replica, candidate)
      const group = { range, replica: candidate }
      if (own === undefined || own.holds(group, index, term)) continue
      const end = own.endOf(group)
      if (end === undefined) continue
      const grants = (voter: ReplicaId) => {
        const last = this.diskOf(replica, voter)?.endOf({ range, replica: voter })
        if (last === undefined) return false
        return last.term < end.term || (last.term === end.term && last.index <= end.index)
      }
      if (!sets.every((set) => isMajority(set, grants))) continue
      const what = `entry ${index}@${term} of r${range} in term ${raft.term}`
      this.fail("committed", `commits ${what}, and replica ${candidate} could win without it`)
    }
  }

  private diskOf(replica: Replica, id: ReplicaId): Durability | undefined {
    const node = replica.nodeOf(id)
    return node === undefined ? undefined : this.world.nodes.get(node)?.checks.durability
  }

  private appliedBy(replica: Replica, id: ReplicaId): LogIndex | undefined {
    const node = replica.nodeOf(id)
    if (node === undefined) return undefined
    return this.world.nodes.get(node)?.checks.appliedIndexOf(replica.range, id)
  }

  private fail(invariant: Violation["invariant"], message: string): never {
    throw new Violation(invariant, `n${this.node} ${message}`)
  }
}

function setsOf({ voters, outgoing }: Membership): Sets {
  return outgoing.length === 0 ? [voters] : [voters, outgoing]
}

function isMajority(
  set: ReadonlyArray<ReplicaId>,
  counts: (replica: ReplicaId) => boolean,
): boolean {
  return 2 * set.filter(counts).length > set.length
}
