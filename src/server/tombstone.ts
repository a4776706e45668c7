import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { RangeDescriptor, ReplicaId } from "../types.ts"
import { lists } from "./descriptors.ts"
import { readDescriptor, writeDescriptor } from "./rangeState.ts"

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
}

/** True when no replica with this id may ever be here again. */
export function buries(tombstone: Tombstone, replica: ReplicaId): boolean {
  return replica <= tombstone.replica && !lists(tombstone.descriptor, replica)
}

/** The tombstone of a range that has one already: the larger id, and the later word. */
export function united(known: Tombstone | undefined, added: Tombstone): Tombstone {
  if (known === undefined) return added
  const isLater = added.descriptor.membersVersion >= known.descriptor.membersVersion
  return {
    replica: Math.max(known.replica, added.replica),
    lastReplica: Math.max(known.lastReplica, added.lastReplica),
    descriptor: isLater ? added.descriptor : known.descriptor,
  }
}

/** Stored: do not change; a new layout gets a new number. */
const tombstoneFormat = 1

export function encodeTombstone(tombstone: Tombstone): Uint8Array {
  const writer = new ByteWriter(128)
  writer.u8(tombstoneFormat)
  writer.u64(tombstone.replica)
  writer.u64(tombstone.lastReplica)
  writeDescriptor(writer, tombstone.descriptor)
  return writer.take()
}

/** Throws `MalformedBytes`. */
export function decodeTombstone(bytes: Uint8Array): Tombstone {
  const reader = new ByteReader(bytes)
  const format = reader.u8()
  if (format !== tombstoneFormat) {
    throw new MalformedBytes(`a tombstone of format ${format}, not ${tombstoneFormat}`)
  }
  const replica = reader.u64()
  const lastReplica = reader.u64()
  const descriptor = readDescriptor(reader)
  reader.end()
  return { replica, lastReplica, descriptor }
}
