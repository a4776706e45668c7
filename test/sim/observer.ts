import type { JournalGroup, LoggedEntry } from "../../src/journal/group.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import type { AppliedEntry } from "../../src/server/apply.ts"
import type { LogIndex, NodeId, RangeId, ReplicaId, Term } from "../../src/types.ts"
import type { LogListener } from "./durability.ts"
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
  highestApplied: LogIndex = 0
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

  /** Term of the entry that was applied at an index, if one was. */
  appliedTerm(range: RangeId, index: LogIndex): Term | undefined {
    return this.record(range).appliedTerms[index]
  }
}
