/**
 * Varints in stored bytes: seven bits a byte, lowest first, the high bit set on all but the last byte. Callers with
 * one-byte varints in their hot paths look at the byte themselves first.
 */

/** Where the varint read last ended. Two results without an object. */
export let varintEnd = 0

/**
 * The varint at `offset`, exact below 2^53. Reading past the end of `bytes` gives 0 bits, and a
 * varint of more than eight bytes gives NaN, so that no check of bounds lets either pass.
 */
export function readVarint(bytes: Uint8Array, offset: number): number {
  let at = offset
  let result = 0
  for (let shift = 0; shift < 28; shift += 7) {
    const byte = bytes[at++]
    result |= (byte & 0x7f) << shift
    if (!(byte >= 0x80)) {
      varintEnd = at
      return result
    }
  }
  return readLongVarint(bytes, at, result)
}

function readLongVarint(bytes: Uint8Array, offset: number, low: number): number {
  let at = offset
  let result = low
  for (let scale = 2 ** 28; scale <= 2 ** 49; scale *= 128) {
    const byte = bytes[at++]
    result += (byte & 0x7f) * scale
    if (!(byte >= 0x80)) {
      varintEnd = at
      return result
    }
  }
  varintEnd = at
  return Number.NaN
}

/** Writes `value`, a safe integer from 0; returns where it ends. */
export function writeVarint(bytes: Uint8Array, offset: number, value: number): number {
  let at = offset
  let rest = value
  while (rest >= 2 ** 31) {
    bytes[at++] = (rest % 128) | 0x80
    rest = Math.floor(rest / 128)
  }
  while (rest >= 0x80) {
    bytes[at++] = rest | 0x80
    rest >>>= 7
  }
  bytes[at++] = rest
  return at
}
