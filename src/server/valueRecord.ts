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
  let low = version >>> 0
  let high = Math.floor(version / 2 ** 32)
  for (let i = 0; i < 4; i++) {
    target[i] = low
    target[i + 4] = high
    low >>>= 8
    high >>>= 8
  }
  target[8] = 0
}

export function recordVersion(record: Uint8Array): Version {
  let low = 0
  let high = 0
  for (let i = 3; i >= 0; i--) {
    low = low * 256 + (record[i] as number)
    high = high * 256 + (record[i + 4] as number)
  }
  return high * 2 ** 32 + low
}

/** The value of a record, as a view. */
export function recordValue(record: Uint8Array): Uint8Array {
  return record.subarray(valueHeaderBytes)
}
