import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"
import type { Batch } from "./batch.ts"
import { EntryReader } from "./entryReader.ts"
import { recordHeaderBytes } from "./format.ts"
import { type Gap, gapsOf } from "./gaps.ts"
import type { JournalGroup } from "./group.ts"
import type { GroupIndex } from "./groupIndex.ts"
import { assertWhole, type GroupKey, type LoggedEntry, type LoggedHardState } from "./logged.ts"
import type { Segments } from "./segments.ts"
import { type LogMark, reaches, type Standing } from "./standing.ts"
import type { Cached, TailCache } from "./tailCache.ts"

/** What a group uses of its journal. */
export interface JournalParts {
  /** The batch that is gathering now. */
  readonly batch: Batch
  readonly segments: Segments
  readonly cache: TailCache
  readonly durableLsn: Lsn
  forget(group: JournalGroup): void
  /** Stored bytes are not what was written. */
  damaged(error: StorageCorruption): void
}

/** A group as recovery makes it; a new one is empty and sure. */
export interface ReplayedState {
  readonly hardState: LoggedHardState
  readonly places: GroupIndex
  readonly isUnsure: boolean
  readonly floor: LogMark | undefined
}

/** The floor of a group that may have promised anything. */
export const unreachable: LogMark = {
  index: Number.MAX_SAFE_INTEGER,
  term: Number.MAX_SAFE_INTEGER,
}
/** Gaps that are told at once. */
const gapsMax = 1024

/**
 * What a group of the journal holds, and the reading of it; what changes it is in group.ts.
 *
 * What damage took from it, it knows: entries of which the records are lost are *missing*, and their places *gaps*, until they are filled; a log that it may
 * have acknowledged and does not reach is its *floor*. A group is *unsure* when records may be lost that nothing after them repeats.
 */
export abstract class GroupState {
  readonly key: GroupKey
  /** State as of the last batch cut; undefined while no batch holds a record of this group. */
  checkpoint: Standing | undefined
  protected state: LoggedHardState
  protected readonly places: GroupIndex
  protected readonly parts: JournalParts
  protected readonly cached = new Map<LogIndex, Cached>()
  protected destroyed = false
  protected unsure: boolean
  protected floor: LogMark | undefined
  /** What it had promised when its damage was made good, until its core knows of that. */
  protected unmended: LogMark | undefined

  /** The first missing entry, when it and what is behind it were never committed. */
  private waivedFrom: LogIndex | undefined

  constructor(parts: JournalParts, key: GroupKey, replayed: ReplayedState) {
    assertWhole(key.range, key.replica)
    this.parts = parts
    this.key = key
    this.state = replayed.hardState
    this.places = replayed.places
    this.unsure = replayed.isUnsure
    this.floor = replayed.floor
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

  get isDestroyed(): boolean {
    return this.destroyed
  }

  // ---- What is missing

  /** Records of it may be lost that nothing repeats: its term and vote may be older than what it promised, its log shorter. */
  get isUnsure(): boolean {
    return this.unsure
  }

  /** False while what it promised is not known, or its core does not know it yet: it must neither vote nor acknowledge. */
  get mayVote(): boolean {
    return !this.unsure && this.unmended !== unreachable
  }

  /** Where entries are missing, oldest first; at most a thousand. */
  get gaps(): ReadonlyArray<Gap> {
    return this.places.missingCount === 0 ? [] : gapsOf(this.places, gapsMax)
  }

  get missingCount(): number {
    return this.places.missingCount
  }

  /** The oldest missing entry from `from` on. */
  firstMissing(from: LogIndex): LogIndex | undefined {
    return this.places.firstMissing(from)
  }

  /** Index of the last entry before the first missing one. */
  get lastReadable(): LogIndex {
    const missing = this.places.firstMissing()
    return missing === undefined ? this.lastIndex : missing - 1
  }

  /**
   * A log that this replica may have acknowledged, though it cannot show it now: it votes only for logs that reach it, and must not lead before its own
   * does. `undefined` when it holds all that it acknowledged.
   */
  get voteFloor(): LogMark | undefined {
    return this.mayVote ? this.promised : unreachable
  }

  private get isWaived(): boolean {
    return this.waivedFrom !== undefined && this.waivedFrom === this.places.firstMissing()
  }

  /**
   * Nothing is owed any more from the first missing entry on: no other member has ever held that one, so nobody can have counted on its being here. Known until the
   * next start; on the disk it stays as it is until other entries take its place.
   */
  waive(first: LogIndex): void {
    assert(first === this.places.firstMissing(), () => `${first} is the first missing entry`)
    this.waivedFrom = first
  }

  protected get promised(): LogMark | undefined {
    const { floor, ownEnd } = this
    const owesAll = (this.places.missingCount > 0 && !this.isWaived) || !this.mayVote
    const owed = owesAll ? ownEnd : this.unmended
    if (owed === undefined || floor === undefined) return owed ?? floor
    return reaches(owed, floor) ? owed : floor
  }

  protected get ownEnd(): LogMark {
    return { index: this.lastIndex, term: this.places.termAt(this.lastIndex) as Term }
  }

  /** The record of the entry is damaged: it is missing from now on. */
  lose(index: LogIndex): void {
    const { places } = this
    const sizeBytes = places.sizeAt(index)
    if (sizeBytes === 0 || !this.isDurable(index)) return
    const segment = this.parts.segments.find(places.lsnAt(index))
    segment.liveCount--
    segment.liveBytes -= sizeBytes
    this.uncache(index)
    places.lose(index, places.termAt(index) as Term)
  }

  /** The index of the entry whose record lies at `lsn`. Looks through the whole log. */
  indexAt(lsn: Lsn): LogIndex | undefined {
    for (let index = this.firstIndex; index <= this.lastIndex; index++) {
      if (this.places.lsnAt(index) === lsn && this.places.sizeAt(index) > 0) return index
    }
    return undefined
  }

  // ---- Reading

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
   * data, but none from the first missing one on. An entry of which the file no longer holds what was written is missing from then on, and the damage
   * is noted. Requires firstIndex <= from < to <= lastIndex + 1.
   */
  entries(from: LogIndex, to: LogIndex, maxBytes: number): ReadonlyArray<LoggedEntry> {
    assert(
      from >= this.firstIndex && from < to && to <= this.lastIndex + 1,
      () => `entries ${from} to ${to} lie in ${this.firstIndex} to ${this.lastIndex}`,
    )
    const result: Array<LoggedEntry> = []
    let reader: EntryReader | undefined
    let usedBytes = 0
    for (let index = from; index < to; index++) {
      const sizeBytes = this.places.sizeAt(index)
      if (sizeBytes === 0) break
      usedBytes += sizeBytes - recordHeaderBytes
      if (usedBytes > maxBytes && index > from) break
      let entry = this.cached.get(index)?.entry
      if (entry === undefined) {
        reader ??= this.reader()
        entry = this.readEntry(reader, index)
      }
      if (entry === undefined) break
      result.push(entry)
    }
    return result
  }

  private readEntry(reader: EntryReader, index: LogIndex): LoggedEntry | undefined {
    assert(this.isDurable(index), () => `entry ${index} is durable`)
    try {
      const { term, kind, data } = reader.read(index)
      return { index, term, kind, data }
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.lose(index)
      this.parts.damaged(error)
      return undefined
    }
  }

  /** Gives `visit` the data of every entry from `from` on, each valid during its call. All must be durable. Throws `StorageCorruption`. */
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

  protected standing(): Standing {
    const { baseIndex, baseTerm, lastIndex } = this.places
    const { index: _, term: lastTerm } = this.ownEnd
    const log = { baseIndex, baseTerm, lastIndex, lastTerm }
    const { unsure: isUnsure, floor, destroyed: isDestroyed } = this
    return { ...this.state, ...log, isUnsure, floor, isDestroyed }
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
}
