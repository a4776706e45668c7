import { StorageCorruption } from "../disk/disk.ts"
import type { LogIndex, Lsn, RangeId, ReplicaId, Term } from "../types.ts"
import { type RecordView, recordTypes, segmentHeaderBytes } from "./format.ts"
import { GroupIndex, termMissing } from "./groupIndex.ts"
import { compareKeys, type GroupKey, type LoggedHardState } from "./logged.ts"
import {
  isSameStanding,
  type LogMark,
  readStanding,
  type Standing,
  standingText,
} from "./standing.ts"

/** A jump over more indexes than this is no lost run of appends but a lost reset. */
const jumpMax = 1_000_000

/** A group as its records so far make it. */
export class ReplayedGroup {
  readonly key: GroupKey
  hardState: LoggedHardState = { term: 0, vote: 0, commit: 0 }
  readonly places = new GroupIndex()
  floor: LogMark | undefined
  /** Records of it may be lost, and nothing met since says what they said. */
  isUnsure: boolean
  /**
   * Entries up to it stood before something was lost, and may have been replaced in it. An entry met later that follows on one of them shows that it,
   * and all before it, are still the log's. (Raft paper 5.3, Log Matching)
   */
  doubtfulThrough: LogIndex = 0
  /** At most so many of its records are lost that nothing met since makes up for. */
  private lostCount = 0

  constructor(key: GroupKey, isUnsure: boolean) {
    this.key = key
    this.isUnsure = isUnsure
  }

  doubt(lostCount = Number.POSITIVE_INFINITY): void {
    this.isUnsure = true
    this.lostCount += lostCount
    this.doubtfulThrough = this.places.lastIndex
  }

  /**
   * Entries before `index`, which is known to have `term`, are missing if they can have been replaced: a lost record can have replaced one, and cut off
   * what followed.
   */
  disown(index: LogIndex, term: Term): void {
    const { places } = this
    const from = Math.max(places.baseIndex, index - this.lostCount)
    for (let i = from + 1; i < index; i++) {
      if (i <= this.doubtfulThrough) places.lose(i, termMissing)
    }
    places.lose(index, term)
  }

  /** A record says where the group stands. */
  stands(standing: Standing): void {
    const { term, vote, commit, isUnsure, floor } = standing
    this.hardState = { term, vote, commit }
    this.isUnsure = isUnsure
    this.floor = floor
    if (!isUnsure) this.lostCount = 0
  }

  standing(): Standing {
    const { baseIndex, baseTerm, lastIndex } = this.places
    const lastTerm = this.places.termAt(lastIndex) as Term
    const log = { baseIndex, baseTerm, lastIndex, lastTerm }
    const { isUnsure, floor } = this
    return { ...this.hardState, ...log, isUnsure, floor, isDestroyed: false }
  }
}

/**
 * Applies the records of batches, in order, to what the groups were before. Knows no files. Where nothing is lost, a
 * record that contradicts the ones before it throws `StorageCorruption`: its checksum holds, so it
 * is no torn write. For a group of which records may be lost, a contradiction says what they were.
 *
 * Each kind of record is one method, which is the place to break when a test wants to see recovery
 * go wrong.
 */
export class Replay {
  private readonly ranges = new Map<RangeId, Map<ReplicaId, ReplayedGroup>>()
  private path = ""
  private baseLsn: Lsn = 0
  private oldest = true
  /** Groups may have been made and removed that no record met speaks of. */
  private mayMissGroups = false
  private readonly checkpointed = new Set<ReplayedGroup>()

  /** Records come from this segment until the next call. */
  beginSegment(segment: {
    readonly path: string
    readonly baseLsn: Lsn
    readonly oldest: boolean
  }) {
    this.path = segment.path
    this.baseLsn = segment.baseLsn
    this.oldest = segment.oldest
    this.checkpointed.clear()
  }

  /** Groups that exist, by range and replica. */
  groups(): ReadonlyArray<ReplayedGroup> {
    const all: Array<ReplayedGroup> = []
    for (const replicas of this.ranges.values()) all.push(...replicas.values())
    return all.sort((left, right) => compareKeys(left.key, right.key))
  }

  private find(key: GroupKey): ReplayedGroup | undefined {
    return this.ranges.get(key.range)?.get(key.replica)
  }

  private findOrAdd(key: GroupKey): ReplayedGroup {
    const found = this.find(key)
    if (found !== undefined) return found
    const group = new ReplayedGroup({ range: key.range, replica: key.replica }, this.mayMissGroups)
    const replicas = this.ranges.get(key.range)
    if (replicas === undefined) this.ranges.set(key.range, new Map([[key.replica, group]]))
    else replicas.set(key.replica, group)
    return group
  }

  /** Records were lost here, of any group or of none. */
  lost(): void {
    this.mayMissGroups = true
    for (const group of this.groups()) group.doubt()
  }

  /** At most `count` records of this group were lost here. */
  lostOf(key: GroupKey, count: number): void {
    this.findOrAdd(key).doubt(count)
  }

  private refuse(record: RecordView, expected: string, actual: string): StorageCorruption {
    const where = `of range ${record.range}, replica ${record.replica}`
    const offset = record.lsn - this.baseLsn
    return new StorageCorruption({
      path: this.path,
      offset,
      expected: `${expected} ${where}`,
      actual,
    })
  }

  /** The checkpoint records that open a segment have all been seen: `count` of them. */
  endCheckpoint(count: number): void {
    for (const group of this.groups()) {
      const isGone = group.isUnsure && !this.checkpointed.has(group)
      if (isGone) this.ranges.get(group.key.range)?.delete(group.key.replica)
    }
    this.mayMissGroups = false
    const known = this.groups().length
    if (known === count) return
    const expected = `a checkpoint of ${known} groups`
    throw new StorageCorruption({
      path: this.path,
      offset: segmentHeaderBytes,
      expected,
      actual: `one of ${count}`,
    })
  }

  apply(record: RecordView): void {
    switch (record.type) {
      case recordTypes.append:
        this.append(record)
        break
      case recordTypes.rewrite:
        this.rewrite(record)
        break
      case recordTypes.hardState:
        this.hardState(record)
        break
      case recordTypes.release:
        this.release(record)
        break
      case recordTypes.reset:
        this.reset(record)
        break
      case recordTypes.destroy:
        this.destroy(record)
        break
      case recordTypes.checkpoint:
        this.checkpoint(record)
        break
      case recordTypes.standing:
        this.standing(record)
        break
      default:
        throw this.refuse(record, "a record of a known type", `type ${record.type}`)
    }
  }

  /** An entry replaces whatever the log held from its index on. */
  append(record: RecordView): void {
    const group = this.findOrAdd(record)
    const { places } = group
    const { index, term, previousTerm, lsn } = record
    if (group.isUnsure) this.makeRoom(group, record)
    if (!(index > places.baseIndex && index <= places.lastIndex + 1)) {
      const log = `a log of ${places.baseIndex + 1} to ${places.lastIndex}`
      throw this.refuse(record, `an entry that follows on ${log}`, `entry ${index}`)
    }
    const before = places.termAt(index - 1)
    if (before !== previousTerm && before !== termMissing) {
      throw this.refuse(record, `term ${before} before entry ${index}`, `term ${previousTerm}`)
    }
    if (before === termMissing) places.lose(index - 1, previousTerm)
    if (index <= places.lastIndex) places.truncateFrom(index)
    places.push(term, lsn, record.lengthBytes)
    group.doubtfulThrough = Math.min(group.doubtfulThrough, index - 1)
  }

  /** What was lost must have left the log so that this entry follows on it. */
  private makeRoom(group: ReplayedGroup, record: RecordView): void {
    const { places } = group
    const { index, previousTerm } = record
    if (index <= places.baseIndex || index > places.lastIndex + jumpMax) {
      places.reset(index - 1, previousTerm)
      return
    }
    if (index > places.lastIndex + 1) return places.pushMissing(index - 1, previousTerm)
    const known = places.termAt(index - 1)
    if (known === previousTerm && places.firstMissing() === undefined) group.doubtfulThrough = 0
    else if (known !== termMissing && known !== previousTerm) {
      if (index - 1 === places.baseIndex) places.reset(index - 1, previousTerm)
      else group.disown(index - 1, previousTerm)
    }
  }

  /** A copy counts only if that entry is in the log, and never truncates. */
  rewrite(record: RecordView): void {
    const places = this.find(record)?.places
    const { index, term, previousTerm } = record
    if (places === undefined || !(index > places.baseIndex && index <= places.lastIndex)) return
    const known = places.termAt(index)
    if (known === term || known === termMissing) {
      places.place(index, term, record.lsn, record.lengthBytes)
      if (places.termAt(index - 1) === termMissing && previousTerm > 0) {
        places.lose(index - 1, previousTerm)
      }
    }
  }

  hardState(record: RecordView): void {
    const { term, previousTerm: vote, index: commit } = record
    this.findOrAdd(record).hardState = { term, vote, commit }
  }

  release(record: RecordView): void {
    const group = this.findOrAdd(record)
    const { places } = group
    const { index, term } = record
    const known = places.termAt(index)
    if (known !== term && known !== termMissing) {
      if (!group.isUnsure) {
        throw this.refuse(record, `a log to begin after an entry of term ${known}`, `term ${term}`)
      }
      places.reset(index, term)
    } else places.releaseThrough(index, term)
  }

  reset(record: RecordView): void {
    this.findOrAdd(record).places.reset(record.index, record.term)
  }

  destroy(record: RecordView): void {
    this.ranges.get(record.range)?.delete(record.replica)
  }

  /**
   * In the oldest segment a checkpoint is where the replay begins: the records of the entries that
   * it lists come later, as rewrites, or the entries are released. In a later one it has to say
   * what the replay has come to by itself.
   */
  checkpoint(record: RecordView): void {
    const stated = this.readStanding(record)
    const known = this.find(record)
    if (this.oldest && known !== undefined) {
      throw this.refuse(record, "one checkpoint", "a second one in the segment")
    }
    if (this.oldest) this.findOrAdd(record).doubt()
    this.reconcile(record, stated)
    this.checkpointed.add(this.find(record) as ReplayedGroup)
  }

  /** What a batch left of a group. */
  standing(record: RecordView): void {
    const stated = this.readStanding(record)
    if (stated.isDestroyed) this.destroy(record)
    else this.reconcile(record, stated)
  }

  /** Makes of an unsure group what a record says that it is; any other has to be that by itself. */
  private reconcile(record: RecordView, stated: Standing): void {
    const group = this.mayMissGroups ? this.findOrAdd(record) : this.find(record)
    if (group?.isUnsure === true) {
      restore(group, stated)
      return
    }
    // Doubts and floors begin and end with a standing record, and with no other.
    if (group !== undefined && record.type === recordTypes.standing) {
      group.isUnsure = stated.isUnsure
      group.floor = stated.floor
    }
    const replayed = group?.standing()
    if (replayed !== undefined && isSameStanding(replayed, stated)) return
    const expected = replayed === undefined ? "nothing" : standingText(replayed)
    throw this.refuse(record, `a group with ${expected}`, standingText(stated))
  }

  private readStanding(record: RecordView): Standing {
    const standing = readStanding(record)
    if (standing !== undefined) return standing
    throw this.refuse(record, "what the flags announce", `${record.data.length} bytes`)
  }
}

/** Takes an unsure group to where a later record says that it stood: entries that are not known to be its are missing. */
function restore(group: ReplayedGroup, stated: Standing): void {
  const { places } = group
  const { baseIndex, baseTerm, lastIndex, lastTerm } = stated
  if (baseIndex < places.baseIndex || baseIndex > places.lastIndex) {
    const kept = baseIndex < places.baseIndex ? entriesOf(places) : []
    places.reset(baseIndex, baseTerm)
    for (const { index, term, lsn, sizeBytes } of kept) {
      places.pushMissing(index - 1, termMissing)
      places.push(term, lsn, sizeBytes)
    }
  } else places.releaseThrough(baseIndex, baseTerm)
  if (places.lastIndex > lastIndex) places.truncateFrom(lastIndex + 1)
  if (places.lastIndex < lastIndex) places.pushMissing(lastIndex, lastTerm)
  if (lastIndex > baseIndex) confirmLast(group, lastIndex, lastTerm)
  group.stands(stated)
}

function confirmLast(group: ReplayedGroup, lastIndex: LogIndex, lastTerm: Term): void {
  const { places } = group
  const known = places.termAt(lastIndex) as Term
  if (known === lastTerm) {
    if (lastIndex <= group.doubtfulThrough) group.doubtfulThrough = 0
  } else if (known === termMissing) places.lose(lastIndex, lastTerm)
  else group.disown(lastIndex, lastTerm)
}

function entriesOf(places: GroupIndex) {
  const entries: Array<{ index: LogIndex; term: Term; lsn: Lsn; sizeBytes: number }> = []
  for (let index = places.baseIndex + 1; index <= places.lastIndex; index++) {
    const term = places.termAt(index) as Term
    entries.push({ index, term, lsn: places.lsnAt(index), sizeBytes: places.sizeAt(index) })
  }
  return entries
}
