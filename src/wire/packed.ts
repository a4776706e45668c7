import { Packr } from "msgpackr"
import { MalformedBytes } from "../lib/byteReader.ts"

/**
 * MessagePack for what is not hot: handshakes, routes, status, scan pages. Bytes from outside are walked once before they are
 * unpacked: no extension types, no nesting beyond eight levels, and no array or map that claims more members than bytes
 * follow. So what unpacking allocates is bounded by what has arrived.
 */
const packr = new Packr({ useRecords: false, mapsAsObjects: true, int64AsType: "number" })
const depthMax = 8

/** Packs plain data without `undefined`. The result is valid until the next call: copy it into a frame. */
export function pack(value: unknown): Uint8Array {
  return packr.pack(value)
}

/** Throws `MalformedBytes` unless `bytes` are exactly one packed value. Byte strings in it are views. */
export function unpack(bytes: Uint8Array): unknown {
  const end = walk(bytes, 0, depthMax)
  if (end !== bytes.length) throw new MalformedBytes(`${bytes.length - end} bytes too many`)
  try {
    return packr.unpack(bytes)
  } catch (cause) {
    throw new MalformedBytes(`MessagePack: ${cause}`)
  }
}

function bigEndian(bytes: Uint8Array, offset: number, width: number): number {
  if (offset + width > bytes.length) throw new MalformedBytes("MessagePack ends early")
  let value = 0
  for (let i = 0; i < width; i++) value = value * 256 + (bytes[offset + i] as number)
  return value
}

/** Offset after the value that begins at `offset`. (MessagePack specification, "Formats") */
function walk(bytes: Uint8Array, offset: number, depth: number): number {
  if (depth < 0) throw new MalformedBytes(`MessagePack nested deeper than ${depthMax}`)
  const token = bigEndian(bytes, offset, 1)
  const at = offset + 1
  if (token <= 0x7f || token >= 0xe0) return at
  if (token <= 0x8f) return walkMembers(bytes, at, 2 * (token & 15), depth)
  if (token <= 0x9f) return walkMembers(bytes, at, token & 15, depth)
  if (token <= 0xbf) return skip(bytes, at, token & 31)
  switch (token) {
    case 0xc0:
    case 0xc2:
    case 0xc3:
      return at
    case 0xc4:
    case 0xd9:
      return skip(bytes, at + 1, bigEndian(bytes, at, 1))
    case 0xc5:
    case 0xda:
      return skip(bytes, at + 2, bigEndian(bytes, at, 2))
    case 0xc6:
    case 0xdb:
      return skip(bytes, at + 4, bigEndian(bytes, at, 4))
    case 0xcc:
    case 0xd0:
      return skip(bytes, at, 1)
    case 0xcd:
    case 0xd1:
      return skip(bytes, at, 2)
    case 0xca:
    case 0xce:
    case 0xd2:
      return skip(bytes, at, 4)
    case 0xcb:
    case 0xcf:
    case 0xd3:
      return skip(bytes, at, 8)
    case 0xdc:
      return walkMembers(bytes, at + 2, bigEndian(bytes, at, 2), depth)
    case 0xdd:
      return walkMembers(bytes, at + 4, bigEndian(bytes, at, 4), depth)
    case 0xde:
      return walkMembers(bytes, at + 2, 2 * bigEndian(bytes, at, 2), depth)
    case 0xdf:
      return walkMembers(bytes, at + 4, 2 * bigEndian(bytes, at, 4), depth)
    default:
      throw new MalformedBytes(`MessagePack type ${token} is not used here`)
  }
}

function skip(bytes: Uint8Array, offset: number, count: number): number {
  if (count > bytes.length - offset) throw new MalformedBytes("MessagePack ends early")
  return offset + count
}

function walkMembers(bytes: Uint8Array, offset: number, count: number, depth: number): number {
  // Each member takes a byte at least, so a claim beyond what follows ends with the bytes.
  let at = offset
  for (let i = 0; i < count; i++) at = walk(bytes, at, depth - 1)
  return at
}

/** The members of an array of exactly `length`, or of any length. */
export function asArray(value: unknown, length?: number): ReadonlyArray<unknown> {
  if (!Array.isArray(value) || (length !== undefined && value.length !== length)) {
    throw new MalformedBytes(`an array${length === undefined ? "" : ` of ${length}`} was expected`)
  }
  return value
}

/** A safe integer from 0. */
export function asCount(value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new MalformedBytes("a safe integer from 0 was expected")
  }
  return value
}

export function asText(value: unknown): string {
  if (typeof value !== "string") throw new MalformedBytes("text was expected")
  return value
}

export function asBytes(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new MalformedBytes("bytes were expected")
  return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
}

export function orUndefined<A>(value: unknown, read: (value: unknown) => A): A | undefined {
  return value === null || value === undefined ? undefined : read(value)
}
