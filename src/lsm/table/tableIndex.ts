/**
 * Index pages, searched where they lie: nothing is parsed into objects, whatever the size of the
 * table. The index of the pages has the same shape with one field more. Layout: format.ts.
 *
 * The checksum of a page has been verified; `isIndexPage` checks what a search relies on, so that a
 * search of any bytes ends and stays inside of them.
 */
import { ByteWriter } from "../../lib/byteWriter.ts"
import { maxKeyBytes } from "./format.ts"
import { readU32 } from "./varint.ts"

/** Offset, size and checksum of a data block. */
export const pageRecordBytes = 12
/** The same of an index page, and the number of its first block. */
export const topRecordBytes = 16

/** Gathers the entries of one page. */
export class IndexPageWriter {
  private readonly content = new ByteWriter(256)
  private readonly starts: Array<number> = []

  get count(): number {
    return this.starts.length
  }

  get sizeBytes(): number {
    return this.content.length + 4 * this.starts.length + 8
  }

  /** `firstBlock`: only in the index of the pages. */
  add(entry: {
    offset: number
    sizeBytes: number
    checksum: number
    firstBlock?: number
    lastKey: Uint8Array
  }): void {
    this.starts.push(this.content.length)
    this.content.u32(entry.offset)
    this.content.u32(entry.sizeBytes)
    this.content.u32(entry.checksum)
    if (entry.firstBlock !== undefined) this.content.u32(entry.firstBlock)
    this.content.raw(entry.lastKey)
  }

  /** The page's content, an own copy; empty again afterwards. */
  finish(): Uint8Array {
    const { content, starts } = this
    const end = content.length
    for (const start of starts) content.u32(start)
    content.u32(end)
    content.u32(starts.length)
    const page = content.bytes().slice()
    content.reset()
    starts.length = 0
    return page
  }
}

export function indexCount(page: Uint8Array): number {
  return readU32(page, page.length - 4)
}

/** Where the list of entries begins: `count` starts and the end of the last. */
function listOffset(page: Uint8Array, count: number): number {
  return page.length - 8 - 4 * count
}

/** Where entry `index` begins in its page; `index` = count: where the last one ends. */
export function indexEntry(page: Uint8Array, index: number): number {
  return readU32(page, listOffset(page, indexCount(page)) + 4 * index)
}

/** The key of an entry. */
export function indexKey(page: Uint8Array, index: number, recordBytes: number): Uint8Array {
  return page.slice(indexEntry(page, index) + recordBytes, indexEntry(page, index + 1))
}

/** The key of an entry against `key`. */
export function compareIndexKey(
  page: Uint8Array,
  index: number,
  recordBytes: number,
  key: Uint8Array,
): number {
  const at = indexEntry(page, index) + recordBytes
  const length = indexEntry(page, index + 1) - at
  const limit = Math.min(length, key.length)
  for (let i = 0; i < limit; i++) {
    const difference = page[at + i] - key[i]
    if (difference !== 0) return difference
  }
  return length - key.length
}

/**
 * Index of the first entry whose key is at or after `key`; the count when there is none. Both ends
 * of the search share bytes with `key`; what lies between them shares at least the smaller of the
 * two, so comparing begins there (Manber and Myers, 1990).
 */
export function searchIndex(page: Uint8Array, recordBytes: number, key: Uint8Array): number {
  const count = indexCount(page)
  const list = listOffset(page, count)
  const keyLength = key.length
  let low = 0
  let high = count
  let lowShared = 0
  let highShared = 0
  while (low < high) {
    const middle = (low + high) >>> 1
    const at = readU32(page, list + 4 * middle) + recordBytes
    const length = readU32(page, list + 4 * middle + 4) - at
    let i = Math.min(lowShared, highShared)
    const limit = Math.min(length, keyLength)
    while (i < limit && page[at + i] === key[i]) i++
    const isBefore = i < limit ? page[at + i] < key[i] : length < keyLength
    if (isBefore) {
      low = middle + 1
      lowShared = i
    } else {
      high = middle
      highShared = i
    }
  }
  return low
}

/** Whether bytes can be searched as a page: then a search ends and stays inside of them. */
export function isIndexPage(page: Uint8Array): boolean {
  if (page.length < 8) return false
  const count = indexCount(page)
  const list = listOffset(page, count)
  return list >= 0 && readU32(page, list) === 0 && readU32(page, list + 4 * count) === list
}

/** Whether every entry lies inside of the page, with a key of an allowed length. */
export function hasWholeEntries(page: Uint8Array, recordBytes: number): boolean {
  const count = indexCount(page)
  for (let i = 0; i < count; i++) {
    const keyLength = indexEntry(page, i + 1) - indexEntry(page, i) - recordBytes
    if (keyLength <= 0 || keyLength > maxKeyBytes) return false
  }
  return true
}
