import type { Key, NamespaceId, Position, Slot } from "../types.ts"
import { compareBytes } from "./bytes.ts"
import { slotOf } from "./slot.ts"

/** Bytes before the key in a position of a `hash` namespace: namespace u32 BE, slot u16 BE. Stored: do not change. */
export const hashPrefixBytes = 6
/** The same for an `ordered` namespace: namespace u32 BE. Stored: do not change. */
export const orderedPrefixBytes = 4

type Partitioning = "hash" | "ordered"

/** Bytes before the key in a position. */
export function prefixBytesOf(partitioning: Partitioning): number {
  return partitioning === "hash" ? hashPrefixBytes : orderedPrefixBytes
}

/** The position of a key in a namespace. */
export function positionIn(
  namespace: { readonly id: NamespaceId; readonly partitioning: Partitioning },
  key: Key,
): Position {
  if (namespace.partitioning === "hash") return hashPosition(namespace.id, key)
  const position = new Uint8Array(orderedPrefixBytes + key.length)
  position.set(namespaceStart(namespace.id), 0)
  position.set(key, orderedPrefixBytes)
  return position
}

/** The key in a position, as a view. */
export function keyIn(partitioning: Partitioning, position: Position): Key {
  return position.subarray(prefixBytesOf(partitioning))
}

function writePrefix(target: Uint8Array, namespace: NamespaceId, slot: Slot): void {
  target[0] = namespace >>> 24
  target[1] = namespace >>> 16
  target[2] = namespace >>> 8
  target[3] = namespace
  target[4] = slot >>> 8
  target[5] = slot
}

/** `namespaceId u32 BE ‖ slot u16 BE ‖ key`. */
export function hashPosition(namespace: NamespaceId, key: Key): Position {
  const position = new Uint8Array(hashPrefixBytes + key.length)
  writePrefix(position, namespace, slotOf(key))
  position.set(key, hashPrefixBytes)
  return position
}

/** The first position of a slot. */
export function slotStart(namespace: NamespaceId, slot: Slot): Position {
  const position = new Uint8Array(hashPrefixBytes)
  writePrefix(position, namespace, slot)
  return position
}

/** The first position of a namespace, and the end of the one before it. */
export function namespaceStart(namespace: NamespaceId): Position {
  return slotStart(namespace, 0).slice(0, 4)
}

/** The namespace in a position; the position must have at least four bytes. */
export function namespaceOf(position: Position): NamespaceId {
  const [a = 0, b = 0, c = 0, d = 0] = position
  return ((a << 24) | (b << 16) | (c << 8) | d) >>> 0
}

/** The namespace that holds all of [start, end), or `undefined` when none does. An empty `end` is the end of the space. */
export function namespaceOfInterval(start: Position, end: Position): NamespaceId | undefined {
  if (start.length < 4 || end.length === 0) return undefined
  const namespace = namespaceOf(start)
  if (namespace === 0xffffffff) return undefined
  return compareBytes(end, namespaceStart(namespace + 1)) <= 0 ? namespace : undefined
}

/** The key in a position of a `hash` namespace, as a view. */
export function keyOf(position: Position): Key {
  return position.subarray(hashPrefixBytes)
}

/** True when the slot written in a position is the slot of its key. */
export function isHashPosition(position: Position): boolean {
  return (
    position.length > hashPrefixBytes &&
    (((position[4] as number) << 8) | (position[5] as number)) === slotOf(keyOf(position))
  )
}
