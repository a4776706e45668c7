import { assert } from "../lib/assert.ts"
import type { LogIndex, Term } from "../types.ts"
import type { LogStorage } from "./log.ts"
import type { Entry } from "./message.ts"

const none: ReadonlyArray<Entry> = []

/** Told what happens to the log, as it happens: memberships are in force from when their entries are appended. */
export interface LogListener {
  /** Called before the entry is added. */
  readonly appended: (entry: Entry) => void
  /** Entries at `from` and above are gone. */
  readonly truncated: (from: LogIndex) => void
}

/** Entries handed out to be written, known by the last of them. */
interface Write {
  readonly index: LogIndex
  readonly term: Term
  /** What its durability proves: lowered when the log is truncated while the write is under way. */
  validTo: LogIndex
}

/**
 * The replica's log: what stable storage holds, and a tail that is not yet known to be durable.
 *
 *     firstIndex ... durableIndex | durableIndex + 1 ... handedOut ... lastIndex
 *     read through LogStorage     | kept here: writes under way, then not yet handed out
 *
 * Invariants: firstIndex - 1 <= appliedIndex <= applying <= commitIndex <= lastIndex, applying <=
 * durableIndex <= handedOut <= lastIndex, and terms never fall from one entry to the next.
 *
 * A write may end after the log was truncated below it and even after the same entries came back
 * (the ABA problem): its completion then proves nothing about the entries now in their place. So a
 * truncation lowers what each write under way can prove, and a write that would end in the same
 * (index, term) as one under way is not handed out until that one has ended, which keeps
 * `persisted(index, term)` unambiguous. Storage below durableIndex is never read by a stale index.
 */
export class RaftLog {
  private readonly storage: LogStorage
  private readonly listener: LogListener | undefined
  private readonly tail: Array<Entry> = []
  private readonly writes: Array<Write> = []
  private durable: LogIndex
  private handedOut: LogIndex
  private last: LogIndex
  private termOfLast: Term
  private commit: LogIndex
  private applied: LogIndex
  private applying: LogIndex

  /**
   * Requires that storage holds (or begins right after) `appliedIndex`, and reaches `commitIndex`.
   */
  constructor(options: {
    readonly storage: LogStorage
    readonly commitIndex: LogIndex
    readonly appliedIndex: LogIndex
    readonly listener?: LogListener
  }) {
    const { storage, appliedIndex } = options
    this.storage = storage
    this.listener = options.listener
    this.durable = storage.lastIndex
    this.handedOut = storage.lastIndex
    this.last = storage.lastIndex
    this.applied = appliedIndex
    this.applying = appliedIndex
    this.commit = Math.max(options.commitIndex, appliedIndex)
    assert(
      appliedIndex >= storage.firstIndex - 1,
      `applied ${appliedIndex} lies before the log, which begins at ${storage.firstIndex}`,
    )
    assert(this.commit <= this.last, `commit ${this.commit} lies beyond the log's end ${this.last}`)
    this.termOfLast = this.termIn(this.last)
  }

  get firstIndex(): LogIndex {
    return this.storage.firstIndex
  }

  get lastIndex(): LogIndex {
    return this.last
  }

  get lastTerm(): Term {
    return this.termOfLast
  }

  get commitIndex(): LogIndex {
    return this.commit
  }

  /** What the caller has applied. */
  get appliedIndex(): LogIndex {
    return this.applied
  }

  /** Entries up to here are known to be on this replica's disk. */
  get durableIndex(): LogIndex {
    return this.durable
  }

  /** Term at `index`, or `undefined` when the log does not reach there on either side. */
  term(index: LogIndex): Term | undefined {
    if (index === this.last) return this.termOfLast
    if (index > this.last) return undefined
    return index > this.durable ? this.termIn(index) : this.storage.term(index)
  }

  private termIn(index: LogIndex): Term {
    const term =
      index > this.durable ? this.tail[index - this.durable - 1]?.term : this.storage.term(index)
    assert(term !== undefined, () => `no term at ${index} of ${this.firstIndex} to ${this.last}`)
    return term
  }

  /** True when this log holds that very entry. (Raft paper 5.3, Log Matching) */
  matches(index: LogIndex, term: Term): boolean {
    return this.term(index) === term
  }

  /**
   * Largest index up to `index` whose term is not above `term`: where two logs may still agree.
   * Terms never fall along a log, so it is found by halving; at worst the position before the first
   * entry.
   */
  lastIndexUpToTerm(index: LogIndex, term: Term): LogIndex {
    let low = this.firstIndex - 1
    let high = Math.min(index, this.last)
    if (high <= low) return high
    while (low < high) {
      const middle = Math.ceil((low + high) / 2)
      if (this.termIn(middle) <= term) low = middle
      else high = middle - 1
    }
    return low
  }

  /**
   * Entries from `from` (at least one, unless it is missing), then as many as fit `maxBytes` of data. It may stop where
   * the tail begins. Requires firstIndex <= from <= lastIndex.
   */
  entries(from: LogIndex, maxBytes: number): ReadonlyArray<Entry> {
    if (from <= this.durable) {
      const stored = this.storage.entries(from, this.durable + 1, maxBytes)
      if (this.isMissing(from)) return none
      assert(
        stored[0]?.index === from,
        () => `storage gave ${stored[0]?.index} in place of ${from}`,
      )
      return stored
    }
    const start = from - this.durable - 1
    let end = start
    let sizeBytes = 0
    while (end < this.tail.length) {
      sizeBytes += (this.tail[end] as Entry).data.length
      if (sizeBytes > maxBytes && end > start) break
      end++
    }
    return this.tail.slice(start, end)
  }

  /**
   * Appends entries that follow each other; what the log holds at the first one's index and above
   * is dropped. Never touches a committed entry.
   */
  append(entries: ReadonlyArray<Entry>): void {
    const first = entries[0]
    if (first === undefined) return
    assert(first.index > this.commit, `entry ${first.index} would replace committed ${this.commit}`)
    assert(first.index <= this.last + 1, `entry ${first.index} leaves a gap after ${this.last}`)
    if (first.index <= this.last) this.truncate(first.index)
    for (let i = 0; i < entries.length; i++) this.push(entries[i] as Entry)
  }

  private push(entry: Entry): void {
    assert(entry.index === this.last + 1, () => `entry ${entry.index} after ${this.last}`)
    assert(entry.term >= this.termOfLast, () => `term ${entry.term} after ${this.termOfLast}`)
    this.listener?.appended(entry)
    this.tail.push(entry)
    this.last = entry.index
    this.termOfLast = entry.term
  }

  private truncate(from: LogIndex): void {
    const kept = from - 1
    if (kept <= this.durable) {
      this.tail.length = 0
      this.durable = kept
    } else {
      this.tail.length = kept - this.durable
    }
    this.handedOut = Math.min(this.handedOut, kept)
    for (const write of this.writes) write.validTo = Math.min(write.validTo, kept)
    this.last = kept
    this.termOfLast = this.termIn(kept)
    this.listener?.truncated(from)
  }

  /** True when entries wait to be written. */
  get hasUnwritten(): boolean {
    return this.handedOut < this.last
  }

  /** True when the next write would end as one under way does, and so has to wait for it. */
  get mustAwaitWrite(): boolean {
    if (this.handedOut === this.last) return false
    for (const write of this.writes) {
      if (write.index === this.last && write.term === this.termOfLast) return true
    }
    return false
  }

  /** The entries that wait to be written, each once, until a truncation replaces it. */
  takeUnwritten(): ReadonlyArray<Entry> {
    if (this.handedOut === this.last) return none
    const entries = this.tail.slice(this.handedOut - this.durable)
    this.handedOut = this.last
    this.writes.push({ index: this.last, term: this.termOfLast, validTo: this.last })
    return entries
  }

  /**
   * The write that ended in (index, term) is durable, and with it all before it. Returns true when
   * `durableIndex` advanced. A write that a snapshot made pointless is no longer known and ignored.
   */
  persisted(index: LogIndex, term: Term): boolean {
    const at = this.writes.findIndex((write) => write.index === index && write.term === term)
    if (at < 0) return false
    let validTo = 0
    for (const write of this.writes.splice(0, at + 1)) validTo = Math.max(validTo, write.validTo)
    if (validTo <= this.durable) return false
    const expected = this.term(validTo)
    this.tail.splice(0, validTo - this.durable)
    this.durable = validTo
    const stored = this.storage.term(validTo)
    assert(stored === expected, () => `storage has term ${stored}, not ${expected}, at ${validTo}`)
    return true
  }

  /** Entries up to `index` are committed. Lower than known: nothing happens. */
  commitTo(index: LogIndex): boolean {
    if (index <= this.commit) return false
    assert(index <= this.last, `commit ${index} lies beyond the log's end ${this.last}`)
    this.commit = index
    return true
  }

  /** What this replica may have acknowledged and lost (log.ts). */
  get voteFloor(): { readonly index: LogIndex; readonly term: Term } | undefined {
    return this.storage.voteFloor
  }

  /** True when `takeCommitted` has something to give. */
  get hasCommitted(): boolean {
    return (
      this.applying === this.applied &&
      this.applying < this.commit &&
      this.applying < this.durable &&
      !this.isMissing(this.applying + 1)
    )
  }

  /** True when the entry's bytes are lost: see `LogStorage.firstMissing`. */
  isMissing(index: LogIndex): boolean {
    return index <= this.durable && this.storage.firstMissing?.(index) === index
  }

  /**
   * The next entries to apply, committed and durable here, about `maxBytes` of them. The following
   * ones come when these are applied, so that what is handed out and not yet applied has a limit.
   */
  takeCommitted(maxBytes: number): ReadonlyArray<Entry> {
    if (!this.hasCommitted) return none
    const from = this.applying + 1
    const end = Math.min(this.commit, this.durable) + 1
    const entries = this.storage.entries(from, end, maxBytes)
    // Found to be damaged just now.
    if (this.isMissing(from)) return none
    assert(
      entries[0]?.index === from,
      () => `storage gave ${entries[0]?.index} in place of ${from}`,
    )
    this.applying = from + entries.length - 1
    assert(this.applying < end, () => `storage gave ${this.applying}, beyond ${end - 1}`)
    return entries
  }

  appliedTo(index: LogIndex): void {
    assert(
      index >= this.applied && index <= this.applying,
      `applied ${index} is not in ${this.applied} to ${this.applying}`,
    )
    this.applied = index
  }

  /** A snapshot was installed, and storage already begins after it: the log before is forgotten. */
  restore(index: LogIndex, term: Term): void {
    assert(index > this.commit, `snapshot ${index} is not beyond committed ${this.commit}`)
    const stored = this.storage.term(index)
    assert(
      this.storage.lastIndex === index && stored === term,
      `storage ends at ${this.storage.lastIndex}@${stored}, not at snapshot ${index}@${term}`,
    )
    this.tail.length = 0
    this.writes.length = 0
    this.durable = index
    this.handedOut = index
    this.last = index
    this.termOfLast = term
    this.commit = index
    this.applied = index
    this.applying = index
  }
}
