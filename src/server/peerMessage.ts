import type { ByteReader } from "../lib/byteReader.ts"
import { MalformedBytes, ByteReader as Reader } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { readMessage, writeMessage } from "../raft/layout.ts"
import type { Message } from "../raft/message.ts"
import { readSwim, type SwimMessage, writeSwim } from "../topology/swim/messages.ts"
import type { RangeDescriptor, RangeId, ReplicaId, Term, WallMs } from "../types.ts"
import {
  type Beat,
  type BeatEcho,
  type Rouse,
  readBeat,
  readBeatEcho,
  readRouse,
  writeBeat,
  writeBeatEcho,
  writeRouse,
} from "./beatMessages.ts"
import { type ChainMessage, readChainMessage, writeChainMessage } from "./chainMessage.ts"
import { readDescriptor, writeDescriptor } from "./descriptorLayout.ts"
import {
  type EntriesFound,
  type EntriesWanted,
  readEntriesFound,
  readEntriesWanted,
  writeEntriesFound,
  writeEntriesWanted,
} from "./lostEntries.ts"
import { type MergeMessage, readMergeMessage, writeMergeMessage } from "./merge/messages.ts"
import {
  readTickRefused,
  readTickWanted,
  type TickRefused,
  type TickWanted,
  writeTickRefused,
  writeTickWanted,
} from "./tickMessages.ts"
import { type AbsorbedBy, readAbsorbedBy, writeAbsorbedBy } from "./tombstone.ts"

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
  /** The frame that the receiver lacks: from there the sender goes on, also after a break of the connection. */
  readonly next: number
}

/**
 * The replica that it is sent to was removed: `descriptor` is committed, newer than the replica's own, and lists it no more. It destroys itself, and never
 * comes back under its id. Where the descriptor does list it, it is only told who the members were when the sender's replica was removed.
 */
export interface Gone {
  readonly _tag: "Gone"
  readonly range: RangeId
  readonly replica: ReplicaId
  readonly descriptor: RangeDescriptor
  /** Ids up to this one that the descriptor does not list are gone for ever (rangeState.ts). */
  readonly lastReplica: ReplicaId
  /** The whole range is gone (tombstone.ts). */
  readonly absorbedBy: AbsorbedBy | undefined
}

/** What a node's wall clock reads as it sends this: for the guard of leaders against clocks that run ahead (clockGuard.ts). Of no range in particular. */
export interface ClockMessage {
  readonly _tag: "Clock"
  readonly range: 0
  readonly wallMs: WallMs
}

/** What the eventual half of a node says in one turn (dynamo/node/opCodes.ts). Of no range. */
export interface EventualMessage {
  readonly _tag: "Eventual"
  readonly range: 0
  readonly bytes: Uint8Array
}

export type PeerMessage =
  | RaftPeerMessage
  | SnapshotFrame
  | SnapshotFrameAck
  | Gone
  | ChainMessage
  | ClockMessage
  | EntriesWanted
  | EntriesFound
  | Beat
  | BeatEcho
  | Rouse
  | TickWanted
  | TickRefused
  | EventualMessage
  | MergeMessage
  | SwimMessage

/** First byte of an encoded message. Sent: do not change. */
const kinds = {
  raft: 1,
  frame: 2,
  ack: 3,
  gone: 4,
  chain: 5,
  clock: 6,
  wanted: 10,
  found: 11,
  beat: 12,
  beatEcho: 13,
  rouse: 14,
  tickWanted: 15,
  tickRefused: 16,
  merge: 17,
  swim: 18,
  eventual: 20,
} as const

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
      writer.u32(message.next)
      return
    case "Gone":
      writer.u8(kinds.gone)
      writer.u64(message.range)
      writer.u64(message.replica)
      writer.u64(message.lastReplica)
      writeDescriptor(writer, message.descriptor)
      writeAbsorbedBy(writer, message.absorbedBy)
      return
    case "Chain":
      writer.u8(kinds.chain)
      return writeChainMessage(writer, message)
    case "Clock":
      writer.u8(kinds.clock)
      writer.u64(Math.max(0, Math.round(message.wallMs)))
      return
    case "Swim":
      writer.u8(kinds.swim)
      return writeSwim(writer, message)
    case "Merge":
      writer.u8(kinds.merge)
      return writeMergeMessage(writer, message)
    case "EntriesWanted":
      writer.u8(kinds.wanted)
      return writeEntriesWanted(writer, message)
    case "EntriesFound":
      writer.u8(kinds.found)
      return writeEntriesFound(writer, message)
    case "Beat":
      writer.u8(kinds.beat)
      return writeBeat(writer, message)
    case "BeatEcho":
      writer.u8(kinds.beatEcho)
      return writeBeatEcho(writer, message)
    case "Rouse":
      writer.u8(kinds.rouse)
      return writeRouse(writer, message)
    case "TickWanted":
      writer.u8(kinds.tickWanted)
      return writeTickWanted(writer, message)
    case "TickRefused":
      writer.u8(kinds.tickRefused)
      return writeTickRefused(writer, message)
    case "Eventual":
      writer.u8(kinds.eventual)
      writer.raw(message.bytes)
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
      const next = reader.u32()
      reader.end()
      return { _tag: "SnapshotFrameAck", ...envelope, accepted, next }
    }
    case kinds.gone: {
      const range = reader.u64()
      const replica = reader.u64()
      const lastReplica = reader.u64()
      const descriptor = readDescriptor(reader)
      const absorbedBy = readAbsorbedBy(reader)
      reader.end()
      if (descriptor.id !== range) throw new MalformedBytes("a descriptor of another range")
      return { _tag: "Gone", range, replica, lastReplica, descriptor, absorbedBy }
    }
    case kinds.chain:
      return readChainMessage(reader)
    case kinds.clock: {
      const wallMs = reader.u64()
      reader.end()
      return { _tag: "Clock", range: 0, wallMs }
    }
    case kinds.wanted:
      return readEntriesWanted(reader)
    case kinds.found:
      return readEntriesFound(reader)
    case kinds.beat:
      return readBeat(reader)
    case kinds.beatEcho:
      return readBeatEcho(reader)
    case kinds.rouse:
      return readRouse(reader)
    case kinds.tickWanted:
      return readTickWanted(reader)
    case kinds.tickRefused:
      return readTickRefused(reader)
    case kinds.merge:
      return readMergeMessage(reader)
    case kinds.swim:
      return readSwim(reader)
    case kinds.eventual:
      return { _tag: "Eventual", range: 0, bytes: reader.rest() }
    default:
      throw new MalformedBytes(`a peer message of kind ${kind}`)
  }
}
