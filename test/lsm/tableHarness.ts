import type { Disk } from "../../src/disk/disk.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import type { RangeTombstone } from "../../src/lsm/memtable/rangeTombstone.ts"
import { placedChecksum } from "../../src/lsm/table/format.ts"
import { decodeFooter, decodeProperties } from "../../src/lsm/table/tableParts.ts"
import type { TableIdentity } from "../../src/lsm/table/tableReader.ts"
import type { TableSummary, TableWriterOptions } from "../../src/lsm/table/tableWriter.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { readU32, writeU32 } from "../../src/lsm/table/varint.ts"

export interface Entry {
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly sequence: number
  readonly kind: number
}

/** A cursor over one entry, for `TableWriter.add`. */
export function under(entry: Entry) {
  const { key, value, sequence, kind } = entry
  return {
    valid: true,
    reverse: false,
    keyBytes: key,
    keyOffset: 0,
    keyLength: key.length,
    sequence,
    kind,
    valueBytes: value,
    valueOffset: 0,
    valueLength: value.length,
    seek() {},
    advance() {},
  }
}

/** Writes a table and returns it as one whole fragment. */
export function writeTable(
  disk: Disk,
  path: string,
  content: { entries: ReadonlyArray<Entry>; tombstones?: ReadonlyArray<RangeTombstone> },
  options: TableWriterOptions,
  identity: { tableId?: number; baseSequence?: number; fileNumber?: number } = {},
): Fragment & TableSummary {
  const tableId = identity.tableId ?? 7
  const writer = new TableWriter({ disk, path, tableId, options, createdSeconds: 1234 })
  for (const entry of content.entries) writer.add(under(entry))
  for (const tombstone of content.tombstones ?? []) writer.addTombstone(tombstone)
  const summary = writer.finish()
  return {
    ...summary,
    fileNumber: identity.fileNumber ?? tableId,
    baseSequence: identity.baseSequence ?? 0,
    level: 1,
    run: 0,
    liveBytes: summary.sizeBytes,
    createdSeconds: 1234,
  }
}

export function readFile(disk: Disk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  file.close()
  return bytes
}

export function replaceFile(disk: Disk, path: string, bytes: Uint8Array): void {
  if (disk.exists(path)) disk.remove(path)
  const file = disk.create(path)
  if (bytes.length > 0) file.write(bytes, 0)
  file.sync()
  file.close()
}

interface Part {
  readonly offset: number
  readonly sizeBytes: number
  /** Where else than in its trailer the checksum stands. */
  readonly namedAt: number
}

/** Where the blocks of a whole table lie, each before the one that holds its checksum. */
export function partsOf(bytes: Uint8Array): ReadonlyArray<Part> {
  const footerAt = bytes.length - 40
  const { properties } = decodeFooter(bytes.subarray(footerAt))
  const stated = decodeProperties(
    bytes.slice(properties.offset, properties.offset + properties.sizeBytes - 5),
  )
  const part = (offset: number, sizeBytes: number, namedAt: number) => ({
    offset,
    sizeBytes,
    namedAt,
  })
  const entriesOf = (offset: number, sizeBytes: number) => {
    const end = offset + sizeBytes - 5
    const count = readU32(bytes, end - 4)
    const starts = Array.from(
      { length: count },
      (_, i) => offset + readU32(bytes, end - 8 - 4 * count + 4 * i),
    )
    return starts.map((at) => part(readU32(bytes, at), readU32(bytes, at + 4), at + 8))
  }
  const { indexPlace, tombstonePlace, filterPlace } = stated
  const pages = entriesOf(indexPlace.offset, indexPlace.sizeBytes)
  const blocks = pages.flatMap(({ offset, sizeBytes }) => entriesOf(offset, sizeBytes))
  // Three places of 12 bytes stand behind 41 bytes of numbers.
  const place = properties.offset + 41
  const small = [tombstonePlace, filterPlace, indexPlace].map(({ offset, sizeBytes }, i) =>
    part(offset, sizeBytes, place + 12 * i + 8),
  )
  return [
    ...blocks,
    ...pages,
    ...small,
    part(properties.offset, properties.sizeBytes, footerAt + 8),
  ]
}

/**
 * Makes all checksums right again after bytes of a table were changed, as a writer with a bug or an
 * attacker would have them. `parts`: those of the table before.
 */
export function reseal(bytes: Uint8Array, tableId: number, parts: ReadonlyArray<Part>): number {
  for (const { offset, sizeBytes, namedAt } of parts) {
    const end = offset + sizeBytes - 4
    const checksum = placedChecksum(bytes.subarray(offset, end), tableId, offset)
    writeU32(bytes, end, checksum)
    writeU32(bytes, namedAt, checksum)
  }
  const footerAt = bytes.length - 40
  const checksum = placedChecksum(bytes.subarray(footerAt, bytes.length - 4), tableId, footerAt)
  writeU32(bytes, bytes.length - 4, checksum)
  return checksum
}

export function identityOf(fragment: Fragment, checksum = fragment.checksum): TableIdentity {
  return { ...fragment, checksum }
}
