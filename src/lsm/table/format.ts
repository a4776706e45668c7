/**
 * The engine's files, in bytes. Stored: do not change; a change is a new `formatVersion`.
 *
 * All numbers are little-endian. Every byte of every file lies under some CRC-32, and every CRC-32
 * of a table is seeded by the table's id and the offset of what it covers, so that good bytes in
 * the wrong place are caught as well. The chain footer, properties, index, index page, block names
 * each part's checksum, so the footer's checksum, which the manifest holds, stands for every byte.
 *
 *     NNNNNNNN.table     header data-block* index-page* tombstones filter index properties footer
 *       header   16      magic u32, format version u32, table id u32, crc u32 of these 12 bytes
 *       every block      stored content, kind of compression u8, crc u32 of content and kind
 *         stored         kind 0: the content; else expanded size u32, compressed bytes. Only data
 *                        blocks are compressed (compression.ts: 1 snappy, 2 lz4, 3 zstd)
 *       data content     entry*, offset of each restart u32*, base sequence u64,
 *                        count of restarts u32
 *         entry          shared varint, unshared * 2 + kind varint (kind 0 delete, 1 put), unshared
 *                        bytes of the key, zigzag varint of sequence - base, value length varint,
 *                        value
 *       index page       per data block: offset u32, size with trailer u32, crc u32, last key;
 *                        then offset of each of these in the page u32*, where the last one ends
 *                        u32, count u32
 *       tombstones       count u32, then each: length of lower u16, lower, length of upper u16,
 *                        upper (exclusive), sequence u64; ascending and disjoint
 *       filter           probes u8 (0 = no filter), zero u8*3, lines of 64 bytes (bloom.ts)
 *       index            per index page: offset u32, size with trailer u32, crc u32, number of its
 *                        first data block u32, last key; then as in an index page
 *       properties       deletes u32, index pages u32, tombstones u32, created (seconds since the
 *                        start of 2020 UTC) u32, compression asked for u8, smallest sequence u64,
 *                        largest sequence u64, raw bytes of keys and values u64; offset u32,
 *                        size u32 and crc u32 of tombstones, filter and index; length of the first
 *                        key u16, first key, length of the last key u16, last key
 *       footer   40      properties offset u32, properties size u32, properties crc u32,
 *                        entries u32, data blocks u32, table id u32, zero u32, format version u32,
 *                        magic u32, crc u32 of these 36 bytes
 *
 *     NNNNNNNN.manifest  sector* (manifest.ts)
 *     CURRENT            magic u32, format version u32, number of the manifest u64,
 *                        crc u32 of these 16 bytes
 *
 * A varint has seven bits a byte, lowest first, the high bit set on all but the last byte. Zigzag:
 * 0, -1, 1, -2 ... are 0, 1, 2, 3 ... The first entry after a restart shares nothing with the one
 * before it. An entry's key is unique in its table: a table holds one version of a key. A sequence
 * of an adopted table counts from its `baseSequence` (manifest). Parts lie without gaps.
 */

import { StorageCorruption } from "../../disk/disk.ts"
import { crc32 } from "../../lib/checksum.ts"

export const formatVersion = 2

export const tableMagic = 0x4254564b // "KVTB"
export const manifestMagic = 0x464d564b // "KVMF"
export const currentMagic = 0x5543564b // "KVCU"

export const tableHeaderBytes = 16
export const tableFooterBytes = 40
/** Kind of compression and checksum after each block. */
export const blockTrailerBytes = 5
export const currentBytes = 20

export const kinds = { delete: 0, put: 1 } as const

/**
 * Longest key: a 2 KiB key with the bytes that place it, and room to spare. Fits the 16 bits of a
 * memtable's node.
 */
export const maxKeyBytes = 4096
/** Longest value: the largest state of a key of an eventual namespace, 15 MiB, with its record header and room to spare. */
export const maxValueBytes = 16 * 1024 * 1024

/** Sequences end below it: half of what a double counts exactly, so that a difference fits too. */
export const maxSequence = 2 ** 52

/** A file of a format that a later version wrote. Nothing is changed; the node does not start. */
export class NewerFormat extends Error {
  override readonly name = "NewerFormat"
  readonly path: string
  readonly found: number
  constructor(options: { path: string; found: number }) {
    super(`${options.path} has format ${options.found}; this version reads up to ${formatVersion}`)
    this.path = options.path
    this.found = options.found
  }
}

/** A file of a format that is no longer read. Nothing is changed; the node does not start. */
export class OlderFormat extends Error {
  override readonly name = "OlderFormat"
  readonly path: string
  readonly found: number
  constructor(options: { path: string; found: number }) {
    super(
      `${options.path} has format ${options.found}, which was never released; this version reads ` +
        `format ${formatVersion}: begin with an empty directory`,
    )
    this.path = options.path
    this.found = options.found
  }
}

/** Throws unless `found` is a format that this code reads. */
export function checkFormat(path: string, offset: number, found: number): void {
  if (found > formatVersion) throw new NewerFormat({ path, found })
  if (found > 0 && found < formatVersion) throw new OlderFormat({ path, found })
  if (found !== formatVersion) {
    throw new StorageCorruption({
      path,
      offset,
      expected: `format ${formatVersion}`,
      actual: `format ${found}`,
    })
  }
}

/**
 * CRC-32 of `bytes` for its place, a table id or a manifest's number, and an offset: the same bytes
 * have another checksum in nearly every other place.
 */
export function placedChecksum(bytes: Uint8Array, id: number, offset: number): number {
  return crc32(bytes, (Math.imul(id, 0x9e3779b1) ^ offset) >>> 0)
}

const numberDigits = 8

function numbered(directory: string, fileNumber: number, suffix: string): string {
  return `${directory}/${String(fileNumber).padStart(numberDigits, "0")}.${suffix}`
}

export function tablePath(directory: string, fileNumber: number): string {
  return numbered(directory, fileNumber, "table")
}

export function manifestPath(directory: string, fileNumber: number): string {
  return numbered(directory, fileNumber, "manifest")
}

export function currentPath(directory: string): string {
  return `${directory}/CURRENT`
}

export function nextCurrentPath(directory: string): string {
  return `${directory}/CURRENT.next`
}

/** What a name in the engine's folder stands for; `undefined` = none of ours. */
export function parseName(
  name: string,
): { kind: "table" | "manifest" | "current" | "nextCurrent"; fileNumber: number } | undefined {
  if (name === "CURRENT") return { kind: "current", fileNumber: 0 }
  if (name === "CURRENT.next") return { kind: "nextCurrent", fileNumber: 0 }
  const match = /^(\d{8,16})\.(table|manifest)$/.exec(name)
  if (match === null) return undefined
  return { kind: match[2] as "table" | "manifest", fileNumber: Number(match[1]) }
}
