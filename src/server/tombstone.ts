import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { BoundsVersion, RangeDescriptor, RangeId, ReplicaId } from "../types.ts"
import { readDescriptor, writeDescriptor } from "./descriptorLayout.ts"
import { lists } from "./descriptors.ts"
import type { Absorbed } from "./merge/state.ts"

/**
 * What a node keeps of a range whose replica it removed. Replica ids of a range rise and are never used again: no replica up to this id is ever made here
 * again, whatever late message, old log or old directory names it. The one exception are members that the descriptor lists: of two ids that were given out,
 * the later may have come to nothing and the earlier may live.
 */
export interface Tombstone {
  readonly replica: ReplicaId
  /** As in a range's state: with the descriptor it tells who else is gone. */
  readonly lastReplica: ReplicaId
  /** The committed descriptor that lists the replica no more: the proof, for others who ask. */
  readonly descriptor: RangeDescriptor
  /** The whole range is gone: merged into another one. Then the descriptor lists nobody. */
  readonly absorbedBy: AbsorbedBy | undefined
}

/** A range, and the version of its bounds with which it took in another one. */
export interface AbsorbedBy {
  readonly range: RangeId
  readonly boundsVersion: BoundsVersion
  /** The largest replica id that it had had by then. */
  readonly lastReplica: ReplicaId
}

/** Of a range that was merged into another one: of all replicas that it ever had. */
export function tombstoneOf(absorbed: Absorbed): Tombstone {
  const { source, lastReplica, target, boundsVersion, targetReplica } = absorbed
  return {
    replica: lastReplica,
    lastReplica,
    descriptor: { ...source, replicas: [] },
    absorbedBy: { range: target, boundsVersion, lastReplica: targetReplica },
  }
}

/** True when no replica with this id may ever be here again. */
export function buries(tombstone: Tombstone, replica: ReplicaId): boolean {
  return replica <= tombstone.replica && !lists(tombstone.descriptor, replica)
}

/** The tombstone of a range that has one already: the larger id, and the later word. */
export function united(known: Tombstone | undefined, added: Tombstone): Tombstone {
  if (known === undefined || added.absorbedBy !== undefined) return added
  const isLater = added.descriptor.membersVersion >= known.descriptor.membersVersion
  return {
    replica: Math.max(known.replica, added.replica),
    lastReplica: Math.max(known.lastReplica, added.lastReplica),
    descriptor: isLater ? added.descriptor : known.descriptor,
    absorbedBy: known.absorbedBy,
  }
}

/** Stored: do not change; a new layout gets a new number. Format 1 ended before the merge. */
const tombstoneFormat = 2

export function encodeTombstone(tombstone: Tombstone): Uint8Array {
  const writer = new ByteWriter(128)
  writer.u8(tombstoneFormat)
  writer.u64(tombstone.replica)
  writer.u64(tombstone.lastReplica)
  writeDescriptor(writer, tombstone.descriptor)
  writeAbsorbedBy(writer, tombstone.absorbedBy)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeTombstone(bytes: Uint8Array): Tombstone {
  const reader = new ByteReader(bytes)
  const format = reader.u8()
  if (format !== tombstoneFormat && format !== tombstoneFormat - 1) {
    throw new MalformedBytes(`a tombstone of format ${format}, not ${tombstoneFormat}`)
  }
  const replica = reader.u64()
  const lastReplica = reader.u64()
  const descriptor = readDescriptor(reader)
  const absorbedBy = format < tombstoneFormat ? undefined : readAbsorbedBy(reader)
  reader.end()
  return { replica, lastReplica, descriptor, absorbedBy }
}

/** `u64 range ‖ u32 boundsVersion ‖ u64 lastReplica`; all zero = none. Stored, and sent in `Gone`: do not change. */
export function writeAbsorbedBy(writer: ByteWriter, absorbedBy: AbsorbedBy | undefined): void {
  writer.u64(absorbedBy?.range ?? 0)
  writer.u32(absorbedBy?.boundsVersion ?? 0)
  writer.u64(absorbedBy?.lastReplica ?? 0)
}

/** Throws `MalformedBytes`. */
export function readAbsorbedBy(reader: ByteReader): AbsorbedBy | undefined {
  const [range, boundsVersion, lastReplica] = [reader.u64(), reader.u32(), reader.u64()]
  return range === 0 ? undefined : { range, boundsVersion, lastReplica }
}
