import type { Disk, DiskFile } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import { compareBytes, emptyBytes } from "../../lib/bytes.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import type { Cursor } from "../read/cursor.ts"
import { compareRanges } from "../read/cursor.ts"
import { BlockPacker } from "./blockPacker.ts"
import { BlockWriter } from "./blockWriter.ts"
import { BloomBuilder, keyHash } from "./bloom.ts"
import { compressions, isCompression, maxBlockBytes } from "./compression.ts"
import {
  blockTrailerBytes,
  kinds,
  maxKeyBytes,
  maxSequence,
  maxValueBytes,
  placedChecksum,
} from "./format.ts"
import { IndexPageWriter } from "./tableIndex.ts"
import type { Place } from "./tableParts.ts"
import { encodeFooter, encodeHeader, encodeProperties, encodeTombstones } from "./tableParts.ts"
import { readU32 } from "./varint.ts"

/** What is known of a finished table; plain data that crosses threads. */
export interface TableSummary {
  readonly tableId: number
  readonly sizeBytes: number
  /** The footer's checksum: through those of the other parts it names the content. */
  readonly checksum: number
  readonly entries: number
  readonly deletes: number
  readonly tombstones: number
  readonly smallestSequence: number
  readonly largestSequence: number
  /** Inclusive; range tombstones are inside as well. */
  readonly lower: Uint8Array
  /** Exclusive. */
  readonly upper: Uint8Array
  /** Kind asked for. */
  readonly compression: number
}

export interface TableWriterOptions {
  /** A block ends when it has this size or more. */
  readonly blockBytes: number
  /** 0 = no filter. */
  readonly bloomBitsPerKey: number
  /** One of `compressions` (compression.ts). */
  readonly compression?: number
  readonly indexPageBytes?: number
}

/** Slows a job down, or ends it by throwing. Called with the bytes of each block read or written. */
export interface Pace {
  spend(bytes: number): void
}

export interface NewTable {
  readonly disk: Disk
  readonly path: string
  /** Seeds the checksums. */
  readonly tableId: number
  readonly options: TableWriterOptions
  /** Since the start of 2020 (UTC); 0 = not known. */
  readonly createdSeconds?: number
  readonly pace?: Pace | undefined
}

/** Bytes gathered before they are handed to the file. */
const chunkBytes = 256 * 1024
const defaultIndexPageBytes = 64 * 1024

/**
 * Writes one table, front to back. `finish` syncs it; its name is durable once the folder is
 * synced. After an error `abandon` closes the file, whose content is then worth nothing.
 */
export class TableWriter {
  private readonly tableId: number
  private readonly options: TableWriterOptions
  private readonly compression: number
  private readonly packer: BlockPacker
  private readonly indexPageBytes: number
  private readonly createdSeconds: number
  private readonly pace: Pace | undefined
  private readonly file: DiskFile
  private readonly block: BlockWriter
  private readonly bloom = new BloomBuilder()
  private readonly page = new IndexPageWriter()
  private readonly top = new IndexPageWriter()
  /** Finished pages, which follow the data blocks, and of each its first block and its last key. */
  private readonly pages: Array<{ content: Uint8Array; firstBlock: number; lastKey: Uint8Array }> =
    []
  private readonly tombstones: Array<RangeTombstone> = []
  private readonly chunk: ByteWriter
  private chunkOffset = 0
  private pagesBytes = 0
  private pageFirstBlock = 0
  private blocks = 0
  private entries = 0
  private deletes = 0
  private rawBytes = 0
  private smallestSequence = maxSequence
  private largestSequence = 0
  private firstKey: Uint8Array = emptyBytes
  private lastKey: Uint8Array = emptyBytes

  constructor(table: NewTable) {
    const { disk, path, tableId, options } = table
    const compression = options.compression ?? compressions.none
    assert(isCompression(compression), () => `compression ${compression}`)
    assert(options.blockBytes <= maxBlockBytes, "blocks stay below the limit")
    assert(tableId >= 0 && tableId < 2 ** 32, () => `table id ${tableId}`)
    this.tableId = tableId
    this.options = options
    this.compression = compression
    this.packer = new BlockPacker(compression)
    this.indexPageBytes = options.indexPageBytes ?? defaultIndexPageBytes
    this.createdSeconds = table.createdSeconds ?? 0
    this.pace = table.pace
    this.block = new BlockWriter(options.blockBytes)
    this.chunk = new ByteWriter(Math.min(chunkBytes, options.blockBytes * 4))
    this.file = disk.create(path)
    this.chunk.raw(encodeHeader(tableId))
  }

  /** Bytes so far, about: filter and tombstones are not counted, nor is the last block small. */
  get sizeBytes(): number {
    return this.chunkOffset + this.chunk.length + this.block.sizeBytes + this.pagesBytes
  }

  /** Adds the entry under a cursor. Keys must ascend strictly. */
  add(cursor: Cursor): void {
    const { keyBytes, keyOffset, keyLength, sequence, kind, valueLength } = cursor
    assert(keyLength > 0 && keyLength <= maxKeyBytes, () => `a key of ${keyLength} bytes`)
    assert(valueLength <= maxValueBytes, () => `a value of ${valueLength} bytes`)
    assert(kind === kinds.put || kind === kinds.delete, () => `kind ${kind}`)
    if (this.entries === 0) this.firstKey = keyBytes.slice(keyOffset, keyOffset + keyLength)
    else assert(this.isAfterLast(keyBytes, keyOffset, keyLength), "keys of a table ascend")
    this.bloom.add(keyHash(keyBytes, keyOffset, keyLength))
    this.block.add(
      keyBytes,
      keyOffset,
      keyLength,
      sequence,
      kind,
      cursor.valueBytes,
      cursor.valueOffset,
      valueLength,
    )
    this.entries++
    if (kind === kinds.delete) this.deletes++
    this.rawBytes += keyLength + valueLength
    this.sawSequence(sequence)
    if (this.block.sizeBytes >= this.options.blockBytes) this.endBlock()
  }

  /** Adds a range tombstone, in any order with entries. They ascend and are disjoint. */
  addTombstone(tombstone: RangeTombstone): void {
    const { lower, upper, sequence } = tombstone
    const last = this.tombstones.at(-1)
    const isApart = last === undefined || compareBytes(last.upper, lower) <= 0
    assert(isApart && compareBytes(lower, upper) < 0, "tombstones of a table ascend")
    assert(sequence >= 0 && sequence < maxSequence, "a sequence is below the limit")
    assert(upper.length < 2 ** 16, "a bound has a length of two bytes")
    this.tombstones.push(tombstone)
    this.sawSequence(sequence)
  }

  /** Completes and syncs the file. Requires at least one entry or tombstone. */
  finish(): TableSummary {
    const { tableId, entries, tombstones } = this
    assert(entries > 0 || tombstones.length > 0, "a table holds something")
    if (!this.block.isEmpty) this.endBlock()
    this.endPage()
    for (const { content, firstBlock, lastKey } of this.pages) {
      this.top.add({ ...this.place(content, compressions.none), firstBlock, lastKey })
    }
    const tombstonePlace = this.place(encodeTombstones(tombstones), compressions.none)
    const filter = this.bloom.finish(this.options.bloomBitsPerKey)
    const filterPlace = this.place(filter, compressions.none)
    const indexPlace = this.place(this.top.finish(), compressions.none)
    const stated = encodeProperties({
      deletes: this.deletes,
      indexPages: this.pages.length,
      tombstones: tombstones.length,
      createdSeconds: this.createdSeconds,
      compression: this.compression,
      smallestSequence: this.smallestSequence,
      largestSequence: this.largestSequence,
      rawBytes: this.rawBytes,
      tombstonePlace,
      filterPlace,
      indexPlace,
      firstKey: this.firstKey,
      lastKey: this.lastKey,
    })
    const properties = this.place(stated, compressions.none)
    const footerOffset = this.chunkOffset + this.chunk.length
    const footer = encodeFooter(
      { properties, entries, dataBlocks: this.blocks, tableId },
      footerOffset,
    )
    this.chunk.raw(footer)
    this.writeChunk()
    this.file.sync()
    this.file.close()
    return this.summary(footer)
  }

  /** Closes the file of a table that will not be finished. */
  abandon(): void {
    this.file.close()
  }

  private summary(footer: Uint8Array): TableSummary {
    const { entries, tombstones } = this
    // The least key after the largest one.
    const end = new Uint8Array(this.lastKey.length + 1)
    end.set(this.lastKey)
    let lower = this.firstKey
    let upper: Uint8Array = end
    const first = tombstones.at(0)
    const last = tombstones.at(-1)
    if (first !== undefined && (entries === 0 || compareBytes(first.lower, lower) < 0)) {
      lower = first.lower
    }
    if (last !== undefined && (entries === 0 || compareBytes(last.upper, upper) > 0)) {
      upper = last.upper
    }
    const checksum = readU32(footer, footer.length - 4)
    return {
      tableId: this.tableId,
      sizeBytes: this.chunkOffset,
      checksum,
      entries,
      deletes: this.deletes,
      tombstones: tombstones.length,
      smallestSequence: this.smallestSequence,
      largestSequence: this.largestSequence,
      lower,
      upper,
      compression: this.compression,
    }
  }

  private sawSequence(sequence: number): void {
    if (sequence < this.smallestSequence) this.smallestSequence = sequence
    if (sequence > this.largestSequence) this.largestSequence = sequence
  }

  private isAfterLast(bytes: Uint8Array, offset: number, length: number): boolean {
    if (!this.block.isEmpty) return this.block.compareLast(bytes, offset, length) < 0
    const last = this.lastKey
    return compareRanges(last, 0, last.length, bytes, offset, length) < 0
  }

  private endBlock(): void {
    const lastKey = this.block.lastKeyView.slice()
    this.lastKey = lastKey
    this.page.add({ ...this.place(this.block.finish(), this.compression), lastKey })
    this.blocks++
    if (this.page.sizeBytes >= this.indexPageBytes) this.endPage()
  }

  private endPage(): void {
    if (this.page.count === 0) return
    const content = this.page.finish()
    this.pagesBytes += content.length
    this.pages.push({ content, firstBlock: this.pageFirstBlock, lastKey: this.lastKey })
    this.pageFirstBlock = this.blocks
  }

  /** Appends a block, compressed if that pays, with its trailer. */
  private place(content: Uint8Array, compression: number): Place {
    const chunk = this.chunk
    const start = chunk.length
    const offset = this.chunkOffset + start
    const packed = compression === compressions.none ? undefined : this.packer.pack(content)
    chunk.raw(packed ?? content)
    chunk.u8(packed === undefined ? compressions.none : compression)
    const checksum = placedChecksum(chunk.bytes().subarray(start), this.tableId, offset)
    chunk.u32(checksum)
    const sizeBytes = chunk.length - start
    assert(sizeBytes > blockTrailerBytes, "a block has content")
    assert(offset + sizeBytes < 2 ** 31, "a table stays below 2 GiB")
    this.pace?.spend(sizeBytes)
    if (chunk.length >= chunkBytes) this.writeChunk()
    return { offset, sizeBytes, checksum }
  }

  private writeChunk(): void {
    this.file.write(this.chunk.bytes(), this.chunkOffset)
    this.chunkOffset += this.chunk.length
    this.chunk.reset()
  }
}
