import type { ByteWriter } from "../lib/byteWriter.ts"

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
