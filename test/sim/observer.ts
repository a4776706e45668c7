import type { JournalGroup, LoggedEntry } from "../../src/journal/group.ts"
import { compareBytes, equalBytes } from "../../src/lib/bytes.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import type { AppendRequest } from "../../src/raft/message.ts"
import type { AppliedEntry } from "../../src/server/apply.ts"
import { contains } from "../../src/server/descriptors.ts"
import { membershipOf } from "../../src/server/membershipOf.ts"
import type {
  LogIndex,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  ReplicaId,
  ReplicaPlace,
  Term,
} from "../../src/types.ts"
import type { LogListener } from "./durability.ts"
import { Echoes } from "./echoes.ts"
import { Effects } from "./effects.ts"
import { ReadFloors } from "./readFloors.ts"
import { Violation } from "./violation.ts"

/** One range as all its replicas together have shown it so far. */
class RangeRecord {
  /** By index: term and hash of the entry that some replica applied; 0 = none. */
  readonly appliedTerms: Array<Term> = []
  readonly appliedHashes: Array<number> = []
  /** By index: least term in which a replica was when it applied the entry. It was committed in that term or before. */
  readonly committedBy: Array<Term> = []
  /** By index: the chain after it. */
  readonly chains: Array<number | undefined> = []
  readonly leaders = new Map<Term, ReplicaId>()
  /** By term and index: hash of the entry, and the term before it. */
  readonly entries = new Map<
    number,
    { readonly hash: number; readonly previousTerm: Term | undefined }
  >()
  /** By term and voter. */
  readonly votes = new Map<number, ReplicaId>()
  /** By term and index: the term of the entry that the leader of that term has sent. */
  readonly led = new Map<number, Term>()
  highestApplied: LogIndex = 0
  /** As far as it was applied anywhere: descriptors by the index from which on they hold, in order. */
  readonly descriptors: Array<{ readonly index: LogIndex; readonly descriptor: RangeDescriptor }> =
    []
}

const indexLimit = 2 ** 32

function hashEntry(entry: { kind: number; data: Uint8Array }): number {
  return crc32(entry.data, entry.kind + 1)
}

/** A leader as the observer sees it. */
export interface ObservedLeader {
  readonly range: RangeId
  readonly replica: ReplicaId
  readonly term: Term
  readonly appliedIndex: LogIndex
  readonly log: JournalGroup
}

/** Watches all replicas at once: invariants 1, 2 (votes) and 4 of DESIGN section 9, at every step. */
export class Observer implements LogListener {
  elections = 0
  applied = 0
  readonly floors = new ReadFloors()
  readonly echoes = new Echoes()
  readonly effects = new Effects()
  /** Ranges that were taken in, and by whom. */
  private readonly taken = new Map<RangeId, RangeId>()
  merges = 0
  private readonly children = new Set<RangeId>()
  private readonly ranges = new Map<RangeId, RangeRecord>()

  private record(range: RangeId): RangeRecord {
    let record = this.ranges.get(range)
    if (record === undefined) {
      record = new RangeRecord()
      this.ranges.set(range, record)
    }
    return record
  }

  /** A leader that was not seen in this term before: alone in it, and its log holds all that was committed in earlier terms. */
  leads(leader: ObservedLeader): void {
    const { range, replica, term, log } = leader
    const record = this.record(range)
    const known = record.leaders.get(term)
    if (known === replica) return
    if (known !== undefined) {
      throw new Violation("leader", `r${range} has leaders ${known} and ${replica} in term ${term}`)
    }
    record.leaders.set(term, replica)
    this.elections++
    const first = Math.max(log.firstIndex, leader.appliedIndex + 1)
    for (let index = first; index <= record.highestApplied; index++) {
      const appliedTerm = record.appliedTerms[index]
      if (appliedTerm === undefined || (record.committedBy[index] as Term) >= term) continue
      if (log.term(index) === appliedTerm) continue
      throw new Violation(
        "committed",
        `leader ${replica} of r${range} in term ${term} has term ${log.term(index)} at ${index}; ${appliedTerm} was applied there`,
      )
    }
  }

  appliedEntry(
    node: NodeId,
    range: RangeId,
    entry: AppliedEntry,
    after: { readonly chain: number; readonly replicaTerm: Term },
  ): void {
    const record = this.record(range)
    const { chain, replicaTerm } = after
    const { index, term } = entry
    const hash = hashEntry(entry)
    this.applied++
    record.committedBy[index] = Math.min(record.committedBy[index] ?? replicaTerm, replicaTerm)
    const known = record.appliedTerms[index]
    if (known === undefined) {
      record.appliedTerms[index] = term
      record.appliedHashes[index] = hash
      if (index > record.highestApplied) record.highestApplied = index
    } else if (known !== term || record.appliedHashes[index] !== hash) {
      throw new Violation(
        "committed",
        `n${node} applies ${index}@${term} of r${range}; another replica applied ${index}@${known}`,
      )
    }
    this.chainAt(node, range, index, chain)
  }

  /** At equal index replicas have made the same writes, whether they applied the log or took a snapshot. */
  chainAt(node: NodeId, range: RangeId, index: LogIndex, chain: number): void {
    const record = this.record(range)
    const known = record.chains[index]
    if (known === undefined) record.chains[index] = chain
    else if (known !== chain) {
      throw new Violation(
        "chain",
        `n${node} has chain ${chain} at ${index} of r${range}, not ${known}`,
      )
    }
  }

  appended(range: RangeId, group: JournalGroup, entries: ReadonlyArray<LoggedEntry>): void {
    const record = this.record(range)
    for (const entry of entries) {
      const key = entry.term * indexLimit + entry.index
      const hash = hashEntry(entry)
      const previousTerm = group.term(entry.index - 1)
      const known = record.entries.get(key)
      if (known === undefined) {
        record.entries.set(key, { hash, previousTerm })
      } else if (known.hash !== hash || known.previousTerm !== previousTerm) {
        throw new Violation(
          "logMatching",
          `r${range} has two entries ${entry.index}@${entry.term}: after terms ${known.previousTerm} and ${previousTerm}`,
        )
      }
    }
  }

  /** The leader of `term` sends these entries, and the one before them. */
  led(range: RangeId, request: AppendRequest): void {
    const { led } = this.record(range)
    const { term, previousIndex, previousTerm, entries } = request
    led.set(term * indexLimit + previousIndex, previousTerm)
    for (const entry of entries) led.set(term * indexLimit + entry.index, entry.term)
  }

  /** The term of the entry that the leader of `term` has at `index`; `undefined` = it has sent none. */
  ledTerm(range: RangeId, term: Term, index: LogIndex): Term | undefined {
    return this.record(range).led.get(term * indexLimit + index)
  }

  voted(range: RangeId, replica: ReplicaId, term: Term, vote: ReplicaId): void {
    const { votes } = this.record(range)
    const key = term * 1024 + replica
    const known = votes.get(key)
    if (known === undefined) votes.set(key, vote)
    else if (known !== vote) {
      throw new Violation(
        "vote",
        `replica ${replica} of r${range} votes for ${known} and ${vote} in term ${term}`,
      )
    }
  }

  /** Whom a voter has durably voted for in a term. */
  voteOf(range: RangeId, replica: ReplicaId, term: Term): ReplicaId | undefined {
    return this.record(range).votes.get(term * 1024 + replica)
  }

  // Descriptors

  /** A range was taken in by its neighbour, as far as one node shows: by the same one on every node. */
  takenIn(node: NodeId, { source, target }: { source: RangeId; target: RangeId }): void {
    const known = this.taken.get(source)
    if (known === undefined) this.merges++
    if (known !== undefined && known !== target) {
      throw new Violation("tiling", `n${node} has r${target} take in r${source}, r${known} has`)
    }
    this.taken.set(source, target)
  }

  splitOff(child: RangeId): void {
    this.children.add(child)
  }

  get splits(): number {
    return this.children.size
  }

  isTaken(range: RangeId): boolean {
    return this.taken.has(range)
  }

  /** Nothing is answered by a range any more once another has taken it in. */
  checkNotTaken(node: NodeId, range: RangeId): void {
    const target = this.taken.get(range)
    if (target === undefined) return
    throw new Violation("tiling", `n${node} answers for r${range}, which r${target} has taken in`)
  }

  /** Every range that there is by now, as it is where it was applied furthest. */
  get latest(): ReadonlyArray<RangeDescriptor> {
    return [...this.ranges].flatMap(([range, { descriptors }]) => {
      if (this.taken.has(range)) return []

      const last = descriptors[descriptors.length - 1]
      return last === undefined ? [] : [last.descriptor]
    })
  }

  /** A replica's state at `index` carries this descriptor; it may hold from an earlier index on. */
  described(node: NodeId, descriptor: RangeDescriptor, index: LogIndex): void {
    const { descriptors } = this.record(descriptor.id)
    const at = descriptors.findLastIndex((known) => known.index <= index)
    const before = descriptors[at]
    if (before !== undefined && isSame(before.descriptor, descriptor)) return
    const after = descriptors[at + 1]
    // Known from a snapshot of a later index only.
    if (after !== undefined && isSame(after.descriptor, descriptor)) {
      descriptors[at + 1] = { index, descriptor }
      return
    }
    const rises =
      (before === undefined || isLater(descriptor, before.descriptor)) &&
      (after === undefined || isLater(after.descriptor, descriptor)) &&
      before?.index !== index
    if (!rises) {
      const { boundsVersion, membersVersion } = descriptor
      throw new Violation(
        "versions",
        `n${node} has r${descriptor.id} at ${index} with versions ${boundsVersion}.${membersVersion}, between ${versionsOf(before)} and ${versionsOf(after)}`,
      )
    }
    this.checkReplicas(node, descriptor, before?.descriptor)
    if (before !== undefined) checkMajorities(before.descriptor, descriptor)
    descriptors.splice(at + 1, 0, { index, descriptor })
  }

  /** A replica that has left its group never comes back to it. */
  private checkReplicas(
    node: NodeId,
    descriptor: RangeDescriptor,
    before: RangeDescriptor | undefined,
  ): void {
    if (before === undefined) return
    for (const { replica } of descriptor.replicas) {
      if (before.replicas.some((place) => place.replica === replica)) continue
      if (!this.wasMember(descriptor.id, replica)) continue
      const { id, membersVersion } = descriptor
      throw new Violation(
        "removed",
        `n${node}: replica ${replica} of r${id}, which had left, is a member again at version ${membersVersion}`,
      )
    }
  }

  /** Places of the memberships that can have decided on the entry at `index`: the one in force there, and later ones. */
  placesSince(range: RangeId, index: LogIndex): ReadonlyArray<ReadonlyArray<ReplicaPlace>> {
    const { descriptors } = this.record(range)
    const at = descriptors.findLastIndex((known) => known.index <= index)
    return descriptors.slice(Math.max(0, at)).map(({ descriptor }) => descriptor.replicas)
  }

  /** What a range serves at an index lies within the bounds that it has there. */
  checkBounds(read: {
    readonly node: NodeId
    readonly range: RangeId
    readonly index: LogIndex
    readonly position: Position
  }): void {
    const { node, range, index, position } = read
    this.checkNotTaken(node, range)
    const { descriptors } = this.record(range)
    const known = descriptors.findLast((each) => each.index <= index)
    if (known === undefined || contains(known.descriptor, position)) return
    throw new Violation("tiling", `n${node} serves a key from r${range} that is none of its keys`)
  }

  /** Whether a committed membership has ever listed the replica. */
  wasMember(range: RangeId, replica: ReplicaId): boolean {
    return this.record(range).descriptors.some(({ descriptor }) =>
      descriptor.replicas.some((place) => place.replica === replica),
    )
  }

  /** Whether the group has gone on without the replica. */
  isRemoved(range: RangeId, replica: ReplicaId): boolean {
    const { descriptors } = this.record(range)
    const latest = descriptors[descriptors.length - 1]?.descriptor
    return latest?.replicas.every((place) => place.replica !== replica) === true
  }

  /** The name of two descriptors that share a position. */
  overlapIn(descriptors: ReadonlyArray<RangeDescriptor>): string | undefined {
    const sorted = inOrder(descriptors)
    for (let i = 1; i < sorted.length; i++) {
      const left = sorted[i - 1] as RangeDescriptor
      const right = sorted[i] as RangeDescriptor
      const isApart = left.end.length > 0 && compareBytes(left.end, right.start) <= 0
      if (!isApart) return `r${left.id} and r${right.id}`
    }
    return undefined
  }

  /** What is committed of all ranges covers their space once. */
  checkTiling(): void {
    const sorted = inOrder(this.latest)
    for (let i = 1; i < sorted.length; i++) {
      const left = sorted[i - 1] as RangeDescriptor
      const right = sorted[i] as RangeDescriptor
      if (equalBytes(left.end, right.start)) continue
      throw new Violation("tiling", `r${left.id} does not end where r${right.id} begins`)
    }
  }

  /** Term of the entry that was applied at an index, if one was. */
  appliedTerm(range: RangeId, index: LogIndex): Term | undefined {
    return this.record(range).appliedTerms[index]
  }
}

/** Whoever is agreed on by the members before and by those after a change must be agreed on by someone in both. */
function checkMajorities(before: RangeDescriptor, after: RangeDescriptor): void {
  if (after.membersVersion !== before.membersVersion + 1) return
  const setsBefore = setsOf(before.replicas)
  const setsAfter = setsOf(after.replicas)
  const meet = (left: ReadonlyArray<ReplicaId>, right: ReadonlyArray<ReplicaId>) => {
    const all = new Set([...left, ...right]).size
    return Math.floor(left.length / 2) + Math.floor(right.length / 2) + 2 > all
  }
  if (setsBefore.some((left) => setsAfter.some((right) => meet(left, right)))) return
  const { id, membersVersion } = after
  throw new Violation(
    "members",
    `r${id}: majorities of memberships ${membersVersion - 1} and ${membersVersion} need not meet`,
  )
}

function setsOf(places: ReadonlyArray<ReplicaPlace>): ReadonlyArray<ReadonlyArray<ReplicaId>> {
  const { voters, outgoing } = membershipOf(places)
  return outgoing.length === 0 ? [voters] : [voters, outgoing]
}

function isSame(left: RangeDescriptor, right: RangeDescriptor): boolean {
  return (
    left.boundsVersion === right.boundsVersion &&
    left.membersVersion === right.membersVersion &&
    equalBytes(left.start, right.start) &&
    equalBytes(left.end, right.end) &&
    JSON.stringify(left.replicas) === JSON.stringify(right.replicas)
  )
}

/** Both versions are as high, and one is higher. */
function isLater(left: RangeDescriptor, right: RangeDescriptor): boolean {
  const bounds = left.boundsVersion - right.boundsVersion
  const members = left.membersVersion - right.membersVersion
  return bounds >= 0 && members >= 0 && bounds + members > 0
}

function versionsOf(known: { readonly descriptor: RangeDescriptor } | undefined): string {
  if (known === undefined) return "none"
  return `${known.descriptor.boundsVersion}.${known.descriptor.membersVersion}`
}

function inOrder(descriptors: ReadonlyArray<RangeDescriptor>): Array<RangeDescriptor> {
  return [...descriptors].sort((left, right) => compareBytes(left.start, right.start))
}
