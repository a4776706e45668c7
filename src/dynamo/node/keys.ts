import { slotCount } from "../../lib/slot.ts"
import type { NamespaceId, Slot } from "../../types.ts"

/**
 * Where the eventual half keeps its data in the engine. Stored: do not change.
 *
 *     3 ‖ 0 ‖ name                                       notes of the node: epochs, how far its log is applied
 *     3 ‖ 1 ‖ namespace u32 BE ‖ run u16 BE              clocks and trees of a run of slots (slotTables.ts)
 *     3 ‖ 2 ‖ namespace u32 BE ‖ slot u16 BE ‖ key       a hint (hints.ts)
 *     3 ‖ 3 ‖ namespace u32 BE ‖ slot u16 BE             a tenure (tenures.ts)
 *     3 ‖ 4 ‖ namespace u32 BE ‖ slot u16 BE ‖ key       a key: changed u48 LE, milliseconds of the wall clock ‖ state (keyState.ts)
 *
 * The first byte is the tree `eventual`.
 */
const tree = 3

export const keyKinds = { note: 0, tables: 1, hint: 2, tenure: 3, data: 4 } as const
/** Bytes before the user's key in keys of hints and of data. */
export const slotPrefixBytes = 8
/** Consecutive slots that are stored, compared and handed over together: a run of slots. */
export const slotsPerRun = 64

function prefixed(kind: number, namespace: NamespaceId, place: number, extra: number): Uint8Array {
  const key = new Uint8Array(slotPrefixBytes + extra)
  key[0] = tree
  key[1] = kind
  key[2] = namespace >>> 24
  key[3] = namespace >>> 16
  key[4] = namespace >>> 8
  key[5] = namespace
  key[6] = place >>> 8
  key[7] = place
  return key
}

/** Of a hint or of data. */
export function slotKey(
  kind: typeof keyKinds.hint | typeof keyKinds.data,
  place: { readonly namespace: NamespaceId; readonly slot: Slot; readonly key: Uint8Array },
): Uint8Array {
  const result = prefixed(kind, place.namespace, place.slot, place.key.length)
  result.set(place.key, slotPrefixBytes)
  return result
}

export function tenureKey(namespace: NamespaceId, slot: Slot): Uint8Array {
  return prefixed(keyKinds.tenure, namespace, slot, 0)
}

/** The clocks and trees of the run that a slot is in. */
export function tablesKey(namespace: NamespaceId, slot: Slot): Uint8Array {
  return prefixed(keyKinds.tables, namespace, Math.floor(slot / slotsPerRun), 0)
}

/** Names are ASCII. */
export function noteKey(name: string): Uint8Array {
  return Uint8Array.of(tree, keyKinds.note, ...Buffer.from(name, "latin1"))
}

/** All keys of one kind in some consecutive slots of a namespace. */
export function slotsInterval(
  kind: number,
  namespace: NamespaceId,
  slots: { readonly start: Slot; readonly slots: number },
): { lower: Uint8Array; upper: Uint8Array } {
  const end = slots.start + slots.slots
  const lower = prefixed(kind, namespace, slots.start, 0)
  // The last slot is below 2^14: what lies behind all of them is of the next namespace.
  const upper =
    end >= slotCount ? prefixed(kind, namespace + 1, 0, 0) : prefixed(kind, namespace, end, 0)
  return { lower, upper }
}

/** All keys of one kind. */
export function kindInterval(kind: number): { lower: Uint8Array; upper: Uint8Array } {
  return { lower: Uint8Array.of(tree, kind), upper: Uint8Array.of(tree, kind + 1) }
}

export function namespaceOfKey(key: Uint8Array): NamespaceId {
  return ((key[2] << 24) | (key[3] << 16) | (key[4] << 8) | key[5]) >>> 0
}

/** Of a key that has one. */
export function slotOfKey(key: Uint8Array): Slot {
  return (key[6] << 8) | key[7]
}

/** The user's part, as a view. */
export function userKeyOf(key: Uint8Array): Uint8Array {
  return key.subarray(slotPrefixBytes)
}
