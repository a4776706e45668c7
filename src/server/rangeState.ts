import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeDescriptor, ReplicaId, ReplicaPlace, Term, Version } from "../types.ts"
import { roleCode, roleOf } from "../wire/replicaRoles.ts"

/** What the state key of a range says: as old as the data it lies beside, because both are sealed in one memtable. */
export interface RangeState {
  readonly descriptor: RangeDescriptor
  readonly replica: ReplicaId
  readonly appliedIndex: LogIndex
  readonly appliedTerm: Term
  readonly rangeTime: Version
  /** Running checksum over the writes of every entry applied; equal at equal index on all replicas. */
  readonly chain: number
  /**
   * The largest replica id that the range has ever had. New ids are larger, so that a replica with an id up to this one that the descriptor does not list
   * is gone for ever.
   */
  readonly lastReplica: ReplicaId
}

/** Stored and sent: do not change; a new layout gets a new number. */
const stateFormat = 2
const noNamespace = 0xffffffff

export function encodeRangeState(state: RangeState): Uint8Array {
  const { descriptor } = state
  const writer = new ByteWriter(128)
  writer.u8(stateFormat)
  writer.u64(state.replica)
  writer.u64(state.appliedIndex)
  writer.u64(state.appliedTerm)
  writer.u64(state.rangeTime)
  writer.u32(state.chain)
  writer.u64(state.lastReplica)
  writeDescriptor(writer, descriptor)
  return writer.take()
}

/** Stored in state keys, sent in `Gone`: do not change. */
export function writeDescriptor(writer: ByteWriter, descriptor: RangeDescriptor): void {
  writer.u64(descriptor.id)
  writer.u32(descriptor.namespace ?? noNamespace)
  writer.u32(descriptor.boundsVersion)
  writer.u32(descriptor.membersVersion)
  writer.bytes32(descriptor.start)
  writer.bytes32(descriptor.end)
  writePlaces(writer, descriptor.replicas)
}

/** Throws `MalformedBytes`. */
export function readDescriptor(reader: ByteReader): RangeDescriptor {
  const id = reader.u64()
  const namespace = reader.u32()
  return {
    id,
    namespace: namespace === noNamespace ? undefined : namespace,
    boundsVersion: reader.u32(),
    membersVersion: reader.u32(),
    start: reader.bytes32().slice(),
    end: reader.bytes32().slice(),
    replicas: readPlaces(reader),
  }
}

/** Stored in log entries too: do not change. */
export function writePlaces(writer: ByteWriter, places: ReadonlyArray<ReplicaPlace>): void {
  writer.u8(places.length)
  for (const place of places) {
    writer.u64(place.node)
    writer.u64(place.replica)
    writer.u8(roleCode(place.role))
  }
}

/** Throws `MalformedBytes`. */
export function readPlaces(reader: ByteReader): ReadonlyArray<ReplicaPlace> {
  const places: Array<ReplicaPlace> = []
  const count = reader.u8()
  for (let i = 0; i < count; i++) {
    places.push({ node: reader.u64(), replica: reader.u64(), role: roleOf(reader.u8()) })
  }
  return places
}

/** Throws `MalformedBytes`. */
export function decodeRangeState(bytes: Uint8Array): RangeState {
  const reader = new ByteReader(bytes)
  const format = reader.u8()
  if (format !== stateFormat)
    throw new MalformedBytes(`range state of format ${format}, not ${stateFormat}`)
  const replica = reader.u64()
  const appliedIndex = reader.u64()
  const appliedTerm = reader.u64()
  const rangeTime = reader.u64()
  const chain = reader.u32()
  const lastReplica = reader.u64()
  const descriptor = readDescriptor(reader)
  reader.end()
  return { descriptor, replica, appliedIndex, appliedTerm, rangeTime, chain, lastReplica }
}
