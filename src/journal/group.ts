import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, Lsn, RangeId, ReplicaId, Term } from "../types.ts"
import type { Batch } from "./batch.ts"
import { EntryReader } from "./entryReader.ts"
import { recordHeaderBytes, recordTypes } from "./format.ts"
import type { GroupIndex } from "./groupIndex.ts"
import type { Segment, Segments } from "./segments.ts"
import type { Cached, TailCache } from "./tailCache.ts"

export interface GroupKey {
  readonly range: RangeId
  readonly replica: ReplicaId
}

/** Order of groups wherever one shows: by range, then replica. */
export function compareKeys(left: GroupKey, right: GroupKey): number {
  return left.range - right.range || left.replica - right.replica
}

/** One position of a log. `data` must never change after it was appended. */
export interface LoggedEntry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: number
  readonly data: Uint8Array
}

export interface LoggedHardState {
  readonly term: Term
  /** Replica voted for in `term`; 0 = none. */
  readonly vote: ReplicaId
  /** May be older than what was set before a crash. */
  readonly commit: LogIndex
}

/** What a checkpoint record says of a group: its state as the batches before it left it. */
export interface GroupCheckpoint extends LoggedHardState {
  readonly baseIndex: LogIndex
  readonly baseTerm: Term
  lastIndex: LogIndex
}

/** What a group uses of its journal. */
export interface JournalParts {
  /** The batch that is gathering now. */
  readonly batch: Batch
  readonly segments: Segments
  readonly cache: TailCache
  readonly durableLsn: Lsn
  forget(group: JournalGroup): void
}

/** What is stored as u64 has to come back as it was. */
function assertWhole(...values: ReadonlyArray<number>): void {
  for (const value of values) {
    assert(Number.isSafeInteger(value) && value >= 0, () => `${value} is a whole number`)
  }
}

/**
 * The log and hard state of one replica of a range. Changes show to reads at once and are durable
 * with the batch that the next `cut` makes. Reads satisfy the Raft core's `LogStorage`.
 */
export class JournalGroup {
  readonly key: GroupKey
  /** State as of the last batch cut; undefined while no batch holds a record of this group. */
  checkpoint: GroupCheckpoint | undefined
  private state: LoggedHardState
  private readonly places: GroupIndex
  private readonly parts: JournalParts
  private readonly cached = new Map<LogIndex, Cached>()
  /** Entries from this index on have been gathered but not cut. */
  private firstGathered: LogIndex
  private touched = false
  private commitLags = false
  private releaseLags = false
  private destroyed = false

  constructor(parts: JournalParts, key: GroupKey, state: LoggedHardState, places: GroupIndex) {
    assertWhole(key.range, key.replica)
    this.parts = parts
    this.key = key
    this.state = state
    this.places = places
    this.firstGathered = places.lastIndex + 1
  }

  get hardState(): LoggedHardState {
    return this.state
  }

  /** Index of the oldest entry kept; `lastIndex + 1` when none is. */
  get firstIndex(): LogIndex {
    return this.places.baseIndex + 1
  }

  /** Index of the newest entry; `firstIndex - 1` when none is. */
  get lastIndex(): LogIndex {
    return this.places.lastIndex
  }

  /** Bytes of the records of the entries kept. */
  get sizeBytes(): number {
    return this.places.sizeBytes
  }

  /**
   * Bytes of the records of the entries above `index`, which may lie outside the log. Takes time by
   * the entries counted.
   */
  sizeBytesAbove(index: LogIndex): number {
    if (index <= this.places.baseIndex) return this.places.sizeBytes
    let sum = 0
    for (let i = index + 1; i <= this.lastIndex; i++) sum += this.places.sizeAt(i)
    return sum
  }

  /** Term at `index`, for firstIndex - 1 <= index <= lastIndex; `undefined` outside. */
  term(index: LogIndex): Term | undefined {
    return this.places.termAt(index)
  }

  /**
   * Entries from `from` up to, not including, `to`: at least one, then as many as fit `maxBytes` of
   * data. Requires firstIndex <= from < to <= lastIndex + 1. Throws `StorageCorruption` when the
   * file no longer holds what was written.
   */
  entries(from: LogIndex, to: LogIndex, maxBytes: number): ReadonlyArray<LoggedEntry> {
    assert(
      from >= this.firstIndex && from < to && to <= this.lastIndex + 1,
      () => `entries ${from} to ${to} lie in ${this.firstIndex} to ${this.lastIndex}`,
    )
    const result: Array<LoggedEntry> = []
    let usedBytes = 0
    for (let index = from; index < to; index++) {
      usedBytes += this.places.sizeAt(index) - recordHeaderBytes
      if (usedBytes > maxBytes && index > from) break
      result.push(this.cached.get(index)?.entry ?? this.readEntry(index))
    }
    return result
  }

  private readEntry(index: LogIndex): LoggedEntry {
    assert(this.isDurable(index), () => `entry ${index} is durable`)
    const { term, kind, data } = this.reader().read(index)
    return { index, term, kind, data }
  }

  /** Gives `visit` the data of every entry from `from` on, each valid during its call. All must be durable. Throws as `entries` does. */
  forEachData(from: LogIndex, visit: (data: Uint8Array, index: LogIndex) => void): void {
    const reader = this.reader()
    for (let index = from; index <= this.lastIndex; index++) {
      assert(this.isDurable(index), () => `entry ${index} is durable`)
      visit(reader.readOn(index).data, index)
    }
  }

  private reader(): EntryReader {
    return new EntryReader(this.key, this.places, this.parts.segments)
  }

  /** Adds entries with consecutive indexes, dropping what was held from the first of them on. */
  append(entries: ReadonlyArray<LoggedEntry>): void {
    const first = entries[0]
    if (first === undefined) return
    assert(
      first.index >= this.firstIndex && first.index <= this.lastIndex + 1,
      () => `entry ${first.index} follows on ${this.firstIndex} to ${this.lastIndex}`,
    )
    const batch = this.touch()
    if (first.index <= this.lastIndex) {
      this.free(first.index, this.lastIndex)
      this.places.truncateFrom(first.index)
      this.firstGathered = Math.min(this.firstGathered, first.index)
    }
    for (const entry of entries) {
      const previousTerm = this.places.termAt(this.lastIndex) as Term
      assert(entry.index === this.lastIndex + 1, () => `${entry.index} after ${this.lastIndex}`)
      assert(entry.term >= previousTerm, () => `term ${entry.term} after ${previousTerm}`)
      assertWhole(entry.index, entry.term)
      const fields = this.fields(recordTypes.append, entry.kind, entry, previousTerm)
      const offset = batch.record(fields, entry.data)
      this.places.push(entry.term, -1 - offset, recordHeaderBytes + entry.data.length)
      this.cached.set(entry.index, this.parts.cache.add(this, entry))
    }
  }

  /**
   * An entry that is written by itself, at once: `record` lies at `lsn` in `segment`. It is not cached, so nothing reads it back before it is
   * durable. Requires that nothing of this group's entries is gathered, and that a batch has held a record of this group.
   */
  appendDirect(segment: Segment, term: Term, lsn: Lsn, sizeBytes: number): void {
    const { places, checkpoint } = this
    assert(checkpoint !== undefined && !this.destroyed, "the group was written before")
    assert(this.firstGathered === places.lastIndex + 1, "no entry of the group is gathered")
    places.push(term, lsn, sizeBytes)
    this.firstGathered++
    checkpoint.lastIndex++
    segment.liveCount++
    segment.liveBytes += sizeBytes
  }

  private fields(
    type: number,
    kind: number,
    place: { readonly index: LogIndex; readonly term: Term },
    previousTerm: Term,
  ) {
    const { range, replica } = this.key
    return { type, kind, range, replica, index: place.index, term: place.term, previousTerm }
  }

  /** A change of `commit` alone is written along with whatever is written next. */
  setHardState(hardState: LoggedHardState): void {
    const { term, vote, commit } = hardState
    assert(term >= this.state.term, () => `term ${term} after ${this.state.term}`)
    assertWhole(term, vote, commit)
    const changed = term !== this.state.term || vote !== this.state.vote
    if (!changed && commit === this.state.commit) return
    this.state = { term, vote, commit }
    if (changed) {
      this.touch()
      this.writeHardState()
    } else {
      this.lag()
      this.commitLags = true
    }
  }

  private writeHardState(): void {
    const { term, vote, commit } = this.state
    this.parts.batch.record(
      this.fields(recordTypes.hardState, 0, { index: commit, term }, Number(vote)),
    )
    this.commitLags = false
  }

  /**
   * Entries up to and including `index` are no longer needed. Not durable by itself; a crash may
   * bring them back.
   */
  release(index: LogIndex): void {
    if (index < this.firstIndex) return
    assert(index <= this.lastIndex, () => `${index} is at most ${this.lastIndex}`)
    this.lag()
    this.free(this.firstIndex, index)
    this.places.releaseThrough(index, this.places.termAt(index) as Term)
    this.firstGathered = Math.max(this.firstGathered, this.firstIndex)
    this.releaseLags = true
  }

  /**
   * The log is dropped and begins after (index, term): a snapshot was ingested, or the engine is
   * ahead of the log.
   */
  resetTo(index: LogIndex, term: Term): void {
    assertWhole(index, term)
    const batch = this.touch()
    this.free(this.firstIndex, this.lastIndex)
    this.places.reset(index, term)
    this.firstGathered = index + 1
    this.releaseLags = false
    batch.record(this.fields(recordTypes.reset, 0, { index, term }, 0))
  }

  /** The replica is gone, and nothing of it counts any more. The handle is of no further use. */
  destroy(): void {
    const batch = this.touch()
    this.free(this.firstIndex, this.lastIndex)
    this.places.reset(0, 0)
    this.firstGathered = 1
    batch.record(this.fields(recordTypes.destroy, 0, { index: 0, term: 0 }, 0))
    this.destroyed = true
    this.parts.forget(this)
  }

  get isDestroyed(): boolean {
    return this.destroyed
  }

  /** The batch under way gets a record of this group, and is wanted. */
  private touch(): Batch {
    assert(!this.destroyed, () => `range ${this.key.range} replica ${this.key.replica} exists`)
    const { batch } = this.parts
    batch.forced = true
    if (!this.touched) batch.touched.push(this)
    this.touched = true
    return batch
  }

  /** The group has something to add to the batch under way when it is cut. */
  private lag(): void {
    assert(!this.destroyed, () => `range ${this.key.range} replica ${this.key.replica} exists`)
    if (!this.commitLags && !this.releaseLags) this.parts.batch.lagging.push(this)
  }

  /** Adds the records that were not worth a write of their own. */
  writeLagging(): void {
    if (this.destroyed || (!this.commitLags && !this.releaseLags)) return
    const batch = this.touch()
    if (this.commitLags) this.writeHardState()
    if (this.releaseLags) {
      const base = { index: this.places.baseIndex, term: this.places.baseTerm }
      batch.record(this.fields(recordTypes.release, 0, base, 0))
    }
    this.releaseLags = false
  }

  private free(from: LogIndex, to: LogIndex): void {
    const { batch, segments } = this.parts
    for (let index = from; index <= to; index++) {
      const lsn = this.places.lsnAt(index)
      if (lsn >= 0) batch.free(segments.find(lsn), this.places.sizeAt(index))
      this.uncache(index)
    }
  }

  /** The batch has been cut: its records begin at `recordsLsn`, in `segment`. */
  cut(segment: Segment, recordsLsn: Lsn): void {
    this.touched = false
    const { places } = this
    for (let index = this.firstGathered; index <= places.lastIndex; index++) {
      const sizeBytes = places.sizeAt(index)
      const lsn = recordsLsn + (-1 - places.lsnAt(index))
      places.place(index, places.termAt(index) as Term, lsn, sizeBytes)
      segment.liveCount++
      segment.liveBytes += sizeBytes
    }
    this.firstGathered = places.lastIndex + 1
    this.keepCheckpoint()
  }

  private keepCheckpoint(): void {
    const { baseIndex, baseTerm, lastIndex } = this.places
    this.checkpoint = this.destroyed ? undefined : { ...this.state, baseIndex, baseTerm, lastIndex }
  }

  /** Adds a checkpoint record to the start of a segment. */
  writeCheckpoint(batch: Batch): void {
    const { checkpoint } = this
    assert(checkpoint !== undefined, "the group was written before")
    const data = new ByteWriter(32)
    data.u64(checkpoint.vote)
    data.u64(checkpoint.commit)
    data.u64(checkpoint.baseIndex)
    const place = { index: checkpoint.lastIndex, term: checkpoint.term }
    const fields = this.fields(recordTypes.checkpoint, 0, place, checkpoint.baseTerm)
    batch.record(fields, data.bytes())
  }

  /**
   * Copies the entry into the batch under way, if it lies in `segment`. Returns the bytes added.
   */
  rewrite(index: LogIndex, segment: Segment): number {
    const oldLsn = this.places.lsnAt(index)
    const inside = oldLsn >= segment.baseLsn && oldLsn < segment.baseLsn + segment.sizeBytes
    if (!inside) return 0
    const [entry] = this.entries(index, index + 1, 0)
    assert(entry !== undefined, () => `entry ${index} is held`)
    const batch = this.touch()
    const previousTerm = this.places.termAt(index - 1) as Term
    const fields = this.fields(recordTypes.rewrite, entry.kind, entry, previousTerm)
    const place = batch.record(fields, entry.data)
    const sizeBytes = this.places.sizeAt(index)
    batch.rewrites.push({ group: this, index, term: entry.term, oldLsn, sizeBytes, place })
    return sizeBytes
  }

  /** Whether the entry still is the one of `term` at `lsn`. */
  holds(index: LogIndex, term: Term, lsn: Lsn): boolean {
    if (index < this.firstIndex || index > this.lastIndex) return false
    return this.places.termAt(index) === term && this.places.lsnAt(index) === lsn
  }

  /** A copy of the entry is durable at `lsn`. */
  move(index: LogIndex, lsn: Lsn): void {
    this.places.place(index, this.places.termAt(index) as Term, lsn, this.places.sizeAt(index))
  }

  isDurable(index: LogIndex): boolean {
    const lsn = this.places.lsnAt(index)
    return lsn >= 0 && lsn < this.parts.durableLsn
  }

  uncache(index: LogIndex): void {
    const cached = this.cached.get(index)
    if (cached === undefined) return
    this.cached.delete(index)
    this.parts.cache.forget(cached)
  }

  /** All that the group holds was read back: counts its entries into their segments. */
  recovered(): void {
    this.keepCheckpoint()
    for (let index = this.firstIndex; index <= this.lastIndex; index++) {
      const segment = this.parts.segments.find(this.places.lsnAt(index))
      segment.liveCount++
      segment.liveBytes += this.places.sizeAt(index)
    }
  }
}
