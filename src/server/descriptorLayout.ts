import type { ByteReader } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { RangeDescriptor, ReplicaPlace } from "../types.ts"
import { roleCode, roleOf } from "../wire/replicaRoles.ts"

/** How a range's descriptor is written: in state keys, tombstones, log entries and messages. */

const noNamespace = 0xffffffff

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
