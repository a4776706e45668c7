import { ByteReader } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { type Membership, readMembership, writeMembership } from "../raft/membership.ts"
import type {
  BoundsVersion,
  MembersVersion,
  Position,
  RangeId,
  ReplicaPlace,
  Version,
} from "../types.ts"
import { readPlaces, writePlaces } from "./descriptorLayout.ts"

/**
 * What entries hold that change a range itself, or only its time. All begin with a base, as entries of commands do, and count as one command. Stored and
 * sent: do not change. Numbers are little-endian.
 *
 *     members  u64 base ‖ membership (raft/membership.ts) ‖ u32 membersVersion ‖ places (descriptorLayout.ts)
 *     split    u64 base ‖ u32 boundsVersion ‖ u32 membersVersion ‖ u64 child ‖ u32 bytes ‖ position
 *     tick     u64 base
 *     clear    u64 base ‖ u32 boundsVersion
 *     merge    a step of a merge (merge/entries.ts)
 *
 * The versions of a split and a clear are those that their proposer saw: with others at apply they do nothing.
 */
export interface MembersChange {
  /** The new one. */
  readonly membersVersion: MembersVersion
  readonly replicas: ReadonlyArray<ReplicaPlace>
}

export interface SplitOrder {
  readonly boundsVersion: BoundsVersion
  readonly membersVersion: MembersVersion
  /** Range id of the right half. */
  readonly child: RangeId
  /** The first position of the right half. */
  readonly at: Position
}

export interface ClearOrder {
  readonly boundsVersion: BoundsVersion
}

const baseBytes = 8

export function encodeMembersChange(
  base: Version,
  membership: Membership,
  change: MembersChange,
): Uint8Array {
  const writer = new ByteWriter(128)
  writer.u64(base)
  writeMembership(writer, membership)
  writer.u32(change.membersVersion)
  writePlaces(writer, change.replicas)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeMembersChange(data: Uint8Array): MembersChange {
  const reader = new ByteReader(data, baseBytes)
  readMembership(reader)
  const change = { membersVersion: reader.u32(), replicas: readPlaces(reader) }
  reader.end()
  return change
}

export function encodeSplit(base: Version, order: SplitOrder): Uint8Array {
  const writer = new ByteWriter(64)
  writer.u64(base)
  writer.u32(order.boundsVersion)
  writer.u32(order.membersVersion)
  writer.u64(order.child)
  writer.bytes32(order.at)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeSplit(data: Uint8Array): SplitOrder {
  const reader = new ByteReader(data, baseBytes)
  const boundsVersion = reader.u32()
  const membersVersion = reader.u32()
  const child = reader.u64()
  const at = reader.bytes32().slice()
  reader.end()
  return { boundsVersion, membersVersion, child, at }
}

export function encodeTick(base: Version): Uint8Array {
  const writer = new ByteWriter(baseBytes)
  writer.u64(base)
  return writer.take()
}

/** Throws `MalformedBytes` unless the entry is a base and nothing else. */
export function checkTick(data: Uint8Array): void {
  const reader = new ByteReader(data)
  reader.u64()
  reader.end()
}

export function encodeClear(base: Version, order: ClearOrder): Uint8Array {
  const writer = new ByteWriter(baseBytes + 4)
  writer.u64(base)
  writer.u32(order.boundsVersion)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeClear(data: Uint8Array): ClearOrder {
  const reader = new ByteReader(data, baseBytes)
  const boundsVersion = reader.u32()
  reader.end()
  return { boundsVersion }
}
