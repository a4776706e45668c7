import { assert } from "../lib/assert.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"
import type { Batch, Rewrite } from "./batch.ts"
import { recordHeaderBytes, recordTypes } from "./format.ts"
import { fitting } from "./gaps.ts"
import { termMissing } from "./groupIndex.ts"
import { GroupState, type JournalParts, type ReplayedState, unreachable } from "./groupState.ts"
import { assertWhole, type GroupKey, type LoggedEntry, type LoggedHardState } from "./logged.ts"
import type { Segment } from "./segments.ts"
import {
  type LogMark,
  reaches,
  standingData,
  standingFields,
  standingRecordBytes,
} from "./standing.ts"

export type { GroupKey, JournalParts, LoggedEntry, LoggedHardState }

/** Where an entry lay that is missing. */
export const noLsn: Lsn = -1
/** A log that was longer by more entries than this is not made longer by missing ones. */
const missingMax = 1_000_000

/**
 * The log and hard state of one replica of a range. Changes show to reads at once and are durable
 * with the batch that the next `cut` makes. Reads satisfy the Raft core's `LogStorage`.
 */
export class JournalGroup extends GroupState {
  /** Entries from this index on have been gathered but not cut. */
  private firstGathered: LogIndex
  private touched = false
  private commitLags = false
  private releaseLags = false
  /** Missing entries that the journal has been given, and that are not durable yet. */
  private readonly filling = new Set<LogIndex>()

  constructor(parts: JournalParts, key: GroupKey, replayed: ReplayedState) {
    super(parts, key, replayed)
    this.firstGathered = replayed.places.lastIndex + 1
  }

  // ---- What damage took

  /** Remembers what was promised before a change that may take it out of the log, as long as the log does not reach it. */
  private keepFloor(promised: LogMark | undefined): void {
    this.floor = promised !== undefined && !reaches(this.ownEnd, promised) ? promised : undefined
  }

  /**
   * Puts entries of a peer where they are missing, as far as they fit, and returns how many did. The caller knows that the peer's log agrees with this one
   * on both sides (`Gap`). They count once they are durable.
   */
  fill(entries: ReadonlyArray<LoggedEntry>): number {
    const placed = fitting(this.places, entries)
    for (const entry of placed) {
      const { index, term } = entry
      if (this.filling.has(index)) continue
      const batch = this.touch()
      const before = placed[index - (placed[0] as LoggedEntry).index - 1]?.term
      // 0 where it is not known.
      const previousTerm = before ?? Math.max(0, this.places.termAt(index - 1) as Term)
      const fields = this.fields(recordTypes.rewrite, entry.kind, entry, previousTerm)
      const place = batch.record(fields, entry.data)
      const sizeBytes = recordHeaderBytes + entry.data.length
      this.filling.add(index)
      batch.rewrites.push({ group: this, index, term, oldLsn: noLsn, sizeBytes, place })
    }
    return placed.length
  }

  /** Entries from `from` up to `to` are not what a peer with the same log further on has there: they are missing too. */
  disown(from: LogIndex, to: LogIndex): void {
    this.touch()
    for (let index = Math.max(from, this.firstIndex); index <= to; index++) {
      this.lose(index)
      if (this.places.sizeAt(index) === 0) this.places.lose(index, termMissing)
    }
  }

  /**
   * Ends the doubt about an unsure group. `term` is the largest in which it can have promised anything, `floor` the furthest log that any of those has
   * who could have made use of its promises. In that term it votes for nobody.
   */
  settle(term: Term, floor: LogMark): void {
    assert(this.unsure, "the group is unsure")
    this.touch()
    this.unsure = false
    this.unmended = unreachable
    const { ownEnd, places } = this
    const least = Math.max(term, ownEnd.term, this.state.term)
    this.state = { term: least, vote: this.key.replica, commit: this.state.commit }
    this.writeHardState()
    if (reaches(ownEnd, floor)) return
    const longer = floor.index - ownEnd.index
    if (longer > 0 && longer <= missingMax) {
      places.pushMissing(floor.index, floor.term)
      this.firstGathered = places.lastIndex + 1
    }
    this.keepFloor(floor)
  }

  /**
   * A leader counts on a log that reaches `promised`, so this replica has acknowledged one and lost its end without a trace: as where damage to the newest batch
   * looked like a torn write. It is owed from now on.
   */
  owe(promised: LogMark): void {
    const known = this.promised
    if (reaches(this.ownEnd, promised) || (known !== undefined && reaches(known, promised))) return
    this.touch()
    this.keepFloor(promised)
  }

  /** The damage is made good, and the core is about to know: nothing but what its log does not reach is owed any more. */
  mended(): void {
    this.unmended = undefined
    this.keepFloor(this.floor)
  }

  // ---- What the core writes

  /** Adds entries with consecutive indexes, dropping what was held from the first of them on. */
  append(entries: ReadonlyArray<LoggedEntry>): void {
    const first = entries[0]
    if (first === undefined) return
    assert(
      first.index >= this.firstIndex && first.index <= this.lastIndex + 1,
      () => `entry ${first.index} follows on ${this.firstIndex} to ${this.lastIndex}`,
    )
    const batch = this.touch()
    const { promised } = this
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
    if (promised !== undefined) this.keepFloor(promised)
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
    this.checkpoint = { ...checkpoint, lastIndex: places.lastIndex, lastTerm: term }
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
   * Entries up to and including `index`, which has `term`, are no longer needed. Not durable by itself; a crash may
   * bring them back.
   */
  release(index: LogIndex, term: Term = this.places.termAt(index) as Term): void {
    if (index < this.firstIndex) return
    assert(index <= this.lastIndex, () => `${index} is at most ${this.lastIndex}`)
    assert(term >= 0, () => `the term of ${index} is known`)
    this.lag()
    this.free(this.firstIndex, index)
    this.places.releaseThrough(index, term)
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
    const { promised } = this
    this.free(this.firstIndex, this.lastIndex)
    this.places.reset(index, term)
    this.keepFloor(promised)
    this.firstGathered = index + 1
    this.releaseLags = false
    batch.record(this.fields(recordTypes.reset, 0, { index, term }, 0))
  }

  /** The log is dropped although nothing stands for it: whoever looks for a vote or counts on this replica has to reach its end all the same (`voteFloor`). */
  forsake(): void {
    const { promised, ownEnd } = this
    this.resetTo(0, 0)
    this.state = { ...this.state, commit: 0 }
    this.writeHardState()
    this.keepFloor(promised === undefined || reaches(ownEnd, promised) ? ownEnd : promised)
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
      if (this.places.sizeAt(index) === 0) continue
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
      if (sizeBytes === 0) continue
      const lsn = recordsLsn + (-1 - places.lsnAt(index))
      places.place(index, places.termAt(index) as Term, lsn, sizeBytes)
      segment.liveCount++
      segment.liveBytes += sizeBytes
    }
    this.firstGathered = places.lastIndex + 1
    this.keepCheckpoint()
  }

  private keepCheckpoint(): void {
    this.checkpoint = this.destroyed ? undefined : this.standing()
  }

  /** Bytes that `writeStanding` adds. */
  get standingBytes(): number {
    return standingRecordBytes(this.floor)
  }

  /** Says at the end of a batch where its records leave the group. */
  writeStanding(batch: Batch): void {
    const standing = this.standing()
    batch.record(standingFields(recordTypes.standing, this.key, standing), standingData(standing))
  }

  /** Adds a checkpoint record to the start of a segment. */
  writeCheckpoint(batch: Batch): void {
    const { checkpoint } = this
    assert(checkpoint !== undefined, "the group was written before")
    const fields = standingFields(recordTypes.checkpoint, this.key, checkpoint)
    batch.record(fields, standingData(checkpoint))
  }

  /**
   * Copies the entry into the batch under way, if it lies in `segment`. Returns the bytes added.
   */
  rewrite(index: LogIndex, segment: Segment): number {
    if (this.places.sizeAt(index) === 0) return 0
    const oldLsn = this.places.lsnAt(index)
    const inside = oldLsn >= segment.baseLsn && oldLsn < segment.baseLsn + segment.sizeBytes
    if (!inside) return 0
    const [entry] = this.entries(index, index + 1, 0)
    if (entry === undefined) return 0
    const batch = this.touch()
    const previousTerm = Math.max(0, this.places.termAt(index - 1) as Term)
    const fields = this.fields(recordTypes.rewrite, entry.kind, entry, previousTerm)
    const place = batch.record(fields, entry.data)
    const sizeBytes = this.places.sizeAt(index)
    batch.rewrites.push({ group: this, index, term: entry.term, oldLsn, sizeBytes, place })
    return sizeBytes
  }

  /** Whether the entry still lies where it was copied from, or is still missing. */
  wants({ index, term, oldLsn }: Rewrite): boolean {
    if (index < this.firstIndex || index > this.lastIndex) return false
    const isMissing = this.places.sizeAt(index) === 0
    const known = this.places.termAt(index)
    if (oldLsn === noLsn) return isMissing && (known === term || known === termMissing)
    return !isMissing && known === term && this.places.lsnAt(index) === oldLsn
  }

  /** The copy of the entry is durable. */
  move({ index, term, oldLsn, place, sizeBytes }: Rewrite): void {
    this.places.place(index, term, place, sizeBytes)
    const isLastFilled = oldLsn === noLsn && this.places.missingCount === 0
    // What the core would put in place of entries that it does not know to be there again must not make them forgotten.
    if (isLastFilled) this.unmended ??= this.ownEnd
  }

  /** A copy that filled a gap is durable, or was in vain. */
  filled(index: LogIndex): void {
    this.filling.delete(index)
  }

  /** All that the group holds was read back: counts its entries into their segments. */
  recovered(): void {
    this.keepCheckpoint()
    for (let index = this.firstIndex; index <= this.lastIndex; index++) {
      if (this.places.sizeAt(index) === 0) continue
      const segment = this.parts.segments.find(this.places.lsnAt(index))
      segment.liveCount++
      segment.liveBytes += this.places.sizeAt(index)
    }
  }
}
