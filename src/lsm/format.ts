/**
 * The engine's files, in bytes. Stored: do not change; a change is a new `formatVersion` that still
 * reads the old one.
 *
 * All numbers are little-endian. Every byte of every file lies under some CRC-32, and every CRC-32
 * is seeded by the number of the file and the offset of what it covers, so that good bytes in the
 * wrong place are caught as well.
 *
 *     NNNNNNNN.table     header block* filter index footer
 *       header   16      magic u32, format version u32, low half of the file number u32,
 *                        crc u32 of these 12 bytes
 *       block            content, kind of compression u8 (0 = none), crc u32 of content and kind
 *         data content   entry*, offset of each restart u32*, count of restarts u32
 *         entry          shared varint, unshared varint, value length varint,
 *                        sequence u56, kind u8 (0 delete, 1 put), unshared bytes of the key, value
 *         filter content probes u8, bits (bloom.ts)
 *         index content  per data block: offset u32, size with trailer u32, length of its last key
 *                        u32, last key
 *       footer   64      index offset u32, index size u32, filter offset u32, filter size u32,
 *                        entries u32, data blocks u32, largest sequence u64, file number u64,
 *                        crc of the index u32, crc of the filter u32, format version u32, zero u32,
 *                        magic u32, crc u32 of these 60 bytes
 *
 *     NNNNNNNN.manifest  sector* (manifest.ts)
 *     CURRENT            magic u32, format version u32, number of the manifest u64,
 *                        crc u32 of these 16 bytes
 *
 * The first entry after a restart shares nothing with the one before it. An entry's key is unique
 * in its table: a table holds one version of a key.
 */

import { StorageCorruption } from "../disk/disk.ts"
import { crc32 } from "../lib/checksum.ts"

export const formatVersion = 1

export const tableMagic = 0x4254564b // "KVTB"
export const manifestMagic = 0x464d564b // "KVMF"
export const currentMagic = 0x5543564b // "KVCU"

export const tableHeaderBytes = 16
export const tableFooterBytes = 64
/** Kind of compression and checksum after each block. */
export const blockTrailerBytes = 5
export const currentBytes = 20

export const kinds = { delete: 0, put: 1 } as const

/**
 * Longest key: a 2 KiB key with the bytes that place it, and room to spare. Fits the 16 bits of a
 * memtable's node.
 */
export const maxKeyBytes = 4096
/**
 * Longest value: a 1 MiB value with its record header, and range-local tables, with room to spare.
 */
export const maxValueBytes = 8 * 1024 * 1024

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

/** Throws unless `found` is a format that this code reads. */
export function checkFormat(path: string, offset: number, found: number): void {
  if (found > formatVersion) throw new NewerFormat({ path, found })
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
 * CRC-32 of `bytes` for its place: two places never give the same checksum to the same bytes below
 * 2^32 files or bytes.
 */
export function placedChecksum(bytes: Uint8Array, fileNumber: number, offset: number): number {
  return crc32(bytes, (Math.imul(fileNumber, 0x9e3779b1) ^ offset) >>> 0)
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
