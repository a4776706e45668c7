import type { Position, RangeId } from "../types.ts"

/**
 * Where the strong mode keeps its data in the engine. Stored: do not change.
 *
 *     1 ‖ 0                                      which slots of the eventual mode have lost data here (lostSlots.ts)
 *     2 ‖ 0 ‖ range u64 BE ‖ 0                   the range's state key
 *     2 ‖ 0 ‖ range u64 BE ‖ 1 ‖ client u64 BE   one client's session in the range
 *     2 ‖ 0 ‖ range u64 BE ‖ 255                 the tombstone of the range's last replica that this node removed (tombstone.ts)
 *     2 ‖ 1 ‖ position                           a key's record (valueRecord.ts)
 *
 * The first byte is the tree: 1 `local`, 2 `strong`, 3 `eventual`. A range-local key sorts before all data, so that a snapshot is
 * one ordered stream.
 */
/** The first bytes of keys. Stored: do not change. */
export const storeTrees = [
  { id: 1, name: "local" },
  { id: 2, name: "strong" },
  { id: 3, name: "eventual" },
] as const
export const lostSlotsKey: Uint8Array = Uint8Array.of(1, 0)
const strongTree = 2
export const eventualTree = 3
const localKinds = { state: 0, session: 1, tombstone: 255 } as const

/** Bytes before the position in a data key. */
export const dataPrefixBytes = 2

export function dataKey(position: Position): Uint8Array {
  const key = new Uint8Array(dataPrefixBytes + position.length)
  key[0] = strongTree
  key[1] = 1
  key.set(position, dataPrefixBytes)
  return key
}

/** The exclusive end of a range's data keys; `end` is empty when the range goes to the end of the space. */
export function dataEnd(end: Position): Uint8Array {
  return end.length === 0 ? Uint8Array.of(strongTree, 2) : dataKey(end)
}

function localKey(range: RangeId, kind: number, extraBytes: number): Uint8Array {
  const key = new Uint8Array(11 + extraBytes)
  const view = new DataView(key.buffer)
  key[0] = strongTree
  view.setUint32(2, Math.floor(range / 2 ** 32))
  view.setUint32(6, range >>> 0)
  key[10] = kind
  return key
}

export function stateKey(range: RangeId): Uint8Array {
  return localKey(range, localKinds.state, 0)
}

export function sessionKey(range: RangeId, clientId: number): Uint8Array {
  const key = localKey(range, localKinds.session, 8)
  const view = new DataView(key.buffer)
  view.setUint32(11, Math.floor(clientId / 2 ** 32))
  view.setUint32(15, clientId >>> 0)
  return key
}

/** The client of a session key, or `undefined` when the key is not one. */
export function clientOfSessionKey(key: Uint8Array): number | undefined {
  if (key.length !== 19 || key[10] !== localKinds.session) return undefined
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength)
  return view.getUint32(11) * 2 ** 32 + view.getUint32(15)
}

export function tombstoneKey(range: RangeId): Uint8Array {
  return localKey(range, localKinds.tombstone, 0)
}

/** The interval of all keys that a range's replica keeps of itself: all range-local keys but the tombstone, which outlives it. */
export function localInterval(range: RangeId): { lower: Uint8Array; upper: Uint8Array } {
  return { lower: stateKey(range), upper: tombstoneKey(range) }
}

/** The same, with the tombstone. */
export function localIntervalWithTombstone(range: RangeId): {
  lower: Uint8Array
  upper: Uint8Array
} {
  return { lower: stateKey(range), upper: localKey(range, localKinds.tombstone, 1) }
}

/** The interval of the range-local keys of all ranges. */
export function allLocalInterval(): { lower: Uint8Array; upper: Uint8Array } {
  return { lower: Uint8Array.of(strongTree, 0), upper: Uint8Array.of(strongTree, 1) }
}

export function isTombstoneKey(key: Uint8Array): boolean {
  return key.length === 11 && key[10] === localKinds.tombstone
}

export function rangeOfLocalKey(key: Uint8Array): RangeId {
  const view = new DataView(key.buffer, key.byteOffset, key.byteLength)
  return view.getUint32(2) * 2 ** 32 + view.getUint32(6)
}

export function isStateKey(key: Uint8Array): boolean {
  return key.length === 11 && key[10] === localKinds.state
}
