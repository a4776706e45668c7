import { ByteReader } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, ReplicaId, Term } from "../types.ts"
import { type RecordView, recordHeaderBytes } from "./format.ts"
import type { GroupKey, LoggedHardState } from "./group.ts"

/** The end of a log: its last entry. */
export interface LogMark {
  readonly index: LogIndex
  readonly term: Term
}

/** Whether a log that ends in `left` holds all that one that ends in `right` may have helped to commit. (Raft paper 5.4.1) */
export function reaches(left: LogMark, right: LogMark): boolean {
  return left.term > right.term || (left.term === right.term && left.index >= right.index)
}

/**
 * Where a group stands: what a checkpoint record says of it before a segment, and a standing record after a batch. Both say it all, so that each
 * makes up for whatever was lost before it but entries.
 */
export interface Standing extends LoggedHardState {
  readonly baseIndex: LogIndex
  readonly baseTerm: Term
  readonly lastIndex: LogIndex
  readonly lastTerm: Term
  /** Records of the group may have been lost, and nothing after them says what they said. */
  readonly isUnsure: boolean
  /** The replica may have acknowledged a log that ended here, and does not hold it (any more). */
  readonly floor: LogMark | undefined
  readonly isDestroyed: boolean
}

/** Bits of the record's kind. Stored: do not change. */
const flags = { unsure: 1, floor: 2, destroyed: 4 } as const
/** Data: vote u64, commit u64, base index u64, term of the last entry u64; with a floor its term u64 and index u64. */
const dataBytes = 32
const floorBytes = 16

export function standingRecordBytes(floor: LogMark | undefined): number {
  return recordHeaderBytes + dataBytes + (floor === undefined ? 0 : floorBytes)
}

/** Lengths that a standing record can have. */
export const standingLengths: ReadonlyArray<number> = [
  recordHeaderBytes + dataBytes,
  recordHeaderBytes + dataBytes + floorBytes,
]

export function standingFields(type: number, key: GroupKey, standing: Standing) {
  const kind =
    (standing.isUnsure ? flags.unsure : 0) |
    (standing.floor === undefined ? 0 : flags.floor) |
    (standing.isDestroyed ? flags.destroyed : 0)
  const { range, replica } = key
  const { lastIndex: index, term, baseTerm: previousTerm } = standing
  return { type, kind, range, replica, index, term, previousTerm }
}

export function standingData(standing: Standing): Uint8Array {
  const writer = new ByteWriter(dataBytes + floorBytes)
  writer.u64(standing.vote as ReplicaId)
  writer.u64(standing.commit)
  writer.u64(standing.baseIndex)
  writer.u64(standing.lastTerm)
  if (standing.floor !== undefined) {
    writer.u64(standing.floor.term)
    writer.u64(standing.floor.index)
  }
  return writer.bytes()
}

/** `undefined` when the data has not the length that the flags say. */
export function readStanding(record: RecordView): Standing | undefined {
  const hasFloor = (record.kind & flags.floor) !== 0
  if (record.data.length !== dataBytes + (hasFloor ? floorBytes : 0)) return undefined
  const reader = new ByteReader(record.data)
  const vote = reader.u64()
  const commit = reader.u64()
  const baseIndex = reader.u64()
  const lastTerm = reader.u64()
  const floorTerm = hasFloor ? reader.u64() : 0
  const floorIndex = hasFloor ? reader.u64() : 0
  return {
    term: record.term,
    vote,
    commit,
    baseIndex,
    baseTerm: record.previousTerm,
    lastIndex: record.index,
    lastTerm,
    isUnsure: (record.kind & flags.unsure) !== 0,
    floor: hasFloor ? { term: floorTerm, index: floorIndex } : undefined,
    isDestroyed: (record.kind & flags.destroyed) !== 0,
  }
}

export function isSameStanding(left: Standing, right: Standing): boolean {
  return (
    left.term === right.term &&
    left.vote === right.vote &&
    left.commit === right.commit &&
    left.baseIndex === right.baseIndex &&
    left.baseTerm === right.baseTerm &&
    left.lastIndex === right.lastIndex &&
    left.lastTerm === right.lastTerm &&
    left.isUnsure === right.isUnsure &&
    left.floor?.index === right.floor?.index &&
    left.floor?.term === right.floor?.term
  )
}

export function standingText(standing: Standing): string {
  const { term, vote, commit, baseIndex, baseTerm, lastIndex, lastTerm, floor } = standing
  const doubt = standing.isUnsure ? ", unsure" : ""
  const owes = floor === undefined ? "" : `, once to ${floor.index}@${floor.term}`
  const log = `log (${baseIndex}@${baseTerm}, ${lastIndex}@${lastTerm}]`
  return `term ${term} vote ${vote} commit ${commit} ${log}${owes}${doubt}`
}
