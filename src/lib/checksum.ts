/**
 * CRC-32 (IEEE 802.3) of `bytes`, as an unsigned 32-bit integer, continued from `seed`.
 * The runtime's own routine: about 0.1 us for 4 KiB. Stored and sent: do not change.
 */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return Bun.hash.crc32(bytes, seed)
}

/**
 * XXH64 of `bytes`, seed 0: to tell whether two byte strings are equal without having both. About 0.1 us a KiB. It is not proof against bytes made to
 * collide. Sent: do not change.
 */
export function hash64(bytes: Uint8Array): bigint {
  return Bun.hash.xxHash64(bytes)
}
