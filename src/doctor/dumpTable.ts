import type { Disk } from "../disk/disk.ts"
import { BlockCursor } from "../lsm/table/block.ts"
import { compressions } from "../lsm/table/compression.ts"
import { kinds } from "../lsm/table/format.ts"
import { identifyTable, Table } from "../lsm/table/tableReader.ts"
import { bytesText, intervalText } from "./keyText.ts"
import { Findings } from "./report.ts"

const previewBytes = 32

/**
 * A table in words: properties, range tombstones, and block by block its entries. Data blocks that are damaged are named and
 * passed over; anything else that is wrong throws `StorageCorruption`.
 */
export function* dumpTable(disk: Disk, path: string): Generator<string, void> {
  const identity = identifyTable(disk, path)
  const table = new Table({ disk, path, identity })
  try {
    const { properties } = table
    yield `table ${identity.tableId}: ${identity.sizeBytes} bytes, checksum ${identity.checksum}`
    for (const [name, value] of Object.entries(properties).sort()) {
      yield `${name}: ${propertyText(name, value)}`
    }
    for (const { lower, upper, sequence } of table.tombstones) {
      yield `tombstone  seq ${sequence}  ${intervalText({ lower, upper })}`
    }
    const cursor = new BlockCursor()
    for (let block = 0; block < table.blockCount; block++) {
      const findings = new Findings()
      const content = findings.attempt("", () => table.block(block, { fill: false }), path)
      const [damage] = findings.damages
      if (damage !== undefined || content === undefined) {
        yield `block ${block}  DAMAGED at byte ${damage?.offset}: expected ${damage?.expected}, found ${damage?.found}`
        continue
      }
      yield `block ${block}  last key ${bytesText(table.lastKey(block))}`
      cursor.setBlock(content, identity.baseSequence, table, block)
      for (let valid = cursor.seekFirst(); valid; valid = cursor.step()) yield entryText(cursor)
    }
  } finally {
    table.close()
  }
}

function propertyText(name: string, value: unknown): string {
  if (value instanceof Uint8Array) return bytesText(value)
  if (name === "compression") return compressionName(Number(value))
  if (name === "createdSeconds") return `${value} s after the start of 2020 (UTC)`
  return String(value)
}

export function compressionName(kind: number): string {
  const found = Object.entries(compressions).find(([, value]) => value === kind)
  return found === undefined ? `kind ${kind}` : found[0]
}

function entryText(cursor: BlockCursor): string {
  const { keyBytes, keyOffset, keyLength, sequence, kind } = cursor
  const key = bytesText(keyBytes.subarray(keyOffset, keyOffset + keyLength))
  if (kind === kinds.delete) return `  ${key}  seq ${sequence}  delete`
  const { valueBytes, valueOffset, valueLength } = cursor
  const value = valueBytes.subarray(valueOffset, valueOffset + valueLength)
  return `  ${key}  seq ${sequence}  put  ${valueLength} bytes  ${bytesText(value, previewBytes)}`
}
