import type { ByteReader } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { RangeId, ReplicaId, Version } from "../types.ts"

/** Reads of a follower have met an expiry that its clock has passed and range time has not: the leader is to say whether it has come. */
export interface TickWanted {
  readonly _tag: "TickWanted"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  /** Drawn by the asking node once in its life. */
  readonly session: number
  readonly question: number
  readonly expiry: Version
}

/** It has not, by the leader's clock. Where it has, the answer is an entry in the log. */
export interface TickRefused {
  readonly _tag: "TickRefused"
  readonly range: RangeId
  readonly from: ReplicaId
  readonly to: ReplicaId
  readonly session: number
  readonly question: number
  /** What the leader's clock read, below the expiry that was asked about. */
  readonly clock: Version
}

function writeEnvelope(writer: ByteWriter, message: TickWanted | TickRefused): void {
  writer.u64(message.range)
  writer.u64(message.from)
  writer.u64(message.to)
  writer.u64(message.session)
  writer.u64(message.question)
}

function readEnvelope(reader: ByteReader) {
  return {
    range: reader.u64() as RangeId,
    from: reader.u64() as ReplicaId,
    to: reader.u64() as ReplicaId,
    session: reader.u64(),
    question: reader.u64(),
  }
}

export function writeTickWanted(writer: ByteWriter, message: TickWanted): void {
  writeEnvelope(writer, message)
  writer.u64(message.expiry)
}

/** Throws `MalformedBytes`. */
export function readTickWanted(reader: ByteReader): TickWanted {
  const message = { _tag: "TickWanted" as const, ...readEnvelope(reader), expiry: reader.u64() }
  reader.end()
  return message
}

export function writeTickRefused(writer: ByteWriter, message: TickRefused): void {
  writeEnvelope(writer, message)
  writer.u64(message.clock)
}

/** Throws `MalformedBytes`. */
export function readTickRefused(reader: ByteReader): TickRefused {
  const message = { _tag: "TickRefused" as const, ...readEnvelope(reader), clock: reader.u64() }
  reader.end()
  return message
}
