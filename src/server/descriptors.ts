import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import type { Position, RangeDescriptor, RangeId, ReplicaId, ReplicaPlace } from "../types.ts"

/** Facts about descriptors; no state. */

export function isJoint(replicas: ReadonlyArray<ReplicaPlace>): boolean {
  return replicas.some((place) => place.role === "incoming" || place.role === "outgoing")
}

/** In place of a descriptor, for a replica that has no state yet: it contains nothing and lists nobody. */
export function noDescriptor(id: RangeId): RangeDescriptor {
  const bounds = { start: emptyBytes, end: emptyBytes, boundsVersion: 0, membersVersion: 0 }
  return { id, namespace: undefined, ...bounds, replicas: [] }
}

export function lists(descriptor: RangeDescriptor, replica: ReplicaId): boolean {
  return descriptor.replicas.some((place) => place.replica === replica)
}

/** True when `end`, which is empty at the end of the space, lies after `position`. */
export function isBefore(position: Position, end: Position): boolean {
  return end.length === 0 || compareBytes(position, end) < 0
}

interface Bounds {
  readonly start: Position
  readonly end: Position
}

export function contains({ start, end }: Bounds, position: Position): boolean {
  return compareBytes(start, position) <= 0 && isBefore(position, end)
}

export function overlap(left: Bounds, right: Bounds): boolean {
  return isBefore(left.start, right.end) && isBefore(right.start, left.end)
}

/** True when all of `inner` lies in `outer`. */
export function covers(outer: Bounds, inner: Bounds): boolean {
  if (compareBytes(outer.start, inner.start) > 0) return false
  if (outer.end.length === 0) return true
  return inner.end.length > 0 && compareBytes(inner.end, outer.end) <= 0
}

/** True when `descriptor` says more of its range than `known`. */
export function isNewer(descriptor: RangeDescriptor, known: RangeDescriptor): boolean {
  return (
    descriptor.boundsVersion > known.boundsVersion ||
    (descriptor.boundsVersion === known.boundsVersion &&
      descriptor.membersVersion > known.membersVersion)
  )
}
