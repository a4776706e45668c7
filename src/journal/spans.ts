import type { Lsn } from "../types.ts"
import {
  type BatchHeader,
  batchHeaderBytes,
  batchMagic,
  readBatchHeader,
  recordLength,
  segmentHeaderBytes,
} from "./format.ts"

/** A segment's file in memory. */
export interface SegmentBytes {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly baseLsn: Lsn
}

/** What stands in a segment from one offset to another. */
export type Span =
  /** A batch whose every record is as it was written. */
  | {
      readonly _tag: "Batch"
      readonly offset: number
      readonly end: number
      readonly header: BatchHeader
    }
  /** A good batch header, and behind it a record that is not as it was written. */
  | {
      readonly _tag: "BrokenBatch"
      readonly offset: number
      readonly end: number
      readonly header: BatchHeader
      readonly badOffset: number
    }
  /** No batch: up to the next good batch header, or to the end of the segment. */
  | {
      readonly _tag: "Gap"
      readonly offset: number
      readonly end: number
      readonly zeros: boolean
    }

/** All of a segment behind its header, or from `offset` on, to its end. */
export function* spans(segment: SegmentBytes, from = segmentHeaderBytes): Generator<Span, void> {
  const { bytes, view, baseLsn } = segment
  let offset = from
  while (offset < bytes.length) {
    const header = readBatchHeader(bytes, view, offset, baseLsn + offset)
    if (header === undefined) {
      const end = nextBatch(segment, offset + 1)
      yield { _tag: "Gap", offset, end, zeros: isZero(bytes, offset, end) }
      offset = end
      continue
    }
    const end = offset + header.lengthBytes
    const badOffset = firstBadRecord(segment, header, offset)
    if (badOffset === undefined) yield { _tag: "Batch", offset, end, header }
    else yield { _tag: "BrokenBatch", offset, end, header, badOffset }
    offset = end
  }
}

/** Offset of the next good batch header, or the size of the segment. */
function nextBatch({ bytes, view, baseLsn }: SegmentBytes, from: number): number {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = buffer.indexOf(batchMagic, from)
  while (at >= 0) {
    if (readBatchHeader(bytes, view, at, baseLsn + at) !== undefined) return at
    at = buffer.indexOf(batchMagic, at + 1)
  }
  return bytes.length
}

function isZero(bytes: Uint8Array, from: number, to: number): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from)
  // Compared in pieces with zeros, which is far quicker than byte by byte: most of a segment is zeros.
  for (let at = 0; at < buffer.length; at += zeros.length) {
    const part = buffer.subarray(at, at + zeros.length)
    if (Buffer.compare(part, zeros.subarray(0, part.length)) !== 0) return false
  }
  return true
}

const zeros = Buffer.alloc(64 * 1024)

function firstBadRecord(
  { bytes, view }: SegmentBytes,
  header: BatchHeader,
  start: number,
): number | undefined {
  const limit = start + header.lengthBytes
  let at = start + batchHeaderBytes
  for (let i = 0; i < header.recordCount; i++) {
    const length = recordLength(bytes, view, at, limit, header.lsn + (at - start))
    if (length === 0) return at
    at += length
  }
  return at === limit ? undefined : at
}
