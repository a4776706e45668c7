/**
 * Compression of data blocks. What is stored of a compressed block is its expanded size (u32) and
 * the compressed bytes; the kind stands in the block's trailer (format.ts).
 *
 * - lz4: `lz4-napi`, native, fast to expand: for what is read often.
 * - zstd: the runtime's own, level 1: smaller, nearly as fast to expand: for what lies at the
 *   bottom.
 * - snappy: `snappyjs`, plain JavaScript: for tables that others are to read.
 *
 * Bytes are expanded only after their checksum was verified, and yet nothing that they claim sizes
 * an allocation unchecked: the expanded size is bounded by what a block can hold and by what so
 * many compressed bytes can become, and a codec that reads a size of its own must find the same.
 *
 * Results of native codecs are `Buffer`s, whose `slice` does not copy; they leave as plain arrays.
 */
import * as lz4 from "lz4-napi"
import * as snappy from "snappyjs"
import { assert } from "../../lib/assert.ts"
import { maxKeyBytes, maxValueBytes } from "./format.ts"
import { readU32, readVarint, varintEnd, writeU32 } from "./varint.ts"

export const compressions = { none: 0, snappy: 1, lz4: 2, zstd: 3 } as const

export type CompressionName = keyof typeof compressions

/** The name of a stored kind; `undefined` for a number that is none. */
export function compressionName(kind: number): CompressionName | undefined {
  const names = Object.keys(compressions) as Array<CompressionName>
  return names.find((name) => compressions[name] === kind)
}

/** Blocks end when they have this size or more before the next entry comes. */
export const maxBlockBytes = 1024 * 1024
/** The largest content of a data block: one that is nearly full, and the largest entry. */
export const maxExpandedBytes = maxBlockBytes + maxKeyBytes + maxValueBytes + 1024

/** What so many bytes can become at most: the longest run that one byte of each format can stand for. */
const maxGrowth = { [compressions.snappy]: 64, [compressions.lz4]: 255 } as const

const sizeBytes = 4

export function isCompression(kind: number): boolean {
  return kind >= compressions.none && kind <= compressions.zstd
}

/**
 * What to store of `content`, size included; `undefined` when it would shrink by less than an
 * eighth, which is not worth the time to expand it.
 */
export function compress(kind: number, content: Uint8Array): Uint8Array | undefined {
  const stored = compressed(kind, content)
  if (stored === undefined || stored.length > content.length - (content.length >>> 3)) {
    return undefined
  }
  return stored
}

function compressed(kind: number, content: Uint8Array): Uint8Array | undefined {
  // Filters and lists of tombstones are stored as they are, and may be larger than any data block.
  if (kind === compressions.none) return undefined
  assert(content.length <= maxExpandedBytes, "a block is within its limit")
  switch (kind) {
    case compressions.lz4:
      // Its format begins with the same size. The declaration asks for a Buffer; any Uint8Array
      // does.
      return plain(lz4.compressSync(content as Buffer))
    case compressions.snappy:
      return withSize(content.length, snappy.compress(content))
    case compressions.zstd:
      return withSize(content.length, Bun.zstdCompressSync(content as NonSharedBytes, { level: 1 }))
    default:
      assert(false, `compression ${kind}`)
  }
}

type NonSharedBytes = Uint8Array<ArrayBuffer>

function withSize(size: number, bytes: Uint8Array): Uint8Array {
  const result = new Uint8Array(sizeBytes + bytes.length)
  writeU32(result, 0, size)
  result.set(bytes, sizeBytes)
  return result
}

/**
 * The content of which `stored` was made, in memory of its own. `undefined` when it is not what
 * `compress` makes of anything: an unknown kind, a size that cannot be, bytes of another format.
 */
export function expand(kind: number, stored: Uint8Array): Uint8Array | undefined {
  if (stored.length <= sizeBytes) return undefined
  const size = readU32(stored, 0)
  if (size > maxExpandedBytes) return undefined
  let content: Uint8Array | undefined
  try {
    content = expanded(kind, stored, size)
  } catch {
    // Each codec throws errors of its own for bytes that are not its format.
    return undefined
  }
  return content === undefined || content.length !== size ? undefined : content
}

function expanded(kind: number, stored: Uint8Array, size: number): Uint8Array | undefined {
  switch (kind) {
    case compressions.lz4:
      if (size > maxGrowth[kind] * stored.length) return undefined
      return plain(lz4.uncompressSync(stored))
    case compressions.snappy: {
      if (size > maxGrowth[kind] * stored.length) return undefined
      if (!snappyFills(stored, sizeBytes, size)) return undefined
      return snappy.uncompress(stored.subarray(sizeBytes), size)
    }
    case compressions.zstd: {
      const frame = stored.subarray(sizeBytes)
      if (zstdContentBytes(frame) !== size) return undefined
      return plain(Bun.zstdDecompressSync(frame as NonSharedBytes))
    }
    default:
      return undefined
  }
}

function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}

/**
 * Whether the Snappy stream from `offset` to the end is well formed and gives exactly `size` bytes
 * (google/snappy, format_description.txt). The library would go on past the end of its result, with
 * writes that go nowhere and take their time, and would take a result that is not filled.
 */
function snappyFills(bytes: Uint8Array, offset: number, size: number): boolean {
  if (readVarint(bytes, offset) !== size || varintEnd > offset + 5) return false
  let at = varintEnd
  let filled = 0
  while (at < bytes.length && filled < size) {
    const tag = bytes[at++]
    const kind = tag & 3
    let length = (tag >>> 2) + 1
    if (kind === 0) {
      if (length > 60) {
        const more = length - 60
        length = 1
        for (let i = 0; i < more; i++) length += bytes[at + i] * 2 ** (8 * i)
        at += more
      }
      at += length
    } else {
      let back = bytes[at] | (bytes[at + 1] << 8)
      if (kind === 1) {
        length = ((tag >>> 2) & 7) + 4
        back = bytes[at] | ((tag >>> 5) << 8)
      } else if (kind === 3) {
        back = readU32(bytes, at)
      }
      at += kind === 3 ? 4 : kind
      if (back === 0 || back > filled) return false
    }
    filled += length
  }
  return at === bytes.length && filled === size
}

const zstdMagic = 0xfd2fb528

/**
 * The size that a Zstandard frame's header states (RFC 8878, 3.1.1.1); -1 when it states none. The
 * decoder takes memory by it, or without it as it goes.
 */
function zstdContentBytes(frame: Uint8Array): number {
  if (frame.length < 6 || readU32(frame, 0) !== zstdMagic) return -1
  const descriptor = frame[4]
  const isSingleSegment = (descriptor & 0x20) !== 0
  const dictionaryFlag = descriptor & 3
  if (dictionaryFlag !== 0) return -1
  const at = isSingleSegment ? 5 : 6
  switch (descriptor >>> 6) {
    case 0:
      return isSingleSegment ? frame[at] : -1
    case 1:
      return (frame[at] | (frame[at + 1] << 8)) + 256
    case 2:
      return readU32(frame, at)
    default:
      return readU32(frame, at + 4) === 0 ? readU32(frame, at) : -1
  }
}
