/**
 * Little-endian numbers in byte arrays, byte by byte: making a `DataView` over a small array costs more than reading it.
 * Nothing is checked; offsets lie inside.
 */
export function loadU32(bytes: Uint8Array, offset: number): number {
  return (
    ((bytes[offset] as number) |
      ((bytes[offset + 1] as number) << 8) |
      ((bytes[offset + 2] as number) << 16) |
      ((bytes[offset + 3] as number) << 24)) >>>
    0
  )
}

/** Eight bytes; exact for safe integers. */
export function loadU64(bytes: Uint8Array, offset: number): number {
  return loadU32(bytes, offset + 4) * 2 ** 32 + loadU32(bytes, offset)
}

export function storeU32(bytes: Uint8Array, offset: number, value: number): void {
  bytes[offset] = value
  bytes[offset + 1] = value >>> 8
  bytes[offset + 2] = value >>> 16
  bytes[offset + 3] = value >>> 24
}

/** A safe integer from 0, in eight bytes. */
export function storeU64(bytes: Uint8Array, offset: number, value: number): void {
  storeU32(bytes, offset, value >>> 0)
  storeU32(bytes, offset + 4, Math.floor(value / 2 ** 32))
}
