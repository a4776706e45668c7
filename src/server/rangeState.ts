import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { LogIndex, RangeDescriptor, ReplicaId, Term, Version } from "../types.ts"
import { readDescriptor, writeDescriptor } from "./descriptorLayout.ts"
import {
  type Absorbed,
  type MergeState,
  readAbsorbed,
  readMergeState,
  writeAbsorbed,
  writeMergeState,
} from "./merge/state.ts"

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
  /** The merge that the range takes part in. */
  readonly merge: MergeState | undefined
  /** Ranges that it has taken in, and that some node may still hold (merge/merges.ts). */
  readonly absorbed: ReadonlyArray<Absorbed>
}

/** Stored and sent: do not change; a new layout gets a new number. Format 2 ended before the merge. */
const stateFormat = 3

/** Of a range that has never merged. */
export const noMerges: Pick<RangeState, "merge" | "absorbed"> = { merge: undefined, absorbed: [] }

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
  writeMergeState(writer, state.merge)
  writeAbsorbed(writer, state.absorbed)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeRangeState(bytes: Uint8Array): RangeState {
  const reader = new ByteReader(bytes)
  const format = reader.u8()
  if (format !== stateFormat && format !== stateFormat - 1)
    throw new MalformedBytes(`range state of format ${format}, not ${stateFormat}`)
  const replica = reader.u64()
  const appliedIndex = reader.u64()
  const appliedTerm = reader.u64()
  const rangeTime = reader.u64()
  const chain = reader.u32()
  const lastReplica = reader.u64()
  const descriptor = readDescriptor(reader)
  const merges =
    format < stateFormat
      ? noMerges
      : { merge: readMergeState(reader), absorbed: readAbsorbed(reader) }
  reader.end()
  const applied = { appliedIndex, appliedTerm, rangeTime, chain }
  return { descriptor, replica, ...applied, lastReplica, ...merges }
}
