import type { ByteReader } from "../lib/byteReader.ts"
import { MalformedBytes, ByteReader as Reader } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { readMessage, writeMessage } from "../raft/layout.ts"
import type { Message } from "../raft/message.ts"
import type { RangeId, ReplicaId, Term } from "../types.ts"

/** A message of one group's consensus. */
export interface RaftPeerMessage {
  readonly _tag: "Raft"
  readonly range: RangeId
  readonly message: Message
}

/** A piece of a range's snapshot. The next one is sent when this one is acknowledged. */
export interface SnapshotFrame {
  readonly _tag: "SnapshotFrame"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  /** The sending leader's term. */
  readonly term: Term
  /** Names the stream among those of the sender. */
  readonly snapshot: number
  /** From 0. Frame 0 holds the range state; the others hold pairs (server/spill.ts). */
  readonly sequence: number
  readonly last: boolean
  readonly bytes: Uint8Array
}

export interface SnapshotFrameAck {
  readonly _tag: "SnapshotFrameAck"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  readonly term: Term
  readonly snapshot: number
  readonly sequence: number
  /** False: the receiver does not want this snapshot (any more). */
  readonly accepted: boolean
}

export type PeerMessage = RaftPeerMessage | SnapshotFrame | SnapshotFrameAck

/** First byte of an encoded message. Sent: do not change. */
const kinds = { raft: 1, frame: 2, ack: 3 } as const

function writeEnvelope(writer: ByteWriter, m: SnapshotFrame | SnapshotFrameAck): void {
  writer.u64(m.range)
  writer.u64(m.from)
  writer.u64(m.to)
  writer.u64(m.term)
  writer.u64(m.snapshot)
  writer.u32(m.sequence)
}

export function encodePeerMessage(writer: ByteWriter, message: PeerMessage): void {
  switch (message._tag) {
    case "Raft":
      writer.u8(kinds.raft)
      writer.u64(message.range)
      writeMessage(writer, message.message)
      return
    case "SnapshotFrame":
      writer.u8(kinds.frame)
      writeEnvelope(writer, message)
      writer.u8(message.last ? 1 : 0)
      writer.u32(crc32(message.bytes))
      writer.raw(message.bytes)
      return
    case "SnapshotFrameAck":
      writer.u8(kinds.ack)
      writeEnvelope(writer, message)
      writer.u8(message.accepted ? 1 : 0)
      return
    default:
      return message satisfies never
  }
}

function readEnvelope(reader: ByteReader) {
  return {
    range: reader.u64() as RangeId,
    from: reader.u64() as ReplicaId,
    to: reader.u64() as ReplicaId,
    term: reader.u64() as Term,
    snapshot: reader.u64(),
    sequence: reader.u32(),
  }
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8()
  if (flag > 1) throw new MalformedBytes(`flag ${flag}`)
  return flag === 1
}

/** Byte strings in the message are views of `bytes`. Throws `MalformedBytes`. */
export function decodePeerMessage(bytes: Uint8Array): PeerMessage {
  const reader = new Reader(bytes)
  const kind = reader.u8()
  switch (kind) {
    case kinds.raft: {
      const range = reader.u64()
      const message = readMessage(reader)
      reader.end()
      return { _tag: "Raft", range, message }
    }
    case kinds.frame: {
      const envelope = readEnvelope(reader)
      const last = readFlag(reader)
      const checksum = reader.u32()
      const rest = reader.rest()
      if (crc32(rest) !== checksum) throw new MalformedBytes("a snapshot frame's checksum")
      return { _tag: "SnapshotFrame", ...envelope, last, bytes: rest }
    }
    case kinds.ack: {
      const envelope = readEnvelope(reader)
      const accepted = readFlag(reader)
      reader.end()
      return { _tag: "SnapshotFrameAck", ...envelope, accepted }
    }
    default:
      throw new MalformedBytes(`a peer message of kind ${kind}`)
  }
}
