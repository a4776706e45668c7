/** Plain helpers over byte strings. Order is unsigned lexicographic, a prefix before what it begins. */
const encoder = new TextEncoder()
const decoder = new TextDecoder("utf-8")

export const emptyBytes: Uint8Array = new Uint8Array(0)

export function utf8(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Text of UTF-8 bytes; what is not valid UTF-8 becomes U+FFFD. */
export function text(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

/** Negative, zero or positive as `left` is before, equal to or after `right`. */
export function compareBytes(left: Uint8Array, right: Uint8Array): number {
  const length = Math.min(left.length, right.length)
  if (length > 64) return Buffer.compare(left, right)
  for (let i = 0; i < length; i++) {
    const difference = (left[i] as number) - (right[i] as number)
    if (difference !== 0) return difference
  }
  return left.length - right.length
}

export function equalBytes(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && compareBytes(left, right) === 0
}

export function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && equalBytes(bytes.subarray(0, prefix.length), prefix)
}

export function concatBytes(...parts: ReadonlyArray<Uint8Array>): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const result = new Uint8Array(length)
  let offset = 0
  for (const part of parts) {
    result.set(part, offset)
    offset += part.length
  }
  return result
}

/**
 * The least byte string after every string that begins with `prefix`, or `undefined` when there is none (an empty
 * prefix, or only 0xff bytes).
 */
export function prefixEnd(prefix: Uint8Array): Uint8Array | undefined {
  let length = prefix.length
  while (length > 0 && prefix[length - 1] === 0xff) length--
  if (length === 0) return undefined
  const end = prefix.slice(0, length)
  end[length - 1] = (end[length - 1] as number) + 1
  return end
}

const hexDigits = "0123456789abcdef"

export function toHex(bytes: Uint8Array): string {
  let result = ""
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i] as number
    result += (hexDigits[byte >> 4] as string) + hexDigits[byte & 15]
  }
  return result
}

/** Bytes of a hex string of either case, or `undefined` when it is not one. */
export function fromHex(hex: string): Uint8Array | undefined {
  if (hex.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(hex)) return undefined
  const result = new Uint8Array(hex.length / 2)
  for (let i = 0; i < result.length; i++)
    result[i] = Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16)
  return result
}
