import type { Disk, DiskFile } from "../disk/disk.ts"
import { DiskError, StorageCorruption } from "../disk/disk.ts"
import { ByteReader } from "../lib/byteReader.ts"
import { emptyBytes } from "../lib/bytes.ts"
import { BlockCursor, readU32 } from "./block.ts"
import type { BlockCache, CachedBlock } from "./blockCache.ts"
import { bloomMayContain, keyHash } from "./bloom.ts"
import { compareRanges } from "./cursor.ts"
import {
  blockTrailerBytes,
  checkFormat,
  placedChecksum,
  tableFooterBytes,
  tableHeaderBytes,
  tableMagic,
  tablePath,
} from "./format.ts"

/** What the manifest knows of a table file; what the file holds must agree. */
export interface TableIdentity {
  readonly fileNumber: number
  readonly sizeBytes: number
  readonly checksum: number
  readonly entries: number
}

interface Footer {
  readonly indexOffset: number
  readonly indexBytes: number
  readonly filterOffset: number
  readonly filterBytes: number
  readonly blocks: number
}

/**
 * One table, read-only. Opened by its first use, when header, footer, index and filter are
 * verified; data blocks are verified whenever they are read from the file. Anything wrong throws
 * `StorageCorruption`: it is never "not found".
 */
export class Table {
  readonly identity: TableIdentity
  readonly path: string
  /** Versions that hold this table. */
  holders = 0
  /** Cached blocks by index. */
  readonly blocks: Array<CachedBlock | undefined> = []
  private readonly disk: Disk
  private readonly cache: BlockCache | undefined
  private file: DiskFile | undefined
  private loaded = false
  private filter: Uint8Array = emptyBytes
  private index: Uint8Array = emptyBytes
  /** Where each index entry begins in `index`. */
  private indexEntries: Uint32Array = new Uint32Array(0)

  constructor(disk: Disk, directory: string, identity: TableIdentity, cache?: BlockCache) {
    this.disk = disk
    this.identity = identity
    this.path = tablePath(directory, identity.fileNumber)
    this.cache = cache
  }

  /** Closes the file and forgets its blocks. A later read opens it again. */
  close(): void {
    this.file?.close()
    this.file = undefined
    this.loaded = false
    this.cache?.dropTable(this.blocks)
  }

  get blockCount(): number {
    this.load()
    return this.indexEntries.length
  }

  /** False = the key is surely not in this table. `hash` is the `keyHash` of the key. */
  mayContain(hash: number): boolean {
    if (!this.loaded) this.load()
    return bloomMayContain(this.filter, hash)
  }

  /** Puts `cursor` on the entry of `key`; false when there is none. */
  find(key: Uint8Array, cursor: BlockCursor): boolean {
    const blockIndex = this.firstBlockAtOrAfter(key)
    if (blockIndex === this.indexEntries.length) return false
    cursor.setBlock(this.block(blockIndex))
    return (
      cursor.seekAtOrAfter(key) &&
      compareRanges(cursor.keyBytes, 0, cursor.keyLength, key, 0, key.length) === 0
    )
  }

  /**
   * Index of the first block whose last key is at or after `key`; the count of blocks when there is
   * none.
   */
  firstBlockAtOrAfter(key: Uint8Array): number {
    this.load()
    let low = 0
    let high = this.indexEntries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.compareLastKey(middle, key) < 0) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The last key of a block against `key`. */
  compareLastKey(blockIndex: number, key: Uint8Array): number {
    const at = this.indexEntries[blockIndex]
    return compareRanges(this.index, at + 12, readU32(this.index, at + 8), key, 0, key.length)
  }

  /** Bytes of the data blocks that may hold keys of [lower, upper). */
  bytesBetween(lower: Uint8Array, upper: Uint8Array): number {
    const first = this.firstBlockAtOrAfter(lower)
    const last = Math.min(this.firstBlockAtOrAfter(upper), this.indexEntries.length - 1)
    if (first > last) return 0
    return this.blockOffset(last) + this.blockBytes(last) - this.blockOffset(first)
  }

  /** The verified content of a data block, from the cache or the file. */
  block(blockIndex: number): Uint8Array {
    const cached = this.blocks[blockIndex]
    if (cached !== undefined) {
      cached.used = true
      if (this.cache !== undefined) this.cache.hits++
      return cached.content
    }
    this.load()
    const content = this.readBlock(this.blockOffset(blockIndex), this.blockBytes(blockIndex))
    if (this.cache !== undefined) {
      this.cache.misses++
      this.cache.insert(this.blocks, blockIndex, content)
    }
    return content
  }

  /**
   * Reads every byte of the file past the cache and checks all that can be checked. Returns the
   * data blocks read.
   */
  verify(): number {
    this.close()
    this.load()
    const cursor = new BlockCursor()
    let lastKey: Uint8Array = emptyBytes
    let entries = 0
    for (let i = 0; i < this.indexEntries.length; i++) {
      const offset = this.blockOffset(i)
      cursor.setBlock(this.readBlock(offset, this.blockBytes(i)))
      for (let valid = cursor.seekFirst(); valid; valid = cursor.step()) {
        const key = cursor.keyBytes.subarray(0, cursor.keyLength)
        if (compareRanges(key, 0, key.length, lastKey, 0, lastKey.length) <= 0) {
          this.corrupt(offset, "keys in ascending order", "keys out of order")
        }
        if (!this.mayContain(keyHash(key, 0, key.length))) {
          this.corrupt(offset, "a filter that knows every key", "a filter that does not")
        }
        lastKey = key.slice()
        entries++
      }
      if (this.compareLastKey(i, lastKey) !== 0) {
        this.corrupt(offset, "a block that ends with its key in the index", "another last key")
      }
    }
    if (entries !== this.identity.entries) {
      this.corrupt(0, `${this.identity.entries} entries`, `${entries}`)
    }
    return this.indexEntries.length
  }

  private blockOffset(blockIndex: number): number {
    return readU32(this.index, this.indexEntries[blockIndex])
  }

  private blockBytes(blockIndex: number): number {
    return readU32(this.index, this.indexEntries[blockIndex] + 4)
  }

  private corrupt(offset: number, expected: string, actual: string): never {
    throw new StorageCorruption({ path: this.path, offset, expected, actual })
  }

  private load(): void {
    if (this.loaded) return
    this.file ??= this.openFile()
    if (this.file.sizeBytes !== this.identity.sizeBytes) {
      this.corrupt(0, `${this.identity.sizeBytes} bytes`, `${this.file.sizeBytes} bytes`)
    }
    this.checkHeader()
    const footer = this.readFooter()
    this.filter = this.readBlock(footer.filterOffset, footer.filterBytes)
    this.index = this.readBlock(footer.indexOffset, footer.indexBytes)
    this.indexEntries = this.parseIndex(footer)
    this.blocks.length = 0
    this.loaded = true
  }

  private openFile(): DiskFile {
    try {
      return this.disk.open(this.path)
    } catch (error) {
      if (error instanceof DiskError && error.reason === "not-found") {
        this.corrupt(0, `a table of ${this.identity.sizeBytes} bytes`, "no file")
      }
      throw error
    }
  }

  private readExactly(offset: number, sizeBytes: number): Uint8Array {
    // The size of the file bounds every claimed size before memory is taken for it.
    if (offset + sizeBytes > this.identity.sizeBytes) {
      this.corrupt(offset, `at most ${this.identity.sizeBytes - offset} bytes`, `${sizeBytes}`)
    }
    const bytes = new Uint8Array(sizeBytes)
    const read = (this.file as DiskFile).read(bytes, offset)
    if (read !== sizeBytes) this.corrupt(offset, `${sizeBytes} bytes`, `${read} bytes`)
    return bytes
  }

  private readBlock(offset: number, sizeBytes: number): Uint8Array {
    if (sizeBytes < blockTrailerBytes) this.corrupt(offset, "a block", `${sizeBytes} bytes`)
    const block = this.readExactly(offset, sizeBytes)
    const contentBytes = sizeBytes - blockTrailerBytes
    const covered = block.subarray(0, contentBytes + 1)
    this.checkChecksum(covered, readU32(block, contentBytes + 1), offset)
    if (block[contentBytes] !== 0) {
      this.corrupt(offset, "an uncompressed block", `compression ${block[contentBytes]}`)
    }
    return block.subarray(0, contentBytes)
  }

  private checkChecksum(covered: Uint8Array, stored: number, offset: number): void {
    const actual = placedChecksum(covered, this.identity.fileNumber, offset)
    if (actual !== stored) this.corrupt(offset, `checksum ${stored}`, `checksum ${actual}`)
  }

  private checkHeader(): void {
    const header = this.readExactly(0, tableHeaderBytes)
    this.checkChecksum(header.subarray(0, 12), readU32(header, 12), 0)
    if (readU32(header, 0) !== tableMagic) this.corrupt(0, "a table", "another kind of file")
    checkFormat(this.path, 4, readU32(header, 4))
  }

  private readFooter(): Footer {
    const offset = this.identity.sizeBytes - tableFooterBytes
    if (offset < tableHeaderBytes) this.corrupt(0, "a footer", `${this.identity.sizeBytes} bytes`)
    const bytes = this.readExactly(offset, tableFooterBytes)
    const stored = readU32(bytes, tableFooterBytes - 4)
    this.checkChecksum(bytes.subarray(0, tableFooterBytes - 4), stored, offset)
    if (stored !== this.identity.checksum) {
      this.corrupt(offset, `the table of checksum ${this.identity.checksum}`, `${stored}`)
    }
    const reader = new ByteReader(bytes)
    const footer = {
      indexOffset: reader.u32(),
      indexBytes: reader.u32(),
      filterOffset: reader.u32(),
      filterBytes: reader.u32(),
      entries: reader.u32(),
      blocks: reader.u32(),
    }
    if (footer.entries !== this.identity.entries) {
      this.corrupt(offset, `${this.identity.entries} entries`, `${footer.entries}`)
    }
    return footer
  }

  /**
   * Blocks must lie one behind the other from the header to the filter, so that no byte is outside
   * every checksum.
   */
  private parseIndex(footer: Footer): Uint32Array {
    const starts = new Uint32Array(footer.blocks)
    let at = 0
    let expectedOffset = tableHeaderBytes
    for (let i = 0; i < footer.blocks; i++) {
      starts[i] = at
      if (readU32(this.index, at) !== expectedOffset) {
        this.corrupt(footer.indexOffset, `a block at ${expectedOffset}`, `entry ${i}`)
      }
      expectedOffset += readU32(this.index, at + 4)
      at += 12 + readU32(this.index, at + 8)
    }
    const contiguous =
      at === this.index.length &&
      expectedOffset === footer.filterOffset &&
      footer.filterOffset + footer.filterBytes === footer.indexOffset &&
      footer.indexOffset + footer.indexBytes + tableFooterBytes === this.identity.sizeBytes
    if (!contiguous) this.corrupt(footer.indexOffset, "parts without gaps", "a gap")
    return starts
  }
}
