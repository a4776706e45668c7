import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type { NodeId, WallMs } from "../../types.ts"

/**
 * A hint as it is stored under the key that it is of (keys.ts). Do not change.
 *
 *     hint := since u64, milliseconds of the wall clock ‖ copies u8 ‖ count u8 ‖ owner varint* ‖ state
 */
export interface HintRecord {
  /** When the first write came that is in it. */
  readonly sinceMs: WallMs
  /** Owners that must hold it before it may be dropped undelivered. */
  readonly copies: number
  /** Who is to be brought it, ascending. */
  readonly owed: ReadonlyArray<NodeId>
  readonly state: Uint8Array
}

const out = new ByteWriter(1024)

export function encodeHint({ sinceMs, copies, owed, state }: HintRecord): Uint8Array {
  out.reset()
  out.u64(Math.max(0, Math.round(sinceMs)))
  out.u8(copies)
  out.u8(owed.length)
  for (const node of owed) out.varint(node)
  out.raw(state)
  return out.take()
}

/** The state is a view. Throws `MalformedBytes`. */
export function decodeHint(bytes: Uint8Array): HintRecord {
  const reader = new ByteReader(bytes)
  const sinceMs = reader.u64()
  const copies = reader.u8()
  const owed = Array.from({ length: reader.u8() }, () => reader.varint())
  return { sinceMs, copies, owed, state: reader.rest() }
}
