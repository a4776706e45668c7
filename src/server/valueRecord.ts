import { loadU64, storeU64 } from "../lib/littleEndian.ts"
import type { Version } from "../types.ts"

/**
 * How a strong key's value lies in the engine. Stored: do not change.
 *
 *     0  u64 LE  version
 *     8  u8      flags; bit 0: an expiry follows
 *     9  u64 LE  expiry, if flagged: from this range time on the key is absent; never 0
 *        value
 */
export const valueHeaderBytes = 9
export const flagsOffset = 8
export const expiryFlag = 1
export const expiryOffset = 9
export const expiringHeaderBytes = 17

/** Writes the header of a record that never expires to `target`, which has `valueHeaderBytes`. */
export function writeValueHeader(target: Uint8Array, version: Version): void {
  storeU64(target, 0, version)
  target[flagsOffset] = 0
}

/** Writes the header of a record that expires to `target`, which has `expiringHeaderBytes`. */
export function writeExpiringHeader(target: Uint8Array, version: Version, expiry: Version): void {
  storeU64(target, 0, version)
  target[flagsOffset] = expiryFlag
  storeU64(target, expiryOffset, expiry)
}

export function recordVersion(record: Uint8Array): Version {
  return loadU64(record, 0)
}

/** From this time on the key is absent; 0 = never. */
export function recordExpiry(record: Uint8Array): Version {
  return ((record[flagsOffset] as number) & expiryFlag) === 0 ? 0 : loadU64(record, expiryOffset)
}

/** Whether what is stored counts as absent at `time`. */
export function isExpired(record: Uint8Array, time: Version): boolean {
  const expiry = recordExpiry(record)
  return expiry !== 0 && expiry <= time
}

function headerBytes(record: Uint8Array): number {
  const expires = ((record[flagsOffset] as number) & expiryFlag) !== 0
  return expires ? expiringHeaderBytes : valueHeaderBytes
}

/** The value of a record, as a view. */
export function recordValue(record: Uint8Array): Uint8Array {
  return record.subarray(headerBytes(record))
}

/** The value of a record, as an own copy. */
export function copyRecordValue(record: Uint8Array): Uint8Array {
  return record.slice(headerBytes(record))
}
