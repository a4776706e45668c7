import { crc32 } from "../lib/checksum.ts"
import { storeU32, storeU64 } from "../lib/littleEndian.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"
import { batchHeaderBytes, batchMagicNumber, recordHeaderBytes, recordTypes } from "./format.ts"
import type { GroupKey } from "./group.ts"

/** Bytes that a direct batch has before the data of its entry. */
export const directOverheadBytes = batchHeaderBytes + recordHeaderBytes

/** A buffer that one huge entry has grown beyond this is not kept. */
const keptBufferBytes = 4 * 1024 * 1024

/**
 * A batch of exactly one entry, laid out in a buffer that is used again for the next one. A log whose every entry is written by itself, at once, and
 * synced later or never, costs no object this way: what changes from one batch to the next is patched, and two checksums are all that is reckoned.
 */
export class DirectBatch {
  /** The batch, from offset 0 for `lengthBytes`. Valid until the next `fill`. */
  bytes = new Uint8Array(64 * 1024)
  lengthBytes = 0
  /** Where it is to be written: path of the segment, offset in it. */
  path = ""
  offset = 0

  fill(
    key: GroupKey,
    place: { lsn: Lsn; durableLsn: Lsn; index: LogIndex; term: Term; previousTerm: Term },
    data: Uint8Array,
  ): void {
    const recordBytes = recordHeaderBytes + data.length
    const lengthBytes = batchHeaderBytes + recordBytes
    if (lengthBytes > this.bytes.length || this.bytes.length > keptBufferBytes) {
      this.bytes = new Uint8Array(Math.max(64 * 1024, lengthBytes))
    }
    const { bytes } = this
    const { lsn } = place
    storeU32(bytes, 0, batchMagicNumber)
    storeU32(bytes, 8, lengthBytes)
    storeU32(bytes, 12, 1)
    storeU32(bytes, 16, 0)
    storeU32(bytes, 20, 0)
    storeU64(bytes, 24, lsn)
    storeU64(bytes, 32, place.durableLsn)
    storeU32(bytes, 4, crc32(bytes.subarray(8, batchHeaderBytes)))
    const at = batchHeaderBytes
    storeU32(bytes, at + 4, recordBytes)
    storeU32(bytes, at + 8, recordTypes.append)
    storeU64(bytes, at + 12, key.range)
    storeU64(bytes, at + 20, key.replica)
    storeU64(bytes, at + 28, place.index)
    storeU64(bytes, at + 36, place.term)
    storeU64(bytes, at + 44, place.previousTerm)
    bytes.set(data, at + recordHeaderBytes)
    const recordLsn = lsn + at
    const seed = ((recordLsn >>> 0) ^ Math.floor(recordLsn / 2 ** 32)) >>> 0
    storeU32(bytes, at, crc32(bytes.subarray(at + 4, lengthBytes), seed))
    this.lengthBytes = lengthBytes
  }
}
