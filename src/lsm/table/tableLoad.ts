import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import { isBloomFilter } from "./bloom.ts"
import { tableHeaderBytes } from "./format.ts"
import type { TableFile, TableIdentity } from "./tableFile.ts"
import { indexCount, indexEntry, isIndexPage } from "./tableIndex.ts"
import type { Footer, Place, StatedProperties, TableProperties } from "./tableParts.ts"
import { decodeTombstones } from "./tableParts.ts"
import { readU32 } from "./varint.ts"

/** No data block is smaller: a compressed one has its size, a byte and the trailer. */
const minBlockBytes = 10

/** What an open table keeps in memory. */
export interface LoadedTable {
  readonly filter: Uint8Array
  /** Index of the index pages. */
  readonly top: Uint8Array
  /** Number of the first data block of each page, and at the end the count of blocks. */
  readonly firstBlocks: Uint32Array
  readonly properties: TableProperties
  readonly tombstones: ReadonlyArray<RangeTombstone>
}

/** Where an entry of an index says that its block lies. */
export function placeIn(index: Uint8Array, entry: number): Place {
  const at = indexEntry(index, entry)
  return {
    offset: readU32(index, at),
    sizeBytes: readU32(index, at + 4),
    checksum: readU32(index, at + 8),
  }
}

/** Reads and verifies all parts of a table but index pages and data blocks. */
export function loadTable(file: TableFile, identity: TableIdentity): LoadedTable {
  file.checkHeader()
  const footer = file.readFooter(identity.checksum)
  if (footer.entries !== identity.entries) {
    file.corrupt(identity.sizeBytes, `${identity.entries} entries`, `${footer.entries}`)
  }
  const stated = file.readProperties(footer)
  const index = loadIndex(file, footer, stated)
  const filter = file.block(stated.filterPlace)
  if (!isBloomFilter(filter)) {
    file.corrupt(stated.filterPlace.offset, "a filter", `${filter.length} bytes`)
  }
  const { offset } = stated.tombstonePlace
  const tombstones = file.decode(offset, () =>
    decodeTombstones(file.block(stated.tombstonePlace), identity.baseSequence),
  )
  if (tombstones.length !== stated.tombstones) {
    file.corrupt(offset, `${stated.tombstones} tombstones`, `${tombstones.length}`)
  }
  return { filter, tombstones, ...index }
}

/**
 * The index of the pages. Parts must lie one behind the other, so that no byte is outside every
 * checksum; that data blocks do so as well is checked by `verify`, which sees all pages.
 */
function loadIndex(
  file: TableFile,
  footer: Footer,
  stated: StatedProperties,
): Pick<LoadedTable, "top" | "firstBlocks" | "properties"> {
  const { tombstonePlace, filterPlace, indexPlace, indexPages } = stated
  const { entries, dataBlocks } = footer
  const top = file.block(indexPlace)
  if (!isIndexPage(top) || indexCount(top) !== indexPages) {
    file.corrupt(indexPlace.offset, `an index of ${indexPages} pages`, "other bytes")
  }
  // The index bounds the count of pages: it holds an entry of each.
  const firstBlocks = new Uint32Array(indexPages + 1)
  let at = indexPages === 0 ? tombstonePlace.offset : placeIn(top, 0).offset
  const dataBytes = at - tableHeaderBytes
  // The data bounds the count of blocks. Without a page there is neither.
  let isRight =
    indexPages === 0 ? dataBytes === 0 && dataBlocks === 0 : dataBytes >= dataBlocks * minBlockBytes
  for (let i = 0; i < indexPages; i++) {
    const place = placeIn(top, i)
    const firstBlock = readU32(top, indexEntry(top, i) + 12)
    // Each page has a block, the first one block 0.
    isRight &&= i === 0 ? firstBlock === 0 : firstBlock > firstBlocks[i - 1]
    isRight &&= place.offset === at && firstBlock < dataBlocks
    firstBlocks[i] = firstBlock
    at += place.sizeBytes
  }
  firstBlocks[indexPages] = dataBlocks
  for (const place of [tombstonePlace, filterPlace, indexPlace]) {
    isRight &&= place.offset === at
    at += place.sizeBytes
  }
  isRight &&= at === footer.properties.offset
  if (!isRight) file.corrupt(indexPlace.offset, "parts without gaps", "a gap")
  return {
    top,
    firstBlocks,
    // Field by field: this runs once for each table made, and a rest pattern costs as much as reading a block.
    properties: {
      entries,
      deletes: stated.deletes,
      tombstones: stated.tombstones,
      dataBlocks,
      indexPages,
      smallestSequence: stated.smallestSequence,
      largestSequence: stated.largestSequence,
      rawBytes: stated.rawBytes,
      dataBytes,
      compression: stated.compression,
      createdSeconds: stated.createdSeconds,
      firstKey: stated.firstKey,
      lastKey: stated.lastKey,
    },
  }
}
