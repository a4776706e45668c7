import { type Disk, type DiskFile, StorageCorruption } from "../disk/disk.ts"
import { loadU32 } from "../lib/littleEndian.ts"
import type { Lsn } from "../types.ts"
import {
  batchHeaderBytes,
  decodeSegmentHeader,
  readBatchHeader,
  recordLength,
  segmentHeaderBytes,
} from "./format.ts"

/** Read at once; a larger batch is read whole, once its length is known to lie inside the content. */
const chunkBytes = 256 * 1024

/** A closed segment, and a part of it to check. */
export interface SegmentSlice {
  readonly path: string
  /** 0 = the start; else what the slice before returned. */
  readonly offset: number
  readonly baseLsn: Lsn
  /** The segment after it, whose first batch states where this one's content ends. */
  readonly nextPath: string
  readonly nextBaseLsn: Lsn
  readonly budgetBytes: number
}

/**
 * Reads whole batches of a closed segment until about `budgetBytes` are read, and checks every checksum. Returns where to go on, or `undefined` at the
 * end of its content. Throws `StorageCorruption`.
 */
export function verifySegment(
  disk: Disk,
  slice: SegmentSlice,
  pace?: { spend(bytes: number): void },
): { readonly next: number | undefined; readonly bytes: number } {
  const contentEnd = contentEndOf(disk, slice)
  const file = disk.open(slice.path)
  try {
    const begin = slice.offset === 0 ? verifyHeader(file) : slice.offset
    let at = begin
    while (at < contentEnd && at - begin < slice.budgetBytes) {
      at = verifyChunk(file, { slice, at, contentEnd, pace })
    }
    return { next: at < contentEnd ? at : undefined, bytes: at - begin }
  } finally {
    file.close()
  }
}

function contentEndOf(disk: Disk, slice: SegmentSlice): number {
  const file = disk.open(slice.nextPath)
  try {
    verifyHeader(file)
    // The opening batch is seldom large, but its header wants to be read with all of it.
    let bytes = read(file, segmentHeaderBytes, chunkBytes)
    const lengthBytes = bytes.length < batchHeaderBytes ? 0 : loadU32(bytes, 8)
    if (lengthBytes > bytes.length) bytes = read(file, segmentHeaderBytes, lengthBytes)
    const lsn = slice.nextBaseLsn + segmentHeaderBytes
    const header = readBatchHeader(bytes, viewOf(bytes), 0, lsn)
    if (header === undefined) {
      throw damage(slice.nextPath, segmentHeaderBytes, "a damaged batch header")
    }
    return header.durableLsn - slice.baseLsn
  } finally {
    file.close()
  }
}

function verifyHeader(file: DiskFile): number {
  decodeSegmentHeader(file.path, read(file, 0, segmentHeaderBytes))
  return segmentHeaderBytes
}

/** Checks the whole batches in the chunk at `at`; returns the end of the last one. */
function verifyChunk(
  file: DiskFile,
  options: {
    slice: SegmentSlice
    at: number
    contentEnd: number
    pace: { spend(bytes: number): void } | undefined
  },
): number {
  const { slice, at, contentEnd, pace } = options
  const left = contentEnd - at
  let bytes = read(file, at, Math.min(chunkBytes, left))
  const first = bytes.length < batchHeaderBytes ? 0 : loadU32(bytes, 8)
  if (first > bytes.length && first <= left) bytes = read(file, at, first)
  pace?.spend(bytes.length)
  const view = viewOf(bytes)
  let used = 0
  while (used < bytes.length) {
    const isCut = used > 0 && at + bytes.length < contentEnd
    if (isCut && used + batchHeaderBytes > bytes.length) break
    if (isCut && loadU32(bytes, used + 8) > bytes.length - used) break
    const header = readBatchHeader(bytes, view, used, slice.baseLsn + at + used)
    if (header === undefined) throw damage(slice.path, at + used, "a damaged batch header")
    const end = used + header.lengthBytes
    used += batchHeaderBytes
    while (used < end) {
      const length = recordLength(bytes, view, used, end, slice.baseLsn + at + used)
      if (length === 0) throw damage(slice.path, at + used, "a damaged record")
      used += length
    }
  }
  return at + used
}

function read(file: DiskFile, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(Math.max(0, Math.min(length, file.sizeBytes - offset)))
  return bytes.subarray(0, file.read(bytes, offset))
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

function damage(path: string, offset: number, actual: string): StorageCorruption {
  return new StorageCorruption({ path, offset, expected: "what the journal wrote there", actual })
}
