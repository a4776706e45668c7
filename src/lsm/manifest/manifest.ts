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
 *     bytes put by users u64, flushed u64, compacted u64, ingested u64 (since the engine was made),
 *     trees u8, tree*, removed files u32, file u64*, added fragments u32, fragment*
 *     tree     = id u8, length of the name u8, name in UTF-8; only in edit 1
 *     fragment = level u8, run u64, file u64, table id u32, base sequence u64, size u32,
 *                live bytes u32, entries u32, checksum u32, deletes u32, tombstones u32,
 *                created (seconds since 2020) u32, compression asked for u8,
 *                length of lower u16, lower, length of upper u16, upper
 *
 * *Torn or damaged?* Each edit is synced before the next is written, so only the last one can be
 * torn. A sector whose write never happened, or only in front, is short or ends in a zero byte, and
 * a written one ends in 0xff. So an edit that lacks sectors in that way, with nothing of a later
 * edit behind it, is a torn tail and ends the log; anything else wrong is damage and refused. The
 * header and edit 1 were synced before CURRENT named the file: there damage is always damage.
 */
import type { Disk } from "../../disk/disk.ts"
import { DiskError } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { compareBytes, text, utf8 } from "../../lib/bytes.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import {
  checkFormat,
  currentBytes,
  currentMagic,
  currentPath,
  formatVersion,
  manifestMagic,
  manifestPath,
  placedChecksum,
} from "../table/format.ts"
import { readU32 } from "../table/varint.ts"
import type { Tree } from "../trees.ts"
import { corrupt, encodeSectors, ManifestLog, sectorBytes } from "./manifestSectors.ts"
import type { Edit, Fragment } from "./version.ts"
import { deepestLevel } from "./version.ts"

/** Bytes written since the engine was made: what its write amplification is reckoned from. */
export interface WrittenBytes {
  /** Keys and values of puts and deletes. What was lost in a memtable and put again counts twice. */
  readonly userBytes: number
  readonly flushedBytes: number
  readonly compactedBytes: number
  readonly ingestedBytes: number
}

/** What each edit states anew. */
export interface ManifestCounters {
  /** The largest generation whose memtable, and all before it, are in tables. */
  readonly flushedThrough: number
  readonly lastSequence: number
  /** Above every file number ever used. */
  readonly nextFileNumber: number
  readonly written: WrittenBytes
}

export interface ManifestState extends ManifestCounters {
  readonly trees: ReadonlyArray<Tree>
  readonly fragments: ReadonlyArray<Fragment>
}

/** One edit as it was written. */
export interface ManifestEdit extends ManifestCounters, Edit {
  readonly trees: ReadonlyArray<Tree>
}

/** Where the next edit goes. */
export interface ManifestEnd {
  readonly fileNumber: number
  readonly offset: number
  readonly editNumber: number
  /** Bytes up to the end of edit 1, the whole state. */
  readonly stateBytes: number
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

function encodeEdit(
  counters: ManifestCounters,
  edit: Edit,
  trees: ReadonlyArray<Tree>,
): Uint8Array {
  const writer = new ByteWriter(256 + 160 * edit.added.length)
  writer.u64(counters.flushedThrough)
  writer.u64(counters.lastSequence)
  writer.u64(counters.nextFileNumber)
  writer.u64(counters.written.userBytes)
  writer.u64(counters.written.flushedBytes)
  writer.u64(counters.written.compactedBytes)
  writer.u64(counters.written.ingestedBytes)
  writer.u8(trees.length)
  for (const { id, name } of trees) {
    const bytes = utf8(name)
    writer.u8(id)
    writer.u8(bytes.length)
    writer.raw(bytes)
  }
  writer.u32(edit.removedFiles.length)
  for (const file of edit.removedFiles) writer.u64(file)
  writer.u32(edit.added.length)
  for (const fragment of edit.added) {
    writer.u8(fragment.level)
    writer.u64(fragment.run)
    writer.u64(fragment.fileNumber)
    writer.u32(fragment.tableId)
    writer.u64(fragment.baseSequence)
    writer.u32(fragment.sizeBytes)
    writer.u32(fragment.liveBytes)
    writer.u32(fragment.entries)
    writer.u32(fragment.checksum)
    writer.u32(fragment.deletes)
    writer.u32(fragment.tombstones)
    writer.u32(fragment.createdSeconds)
    writer.u8(fragment.compression)
    writer.u16(fragment.lower.length)
    writer.raw(fragment.lower)
    writer.u16(fragment.upper.length)
    writer.raw(fragment.upper)
  }
  return writer.bytes()
}

function decodeEdit(payload: Uint8Array): ManifestEdit {
  const reader = new ByteReader(payload)
  const flushedThrough = reader.u64()
  const lastSequence = reader.u64()
  const nextFileNumber = reader.u64()
  const written: WrittenBytes = {
    userBytes: reader.u64(),
    flushedBytes: reader.u64(),
    compactedBytes: reader.u64(),
    ingestedBytes: reader.u64(),
  }
  const trees: Array<Tree> = []
  for (let left = reader.u8(); left > 0; left--) {
    trees.push({ id: reader.u8(), name: text(reader.raw(reader.u8())) })
  }
  const removedFiles: Array<number> = []
  for (let left = reader.u32(); left > 0; left--) removedFiles.push(reader.u64())
  const added: Array<Fragment> = []
  for (let left = reader.u32(); left > 0; left--) {
    const fragment: Fragment = {
      level: reader.u8(),
      run: reader.u64(),
      fileNumber: reader.u64(),
      tableId: reader.u32(),
      baseSequence: reader.u64(),
      sizeBytes: reader.u32(),
      liveBytes: reader.u32(),
      entries: reader.u32(),
      checksum: reader.u32(),
      deletes: reader.u32(),
      tombstones: reader.u32(),
      createdSeconds: reader.u32(),
      compression: reader.u8(),
      lower: reader.copy(reader.u16()),
      upper: reader.copy(reader.u16()),
    }
    checkFragment(fragment)
    added.push(fragment)
  }
  reader.end()
  return { flushedThrough, lastSequence, nextFileNumber, written, trees, removedFiles, added }
}

/** What no engine writes, though its checksum is right, is damage, not a failed assert. */
function checkFragment(fragment: Fragment): void {
  const { level, run, lower, upper } = fragment
  if (level > deepestLevel || (level > 0 && run !== 0) || compareBytes(lower, upper) >= 0) {
    throw new MalformedBytes("a fragment out of bounds")
  }
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
  const bytes = encodeSectors(encodeEdit(options.counters, options.edit, []), end)
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
  const payload = encodeEdit(state, { removedFiles: [], added: state.fragments }, state.trees)
  const second = encodeSectors(payload, at)
  const bytes = new Uint8Array(first.length + second.length)
  bytes.set(first)
  bytes.set(second, first.length)
  const path = manifestPath(directory, fileNumber)
  return {
    write: { id, directory, path, current: encodeCurrent(fileNumber), offset: 0, bytes },
    end: { fileNumber, offset: bytes.length, editNumber: 2, stateBytes: bytes.length },
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
  const { edits, end, torn, damage } = readManifestEdits(disk, directory, fileNumber)
  if (damage !== undefined) throw damage
  const [first] = edits
  const last = edits.at(-1)
  if (first === undefined || last === undefined) {
    corrupt(path, sectorBytes, "the whole state", "nothing")
  }
  const files = new Map<number, Array<Fragment>>()
  for (const { edit } of edits) {
    for (const file of edit.removedFiles) files.delete(file)
    for (const fragment of edit.added) {
      const known = files.get(fragment.fileNumber)
      if (known === undefined) files.set(fragment.fileNumber, [fragment])
      else known.push(fragment)
    }
  }
  const { flushedThrough, lastSequence, nextFileNumber, written } = last.edit
  const { trees } = first.edit
  const fragments = [...files.values()].flat()
  const counters = { flushedThrough, lastSequence, nextFileNumber, written }
  return { state: { ...counters, trees, fragments }, end, torn }
}

/**
 * The edits of a manifest one by one, up to its end or to the first damage: what is behind damage
 * cannot be trusted. Throws only `DiskError`.
 */
export function readManifestEdits(
  disk: Disk,
  directory: string,
  fileNumber: number,
): {
  edits: ReadonlyArray<{ offset: number; number: number; edit: ManifestEdit }>
  end: ManifestEnd
  torn: boolean
  damage: Error | undefined
} {
  const path = manifestPath(directory, fileNumber)
  const edits: Array<{ offset: number; number: number; edit: ManifestEdit }> = []
  let log: ManifestLog | undefined
  let damage: Error | undefined
  let stateBytes = 0
  try {
    log = new ManifestLog(path, fileNumber, readManifestBytes(disk, path))
    log.readHeader()
    for (;;) {
      const { offset, editNumber: number } = log
      const payload = log.nextEdit()
      if (payload === undefined) break
      edits.push({ offset, number, edit: decodeAt(path, offset, payload) })
      if (number === 1) stateBytes = log.offset
    }
  } catch (error) {
    if (error instanceof DiskError) throw error
    if (!(error instanceof Error) || error.name === "AssertionError") throw error
    damage = error
  }
  const { offset = 0, editNumber = 0, torn = false } = log ?? {}
  return { edits, end: { fileNumber, offset, editNumber, stateBytes }, torn, damage }
}

function decodeAt(path: string, offset: number, payload: Uint8Array): ManifestEdit {
  try {
    return decodeEdit(payload)
  } catch (error) {
    if (!(error instanceof MalformedBytes)) throw error
    corrupt(path, offset, "an edit", error.message)
  }
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
