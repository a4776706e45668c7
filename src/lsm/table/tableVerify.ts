import { compareBytes, emptyBytes } from "../../lib/bytes.ts"
import { BlockCursor } from "./block.ts"
import { bloomMayContain, keyHash } from "./bloom.ts"
import { kinds, tableHeaderBytes } from "./format.ts"
import { hasWholeEntries, indexCount, indexEntry, indexKey, pageRecordBytes } from "./tableIndex.ts"
import type { Table } from "./tableReader.ts"
import { readU32 } from "./varint.ts"

/** A table without caches, and what else there is to see of it. */
export interface TableCheck {
  readonly table: Table
  readonly pageCount: number
  page(number: number): { content: Uint8Array; firstBlock: number; lastKey: Uint8Array }
  readonly filter: Uint8Array
  corrupt(offset: number, expected: string, actual: string): never
}

/**
 * Checks the data blocks from `from` on until `budgetBytes` were read, and with block 0 the index
 * pages. Returns the block to go on with.
 */
export function verifyTable(check: TableCheck, from: number, budgetBytes: number): number {
  const { table } = check
  const { blockCount } = table
  if (from === 0) verifyPages(check)
  const totals = { entries: 0, deletes: 0, rawBytes: 0 }
  let lastKey = from === 0 || from > blockCount ? emptyBytes : table.lastKey(from - 1)
  let read = 0
  let at = from
  for (; at < blockCount && read < budgetBytes; at++) {
    read += table.placeOf(at).sizeBytes
    lastKey = verifyBlock(check, at, lastKey, totals)
  }
  if (from > 0 || at < blockCount) return Math.min(at, blockCount)
  const stated = table.properties
  const isWhole =
    totals.entries === stated.entries &&
    totals.deletes === stated.deletes &&
    totals.rawBytes === stated.rawBytes &&
    compareBytes(lastKey, stated.lastKey) === 0
  if (!isWhole) {
    check.corrupt(0, `${stated.entries} entries as stated`, `${totals.entries} entries`)
  }
  return at
}

/** Pages name blocks that lie one behind the other, with keys that ascend. */
function verifyPages({ table, pageCount, page, corrupt }: TableCheck): void {
  let offset = tableHeaderBytes
  let last: Uint8Array = emptyBytes
  for (let i = 0; i < pageCount; i++) {
    const { content, lastKey } = page(i)
    if (!hasWholeEntries(content, pageRecordBytes)) corrupt(offset, "an index page", "other bytes")
    const count = indexCount(content)
    for (let j = 0; j < count; j++) {
      const at = indexEntry(content, j)
      if (readU32(content, at) !== offset) corrupt(offset, "a block", "a gap in the index")
      offset += readU32(content, at + 4)
      const key = indexKey(content, j, pageRecordBytes)
      if (compareBytes(last, key) >= 0) corrupt(offset, "keys in ascending order", "another order")
      last = key
    }
    if (compareBytes(last, lastKey) !== 0) corrupt(offset, "a page's last key", "another one")
  }
  if (offset !== table.dataEnd) corrupt(offset, "blocks without gaps", "a gap")
}

function verifyBlock(
  { table, filter, corrupt }: TableCheck,
  index: number,
  before: Uint8Array,
  totals: { entries: number; deletes: number; rawBytes: number },
): Uint8Array {
  const cursor = new BlockCursor()
  const { smallestSequence, largestSequence, firstKey } = table.properties
  const { baseSequence } = table.identity
  const fail = (expected: string, actual: string) =>
    corrupt(table.placeOf(index).offset, expected, actual)
  let last = before
  table.position(cursor, index)
  for (let valid = cursor.seekFirst(); valid; valid = cursor.step()) {
    const key = cursor.keyBytes.slice(0, cursor.keyLength)
    if (compareBytes(last, key) >= 0) fail("keys in ascending order", "keys out of order")
    if (index === 0 && last.length === 0 && compareBytes(key, firstKey) !== 0) {
      fail("the first key as stated", "another one")
    }
    if (!bloomMayContain(filter, keyHash(key, 0, key.length))) {
      fail("a filter that knows every key", "a filter that does not")
    }
    const sequence = cursor.sequence - baseSequence
    if (sequence < smallestSequence || sequence > largestSequence) {
      fail(`sequences up to ${largestSequence}`, `sequence ${sequence}`)
    }
    last = key
    totals.entries++
    totals.rawBytes += key.length + cursor.valueLength
    if (cursor.kind === kinds.delete) totals.deletes++
  }
  if (!cursor.hasRightRestarts()) fail("restarts at entries", "restarts elsewhere")
  if (table.compareLastKey(index, last) !== 0) {
    fail("a block that ends with its key in the index", "another last key")
  }
  return last
}
