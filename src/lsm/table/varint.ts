/**
 * Numbers in stored bytes: varints (format.ts) and little-endian u32.
 */

export { readVarint, varintEnd, writeVarint } from "../../lib/varint.ts"

export function readU32(bytes: Uint8Array, offset: number): number {
  return (
    (bytes[offset] |
      (bytes[offset + 1] << 8) |
      (bytes[offset + 2] << 16) |
      (bytes[offset + 3] << 24)) >>>
    0
  )
}

export function writeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value
  bytes[offset + 1] = value >>> 8
  bytes[offset + 2] = value >>> 16
  bytes[offset + 3] = value >>> 24
}

export function readU64(bytes: Uint8Array, offset: number): number {
  return readU32(bytes, offset + 4) * 2 ** 32 + readU32(bytes, offset)
}

export function writeU64(bytes: Uint8Array, offset: number, value: number): void {
  writeU32(bytes, offset, value >>> 0)
  writeU32(bytes, offset + 4, Math.floor(value / 2 ** 32))
}
