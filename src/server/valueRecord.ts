import { loadU64, storeU64 } from "../lib/littleEndian.ts"
import type { Version } from "../types.ts"

/**
 * How a strong key's value lies in the engine. Stored: do not change.
 *
 *     0  u64 LE  version
 *     8  u8      flags, 0 (bit 0 is kept for an expiry that would follow)
 *     9  value
 */
export const valueHeaderBytes = 9

/** Writes the header of a record to `target`, which has `valueHeaderBytes`. */
export function writeValueHeader(target: Uint8Array, version: Version): void {
  storeU64(target, 0, version)
  target[8] = 0
}

export function recordVersion(record: Uint8Array): Version {
  return loadU64(record, 0)
}

/** The value of a record, as a view. */
export function recordValue(record: Uint8Array): Uint8Array {
  return record.subarray(valueHeaderBytes)
}
