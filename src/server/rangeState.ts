import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeDescriptor, ReplicaId, ReplicaPlace, Term, Version } from "../types.ts"

/** What the state key of a range says: as old as the data it lies beside, because both are sealed in one memtable. */
export interface RangeState {
  readonly descriptor: RangeDescriptor
  readonly replica: ReplicaId
  readonly appliedIndex: LogIndex
  readonly appliedTerm: Term
  readonly rangeTime: Version
  /** Running checksum over the writes of every entry applied; equal at equal index on all replicas. */
  readonly chain: number
}

/** Stored and sent: do not change; a new layout gets a new number. */
const stateFormat = 1
const noNamespace = 0xffffffff

export function encodeRangeState(state: RangeState): Uint8Array {
  const { descriptor } = state
  const writer = new ByteWriter(128)
  writer.u8(stateFormat)
  writer.u64(descriptor.id)
  writer.u64(state.replica)
  writer.u64(state.appliedIndex)
  writer.u64(state.appliedTerm)
  writer.u64(state.rangeTime)
  writer.u32(state.chain)
  writer.u32(descriptor.namespace ?? noNamespace)
  writer.u32(descriptor.boundsVersion)
  writer.u32(descriptor.membersVersion)
  writer.bytes32(descriptor.start)
  writer.bytes32(descriptor.end)
  writer.u8(descriptor.replicas.length)
  for (const place of descriptor.replicas) {
    writer.u64(place.node)
    writer.u64(place.replica)
  }
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeRangeState(bytes: Uint8Array): RangeState {
  const reader = new ByteReader(bytes)
  const format = reader.u8()
  if (format !== stateFormat)
    throw new MalformedBytes(`range state of format ${format}, not ${stateFormat}`)
  const id = reader.u64()
  const replica = reader.u64()
  const appliedIndex = reader.u64()
  const appliedTerm = reader.u64()
  const rangeTime = reader.u64()
  const chain = reader.u32()
  const namespace = reader.u32()
  const boundsVersion = reader.u32()
  const membersVersion = reader.u32()
  const start = reader.bytes32().slice()
  const end = reader.bytes32().slice()
  const replicas: Array<ReplicaPlace> = []
  const count = reader.u8()
  for (let i = 0; i < count; i++) replicas.push({ node: reader.u64(), replica: reader.u64() })
  reader.end()
  return {
    descriptor: {
      id,
      namespace: namespace === noNamespace ? undefined : namespace,
      start,
      end,
      boundsVersion,
      membersVersion,
      replicas,
    },
    replica,
    appliedIndex,
    appliedTerm,
    rangeTime,
    chain,
  }
}
