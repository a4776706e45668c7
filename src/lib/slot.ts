import type { Slot } from "../types.ts"

/** Redis Cluster's slot count. Stored in positions: do not change. */
export const slotCount = 16384

const table = new Uint16Array(256)
for (let i = 0; i < 256; i++) {
  let crc = i << 8
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1
  table[i] = crc
}

/** CRC16/XMODEM: polynomial 0x1021, initial value 0, nothing reflected ("123456789" gives 0x31c3). */
export function crc16(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let crc = 0
  for (let i = start; i < end; i++) {
    crc = ((crc << 8) & 0xffff) ^ (table[((crc >> 8) ^ (bytes[i] as number)) & 0xff] as number)
  }
  return crc
}

/** Where the hash tag `{...}` of a key begins and ends, or the whole key (Redis Cluster specification, "Hash tags"). */
export function hashTag(key: Uint8Array): { readonly start: number; readonly end: number } {
  const open = key.indexOf(0x7b)
  if (open >= 0) {
    const close = key.indexOf(0x7d, open + 1)
    if (close > open + 1) return { start: open + 1, end: close }
  }
  return { start: 0, end: key.length }
}

export function slotOf(key: Uint8Array): Slot {
  const tag = hashTag(key)
  return crc16(key, tag.start, tag.end) & (slotCount - 1)
}
