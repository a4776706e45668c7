import type { ByteWriter } from "../lib/byteWriter.ts"
import type { Cursor } from "../lsm/read/cursor.ts"

/**
 * A received snapshot on disk before it is ingested: pairs in key order, `u32 LE key bytes ‖ u32 LE value bytes ‖ key ‖
 * value`. The engine builds tables from it. Never read after a restart.
 */
export const spillDirectory = "incoming"

export function writePair(writer: ByteWriter, key: Uint8Array, value: Uint8Array): void {
  writer.u32(key.length)
  writer.u32(value.length)
  writer.raw(key)
  writer.raw(value)
}

/** The pair under a cursor, without copies of its key and value in between. */
export function writeStretches(writer: ByteWriter, pair: Cursor): void {
  writer.u32(pair.keyLength)
  writer.u32(pair.valueLength)
  writer.stretch(pair.keyBytes, pair.keyOffset, pair.keyLength)
  writer.stretch(pair.valueBytes, pair.valueOffset, pair.valueLength)
}
