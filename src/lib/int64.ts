/** Signed 64-bit numbers: as eight bytes, little-endian, and as decimal text. All arithmetic is in whole numbers. */
export const int64Bytes = 8
const least = -(2n ** 63n)
const largest = 2n ** 63n - 1n
/** Of the least: a sign and 19 digits. */
const textBytesMax = 20
const minus = 0x2d
const zero = 0x30

export function isInt64(value: bigint): boolean {
  return value >= least && value <= largest
}

export function loadInt64(bytes: Uint8Array, offset = 0): bigint {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getBigInt64(offset, true)
}

/** The eight bytes of a number that is one. */
export function int64Of(value: bigint): Uint8Array {
  const bytes = new Uint8Array(int64Bytes)
  new DataView(bytes.buffer).setBigInt64(0, value, true)
  return bytes
}

/**
 * The number that `text` is: digits without a leading zero, after a minus sign if it is below 0, as `decimalOf` writes it. `undefined` for anything else,
 * so that every number has one text.
 */
export function parseDecimal(text: Uint8Array): bigint | undefined {
  const { length } = text
  if (length === 0 || length > textBytesMax) return undefined
  const start = text[0] === minus ? 1 : 0
  if (start === length) return undefined
  if (text[start] === zero && length > 1) return undefined
  let value = 0n
  for (let i = start; i < length; i++) {
    const digit = (text[i] as number) - zero
    if (digit < 0 || digit > 9) return undefined
    value = value * 10n + BigInt(digit)
  }
  if (start === 1) value = -value
  return isInt64(value) ? value : undefined
}

export function decimalOf(value: bigint): Uint8Array {
  const digits = value.toString()
  const text = new Uint8Array(digits.length)
  for (let i = 0; i < digits.length; i++) text[i] = digits.charCodeAt(i)
  return text
}
