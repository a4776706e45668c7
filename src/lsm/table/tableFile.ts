import type { Disk, DiskFile } from "../../disk/disk.ts"
import { DiskError, StorageCorruption } from "../../disk/disk.ts"
import { MalformedBytes } from "../../lib/byteReader.ts"
import { compressions, expand } from "./compression.ts"
import {
  blockTrailerBytes,
  checkFormat,
  placedChecksum,
  tableFooterBytes,
  tableHeaderBytes,
  tableMagic,
} from "./format.ts"
import type { Footer, Place, StatedProperties } from "./tableParts.ts"
import { decodeFooter, decodeProperties } from "./tableParts.ts"
import type { Pace } from "./tableWriter.ts"
import { readU32 } from "./varint.ts"

/** What the manifest knows of a table file; what the file holds must agree. */
export interface TableIdentity {
  /** Names the file in this engine; never used twice. */
  readonly fileNumber: number
  /** Seeds the checksums in the file; of a table that was made elsewhere any number. */
  readonly tableId: number
  readonly sizeBytes: number
  readonly checksum: number
  readonly entries: number
  /** Added to each sequence that the file states; 0 but for adopted tables. */
  readonly baseSequence: number
}

/**
 * Stored bytes of a block are read to here first: memory that is used again and again costs half of
 * what new memory does, and most blocks are expanded from it. One for all tables, because nothing
 * else runs between reading a block and verifying it.
 */
const scratch = new Uint8Array(16 * 1024)
/** Views of the first bytes of `scratch`, by length: a read that misses the cache makes none. */
const scratchViews: Array<Uint8Array | undefined> = new Array(scratch.length + 1)

function scratchView(length: number): Uint8Array {
  const known = scratchViews[length]
  if (known !== undefined) return known
  const view = scratch.subarray(0, length)
  scratchViews[length] = view
  return view
}

/**
 * The file of a table: places in it, read and verified. Every size that the file states is bounded
 * by the size of the file before memory is taken for it. Anything wrong throws `StorageCorruption`.
 */
export class TableFile {
  readonly path: string
  private readonly disk: Disk
  private readonly tableId: number
  private readonly sizeBytes: number
  private readonly pace: Pace | undefined
  private file: DiskFile | undefined

  constructor(options: {
    disk: Disk
    path: string
    tableId: number
    sizeBytes: number
    pace?: Pace | undefined
  }) {
    this.disk = options.disk
    this.path = options.path
    this.tableId = options.tableId
    this.sizeBytes = options.sizeBytes
    this.pace = options.pace
  }

  close(): void {
    this.file?.close()
    this.file = undefined
  }

  corrupt(offset: number, expected: string, actual: string): never {
    throw new StorageCorruption({ path: this.path, offset, expected, actual })
  }

  /** Fills `target` from `offset`. */
  readInto(target: Uint8Array, offset: number): void {
    const read = this.opened().read(target, offset)
    if (read !== target.length) this.corrupt(offset, `${target.length} bytes`, `${read} bytes`)
    this.pace?.spend(target.length)
  }

  /** The content of the block at a place, in memory of its own. */
  block(place: Place): Uint8Array {
    this.checkPlace(place)
    const { sizeBytes } = place
    if (sizeBytes > scratch.length) {
      const bytes = new Uint8Array(sizeBytes)
      this.readInto(bytes, place.offset)
      return this.contentOf(bytes, 0, place)
    }
    const bytes = scratchView(sizeBytes)
    this.readInto(bytes, place.offset)
    const kind = this.checkBlock(scratch, 0, place)
    const contentBytes = sizeBytes - blockTrailerBytes
    if (kind === compressions.none) return scratch.slice(0, contentBytes)
    return this.expanded(kind, scratchView(contentBytes), place)
  }

  checkPlace({ offset, sizeBytes }: Place): void {
    const isInside =
      offset >= tableHeaderBytes &&
      sizeBytes > blockTrailerBytes &&
      offset + sizeBytes <= this.sizeBytes - tableFooterBytes
    if (!isInside) this.corrupt(offset, "a block inside the file", `${sizeBytes} bytes`)
  }

  /**
   * The content of a block whose bytes begin at `start` of `bytes`: verified, and a view of `bytes`
   * unless it was compressed.
   */
  contentOf(bytes: Uint8Array, start: number, place: Place): Uint8Array {
    const kind = this.checkBlock(bytes, start, place)
    const content = bytes.subarray(start, start + place.sizeBytes - blockTrailerBytes)
    return kind === compressions.none ? content : this.expanded(kind, content, place)
  }

  /** Verifies a block's bytes; returns its kind of compression. */
  private checkBlock(bytes: Uint8Array, start: number, place: Place): number {
    const { offset, sizeBytes, checksum } = place
    const end = start + sizeBytes - blockTrailerBytes
    const covered = bytes === scratch ? scratchView(end + 1) : bytes.subarray(start, end + 1)
    const actual = placedChecksum(covered, this.tableId, offset)
    const stored = readU32(bytes, end + 1)
    if (actual !== stored) this.corrupt(offset, `checksum ${stored}`, `checksum ${actual}`)
    if (stored !== checksum) {
      this.corrupt(offset, `the block of checksum ${checksum}`, `checksum ${stored}`)
    }
    return bytes[end]
  }

  private expanded(kind: number, content: Uint8Array, { offset }: Place): Uint8Array {
    const expanded = expand(kind, content)
    if (expanded === undefined) {
      this.corrupt(offset, "a block that expands", `compression ${kind}, ${content.length} bytes`)
    }
    return expanded
  }

  checkHeader(): void {
    const sizeBytes = this.opened().sizeBytes
    if (sizeBytes !== this.sizeBytes) {
      this.corrupt(0, `${this.sizeBytes} bytes`, `${sizeBytes} bytes`)
    }
    const stated = readTableHeader(this.opened())
    if (stated !== this.tableId) this.corrupt(8, `table ${this.tableId}`, `${stated}`)
  }

  /** The footer of the table of that checksum: another one that is whole is as wrong as damage. */
  readFooter(checksum: number): Footer {
    const found = readTableFooter(this.opened(), this.tableId)
    if (found.checksum !== checksum) {
      const offset = this.sizeBytes - tableFooterBytes
      this.corrupt(offset, `the table of checksum ${checksum}`, `checksum ${found.checksum}`)
    }
    return found.footer
  }

  readProperties(footer: Footer): StatedProperties {
    const { properties } = footer
    const end = properties.offset + properties.sizeBytes
    if (end !== this.sizeBytes - tableFooterBytes) {
      this.corrupt(properties.offset, "properties before the footer", `an end at ${end}`)
    }
    return this.decode(properties.offset, () => decodeProperties(this.block(properties)))
  }

  /** What `decode` gives; its `MalformedBytes` become a report of the part at `offset`. */
  decode<A>(offset: number, decode: () => A): A {
    try {
      return decode()
    } catch (error) {
      if (error instanceof MalformedBytes) this.corrupt(offset, "a part of a table", error.message)
      throw error
    }
  }

  private opened(): DiskFile {
    if (this.file !== undefined) return this.file
    try {
      this.file = this.disk.open(this.path)
      return this.file
    } catch (error) {
      if (error instanceof DiskError && error.reason === "not-found") {
        this.corrupt(0, `a table of ${this.sizeBytes} bytes`, "no file")
      }
      throw error
    }
  }
}

function readPart(file: DiskFile, offset: number, sizeBytes: number): Uint8Array {
  const bytes = new Uint8Array(sizeBytes)
  const read = offset < 0 ? 0 : file.read(bytes, offset)
  if (read !== sizeBytes) {
    const actual = `${read} bytes`
    throw new StorageCorruption({ path: file.path, offset, expected: `${sizeBytes} bytes`, actual })
  }
  return bytes
}

/** The table id that a header states. */
function readTableHeader(file: DiskFile): number {
  const { path } = file
  const header = readPart(file, 0, tableHeaderBytes)
  const tableId = readU32(header, 8)
  const stored = readU32(header, 12)
  const actual = placedChecksum(header.subarray(0, 12), tableId, 0)
  if (actual !== stored) {
    const expected = `checksum ${stored}`
    throw new StorageCorruption({ path, offset: 0, expected, actual: `checksum ${actual}` })
  }
  if (readU32(header, 0) !== tableMagic) {
    throw new StorageCorruption({ path, offset: 0, expected: "a table", actual: "another file" })
  }
  checkFormat(path, 4, readU32(header, 4))
  return tableId
}

function readTableFooter(file: DiskFile, tableId: number): { footer: Footer; checksum: number } {
  const offset = file.sizeBytes - tableFooterBytes
  const corrupt = (expected: string, actual: string): never => {
    throw new StorageCorruption({ path: file.path, offset, expected, actual })
  }
  const bytes = readPart(file, offset, tableFooterBytes)
  const checksum = readU32(bytes, tableFooterBytes - 4)
  const covered = bytes.subarray(0, tableFooterBytes - 4)
  const actual = placedChecksum(covered, tableId, offset)
  if (actual !== checksum) corrupt(`checksum ${checksum}`, `checksum ${actual}`)
  const footer = decodeFooter(bytes)
  if (footer.tableId !== tableId) corrupt(`table ${tableId}`, `table ${footer.tableId}`)
  return { footer, checksum }
}

/**
 * What a table file says of itself, for a table that no manifest names yet: to be adopted, or looked
 * at by an operator. `fileNumber` and `baseSequence` are 0. Only header and footer are verified.
 */
export function identifyTable(disk: Disk, path: string): TableIdentity {
  const file = disk.open(path)
  try {
    const tableId = readTableHeader(file)
    const { footer, checksum } = readTableFooter(file, tableId)
    const { sizeBytes } = file
    const { entries } = footer
    return { fileNumber: 0, tableId, sizeBytes, checksum, entries, baseSequence: 0 }
  } finally {
    file.close()
  }
}
