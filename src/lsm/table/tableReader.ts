import type { Disk } from "../../disk/disk.ts"
import { emptyBytes } from "../../lib/bytes.ts"
import type { BlockCache, BlockHome } from "../cache/blockCache.ts"
import type { Caches } from "../cache/caches.ts"
import type { KeyCache } from "../cache/keyCache.ts"
import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import type { BlockCursor } from "./block.ts"
import { bloomMayContain } from "./bloom.ts"
import { tableHeaderBytes } from "./format.ts"
import type { TableIdentity } from "./tableFile.ts"
import { TableFile } from "./tableFile.ts"
import {
  compareIndexKey,
  indexCount,
  indexEntry,
  indexKey,
  isIndexPage,
  pageRecordBytes,
  searchIndex,
  topRecordBytes,
} from "./tableIndex.ts"
import { loadTable, placeIn } from "./tableLoad.ts"
import type { Place, TableProperties } from "./tableParts.ts"
import type { TableCheck } from "./tableVerify.ts"
import { verifyTable } from "./tableVerify.ts"
import type { Pace } from "./tableWriter.ts"
import { readU32 } from "./varint.ts"

export { identifyTable } from "./tableFile.ts"
export type { TableIdentity, TableProperties }

export interface TableOptions {
  readonly disk: Disk
  readonly path: string
  readonly identity: TableIdentity
  /** Without: every block is read from the file, which is what a job wants that copies blocks. */
  readonly caches?: Caches | undefined
  readonly pace?: Pace | undefined
}

/** A place that is filled again and again, so that finding a block allocates nothing. */
class FoundPlace implements Place {
  offset = 0
  sizeBytes = 0
  checksum = 0
}

/**
 * One table, read-only. Opened by its first use, when header, footer, properties, index of the
 * pages, filter and tombstones are verified and kept; index pages and data blocks are verified
 * whenever they are read from the file, and live in the block cache. Anything wrong throws
 * `StorageCorruption`: it is never "not found".
 */
export class Table {
  readonly identity: TableIdentity
  readonly path: string
  /** Versions that hold this table. */
  holders = 0
  private readonly options: TableOptions
  private readonly file: TableFile
  private readonly cache: BlockCache | undefined
  private readonly keyCache: KeyCache | undefined
  private readonly owner: number
  private readonly place = new FoundPlace()
  private loaded = false
  /** Data blocks, then index pages. */
  private home: BlockHome = new Int32Array(0)
  private filter: Uint8Array = emptyBytes
  private top: Uint8Array = emptyBytes
  /** Number of the first data block of each page, and their count at the end. */
  private firstBlocks: Uint32Array = new Uint32Array(1)
  private blocks = 0
  private pages = 0
  /** The page looked at last, when there is no cache to hold it. */
  private heldPage = -1
  private heldPageContent: Uint8Array = emptyBytes
  private stated: TableProperties | undefined
  private tombstoneList: ReadonlyArray<RangeTombstone> = []

  constructor(options: TableOptions) {
    const { identity, path, disk, caches, pace } = options
    const { tableId, sizeBytes } = identity
    this.options = options
    this.identity = identity
    this.path = path
    this.file = new TableFile({ disk, path, tableId, sizeBytes, pace })
    const isCached = caches !== undefined && caches.block.budgetBytes > 0
    this.cache = isCached ? caches.block : undefined
    this.keyCache = caches !== undefined && !caches.key.isOff ? caches.key : undefined
    // Not the file's number: a hint of a table that was closed must not be believed of another.
    this.owner = caches?.newOwner() ?? 0
  }

  /** Closes the file and forgets its blocks. A later read opens it again. */
  close(): void {
    this.file.close()
    this.loaded = false
    this.heldPage = -1
    this.heldPageContent = emptyBytes
    this.filter = emptyBytes
    this.cache?.dropTable(this.home)
  }

  get blockCount(): number {
    if (!this.loaded) this.load()
    return this.blocks
  }

  get properties(): TableProperties {
    if (!this.loaded) this.load()
    return this.stated as TableProperties
  }

  /** Ascending and disjoint, with the sequences that they have in this engine. */
  get tombstones(): ReadonlyArray<RangeTombstone> {
    if (!this.loaded) this.load()
    return this.tombstoneList
  }

  /** Bytes of memory that stay with the open table: filter and index of the pages. */
  get residentBytes(): number {
    return this.loaded ? this.filter.length + this.top.length : 0
  }

  /** False = the key has surely no entry in this table. `hash` is the `keyHash` of the key. */
  mayContain(hash: number): boolean {
    if (!this.loaded) this.load()
    return bloomMayContain(this.filter, hash)
  }

  /**
   * Puts `cursor` on the entry of `key`; false when there is none. `hash` is the `keyHash` of the
   * key.
   */
  find(key: Uint8Array, hash: number, cursor: BlockCursor): boolean {
    if (!this.loaded) this.load()
    if (!bloomMayContain(this.filter, hash)) return false
    if (this.keyCache !== undefined && this.findByHint(key, hash, cursor)) return true
    const blockIndex = this.firstBlockAtOrAfter(key)
    if (blockIndex === this.blocks) return false
    this.position(cursor, blockIndex)
    if (!cursor.seekAtOrAfter(key) || !cursor.isAt(key)) return false
    this.keyCache?.put(this.owner, hash, blockIndex, cursor.searchedRestart)
    return true
  }

  /** Sets a cursor before the first entry of a block. */
  position(cursor: BlockCursor, blockIndex: number): void {
    cursor.setBlock(this.block(blockIndex), this.identity.baseSequence, this, blockIndex)
  }

  /**
   * Index of the first block whose last key is at or after `key`; the count of blocks when there is
   * none.
   */
  firstBlockAtOrAfter(key: Uint8Array): number {
    if (!this.loaded) this.load()
    const page = searchIndex(this.top, topRecordBytes, key)
    if (page >= this.pages) return this.blocks
    return this.firstBlocks[page] + searchIndex(this.page(page), pageRecordBytes, key)
  }

  /** The last key of a block against `key`. */
  compareLastKey(blockIndex: number, key: Uint8Array): number {
    const page = this.pageOf(blockIndex)
    const index = blockIndex - this.firstBlocks[page]
    return compareIndexKey(this.page(page), index, pageRecordBytes, key)
  }

  lastKey(blockIndex: number): Uint8Array {
    const page = this.pageOf(blockIndex)
    return indexKey(this.page(page), blockIndex - this.firstBlocks[page], pageRecordBytes)
  }

  /** Bytes of the data blocks that may hold keys of [lower, upper). */
  bytesBetween(lower: Uint8Array, upper: Uint8Array): number {
    const first = this.firstBlockAtOrAfter(lower)
    const last = Math.min(this.firstBlockAtOrAfter(upper), this.blocks - 1)
    if (first > last) return 0
    const { offset } = this.placeOf(first)
    const end = this.placeOf(last)
    return end.offset + end.sizeBytes - offset
  }

  /**
   * The verified content of a data block, from the cache or the file. `fill: false`: the cache stays
   * as it is.
   */
  block(blockIndex: number, options?: { readonly fill: boolean }): Uint8Array {
    if (!this.loaded) this.load()
    const cache = this.cache
    if (cache === undefined) return this.file.block(this.placeOf(blockIndex))
    const fill = options === undefined || options.fill
    const held = fill ? cache.get(this.home, blockIndex) : cache.peek(this.home, blockIndex)
    if (held !== undefined) return held
    const content = this.file.block(this.placeOf(blockIndex))
    if (fill) cache.insert(this.home, blockIndex, content)
    return content
  }

  /** Whether blocks read are kept for others. */
  get isCached(): boolean {
    return this.cache !== undefined
  }

  /** The content of a block if the cache holds it, which stays as it is. */
  heldBlock(blockIndex: number): Uint8Array | undefined {
    return this.cache?.peek(this.home, blockIndex)
  }

  /** Where a data block lies. The same object each time: read it before the next call. */
  placeOf(blockIndex: number): Place {
    const number = this.pageOf(blockIndex)
    const page = this.page(number)
    const at = indexEntry(page, blockIndex - this.firstBlocks[number])
    const place = this.place
    place.offset = readU32(page, at)
    place.sizeBytes = readU32(page, at + 4)
    place.checksum = readU32(page, at + 8)
    return place
  }

  /** `placeOf`, inside of the file for sure. */
  checkedPlaceOf(blockIndex: number): Place {
    const place = this.placeOf(blockIndex)
    this.file.checkPlace(place)
    return place
  }

  /** Reads stored bytes of data blocks, for a reader that verifies them with `contentOf`. */
  readStored(target: Uint8Array, offset: number): void {
    this.file.readInto(target, offset)
  }

  contentOf(bytes: Uint8Array, start: number, place: Place): Uint8Array {
    return this.file.contentOf(bytes, start, place)
  }

  /** Where the data blocks end. */
  get dataEnd(): number {
    return tableHeaderBytes + this.properties.dataBytes
  }

  /** For a cursor that found a block's structure wrong under a right checksum. */
  malformed(blockIndex: number, actual: string): never {
    this.file.corrupt(this.placeOf(blockIndex).offset, "a data block", actual)
  }

  /**
   * Reads every byte from the file, past all caches, and checks all that can be checked: with no
   * arguments the whole table. Else the data blocks from `from` on, until `budgetBytes` are read
   * (and with block 0 all other parts). Returns the block to go on with, `blockCount` at the end.
   */
  verify(from = 0, budgetBytes = Number.POSITIVE_INFINITY): number {
    const { disk, path, identity, pace } = this.options
    const fresh = new Table({ disk, path, identity, pace })
    try {
      return verifyTable(fresh.check(from === 0), from, budgetBytes)
    } finally {
      fresh.close()
    }
  }

  /** What `verifyTable` looks at. `pages`: verifies all index pages now. */
  private check(pages: boolean): TableCheck {
    this.load()
    if (pages) for (let i = 0; i < this.pages; i++) this.page(i)
    const corrupt = this.file.corrupt.bind(this.file)
    const pagesOf = (i: number) => ({
      content: this.page(i),
      firstBlock: this.firstBlocks[i],
      lastKey: indexKey(this.top, i, topRecordBytes),
    })
    return { table: this, pageCount: this.pages, page: pagesOf, filter: this.filter, corrupt }
  }

  private findByHint(key: Uint8Array, hash: number, cursor: BlockCursor): boolean {
    const keyCache = this.keyCache as KeyCache
    const hint = keyCache.find(this.owner, hash)
    const blockIndex = hint >>> 8
    if (hint >= 0 && blockIndex < this.blocks) {
      this.position(cursor, blockIndex)
      if (cursor.findFrom(key, hint & 0xff)) {
        keyCache.hits++
        return true
      }
    }
    keyCache.misses++
    return false
  }

  /** The page that names a data block. */
  private pageOf(blockIndex: number): number {
    if (!this.loaded) this.load()
    let low = 0
    let high = this.pages - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.firstBlocks[middle] <= blockIndex) low = middle
      else high = middle - 1
    }
    return low
  }

  private page(number: number): Uint8Array {
    const cache = this.cache
    if (cache === undefined) {
      if (this.heldPage !== number) {
        this.heldPageContent = this.readPage(number)
        this.heldPage = number
      }
      return this.heldPageContent
    }
    const held = cache.get(this.home, this.blocks + number)
    if (held !== undefined) return held
    const content = this.readPage(number)
    cache.insert(this.home, this.blocks + number, content)
    return content
  }

  private readPage(number: number): Uint8Array {
    const place = placeIn(this.top, number)
    const content = this.file.block(place)
    const count = this.firstBlocks[number + 1] - this.firstBlocks[number]
    if (!isIndexPage(content) || indexCount(content) !== count) {
      this.file.corrupt(place.offset, `an index page of ${count} blocks`, "other bytes")
    }
    return content
  }

  private load(): void {
    if (this.loaded) return
    const parts = loadTable(this.file, this.identity)
    this.filter = parts.filter
    this.top = parts.top
    this.firstBlocks = parts.firstBlocks
    this.blocks = parts.properties.dataBlocks
    this.pages = parts.properties.indexPages
    this.stated = parts.properties
    this.tombstoneList = parts.tombstones
    if (this.home.length === 0 && this.cache !== undefined) {
      this.home = this.cache.newHome(this.blocks + this.pages)
    }
    this.loaded = true
  }
}
