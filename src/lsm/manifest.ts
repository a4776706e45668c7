/**
 * The manifest: which tables are live, as a log of edits. CURRENT names the manifest in force; a
 * new one is written whole and synced before CURRENT is replaced by a rename, so there is always
 * exactly one.
 *
 * A manifest is a sequence of 512-byte sectors, the unit that a disk writes whole:
 *
 *       0  u32  crc of bytes 4 to 511, seeded by the manifest's number and the sector's offset
 *       4  u32  number of the edit; 0 = the header sector
 *       8  u16  bytes of payload
 *      10  u8   1 = last sector of the edit
 *      11  u8   0
 *      12  payload, then zeros
 *     511  u8   0xff
 *
 * The header's payload: magic u32, format version u32, number of the manifest u64. Edit 1 is the
 * whole state; each later one is a change:
 *
 *     flushedThrough u64, lastSequence u64, nextFileNumber u64,
 *     removed files u32, file u64*, added fragments u32, fragment*
 *     fragment = level u8, run u64, file u64, size u32, live bytes u32, entries u32, checksum u32,
 *                length of lower u16, lower, length of upper u16, upper
 *
 * *Torn or damaged?* Each edit is synced before the next is written, so only the last one can be
 * torn. A sector whose write never happened, or only in front, is short or ends in a zero byte, and
 * a written one ends in 0xff. So an edit that lacks sectors in that way, with nothing of a later
 * edit behind it, is a torn tail and ends the log; anything else wrong is damage and refused. The
 * header and edit 1 were synced before CURRENT named the file: there damage is always damage.
 */
import type { Disk } from "../disk/disk.ts"
import { DiskError, StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { readU32, writeU32 } from "./block.ts"
import {
  checkFormat,
  currentBytes,
  currentMagic,
  currentPath,
  formatVersion,
  manifestMagic,
  manifestPath,
  placedChecksum,
} from "./format.ts"
import type { Edit, Fragment } from "./version.ts"
import { applyEdit } from "./version.ts"

const sectorBytes = 512
const sectorHeaderBytes = 12
const sectorPayloadBytes = sectorBytes - sectorHeaderBytes - 1
const sectorEnd = 0xff

/** What each edit states anew. */
export interface ManifestCounters {
  /** The largest generation whose memtable, and all before it, are in tables. */
  readonly flushedThrough: number
  readonly lastSequence: number
  /** Above every file number ever used. */
  readonly nextFileNumber: number
}

export interface ManifestState extends ManifestCounters {
  readonly fragments: ReadonlyArray<Fragment>
}

/** Where the next edit goes. */
export interface ManifestEnd {
  readonly fileNumber: number
  readonly offset: number
  readonly editNumber: number
}

/**
 * Bytes to write and sync before the edit counts; plain data that crosses threads.
 * `runManifestWrite` carries it out.
 */
export interface ManifestWrite {
  readonly id: number
  readonly directory: string
  readonly path: string
  /** Whether `path` is a new manifest, to be put in force through `current`. */
  readonly current: Uint8Array | undefined
  readonly offset: number
  readonly bytes: Uint8Array
}

function encodeEdit(counters: ManifestCounters, edit: Edit): Uint8Array {
  const writer = new ByteWriter(256 + 128 * edit.added.length)
  writer.u64(counters.flushedThrough)
  writer.u64(counters.lastSequence)
  writer.u64(counters.nextFileNumber)
  writer.u32(edit.removedFiles.length)
  for (const file of edit.removedFiles) writer.u64(file)
  writer.u32(edit.added.length)
  for (const fragment of edit.added) {
    writer.u8(fragment.level)
    writer.u64(fragment.run)
    writer.u64(fragment.fileNumber)
    writer.u32(fragment.sizeBytes)
    writer.u32(fragment.liveBytes)
    writer.u32(fragment.entries)
    writer.u32(fragment.checksum)
    writer.u16(fragment.lower.length)
    writer.raw(fragment.lower)
    writer.u16(fragment.upper.length)
    writer.raw(fragment.upper)
  }
  return writer.bytes()
}

function decodeEdit(payload: Uint8Array): ManifestCounters & Edit {
  const reader = new ByteReader(payload)
  const flushedThrough = reader.u64()
  const lastSequence = reader.u64()
  const nextFileNumber = reader.u64()
  const removedFiles: Array<number> = []
  for (let left = reader.u32(); left > 0; left--) removedFiles.push(reader.u64())
  const added: Array<Fragment> = []
  for (let left = reader.u32(); left > 0; left--) {
    added.push({
      level: reader.u8(),
      run: reader.u64(),
      fileNumber: reader.u64(),
      sizeBytes: reader.u32(),
      liveBytes: reader.u32(),
      entries: reader.u32(),
      checksum: reader.u32(),
      lower: reader.raw(reader.u16()).slice(),
      upper: reader.raw(reader.u16()).slice(),
    })
  }
  reader.end()
  return { flushedThrough, lastSequence, nextFileNumber, removedFiles, added }
}

/** The sectors of one edit, for `end`. */
function encodeSectors(payload: Uint8Array, end: ManifestEnd): Uint8Array {
  const count = Math.max(1, Math.ceil(payload.length / sectorPayloadBytes))
  const bytes = new Uint8Array(count * sectorBytes)
  for (let i = 0; i < count; i++) {
    const part = payload.subarray(i * sectorPayloadBytes, (i + 1) * sectorPayloadBytes)
    const sector = bytes.subarray(i * sectorBytes, (i + 1) * sectorBytes)
    writeU32(sector, 4, end.editNumber)
    sector[8] = part.length
    sector[9] = part.length >>> 8
    sector[10] = i === count - 1 ? 1 : 0
    sector.set(part, sectorHeaderBytes)
    sector[sectorBytes - 1] = sectorEnd
    const offset = end.offset + i * sectorBytes
    writeU32(sector, 0, placedChecksum(sector.subarray(4), end.fileNumber, offset))
  }
  return bytes
}

/** The write that appends `edit` at `end`, and where the one after it goes. */
export function appendEdit(options: {
  id: number
  directory: string
  end: ManifestEnd
  counters: ManifestCounters
  edit: Edit
}): { write: ManifestWrite; end: ManifestEnd } {
  const { id, directory, end } = options
  const bytes = encodeSectors(encodeEdit(options.counters, options.edit), end)
  const path = manifestPath(directory, end.fileNumber)
  return {
    write: { id, directory, path, current: undefined, offset: end.offset, bytes },
    end: { ...end, offset: end.offset + bytes.length, editNumber: end.editNumber + 1 },
  }
}

/** The write that begins a new manifest with the whole state and puts it in force. */
export function newManifest(options: {
  id: number
  directory: string
  fileNumber: number
  state: ManifestState
}): { write: ManifestWrite; end: ManifestEnd } {
  const { id, directory, fileNumber, state } = options
  const header = new ByteWriter(16)
  header.u32(manifestMagic)
  header.u32(formatVersion)
  header.u64(fileNumber)
  const first = encodeSectors(header.bytes(), { fileNumber, offset: 0, editNumber: 0 })
  const at = { fileNumber, offset: sectorBytes, editNumber: 1 }
  const payload = encodeEdit(state, { removedFiles: [], added: state.fragments })
  const second = encodeSectors(payload, at)
  const bytes = new Uint8Array(first.length + second.length)
  bytes.set(first)
  bytes.set(second, first.length)
  const path = manifestPath(directory, fileNumber)
  return {
    write: { id, directory, path, current: encodeCurrent(fileNumber), offset: 0, bytes },
    end: { fileNumber, offset: bytes.length, editNumber: 2 },
  }
}

function encodeCurrent(fileNumber: number): Uint8Array {
  const writer = new ByteWriter(currentBytes)
  writer.u32(currentMagic)
  writer.u32(formatVersion)
  writer.u64(fileNumber)
  writer.u32(placedChecksum(writer.bytes(), 0, 0))
  return writer.take()
}

function readWhole(disk: Disk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  const read = file.read(bytes, 0)
  file.close()
  assert(read === bytes.length, "a file is read to its end")
  return bytes
}

function corrupt(path: string, offset: number, expected: string, actual: string): never {
  throw new StorageCorruption({ path, offset, expected, actual })
}

/** The number of the manifest in force. */
export function readCurrent(disk: Disk, directory: string): number {
  const path = currentPath(directory)
  const bytes = readWhole(disk, path)
  if (bytes.length !== currentBytes) corrupt(path, 0, `${currentBytes} bytes`, `${bytes.length}`)
  const stored = readU32(bytes, 16)
  const actual = placedChecksum(bytes.subarray(0, 16), 0, 0)
  if (actual !== stored) corrupt(path, 0, `checksum ${stored}`, `checksum ${actual}`)
  if (readU32(bytes, 0) !== currentMagic) corrupt(path, 0, "CURRENT", "another kind of file")
  checkFormat(path, 4, readU32(bytes, 4))
  return new ByteReader(bytes, 8).u64()
}

/**
 * Reads a manifest. `torn` = its last edit never became whole, so nothing may be appended to the
 * file.
 */
export function readManifest(
  disk: Disk,
  directory: string,
  fileNumber: number,
): { state: ManifestState; end: ManifestEnd; torn: boolean } {
  const path = manifestPath(directory, fileNumber)
  const log = new ManifestLog(path, fileNumber, readManifestBytes(disk, path))
  log.readHeader()
  let state: ManifestState | undefined
  for (;;) {
    const payload = log.nextEdit()
    if (payload === undefined) break
    let edit: ManifestCounters & Edit
    try {
      edit = decodeEdit(payload)
    } catch (error) {
      if (!(error instanceof MalformedBytes)) throw error
      corrupt(path, log.offset, "an edit", error.message)
    }
    const { flushedThrough, lastSequence, nextFileNumber } = edit
    const fragments = applyEdit(state?.fragments ?? [], edit)
    state = { flushedThrough, lastSequence, nextFileNumber, fragments }
  }
  if (state === undefined) corrupt(path, sectorBytes, "the whole state", "nothing")
  const end = { fileNumber, offset: log.offset, editNumber: log.editNumber }
  return { state, end, torn: log.torn }
}

function readManifestBytes(disk: Disk, path: string): Uint8Array {
  try {
    return readWhole(disk, path)
  } catch (error) {
    if (error instanceof DiskError && error.reason === "not-found") {
      corrupt(path, 0, "the manifest that CURRENT names", "no file")
    }
    throw error
  }
}

/** Walks the sectors of a manifest. */
class ManifestLog {
  offset = 0
  /** Of the edit that begins at `offset`. */
  editNumber = 0
  torn = false
  private readonly path: string
  private readonly fileNumber: number
  private readonly bytes: Uint8Array

  constructor(path: string, fileNumber: number, bytes: Uint8Array) {
    this.path = path
    this.fileNumber = fileNumber
    this.bytes = bytes
  }

  readHeader(): void {
    const payload = this.nextEdit()
    if (payload === undefined) corrupt(this.path, 0, "a header", "an empty file")
    if (payload.length !== 16) corrupt(this.path, 0, "a header", `${payload.length} bytes`)
    if (readU32(payload, 0) !== manifestMagic) {
      corrupt(this.path, 0, "a manifest", "another kind of file")
    }
    checkFormat(this.path, 4, readU32(payload, 4))
    const stated = new ByteReader(payload, 8).u64()
    if (stated !== this.fileNumber) corrupt(this.path, 8, `${this.fileNumber}`, `${stated}`)
  }

  /** The payload of the next edit; `undefined` at the end, torn or not. */
  nextEdit(): Uint8Array | undefined {
    const parts = new ByteWriter(1024)
    for (let at = this.offset; ; at += sectorBytes) {
      if (at === this.bytes.length && at === this.offset) return undefined
      const sector = this.bytes.subarray(at, at + sectorBytes)
      if (!this.isWhole(sector, at)) {
        this.acceptTear(at)
        return undefined
      }
      const number = readU32(sector, 4)
      if (number !== this.editNumber) {
        corrupt(this.path, at, `edit ${this.editNumber}`, `edit ${number}`)
      }
      parts.raw(sector.subarray(sectorHeaderBytes, sectorHeaderBytes + sector[8] + sector[9] * 256))
      if (sector[10] === 1) {
        this.offset = at + sectorBytes
        this.editNumber++
        return parts.bytes()
      }
    }
  }

  private isWhole(sector: Uint8Array, at: number): boolean {
    return (
      sector.length === sectorBytes &&
      readU32(sector, 0) === placedChecksum(sector.subarray(4), this.fileNumber, at)
    )
  }

  /**
   * Marks the log as torn if what stands at `at` and behind can be what a cut-off write left; else
   * throws.
   */
  private acceptTear(at: number): void {
    // Edit 1 is number 1: it and the header were synced before the file was put in force.
    if (this.editNumber < 2) corrupt(this.path, at, "a whole sector", "a damaged one")
    for (let next = at; next < this.bytes.length; next += sectorBytes) {
      const sector = this.bytes.subarray(next, next + sectorBytes)
      if (this.isWhole(sector, next)) {
        const number = readU32(sector, 4)
        if (number !== this.editNumber) corrupt(this.path, at, "a whole sector", "a damaged one")
      } else if (sector.length === sectorBytes && sector[sectorBytes - 1] !== 0) {
        corrupt(this.path, next, "a whole sector, or a torn one", "a damaged one")
      }
    }
    this.torn = true
  }
}
