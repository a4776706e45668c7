import type { Disk, DiskFile } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { BlockWriter, writeU32 } from "./block.ts"
import { BloomBuilder, keyHash } from "./bloom.ts"
import type { Cursor } from "./cursor.ts"
import { compareRanges } from "./cursor.ts"
import {
  blockTrailerBytes,
  formatVersion,
  kinds,
  maxKeyBytes,
  placedChecksum,
  tableFooterBytes,
  tableHeaderBytes,
  tableMagic,
  tablePath,
} from "./format.ts"

/** What is known of a finished table; plain data that crosses threads. */
export interface TableSummary {
  readonly fileNumber: number
  readonly sizeBytes: number
  /** The footer's checksum: through those of index and filter it names the content. */
  readonly checksum: number
  readonly entries: number
  readonly largestSequence: number
  readonly smallestKey: Uint8Array
  readonly largestKey: Uint8Array
}

export interface TableWriterOptions {
  readonly blockBytes: number
  readonly bloomBitsPerKey: number
}

/** Bytes gathered before they are handed to the file. */
const chunkBytes = 256 * 1024

/**
 * Writes one table, front to back. `finish` syncs it; its name is durable once the folder is
 * synced.
 */
export class TableWriter {
  private readonly fileNumber: number
  private readonly options: TableWriterOptions
  private readonly file: DiskFile
  private readonly block: BlockWriter
  private readonly bloom = new BloomBuilder()
  private readonly index = new ByteWriter(1024)
  private readonly chunk: ByteWriter
  private chunkOffset = 0
  private blocks = 0
  private entries = 0
  private largestSequence = 0
  private smallestKey: Uint8Array | undefined
  private largestKey: Uint8Array = new Uint8Array(0)

  constructor(disk: Disk, directory: string, fileNumber: number, options: TableWriterOptions) {
    this.fileNumber = fileNumber
    this.options = options
    this.block = new BlockWriter(options.blockBytes)
    this.chunk = new ByteWriter(Math.min(chunkBytes, options.blockBytes * 4))
    this.file = disk.create(tablePath(directory, fileNumber))
    const header = new Uint8Array(tableHeaderBytes)
    writeU32(header, 0, tableMagic)
    writeU32(header, 4, formatVersion)
    writeU32(header, 8, fileNumber)
    writeU32(header, 12, placedChecksum(header.subarray(0, 12), fileNumber, 0))
    this.chunk.raw(header)
  }

  /** Bytes so far, index and filter not yet counted. */
  get sizeBytes(): number {
    return this.chunkOffset + this.chunk.length + this.block.sizeBytes
  }

  /** Adds the entry under a cursor. Keys must ascend strictly. */
  add(cursor: Cursor): void {
    const { keyBytes, keyOffset, keyLength, kind } = cursor
    assert(keyLength > 0 && keyLength <= maxKeyBytes, () => `a key of ${keyLength} bytes`)
    assert(kind === kinds.put || kind === kinds.delete, () => `kind ${kind}`)
    if (this.smallestKey === undefined) {
      this.smallestKey = keyBytes.slice(keyOffset, keyOffset + keyLength)
    } else {
      assert(this.isAfterLast(keyBytes, keyOffset, keyLength), "keys of a table ascend")
    }
    this.bloom.add(keyHash(keyBytes, keyOffset, keyLength))
    this.block.add(
      keyBytes,
      keyOffset,
      keyLength,
      cursor.sequence,
      kind,
      cursor.valueBytes,
      cursor.valueOffset,
      cursor.valueLength,
    )
    this.entries++
    if (cursor.sequence > this.largestSequence) this.largestSequence = cursor.sequence
    if (this.block.sizeBytes >= this.options.blockBytes) this.endBlock()
  }

  /** Completes and syncs the file. Requires at least one entry. */
  finish(): TableSummary {
    assert(this.smallestKey !== undefined, "a table holds an entry")
    if (!this.block.isEmpty) this.endBlock()
    const filter = this.writeBlock(this.bloom.finish(this.options.bloomBitsPerKey))
    const index = this.writeBlock(this.index.bytes())
    const footerOffset = this.chunkOffset + this.chunk.length
    const footer = new ByteWriter(tableFooterBytes)
    footer.u32(index.offset)
    footer.u32(index.sizeBytes)
    footer.u32(filter.offset)
    footer.u32(filter.sizeBytes)
    footer.u32(this.entries)
    footer.u32(this.blocks)
    footer.u64(this.largestSequence)
    footer.u64(this.fileNumber)
    footer.u32(index.checksum)
    footer.u32(filter.checksum)
    footer.u32(formatVersion)
    footer.u32(0)
    footer.u32(tableMagic)
    const checksum = placedChecksum(footer.bytes(), this.fileNumber, footerOffset)
    footer.u32(checksum)
    assert(footer.length === tableFooterBytes, "a footer has its size")
    this.chunk.raw(footer.bytes())
    this.writeChunk()
    this.file.sync()
    this.file.close()
    return {
      fileNumber: this.fileNumber,
      sizeBytes: this.chunkOffset,
      checksum,
      entries: this.entries,
      largestSequence: this.largestSequence,
      smallestKey: this.smallestKey,
      largestKey: this.largestKey,
    }
  }

  private isAfterLast(bytes: Uint8Array, offset: number, length: number): boolean {
    if (!this.block.isEmpty) return this.block.compareLast(bytes, offset, length) < 0
    const last = this.largestKey
    return compareRanges(last, 0, last.length, bytes, offset, length) < 0
  }

  private endBlock(): void {
    this.largestKey = this.block.lastKeyView.slice()
    this.block.finish(blockTrailerBytes, (block, contentBytes) => {
      const offset = this.place(block, contentBytes)
      this.index.u32(offset)
      this.index.u32(block.length)
      this.index.bytes32(this.largestKey)
    })
    this.blocks++
  }

  private writeBlock(content: Uint8Array): { offset: number; sizeBytes: number; checksum: number } {
    const block = new Uint8Array(content.length + blockTrailerBytes)
    block.set(content)
    const offset = this.place(block, content.length)
    const at = content.length + 1
    const checksum =
      (block[at] | (block[at + 1] << 8) | (block[at + 2] << 16) | (block[at + 3] << 24)) >>> 0
    return { offset, sizeBytes: block.length, checksum }
  }

  /** Fills the trailer and appends the block; returns its offset. */
  private place(block: Uint8Array, contentBytes: number): number {
    const offset = this.chunkOffset + this.chunk.length
    assert(offset + block.length < 2 ** 31, "a table stays below 2 GiB")
    block[contentBytes] = 0
    const checksum = placedChecksum(block.subarray(0, contentBytes + 1), this.fileNumber, offset)
    writeU32(block, contentBytes + 1, checksum)
    this.chunk.raw(block)
    if (this.chunk.length >= chunkBytes) this.writeChunk()
    return offset
  }

  private writeChunk(): void {
    this.file.write(this.chunk.bytes(), this.chunkOffset)
    this.chunkOffset += this.chunk.length
    this.chunk.reset()
  }
}
