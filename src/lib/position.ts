import type { Key, NamespaceId, Position, Slot } from "../types.ts"
import { slotOf } from "./slot.ts"

/** Bytes before the key in a position of a `hash` namespace: namespace u32 BE, slot u16 BE. Stored: do not change. */
export const hashPrefixBytes = 6

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
