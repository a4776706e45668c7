import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { entryKinds } from "../raft/message.ts"
import type { LogIndex, RangeId, ReplicaId, Term } from "../types.ts"

/** One position of a log: the last of it, or the one that shows two logs to be the same up to there. */
export interface LogMark {
  readonly index: LogIndex
  readonly term: Term
}

/** A replica that lost records in damage asks another one of its group, leader or not. */
export interface EntriesWanted {
  readonly _tag: "EntriesWanted"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  /** Names the question; answers to an earlier one, also of an earlier life, are void. */
  readonly sequence: number
  /** The entries wanted; `first` 0 = none, it asks only where the other stands. */
  readonly first: LogIndex
  readonly last: LogIndex
  /** Only who has this very entry has the ones wanted. */
  readonly anchor: LogMark
  /** Where the asking replica's log breaks off: what it has above, it cannot use. */
  readonly readableTo: LogIndex
}

export interface FoundEntry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: number
  readonly data: Uint8Array
}

export interface EntriesFound {
  readonly _tag: "EntriesFound"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  readonly sequence: number
  /** False: the answering replica does not know itself what it promised. */
  readonly isSure: boolean
  readonly term: Term
  /** The furthest log that it holds, or may have acknowledged. */
  readonly last: LogMark
  /** Term of the entry before the first found; 0 = unknown. */
  readonly previousTerm: Term
  /** From the first one wanted on; none when it has them not. */
  readonly entries: ReadonlyArray<FoundEntry>
}

export function writeEntriesWanted(writer: ByteWriter, message: EntriesWanted): void {
  writeEnvelope(writer, message)
  writer.u64(message.first)
  writer.u64(message.last)
  writeMark(writer, message.anchor)
  writer.u64(message.readableTo)
}

export function readEntriesWanted(reader: ByteReader): EntriesWanted {
  const envelope = readEnvelope(reader)
  const first = reader.u64()
  const last = reader.u64()
  const anchor = readMark(reader)
  const readableTo = reader.u64()
  reader.end()
  if (last < first || anchor.index < last) throw new MalformedBytes("entries out of order")
  return { _tag: "EntriesWanted", ...envelope, first, last, anchor, readableTo }
}

export function writeEntriesFound(writer: ByteWriter, message: EntriesFound): void {
  writeEnvelope(writer, message)
  writer.u8(message.isSure ? 1 : 0)
  writer.u64(message.term)
  writeMark(writer, message.last)
  writer.u64(message.previousTerm)
  writer.u64(message.entries[0]?.index ?? 0)
  writer.u32(message.entries.length)
  for (const { term, kind, data } of message.entries) {
    writer.u64(term)
    writer.u8(kind)
    writer.u32(crc32(data))
    writer.u32(data.length)
    writer.raw(data)
  }
}

/** Data of entries are copies. Throws `MalformedBytes`. */
export function readEntriesFound(reader: ByteReader): EntriesFound {
  const envelope = readEnvelope(reader)
  const flag = reader.u8()
  if (flag > 1) throw new MalformedBytes(`flag ${flag}`)
  const term = reader.u64()
  const last = readMark(reader)
  const previousTerm = reader.u64()
  const first = reader.u64()
  const count = reader.u32()
  const entries: Array<FoundEntry> = []
  for (let i = 0; i < count; i++) {
    const entryTerm = reader.u64()
    const kind = reader.u8()
    if (kind > entryKinds.merge) throw new MalformedBytes(`no entry has kind ${kind}`)
    const checksum = reader.u32()
    const data = reader.copy(reader.u32())
    if (crc32(data) !== checksum) throw new MalformedBytes("an entry's checksum")
    entries.push({ index: first + i, term: entryTerm, kind, data })
  }
  reader.end()
  const isSure = flag === 1
  return { _tag: "EntriesFound", ...envelope, isSure, term, last, previousTerm, entries }
}

function writeEnvelope(writer: ByteWriter, message: EntriesWanted | EntriesFound): void {
  writer.u64(message.range)
  writer.u64(message.from)
  writer.u64(message.to)
  writer.u64(message.sequence)
}

function readEnvelope(reader: ByteReader) {
  return { range: reader.u64(), from: reader.u64(), to: reader.u64(), sequence: reader.u64() }
}

function writeMark(writer: ByteWriter, mark: LogMark): void {
  writer.u64(mark.index)
  writer.u64(mark.term)
}

function readMark(reader: ByteReader): LogMark {
  return { index: reader.u64(), term: reader.u64() }
}
