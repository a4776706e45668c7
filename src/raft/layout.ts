import { assert } from "../lib/assert.ts"
import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, Term } from "../types.ts"
import { membershipInEntry } from "./membership.ts"
import {
  type AppendRequest,
  type Entry,
  type EntryKind,
  entryKinds,
  type Message,
} from "./message.ts"

/**
 * Raft messages as bytes. All integers are little-endian. Do not change: sent between versions.
 *
 *     message  := tag u8 | from u32 | to u32 | term u64 | body
 *     1 VoteRequest        preVote u8 | transfer u8 | lastIndex u64 | lastTerm u64
 *     2 VoteResponse       preVote u8 | granted u8
 *     3 AppendRequest      previousIndex u64 | previousTerm u64 | commit u64 | count u32 |
 *                          entry * count
 *     4 AppendResponse     accepted u8 | index u64 | hintIndex u64 | hintTerm u64
 *     5 Heartbeat          commit u64 | round u64
 *     6 HeartbeatResponse  round u64 | full u8
 *     7 SnapshotOffer      index u64 | indexTerm u64
 *     8 TimeoutNow
 *     9 ReadIndexRequest   session u32 | context u64
 *    10 ReadIndexResponse  session u32 | context u64 | index u64
 *     entry    := term u64 | kind u8 | length u32 | data         (its index follows from its place)
 *
 * u64 holds at most 2^53 - 1. Nothing is believed: counts and lengths are checked against the bytes
 * that are there before anything is made of them.
 */
const tags = {
  VoteRequest: 1,
  VoteResponse: 2,
  AppendRequest: 3,
  AppendResponse: 4,
  Heartbeat: 5,
  HeartbeatResponse: 6,
  SnapshotOffer: 7,
  TimeoutNow: 8,
  ReadIndexRequest: 9,
  ReadIndexResponse: 10,
} as const satisfies Record<Message["_tag"], number>

const entryHeaderBytes = 13

export function writeMessage(writer: ByteWriter, message: Message): void {
  assert(message.from < 2 ** 32 && message.to < 2 ** 32, "replica ids have 32 bits")
  writer.u8(tags[message._tag])
  writer.u32(message.from)
  writer.u32(message.to)
  writer.u64(message.term)
  switch (message._tag) {
    case "VoteRequest":
      writeFlag(writer, message.preVote)
      writeFlag(writer, message.transfer)
      writer.u64(message.lastIndex)
      writer.u64(message.lastTerm)
      return
    case "VoteResponse":
      writeFlag(writer, message.preVote)
      writeFlag(writer, message.granted)
      return
    case "AppendRequest":
      writeAppend(writer, message)
      return
    case "AppendResponse":
      writeFlag(writer, message.accepted)
      writer.u64(message.index)
      writer.u64(message.hintIndex)
      writer.u64(message.hintTerm)
      return
    case "Heartbeat":
      writer.u64(message.commit)
      writer.u64(message.round)
      return
    case "HeartbeatResponse":
      writer.u64(message.round)
      writeFlag(writer, message.full)
      return
    case "SnapshotOffer":
      writer.u64(message.index)
      writer.u64(message.indexTerm)
      return
    case "TimeoutNow":
      return
    case "ReadIndexRequest":
      writer.u32(message.session)
      writer.u64(message.context)
      return
    case "ReadIndexResponse":
      writer.u32(message.session)
      writer.u64(message.context)
      writer.u64(message.index)
      return
    default:
      message satisfies never
  }
}

function writeFlag(writer: ByteWriter, flag: boolean): void {
  writer.u8(flag ? 1 : 0)
}

function writeAppend(writer: ByteWriter, message: AppendRequest): void {
  writer.u64(message.previousIndex)
  writer.u64(message.previousTerm)
  writer.u64(message.commit)
  writer.u32(message.entries.length)
  for (const entry of message.entries) {
    writer.u64(entry.term)
    writer.u8(entry.kind)
    writer.bytes32(entry.data)
  }
}

/**
 * The message at the reader. Throws `MalformedBytes` for what no replica would send. Data of
 * entries is copied out of the reader's buffer, once for all of them.
 */
export function readMessage(reader: ByteReader): Message {
  const tag = reader.u8()
  const from = reader.u32()
  const to = reader.u32()
  const term = reader.u64()
  switch (tag) {
    case tags.VoteRequest: {
      const preVote = readFlag(reader)
      const transfer = readFlag(reader)
      const lastIndex = reader.u64()
      const lastTerm = reader.u64()
      return { _tag: "VoteRequest", from, to, term, preVote, transfer, lastIndex, lastTerm }
    }
    case tags.VoteResponse: {
      const preVote = readFlag(reader)
      return { _tag: "VoteResponse", from, to, term, preVote, granted: readFlag(reader) }
    }
    case tags.AppendRequest: {
      const previousIndex = reader.u64()
      const previousTerm = reader.u64()
      const commit = reader.u64()
      const entries = readEntries(reader, { previousIndex, previousTerm, term })
      return { _tag: "AppendRequest", from, to, term, previousIndex, previousTerm, entries, commit }
    }
    case tags.AppendResponse: {
      const accepted = readFlag(reader)
      const index = reader.u64()
      const hintIndex = reader.u64()
      const hintTerm = reader.u64()
      return { _tag: "AppendResponse", from, to, term, accepted, index, hintIndex, hintTerm }
    }
    case tags.Heartbeat: {
      const commit = reader.u64()
      return { _tag: "Heartbeat", from, to, term, commit, round: reader.u64() }
    }
    case tags.HeartbeatResponse: {
      const round = reader.u64()
      return { _tag: "HeartbeatResponse", from, to, term, round, full: readFlag(reader) }
    }
    case tags.SnapshotOffer: {
      const index = reader.u64()
      return { _tag: "SnapshotOffer", from, to, term, index, indexTerm: reader.u64() }
    }
    case tags.TimeoutNow:
      return { _tag: "TimeoutNow", from, to, term }
    case tags.ReadIndexRequest: {
      const session = reader.u32()
      return { _tag: "ReadIndexRequest", from, to, term, session, context: reader.u64() }
    }
    case tags.ReadIndexResponse: {
      const session = reader.u32()
      const context = reader.u64()
      return { _tag: "ReadIndexResponse", from, to, term, session, context, index: reader.u64() }
    }
    default:
      throw new MalformedBytes(`no raft message has tag ${tag}`)
  }
}

function readFlag(reader: ByteReader): boolean {
  const byte = reader.u8()
  if (byte > 1) throw new MalformedBytes(`${byte} is not a flag`)
  return byte === 1
}

function readEntries(
  reader: ByteReader,
  place: { readonly previousIndex: LogIndex; readonly previousTerm: Term; readonly term: Term },
): ReadonlyArray<Entry> {
  const count = reader.u32()
  if (count > reader.remaining / entryHeaderBytes) {
    throw new MalformedBytes(`${count} entries in ${reader.remaining} bytes`)
  }
  if (!Number.isSafeInteger(place.previousIndex + count)) throw new MalformedBytes("no such index")
  const entries: Array<Entry> = []
  const start = reader.offset
  let termBefore = place.previousTerm
  for (let i = 1; i <= count; i++) {
    const term = reader.u64()
    if (term < termBefore || term > place.term) throw new MalformedBytes(`entry of term ${term}`)
    termBefore = term
    const kind = readKind(reader)
    const data = reader.bytes32()
    if (kind === entryKinds.members) membershipInEntry(data)
    entries.push({ index: place.previousIndex + i, term, kind, data })
  }
  return ownCopies(entries, reader.offset - start)
}

/** The same entries with data in one buffer of their own; they outlive the frame they came in. */
function ownCopies(entries: ReadonlyArray<Entry>, sizeBytes: number): ReadonlyArray<Entry> {
  const buffer = new Uint8Array(sizeBytes - entries.length * entryHeaderBytes)
  let end = 0
  return entries.map((entry) => {
    const start = end
    end += entry.data.length
    buffer.set(entry.data, start)
    return { ...entry, data: buffer.subarray(start, end) }
  })
}

function readKind(reader: ByteReader): EntryKind {
  const kind = reader.u8()
  if (kind > entryKinds.merge) throw new MalformedBytes(`no entry has kind ${kind}`)
  return kind as EntryKind
}
