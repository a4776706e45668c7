import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, ReplicaId } from "../types.ts"
import { type Entry, entryKinds } from "./message.ts"

/**
 * Who takes part in a group; every list in order of id, and no replica in two of `voters` and `learners`, or `outgoing` and `learners`.
 * While `outgoing` is not empty the group is joint: it holds all voters from before the change, `voters` all from after it, and both
 * majorities decide (Raft paper 6, Raft thesis 4.3). Learners get the log and decide nothing (Raft thesis 4.2.1).
 */
export interface Membership {
  readonly voters: ReadonlyArray<ReplicaId>
  readonly outgoing: ReadonlyArray<ReplicaId>
  readonly learners: ReadonlyArray<ReplicaId>
}

/** What a replica knows that no log and no snapshot has reached. */
export const noMembership: Membership = { voters: [], outgoing: [], learners: [] }

/** Far above any group that makes sense: what a malformed entry can claim has a limit. */
const maxMembers = 64

export function isJoint(membership: Membership): boolean {
  return membership.outgoing.length > 0
}

export function isVoter(membership: Membership, replica: ReplicaId): boolean {
  return membership.voters.includes(replica) || membership.outgoing.includes(replica)
}

/** Everyone, in order of id, each once. */
export function membersOf(membership: Membership): ReadonlyArray<ReplicaId> {
  const { voters, outgoing, learners } = membership
  return [...new Set([...voters, ...outgoing, ...learners])].sort(ascending)
}

/**
 * The next step from `current`, which is not joint, to the voters and learners wanted: at once where only learners change, else the joint
 * membership. Who stops being a voter is outgoing first, whatever it becomes after that.
 */
export function stepTowards(
  current: Membership,
  wanted: {
    readonly voters: ReadonlyArray<ReplicaId>
    readonly learners: ReadonlyArray<ReplicaId>
  },
): Membership {
  assert(!isJoint(current), "a joint group is left first")
  const voters = [...wanted.voters].sort(ascending)
  const learners = [...wanted.learners].sort(ascending)
  if (sameReplicas(voters, current.voters)) return { voters, outgoing: [], learners }
  const outgoing = current.voters
  return {
    voters,
    outgoing,
    learners: learners.filter((learner) => !outgoing.includes(learner)),
  }
}

/** What a joint membership becomes when it is left. */
export function leftJoint(joint: Membership): Membership {
  return { voters: joint.voters, outgoing: [], learners: joint.learners }
}

export function sameMembership(left: Membership, right: Membership): boolean {
  return (
    sameReplicas(left.voters, right.voters) &&
    sameReplicas(left.outgoing, right.outgoing) &&
    sameReplicas(left.learners, right.learners)
  )
}

export function sameReplicas(
  left: ReadonlyArray<ReplicaId>,
  right: ReadonlyArray<ReplicaId>,
): boolean {
  return left.length === right.length && left.every((replica, i) => replica === right[i])
}

function ascending(left: number, right: number): number {
  return left - right
}

/** What is wrong with it, or `undefined`. `noMembership` is no membership that an entry may hold. */
export function membershipProblem(membership: Membership): string | undefined {
  const { voters, outgoing, learners } = membership
  if (voters.length === 0) return "no voters"
  if (voters.length + outgoing.length + learners.length > maxMembers) return "too many members"
  for (const list of [voters, outgoing, learners]) {
    for (let i = 0; i < list.length; i++) {
      const replica = list[i] as ReplicaId
      if (!Number.isInteger(replica) || replica < 1 || replica >= 2 ** 32) {
        return `${replica} is no replica`
      }
      if (i > 0 && replica <= (list[i - 1] as ReplicaId)) return `${list} is not in order`
    }
  }
  const twice = learners.find((learner) => isVoter(membership, learner))
  return twice === undefined ? undefined : `learner ${twice} votes`
}

// Layout. Do not change: stored in logs and sent.
//
//     members entry := base stamp u64 | membership | whatever the server adds
//     membership    := voters u8 | outgoing u8 | learners u8 | replica u32 * all of them, in this order

const stampBytes = 8

export function writeMembership(writer: ByteWriter, membership: Membership): void {
  const problem = membershipProblem(membership)
  assert(problem === undefined, () => `membership: ${problem}`)
  const { voters, outgoing, learners } = membership
  for (const list of [voters, outgoing, learners]) writer.u8(list.length)
  for (const list of [voters, outgoing, learners]) for (const replica of list) writer.u32(replica)
}

/** Throws `MalformedBytes`. */
export function readMembership(reader: ByteReader): Membership {
  const counts = [reader.u8(), reader.u8(), reader.u8()]
  const [voters, outgoing, learners] = counts.map((count) => {
    if (count > maxMembers) throw new MalformedBytes(`a membership of ${count}`)
    return Array.from({ length: count }, () => reader.u32())
  }) as [Array<number>, Array<number>, Array<number>]
  const membership = { voters, outgoing, learners }
  const problem = membershipProblem(membership)
  if (problem !== undefined) throw new MalformedBytes(`membership: ${problem}`)
  return membership
}

/** The membership that the data of a `members` entry brings into force. Throws `MalformedBytes`. */
export function membershipInEntry(data: Uint8Array): Membership {
  const reader = new ByteReader(data)
  reader.raw(stampBytes)
  return readMembership(reader)
}

/** A membership and the entry that brought it; 0 or the snapshot's index where that is not in the log. */
export interface MembershipAt {
  readonly index: LogIndex
  readonly membership: Membership
}

/**
 * The memberships along a replica's log: the one in force before everything that could still be truncated, then one for each `members` entry
 * after that. The last is in force, committed or not (Raft thesis 4.1); a truncation brings back the one before.
 *
 * Invariant: indexes rise.
 */
export class MembershipLog {
  private readonly steps: Array<MembershipAt>

  constructor(first: MembershipAt) {
    this.steps = [first]
  }

  get inForce(): MembershipAt {
    return this.steps[this.steps.length - 1] as MembershipAt
  }

  /** The last one whose entry is not above `commitIndex`. */
  committed(commitIndex: LogIndex): MembershipAt {
    let at = this.steps.length - 1
    while (at > 0 && (this.steps[at] as MembershipAt).index > commitIndex) at--
    return this.steps[at] as MembershipAt
  }

  /** An entry was appended. What lies before the last committed membership can't come back and goes. */
  appended(entry: Entry, commitIndex: LogIndex): void {
    if (entry.kind !== entryKinds.members) return
    assert(entry.index > this.inForce.index, "memberships follow each other")
    while (this.steps.length > 1 && (this.steps[1] as MembershipAt).index <= commitIndex) {
      this.steps.shift()
    }
    this.steps.push({ index: entry.index, membership: membershipInEntry(entry.data) })
  }

  /** Entries at `from` and above are no longer in the log. */
  truncated(from: LogIndex): void {
    while (this.steps.length > 1 && this.inForce.index >= from) this.steps.pop()
    assert(this.inForce.index < from, () => `the membership of ${this.inForce.index} is truncated`)
  }

  /** A snapshot took the place of the log: what it holds is in force, and nothing else. */
  reset(first: MembershipAt): void {
    this.steps.length = 0
    this.steps.push(first)
  }
}
