import type {
  GroupKey,
  JournalGroup,
  LoggedEntry,
  LoggedHardState,
} from "../../src/journal/group.ts"
import type { Journal, JournalWrite } from "../../src/journal/journal.ts"
import { eventualLog } from "../../src/server/eventualStore.ts"
import type { LogIndex, RangeId, ReplicaId, Term } from "../../src/types.ts"
import { Violation } from "./violation.ts"

/** One group's log and hard state as far as some moment reached: terms by index above a base. */
class LogShadow {
  base: LogIndex = 0
  /** Of the entry at `base`, as far as known. */
  baseTerm: Term = 0
  terms: Array<Term> = []
  term: Term = 0
  vote: ReplicaId = 0
  /** All entries that were ever durable here, by term and index. */
  private readonly held = new Set<number>()

  get last(): LogIndex {
    return this.base + this.terms.length
  }

  termAt(index: LogIndex): Term | undefined {
    return index <= this.base ? undefined : this.terms[index - this.base - 1]
  }

  /** What damage had taken is there again. */
  fill(first: LogIndex, terms: ReadonlyArray<Term>): void {
    for (const [i, term] of terms.entries()) {
      const at = first + i - this.base - 1
      if (at >= 0 && at < this.terms.length) this.terms[at] = term
      this.hold(first + i, term)
    }
  }

  append(first: LogIndex, terms: ReadonlyArray<Term>): void {
    this.terms.length = Math.max(0, first - 1 - this.base)
    this.terms.push(...terms)
    for (const [i, term] of terms.entries()) this.hold(first + i, term)
  }

  hold(index: LogIndex, term: Term): void {
    this.held.add(term * 2 ** 32 + index)
  }

  copy(): LogShadow {
    const copy = new LogShadow()
    Object.assign(copy, this, { terms: [...this.terms] })
    return copy
  }

  /** An acknowledgement of an earlier term than the present one may leave late: what it speaks of was written, and then truncated. */
  had(index: LogIndex, term: Term): boolean {
    return this.held.has(term * 2 ** 32 + index)
  }
}

type Change =
  | {
      readonly _tag: "append" | "fill"
      readonly shadow: LogShadow
      readonly first: LogIndex
      readonly terms: ReadonlyArray<Term>
    }
  | {
      readonly _tag: "state"
      readonly shadow: LogShadow
      readonly range: RangeId
      readonly replica: ReplicaId
      readonly term: Term
      readonly vote: ReplicaId
    }
  | {
      readonly _tag: "reset"
      readonly shadow: LogShadow
      readonly index: LogIndex
      readonly term: Term
    }

function apply(change: Change): void {
  const { shadow } = change
  switch (change._tag) {
    case "append":
      shadow.append(change.first, change.terms)
      return
    case "fill":
      shadow.fill(change.first, change.terms)
      return
    case "state":
      shadow.term = change.term
      shadow.vote = change.vote
      return
    case "reset":
      shadow.base = change.index
      shadow.baseTerm = change.term
      shadow.terms = []
      return
    default:
      change satisfies never
  }
}

/** What observers of appends and votes hear. */
export interface LogListener {
  appended(range: RangeId, group: JournalGroup, entries: ReadonlyArray<LoggedEntry>): void
  voted(range: RangeId, replica: ReplicaId, term: Term, vote: ReplicaId): void
}

/**
 * What one node's simulated disk surely holds, reckoned without trusting the journal's own account: what the loop hands to the journal is noted,
 * travels with the write that `cut` returns, and counts as durable when the driver has synced that write's file.
 *
 * Against it every acknowledgement is checked when it leaves, and every restart when it has recovered.
 */
export class Durability {
  private readonly shadows = new Map<string, LogShadow>()
  /** As they were when the disk was wiped, or before the last start over a damaged one. */
  private readonly struck = new Map<string, LogShadow>()
  /** Of the life before: what was on its way to the disk when it ended. */
  private underWay: ReadonlyArray<Change> = []
  private recovered = new Set<LogShadow>()
  private isWiped = false
  private tapped = new WeakSet<JournalGroup>()
  private gathered: Array<Change> = []
  private readonly writes = new Map<JournalWrite, Array<Change>>()
  private readonly unsynced: Array<Change> = []
  private readonly node: string
  private readonly isDamaged: () => boolean
  private readonly listener: LogListener

  private readonly destroyed: (range: RangeId, replica: ReplicaId) => void
  private readonly truncated: (range: RangeId) => void

  constructor(options: {
    readonly node: string
    /** Bits of the node's disk were flipped. */
    readonly isDamaged: () => boolean
    readonly listener: LogListener
    /** A replica's log is gone, and with it all of the replica. */
    readonly destroyed: (range: RangeId, replica: ReplicaId) => void
    /** Entries took the place of others. */
    readonly truncated: (range: RangeId) => void
  }) {
    this.node = options.node
    this.isDamaged = options.isDamaged
    this.listener = options.listener
    this.destroyed = options.destroyed
    this.truncated = options.truncated
  }

  private shadow(range: RangeId, replica: ReplicaId): LogShadow {
    const name = `${range}/${replica}`
    let shadow = this.shadows.get(name)
    if (shadow === undefined) {
      shadow = new LogShadow()
      this.shadows.set(name, shadow)
    }
    return shadow
  }

  /** Listens in on a journal that was just recovered. */
  tap(journal: Journal): void {
    const group = journal.group.bind(journal)
    journal.group = (key) => {
      const result = group(key)
      // The log of eventual writes is each node's own.
      if (!this.tapped.has(result) && key.range !== eventualLog.range) {
        // A log that waited until now for the split that makes its range.
        const { range, replica } = key
        const appliedIndex = result.firstIndex - 1
        const appliedTerm = result.term(appliedIndex) ?? 0
        this.checkRecovered({ range, replica, appliedIndex, appliedTerm, log: result })
        this.tapGroup(range, replica, result)
      }
      return result
    }
    const cut = journal.cut.bind(journal)
    journal.cut = () => {
      const write = cut()
      if (write !== undefined) {
        this.writes.set(write, this.gathered)
        this.gathered = []
      }
      return write
    }
  }

  tapGroup(range: RangeId, replica: ReplicaId, group: JournalGroup): void {
    if (this.tapped.has(group)) return
    this.tapped.add(group)
    const shadow = this.shadow(range, replica)
    const destroy = group.destroy.bind(group)
    group.destroy = () => {
      destroy()
      this.shadows.delete(`${range}/${replica}`)
      this.destroyed(range, replica)
    }
    const append = group.append.bind(group)
    group.append = (entries) => {
      const { lastIndex } = group
      append(entries)
      if (entries.length === 0) return
      if ((entries[0] as LoggedEntry).index <= lastIndex) this.truncated(range)
      const terms = entries.map((entry) => entry.term)
      const first = (entries[0] as LoggedEntry).index
      this.gathered.push({ _tag: "append", shadow, first, terms })
      this.listener.appended(range, group, entries)
    }
    const fill = group.fill.bind(group)
    group.fill = (entries) => {
      const count = fill(entries)
      const terms = entries.slice(0, count).map((entry) => entry.term)
      if (count > 0)
        this.gathered.push({ _tag: "fill", shadow, first: entries[0]?.index ?? 0, terms })
      return count
    }
    const setHardState = group.setHardState.bind(group)
    group.setHardState = (state: LoggedHardState) => {
      setHardState(state)
      const { term, vote } = state
      this.gathered.push({ _tag: "state", shadow, range, replica, term, vote })
    }
    const resetTo = group.resetTo.bind(group)
    group.resetTo = (index, term) => {
      resetTo(index, term)
      this.gathered.push({ _tag: "reset", shadow, index, term })
    }
  }

  /** The write's bytes are in the file; with `synced` they and all written before are durable. */
  written(write: JournalWrite, synced: boolean): void {
    this.unsynced.push(...(this.writes.get(write) ?? []))
    this.writes.delete(write)
    if (!synced) return
    for (const change of this.unsynced) {
      apply(change)
      // Before, a crash may still take it back: only now it is a promise.
      if (change._tag !== "state" || change.vote === 0) continue
      this.listener.voted(change.range, change.replica, change.term, change.vote)
    }
    this.unsynced.length = 0
  }

  /**
   * A voter is about to promise that its log holds the leader's entry at `index`, whose term is `entryTerm`; `undefined` = that leader has sent none. A snapshot in
   * the engine counts by its applied index.
   */
  checkAppendAcknowledged(
    { range, replica }: GroupKey,
    { index, term }: { readonly index: LogIndex; readonly term: Term },
    { inEngine, entryTerm }: { readonly inEngine: LogIndex; readonly entryTerm: Term | undefined },
  ): void {
    const shadow = this.shadow(range, replica)
    if (shadow.term < term) {
      this.fail(
        `acknowledges in term ${term} of r${range}, but only term ${shadow.term} is durable`,
      )
    }
    if (index <= Math.max(shadow.base, inEngine)) return
    const isHeld = entryTerm === undefined ? index <= shadow.last : shadow.had(index, entryTerm)
    if (isHeld || (entryTerm !== undefined && this.isDamaged())) return
    if (entryTerm === undefined && term < shadow.term) return
    this.fail(
      `acknowledges entry ${index}@${entryTerm ?? "?"} of r${range} in term ${term}, which was never durable; up to ${shadow.last} is`,
    )
  }

  checkVoteGranted({ range, replica }: GroupKey, term: Term, candidate: ReplicaId): void {
    const shadow = this.shadow(range, replica)
    if (shadow.term > term || (shadow.term === term && shadow.vote === candidate)) return
    this.fail(
      `votes for ${candidate} in term ${term} of r${range}, but durable is vote ${shadow.vote} in term ${shadow.term}`,
    )
  }

  /** Whether entry (index, term) is durable here, or was when a wipe or damage struck: an answer that rests on it may leave after that. */
  holds({ range, replica }: GroupKey, index: LogIndex, term: Term): boolean {
    const isIn = (shadow: LogShadow | undefined) =>
      shadow !== undefined && (index <= shadow.base || shadow.termAt(index) === term)
    return isIn(this.shadow(range, replica)) || isIn(this.struck.get(`${range}/${replica}`))
  }

  /** Damage or a wipe may have taken from it what it promised. */
  get mayHaveLost(): boolean {
    return this.isWiped || this.isDamaged()
  }

  /** The term that the replica has durably entered. */
  termOf({ range, replica }: GroupKey): Term {
    return this.shadows.get(`${range}/${replica}`)?.term ?? 0
  }

  /** The last entry that is durable here; `undefined` = nothing ever was. */
  endOf({
    range,
    replica,
  }: GroupKey): { readonly index: LogIndex; readonly term: Term } | undefined {
    const shadow = this.shadows.get(`${range}/${replica}`)
    if (shadow === undefined) return undefined
    return { index: shadow.last, term: shadow.termAt(shadow.last) ?? shadow.baseTerm }
  }

  /** The disk was emptied, and what it promised is forgotten. */
  wiped(): void {
    this.isWiped = true
    for (const [name, shadow] of this.shadows) this.struck.set(name, shadow)
    this.shadows.clear()
    this.underWay = []
    this.restarted()
    this.underWay = []
  }

  /** The node starts anew: nothing of the life before is heard of any more. */
  restarted(): void {
    const earlier = this.underWay.filter(({ shadow }) => !this.recovered.has(shadow))
    this.underWay = [...earlier, ...this.unsynced, ...[...this.writes.values()].flat()]
    this.recovered = new Set()
    this.tapped = new WeakSet()
    this.gathered = []
    this.writes.clear()
    this.unsynced.length = 0
  }

  /**
   * A group's log is looked at for the first time since the start: all that was durable must be back, unless a write that was under way has truncated it. Then
   * what was recovered becomes what is known.
   */
  checkRecovered(group: RecoveredLog): void {
    const shadow = this.shadow(group.range, group.replica)
    this.recovered.add(shadow)
    // What its disk has lost it may not know; what it promised others check.
    if (!this.isDamaged()) this.compare(shadow, group)
    else this.struck.set(`${group.range}/${group.replica}`, shadow.copy())
    this.adopt(shadow, group)
  }

  private compare(shadow: LogShadow, group: RecoveredLog): void {
    const { term, vote } = group.log.hardState
    if (term < shadow.term || (term === shadow.term && shadow.vote !== 0 && vote !== shadow.vote)) {
      this.fail(
        `r${group.range} restarts with term ${term} and vote ${vote}; durable were ${shadow.term} and ${shadow.vote}`,
      )
    }
    let limit = shadow.last
    for (const change of this.underWay) {
      if (change.shadow !== shadow) continue
      if (change._tag === "append") limit = Math.min(limit, change.first - 1)
      if (change._tag === "reset") limit = 0
    }
    // The engine holds a snapshot that contradicts the log: what follows on the contradiction can never be committed.
    const known = shadow.termAt(group.appliedIndex)
    if (known !== undefined && known !== group.appliedTerm) {
      limit = Math.min(limit, group.appliedIndex)
    }
    const start = Math.max(shadow.base, group.appliedIndex, group.log.firstIndex - 1) + 1
    const reach = Math.max(group.log.lastIndex, group.appliedIndex)
    if (Math.min(limit, shadow.last) > reach || shadow.base > reach) {
      this.fail(`r${group.range} restarts with a log up to ${reach}; durable was ${limit}`)
    }
    for (let index = start; index <= limit; index++) {
      if (group.log.term(index) === shadow.termAt(index)) continue
      this.fail(
        `r${group.range} restarts with term ${group.log.term(index)} at ${index}; durable was ${shadow.termAt(index)}`,
      )
    }
  }

  private adopt(shadow: LogShadow, { log }: RecoveredLog): void {
    shadow.base = log.firstIndex - 1
    shadow.baseTerm = log.term(shadow.base) ?? 0
    shadow.terms = []
    for (let index = log.firstIndex; index <= log.lastIndex; index++) {
      shadow.terms.push(log.term(index) as Term)
      shadow.hold(index, log.term(index) as Term)
    }
    shadow.term = log.hardState.term
    shadow.vote = log.hardState.vote
  }

  private fail(message: string): never {
    throw new Violation("durability", `${this.node} ${message}`)
  }
}

export interface RecoveredLog {
  readonly range: RangeId
  readonly replica: ReplicaId
  readonly appliedIndex: LogIndex
  readonly appliedTerm: Term
  readonly log: JournalGroup
}
