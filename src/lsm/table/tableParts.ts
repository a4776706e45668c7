/**
 * The small parts of a table, to bytes and back: header, tombstones, properties, footer. Layout:
 * format.ts. Decoding throws `MalformedBytes` where bytes under a right checksum cannot be the part;
 * the reader turns it into a report with the file's name.
 */
import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { compareBytes } from "../../lib/bytes.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type { RangeTombstone } from "../memtable/rangeTombstone.ts"
import {
  formatVersion,
  maxKeyBytes,
  maxSequence,
  placedChecksum,
  tableFooterBytes,
  tableHeaderBytes,
  tableMagic,
} from "./format.ts"

/** Where a part lies, trailer included, and its checksum. */
export interface Place {
  readonly offset: number
  readonly sizeBytes: number
  readonly checksum: number
}

/** What a table says of itself. Sequences as stored: an adopted table's base is not added. */
export interface TableProperties {
  readonly entries: number
  readonly deletes: number
  readonly tombstones: number
  readonly dataBlocks: number
  readonly indexPages: number
  readonly smallestSequence: number
  readonly largestSequence: number
  /** Bytes of keys and values before sharing and compression. */
  readonly rawBytes: number
  /** Bytes of the data blocks in the file. */
  readonly dataBytes: number
  /** Kind asked for; a block that would not shrink is stored as it is. */
  readonly compression: number
  /** Since the start of 2020 (UTC); 0 = not known. */
  readonly createdSeconds: number
  /** Both empty when the table holds no entry. */
  readonly firstKey: Uint8Array
  readonly lastKey: Uint8Array
}

export interface StatedProperties {
  readonly deletes: number
  readonly indexPages: number
  readonly tombstones: number
  readonly createdSeconds: number
  readonly compression: number
  readonly smallestSequence: number
  readonly largestSequence: number
  readonly rawBytes: number
  readonly tombstonePlace: Place
  readonly filterPlace: Place
  readonly indexPlace: Place
  readonly firstKey: Uint8Array
  readonly lastKey: Uint8Array
}

export interface Footer {
  readonly properties: Place
  readonly entries: number
  readonly dataBlocks: number
  readonly tableId: number
}

export function encodeHeader(tableId: number): Uint8Array {
  const writer = new ByteWriter(tableHeaderBytes)
  writer.u32(tableMagic)
  writer.u32(formatVersion)
  writer.u32(tableId)
  writer.u32(placedChecksum(writer.bytes(), tableId, 0))
  return writer.take()
}

export function encodeTombstones(tombstones: ReadonlyArray<RangeTombstone>): Uint8Array {
  const writer = new ByteWriter(256)
  writer.u32(tombstones.length)
  for (const { lower, upper, sequence } of tombstones) {
    writer.u16(lower.length)
    writer.raw(lower)
    writer.u16(upper.length)
    writer.raw(upper)
    writer.u64(sequence)
  }
  return writer.take()
}

/** Ascending and disjoint; `baseSequence` is added to each sequence. */
export function decodeTombstones(content: Uint8Array, baseSequence: number): Array<RangeTombstone> {
  const reader = new ByteReader(content)
  const result: Array<RangeTombstone> = []
  let last: Uint8Array | undefined
  for (let left = reader.u32(); left > 0; left--) {
    const lower = reader.copy(reader.u16())
    const upper = reader.copy(reader.u16())
    const sequence = reader.u64() + baseSequence
    const isApart = last === undefined || compareBytes(last, lower) <= 0
    const isRight = isApart && compareBytes(lower, upper) < 0 && sequence < maxSequence
    if (!isRight) throw new MalformedBytes("range tombstones in no order")
    result.push({ lower, upper, sequence })
    last = upper
  }
  reader.end()
  return result
}

export function encodeProperties(properties: StatedProperties): Uint8Array {
  const writer = new ByteWriter(256)
  writer.u32(properties.deletes)
  writer.u32(properties.indexPages)
  writer.u32(properties.tombstones)
  writer.u32(properties.createdSeconds)
  writer.u8(properties.compression)
  writer.u64(properties.smallestSequence)
  writer.u64(properties.largestSequence)
  writer.u64(properties.rawBytes)
  for (const place of [properties.tombstonePlace, properties.filterPlace, properties.indexPlace]) {
    writer.u32(place.offset)
    writer.u32(place.sizeBytes)
    writer.u32(place.checksum)
  }
  for (const key of [properties.firstKey, properties.lastKey]) {
    writer.u16(key.length)
    writer.raw(key)
  }
  return writer.take()
}

export function decodeProperties(content: Uint8Array): StatedProperties {
  const reader = new ByteReader(content)
  const place = () => ({
    offset: reader.u32(),
    sizeBytes: reader.u32(),
    checksum: reader.u32(),
  })
  const key = () => {
    const bytes = reader.copy(reader.u16())
    if (bytes.length > maxKeyBytes) throw new MalformedBytes("a key too long")
    return bytes
  }
  const properties = {
    deletes: reader.u32(),
    indexPages: reader.u32(),
    tombstones: reader.u32(),
    createdSeconds: reader.u32(),
    compression: reader.u8(),
    smallestSequence: reader.u64(),
    largestSequence: reader.u64(),
    rawBytes: reader.u64(),
    tombstonePlace: place(),
    filterPlace: place(),
    indexPlace: place(),
    firstKey: key(),
    lastKey: key(),
  }
  reader.end()
  return properties
}

export function encodeFooter(footer: Footer, offset: number): Uint8Array {
  const writer = new ByteWriter(tableFooterBytes)
  writer.u32(footer.properties.offset)
  writer.u32(footer.properties.sizeBytes)
  writer.u32(footer.properties.checksum)
  writer.u32(footer.entries)
  writer.u32(footer.dataBlocks)
  writer.u32(footer.tableId)
  writer.u32(0)
  writer.u32(formatVersion)
  writer.u32(tableMagic)
  writer.u32(placedChecksum(writer.bytes(), footer.tableId, offset))
  return writer.take()
}

/** Of a footer whose checksum was verified. */
export function decodeFooter(bytes: Uint8Array): Footer {
  const reader = new ByteReader(bytes)
  return {
    properties: { offset: reader.u32(), sizeBytes: reader.u32(), checksum: reader.u32() },
    entries: reader.u32(),
    dataBlocks: reader.u32(),
    tableId: reader.u32(),
  }
}
