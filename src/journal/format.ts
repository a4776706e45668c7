import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { equalBytes, utf8 } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { crc32 } from "../lib/checksum.ts"
import { loadU32, storeU32 } from "../lib/littleEndian.ts"
import type { LogIndex, Lsn, RangeId, ReplicaId, Term } from "../types.ts"

/**
 * The journal's bytes. Stored: do not change without a new format version. Numbers are
 * little-endian; u64 holds safe integers.
 *
 *     segment = segment header (64) ‖ batch* ‖ zeros up to the segment's size
 *     batch   = batch header (40) ‖ record*
 *     record  = record header (52) ‖ data
 *
 *     segment header
 *        0  magic "KVRMJRNL" (8)
 *        8  format version u32
 *       12  checksum u32, of the 64 bytes with these four as zero
 *       16  segment number u64
 *       24  base LSN u64
 *       32  size of the file in bytes u64
 *       40  zero (24)
 *
 *     batch header
 *        0  magic (4)
 *        4  checksum u32, of bytes 8 to 40
 *        8  length u32, header included
 *       12  records u32
 *       16  checkpoint records among them, all at the front u32
 *       20  standing records among them, all at the end u32
 *       24  LSN of this header u64
 *       32  durable LSN when it was written u64
 *
 *     record header
 *        0  checksum u32, of all that follows in the record, seeded with the record's LSN
 *        4  length u32, header included
 *        8  type u8
 *        9  kind of entry u8
 *       10  zero u16
 *       12  range u64
 *       20  replica u64
 *       28  index u64
 *       36  term u64
 *       44  previous term u64
 *
 * The first 64 bytes of a segment keep their layout in every later version, so that a newer format
 * is told from damage. A batch that begins a segment holds a checkpoint record of every group known
 * before it, and its durable LSN is where the content of the segment before it ends. A batch with records ends
 * with a standing record of every group that it speaks of, so that what a damaged record said shows a second time.
 */
export const formatVersion = 2
export const segmentHeaderBytes = 64
export const batchHeaderBytes = 40
export const recordHeaderBytes = 52

/**
 * What the numbers of a record header mean, by type. Stored: do not change these values.
 *
 * - append, rewrite: an entry and the term of the entry before it.
 * - hardState: index = commit, term, previous term = vote.
 * - release: the log begins after (index, term); what lies above stays.
 * - reset: the log is empty and begins after (index, term).
 * - destroy: the replica is gone, its records with it.
 * - checkpoint, standing: the state of a group before this segment, and after this batch (standing.ts):
 *   index = last index, term of the hard state, previous term = base term; the rest in its data, flags
 *   in its kind.
 */
export const recordTypes = {
  append: 1,
  rewrite: 2,
  hardState: 3,
  release: 4,
  reset: 5,
  destroy: 6,
  checkpoint: 7,
  standing: 8,
} as const

const segmentMagic = utf8("KVRMJRNL")
/** Not valid UTF-8, so that text never looks like it. */
export const batchMagic = Uint8Array.of(0xb5, 0x4b, 0x56, 0xf1)
export const batchMagicNumber = 0xf1564bb5

export interface SegmentHeader {
  readonly number: number
  readonly baseLsn: Lsn
  readonly sizeBytes: number
}

export function encodeSegmentHeader(header: SegmentHeader): Uint8Array {
  const writer = new ByteWriter(segmentHeaderBytes)
  writer.raw(segmentMagic)
  writer.u32(formatVersion)
  writer.u32(0)
  writer.u64(header.number)
  writer.u64(header.baseLsn)
  writer.u64(header.sizeBytes)
  writer.raw(new Uint8Array(segmentHeaderBytes - writer.length))
  writer.patchU32(12, crc32(writer.bytes()))
  return writer.take()
}

/**
 * The header at the start of `bytes`. Throws `StorageCorruption`, also for a newer format, which it
 * names.
 */
export function decodeSegmentHeader(path: string, bytes: Uint8Array): SegmentHeader {
  const refuse = (offset: number, expected: string, actual: string) =>
    new StorageCorruption({ path, offset, expected, actual })
  if (bytes.length < segmentHeaderBytes) {
    throw refuse(bytes.length, "a segment header of 64 bytes", `a file of ${bytes.length} bytes`)
  }
  const header = bytes.slice(0, segmentHeaderBytes)
  if (!equalBytes(header.subarray(0, 8), segmentMagic)) {
    throw refuse(0, "the mark of a journal segment", "other bytes")
  }
  const view = new DataView(header.buffer)
  const checksum = view.getUint32(12, true)
  view.setUint32(12, 0, true)
  if (crc32(header) !== checksum) {
    throw refuse(12, "the checksum of the segment header", "another")
  }
  const version = view.getUint32(8, true)
  if (version !== formatVersion) {
    const relation = version > formatVersion ? "a newer format" : "an unknown format"
    throw refuse(8, `journal format version ${formatVersion}`, `version ${version}, ${relation}`)
  }
  return {
    number: readU64(view, 16),
    baseLsn: readU64(view, 24),
    sizeBytes: readU64(view, 32),
  }
}

/**
 * A u64, or NaN when it is no safe integer; every comparison with NaN fails, so bounds checks
 * refuse it.
 */
function readU64(view: DataView, offset: number): number {
  const high = view.getUint32(offset + 4, true)
  return high >= 2 ** 21 ? Number.NaN : high * 2 ** 32 + view.getUint32(offset, true)
}

export interface BatchHeader {
  readonly lengthBytes: number
  readonly recordCount: number
  readonly checkpointCount: number
  readonly standingCount: number
  readonly lsn: Lsn
  readonly durableLsn: Lsn
}

/** Fills the forty bytes that the caller left at the start of `writer`. */
export function patchBatchHeader(writer: ByteWriter, header: BatchHeader): void {
  assert(header.durableLsn <= header.lsn, () => `durable ${header.durableLsn} at ${header.lsn}`)
  const u64 = (offset: number, value: number) => {
    writer.patchU32(offset, value >>> 0)
    writer.patchU32(offset + 4, Math.floor(value / 2 ** 32))
  }
  writer.patchU32(0, batchMagicNumber)
  writer.patchU32(8, header.lengthBytes)
  writer.patchU32(12, header.recordCount)
  writer.patchU32(16, header.checkpointCount)
  writer.patchU32(20, header.standingCount)
  u64(24, header.lsn)
  u64(32, header.durableLsn)
  writer.patchU32(4, crc32(writer.bytes().subarray(8, batchHeaderBytes)))
}

/**
 * The batch header at `offset` of a segment's bytes, or `undefined` when there is no valid one that
 * belongs at `lsn`. Says nothing about the records. Its length ends inside `bytes`.
 */
export function readBatchHeader(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  lsn: Lsn,
): BatchHeader | undefined {
  if (offset + batchHeaderBytes > bytes.length) return undefined
  if (view.getUint32(offset, true) !== batchMagicNumber) return undefined
  const checksum = view.getUint32(offset + 4, true)
  if (crc32(bytes.subarray(offset + 8, offset + batchHeaderBytes)) !== checksum) return undefined
  const lengthBytes = view.getUint32(offset + 8, true)
  const durableLsn = readU64(view, offset + 32)
  const fits = lengthBytes >= batchHeaderBytes && lengthBytes <= bytes.length - offset
  if (!fits || readU64(view, offset + 24) !== lsn || !(durableLsn <= lsn)) return undefined
  return {
    lengthBytes,
    recordCount: view.getUint32(offset + 12, true),
    checkpointCount: view.getUint32(offset + 16, true),
    standingCount: view.getUint32(offset + 20, true),
    lsn,
    durableLsn,
  }
}

export interface RecordFields {
  readonly type: number
  readonly kind: number
  readonly range: RangeId
  readonly replica: ReplicaId
  readonly index: LogIndex
  readonly term: Term
  readonly previousTerm: Term
}

/**
 * Appends a record without its checksum, which `sealRecords` adds once the record's LSN is known.
 */
export function writeRecord(writer: ByteWriter, fields: RecordFields, data: Uint8Array): void {
  const lengthBytes = recordHeaderBytes + data.length
  writer.reserve(lengthBytes)
  writer.u32(0)
  writer.u32(lengthBytes)
  writer.u8(fields.type)
  writer.u8(fields.kind)
  writer.u16(0)
  writer.u64(fields.range)
  writer.u64(fields.replica)
  writer.u64(fields.index)
  writer.u64(fields.term)
  writer.u64(fields.previousTerm)
  writer.raw(data)
}

/**
 * Writes the checksums of the records that tile `writer` from the end of the batch header, the
 * batch lying at `batchLsn`.
 */
export function sealRecords(writer: ByteWriter, batchLsn: Lsn): void {
  const bytes = writer.bytes()
  let at = batchHeaderBytes
  while (at < bytes.length) {
    const end = at + loadU32(bytes, at + 4)
    storeU32(bytes, at, recordChecksum(bytes, at, end, batchLsn + at))
    at = end
  }
  assert(at === bytes.length, "records tile the batch")
}

function recordChecksum(bytes: Uint8Array, start: number, end: number, lsn: Lsn): number {
  const seed = ((lsn >>> 0) ^ Math.floor(lsn / 2 ** 32)) >>> 0
  return crc32(bytes.subarray(start + 4, end), seed)
}

/**
 * Length of the record at `offset`, which has to lie at `lsn` and end by `limit`; 0 when the bytes
 * are not that record. A claimed length is believed only inside the limit and under the checksum.
 */
export function recordLength(
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  limit: number,
  lsn: Lsn,
): number {
  if (offset + recordHeaderBytes > limit) return 0
  const lengthBytes = view.getUint32(offset + 4, true)
  if (lengthBytes < recordHeaderBytes || lengthBytes > limit - offset) return 0
  const checksum = recordChecksum(bytes, offset, offset + lengthBytes, lsn)
  return checksum === view.getUint32(offset, true) ? lengthBytes : 0
}

/** A record as it lies in a buffer; one object is filled again and again. */
export class RecordView implements RecordFields {
  type = 0
  kind = 0
  range = 0
  replica = 0
  index = 0
  term = 0
  previousTerm = 0
  lsn: Lsn = 0
  lengthBytes = 0
  /** View of the data; valid as long as the buffer is. */
  data: Uint8Array = segmentMagic

  /** Reads the record at `offset`, which `recordLength` has checked. */
  parse(bytes: Uint8Array, view: DataView, offset: number, lsn: Lsn): void {
    this.type = bytes[offset + 8] as number
    this.kind = bytes[offset + 9] as number
    this.range = readU64(view, offset + 12)
    this.replica = readU64(view, offset + 20)
    this.index = readU64(view, offset + 28)
    this.term = readU64(view, offset + 36)
    this.previousTerm = readU64(view, offset + 44)
    this.lsn = lsn
    this.lengthBytes = view.getUint32(offset + 4, true)
    this.data = bytes.subarray(offset + recordHeaderBytes, offset + this.lengthBytes)
  }
}
