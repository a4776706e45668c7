import { StorageCorruption } from "../disk/disk.ts"
import { ByteReader } from "../lib/byteReader.ts"
import type { LogIndex, Lsn, RangeId, ReplicaId } from "../types.ts"
import { checkpointDataBytes, type RecordView, recordTypes, segmentHeaderBytes } from "./format.ts"
import { compareKeys, type GroupCheckpoint, type GroupKey, type LoggedHardState } from "./group.ts"
import { GroupIndex, termMissing } from "./groupIndex.ts"

/** A group as its records so far make it. */
export class ReplayedGroup {
  readonly key: GroupKey
  hardState: LoggedHardState = { term: 0, vote: 0, commit: 0 }
  readonly places = new GroupIndex()

  constructor(key: GroupKey) {
    this.key = key
  }
}

/**
 * Applies the records of whole batches, in order, to what the groups were before. Knows no files. A
 * record that contradicts the ones before it throws `StorageCorruption`: its checksum holds, so it
 * is no torn write.
 *
 * Each kind of record is one method, which is the place to break when a test wants to see recovery
 * go wrong.
 */
export class Replay {
  private readonly ranges = new Map<RangeId, Map<ReplicaId, ReplayedGroup>>()
  private path = ""
  private baseLsn: Lsn = 0
  private oldest = true

  /** Records come from this segment until the next call. */
  beginSegment(segment: {
    readonly path: string
    readonly baseLsn: Lsn
    readonly oldest: boolean
  }) {
    this.path = segment.path
    this.baseLsn = segment.baseLsn
    this.oldest = segment.oldest
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
    const group = new ReplayedGroup({ range: key.range, replica: key.replica })
    const replicas = this.ranges.get(key.range)
    if (replicas === undefined) this.ranges.set(key.range, new Map([[key.replica, group]]))
    else replicas.set(key.replica, group)
    return group
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
      default:
        throw this.refuse(record, "a record of a known type", `type ${record.type}`)
    }
  }

  /** An entry replaces whatever the log held from its index on. */
  append(record: RecordView): void {
    const { places } = this.findOrAdd(record)
    const { index, term, previousTerm, lsn } = record
    if (!(index > places.baseIndex && index <= places.lastIndex + 1)) {
      const log = `a log of ${places.baseIndex + 1} to ${places.lastIndex}`
      throw this.refuse(record, `an entry that follows on ${log}`, `entry ${index}`)
    }
    const before = places.termAt(index - 1)
    if (before !== previousTerm && before !== termMissing) {
      throw this.refuse(record, `term ${before} before entry ${index}`, `term ${previousTerm}`)
    }
    if (index <= places.lastIndex) places.truncateFrom(index)
    places.push(term, lsn, record.lengthBytes)
  }

  /** A copy counts only if that entry is in the log, and never truncates. */
  rewrite(record: RecordView): void {
    const places = this.find(record)?.places
    const { index, term } = record
    if (places === undefined || !(index > places.baseIndex && index <= places.lastIndex)) return
    const known = places.termAt(index)
    if (known === term || known === termMissing) {
      places.place(index, term, record.lsn, record.lengthBytes)
    }
  }

  hardState(record: RecordView): void {
    const { term, previousTerm: vote, index: commit } = record
    this.findOrAdd(record).hardState = { term, vote, commit }
  }

  release(record: RecordView): void {
    const { places } = this.findOrAdd(record)
    const { index, term } = record
    const known = places.termAt(index)
    if (known !== term && known !== termMissing) {
      throw this.refuse(record, `a log to begin after an entry of term ${known}`, `term ${term}`)
    }
    places.releaseThrough(index, term)
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
    const stated = this.readCheckpoint(record)
    if (this.oldest) {
      const { places } = this.restore(record, stated)
      for (let i = stated.baseIndex + 1; i <= stated.lastIndex; i++) places.push(termMissing, 0, 0)
      return
    }
    const group = this.find(record)
    const replayed = group && describe(group)
    if (replayed !== text(stated)) {
      throw this.refuse(record, `a checkpoint with ${replayed ?? "nothing"}`, text(stated))
    }
  }

  private restore(record: RecordView, stated: GroupCheckpoint): ReplayedGroup {
    if (this.find(record) !== undefined) {
      throw this.refuse(record, "one checkpoint", "a second one in the segment")
    }
    const group = this.findOrAdd(record)
    group.hardState = { term: stated.term, vote: stated.vote, commit: stated.commit }
    group.places.reset(stated.baseIndex, stated.baseTerm)
    return group
  }

  private readCheckpoint(record: RecordView): GroupCheckpoint {
    if (record.data.length !== checkpointDataBytes) {
      throw this.refuse(
        record,
        `${checkpointDataBytes} bytes of checkpoint`,
        `${record.data.length}`,
      )
    }
    const reader = new ByteReader(record.data)
    return {
      term: record.term,
      vote: reader.u64(),
      commit: reader.u64(),
      baseIndex: reader.u64(),
      baseTerm: record.previousTerm,
      lastIndex: record.index,
    }
  }

  /** Every entry of every log has been met; else throws, naming the oldest segment held. */
  end(oldestPath: string): void {
    for (const { key, places } of this.groups()) {
      const index: LogIndex = places.firstMissing()
      if (index === 0) continue
      throw new StorageCorruption({
        path: oldestPath,
        offset: 0,
        expected: `entry ${index} of range ${key.range}, replica ${key.replica} in it or after it`,
        actual: "no record of that entry",
      })
    }
  }
}

function describe(group: ReplayedGroup): string {
  const { baseIndex, baseTerm, lastIndex } = group.places
  return text({ ...group.hardState, baseIndex, baseTerm, lastIndex })
}

function text(stated: GroupCheckpoint): string {
  const { term, vote, commit, baseIndex, baseTerm, lastIndex } = stated
  return `term ${term} vote ${vote} commit ${commit} log (${baseIndex}@${baseTerm}, ${lastIndex}]`
}
