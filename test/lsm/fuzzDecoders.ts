import { Journal } from "../../src/journal/journal.ts"
import { prepareSegment, removeSegments, segmentPath } from "../../src/journal/segments.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { concatBytes, utf8 } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { readCurrent, readManifest } from "../../src/lsm/manifest/manifest.ts"
import { encodeSectors, sectorBytes } from "../../src/lsm/manifest/manifestSectors.ts"
import { BlockCursor } from "../../src/lsm/table/block.ts"
import { BlockWriter } from "../../src/lsm/table/blockWriter.ts"
import { keyHash } from "../../src/lsm/table/bloom.ts"
import { compress, compressions, expand } from "../../src/lsm/table/compression.ts"
import {
  blockTrailerBytes,
  currentPath,
  manifestPath,
  placedChecksum,
  tableFooterBytes,
  tablePath,
} from "../../src/lsm/table/format.ts"
import { SpillCursor } from "../../src/lsm/table/spill.ts"
import {
  hasWholeEntries,
  isIndexPage,
  pageRecordBytes,
  searchIndex,
} from "../../src/lsm/table/tableIndex.ts"
import { decodeFooter, decodeProperties, decodeTombstones } from "../../src/lsm/table/tableParts.ts"
import { identifyTable, Table } from "../../src/lsm/table/tableReader.ts"
import { writeU32 } from "../../src/lsm/table/varint.ts"
import { smallOptions } from "../journal/driver.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { mutated } from "./fuzzMutation.ts"
import { sampleFiles } from "./fuzzSamples.ts"
import { randomKey, randomValue } from "./harness.ts"

/** Something that reads stored bytes. */
export interface Decoder {
  readonly name: string
  /** How often it is drawn: the whole of a file costs more than a part. */
  readonly weight: number
  /** Well-formed inputs, of which mutated ones are made. */
  readonly samples: ReadonlyArray<Uint8Array>
  readonly mutate?: (sample: Uint8Array, prng: Prng) => Uint8Array
  decode(bytes: Uint8Array): void
}

const probes = [utf8("key:5"), utf8("key:"), new Uint8Array([0xff]), new Uint8Array([1, 0x6b])]

export function makeDecoders(prng: Prng): ReadonlyArray<Decoder> {
  const files = sampleFiles(prng)
  return [
    { name: "batch", weight: 10, samples: batches(prng), decode: readBatch },
    { name: "block", weight: 12, samples: blocks(prng), decode: readBlock },
    ...expanders(prng),
    ...parts(files.tables),
    { name: "table", weight: 4, samples: files.tables, decode: readTable },
    {
      name: "table resealed",
      weight: 3,
      samples: files.tables,
      mutate: mutateProperties,
      decode: readTable,
    },
    { name: "manifest", weight: 2, samples: files.manifests, decode: readManifestFile },
    {
      name: "edit resealed",
      weight: 4,
      samples: files.manifests,
      mutate: mutateEdit,
      decode: readManifestFile,
    },
    { name: "CURRENT", weight: 3, samples: files.currents, decode: readCurrentFile },
    {
      name: "CURRENT resealed",
      weight: 1,
      samples: files.currents,
      mutate: mutateCurrent,
      decode: readCurrentFile,
    },
    { name: "spill", weight: 4, samples: files.spills, decode: readSpill },
    { name: "segment", weight: 2, samples: files.segments, decode: readSegment },
  ]
}

// ---- Batch, block, compression

function batches(prng: Prng): ReadonlyArray<Uint8Array> {
  return Array.from({ length: 20 }, () => {
    const batch = new WriteBatch()
    for (let left = prng.int(0, 10); left > 0; left--) {
      const key = randomKey(prng)
      const draw = prng.int(0, 3)
      if (draw < 2) batch.put(key, randomValue(prng))
      else if (draw < 3) batch.delete(key)
      else batch.deleteRange(key, concatBytes(key, new Uint8Array([1])))
    }
    return batch.bytes().slice()
  })
}

function readBatch(bytes: Uint8Array): void {
  const nothing = () => {}
  WriteBatch.visit(bytes, { put: nothing, delete: nothing, deleteRange: nothing })
  WriteBatch.decode(bytes)
}

function blocks(prng: Prng): ReadonlyArray<Uint8Array> {
  return Array.from({ length: 20 }, () => {
    const writer = new BlockWriter(64)
    const keys = new Set(Array.from({ length: prng.int(1, 60) }, () => prng.int(1000, 9999)))
    for (const number of [...keys].sort()) {
      const key = utf8(`key:${number}`)
      const value = randomValue(prng)
      writer.add(key, 0, key.length, prng.uint32(), prng.int(0, 1), value, 0, value.length)
    }
    return writer.finish().slice()
  })
}

/** A table made elsewhere may hold anything under a right checksum. */
function readBlock(content: Uint8Array): void {
  const cursor = new BlockCursor()
  cursor.setBlock(content)
  // Every entry takes bytes of the block, so that a walk ends.
  for (let valid = cursor.seekFirst(); valid; valid = cursor.step());
  for (const key of probes) {
    cursor.seekAtOrAfter(key)
    cursor.seekBefore(key)
    cursor.findFrom(key, 1)
  }
  let left = 2000
  for (let valid = cursor.seekLast(); valid && left > 0; valid = cursor.stepBack()) left--
}

function expanders(prng: Prng): ReadonlyArray<Decoder> {
  return (["snappy", "lz4", "zstd"] as const).map((name) => {
    const kind = compressions[name]
    const samples: Array<Uint8Array> = []
    while (samples.length < 10) {
      const size = Math.floor(prng.logUniform(64, 20_000))
      const content = new Uint8Array(size).map((_, i) => (i % 3 === 0 ? prng.int(0, 255) : 7))
      const stored = compress(kind, content)
      if (stored !== undefined) samples.push(new Uint8Array(stored))
    }
    const decode = (bytes: Uint8Array) => {
      // Which the reader of a table reports with the place.
      if (expand(kind, bytes) === undefined) throw new MalformedBytes("what does not expand")
    }
    return { name, weight: 6, samples, decode }
  })
}

// ---- Table

function footerOf(table: Uint8Array) {
  return decodeFooter(table.subarray(table.length - tableFooterBytes))
}

function contentAt(table: Uint8Array, place: { offset: number; sizeBytes: number }): Uint8Array {
  return table.slice(place.offset, place.offset + place.sizeBytes - blockTrailerBytes)
}

/** The contents of parts, without the checksum that would refuse most mutations. */
function parts(tables: ReadonlyArray<Uint8Array>): ReadonlyArray<Decoder> {
  const properties = tables.map((table) => contentAt(table, footerOf(table).properties))
  const tombstones = tables.map((table, i) => {
    return contentAt(table, decodeProperties(properties[i]).tombstonePlace)
  })
  const indexes = tables.map((table, i) => {
    return contentAt(table, decodeProperties(properties[i]).indexPlace)
  })
  return [
    {
      name: "properties",
      weight: 4,
      samples: properties,
      decode: (bytes) => void decodeProperties(bytes),
    },
    {
      name: "tombstones",
      weight: 4,
      samples: tombstones,
      decode: (bytes) => void decodeTombstones(bytes, 5),
    },
    {
      name: "index page",
      weight: 4,
      samples: indexes,
      decode: (bytes) => {
        if (!isIndexPage(bytes)) throw new MalformedBytes("no index page")
        hasWholeEntries(bytes, pageRecordBytes)
        for (const key of probes) searchIndex(bytes, pageRecordBytes, key)
      },
    },
  ]
}

const directory = "engine"

function diskWith(path: string, bytes: Uint8Array): SimulatedDisk {
  const disk = new SimulatedDisk()
  disk.makeDirectory(path.slice(0, path.indexOf("/")))
  const file = disk.create(path)
  if (bytes.length > 0) file.write(bytes, 0)
  file.close()
  return disk
}

function readTable(bytes: Uint8Array): void {
  const path = tablePath(directory, 7)
  const disk = diskWith(path, bytes)
  const identity = { ...identifyTable(disk, path), fileNumber: 7 }
  const table = new Table({ disk, path, identity })
  try {
    table.tombstones
    const cursor = new BlockCursor()
    for (const key of probes) table.find(key, keyHash(key, 0, key.length), cursor)
    for (let i = 0; i < Math.min(50, table.blockCount); i++) {
      table.position(cursor, i)
      for (let valid = cursor.seekFirst(); valid; valid = cursor.step());
    }
    table.verify()
  } finally {
    table.close()
  }
}

/** Wrong properties under right checksums, up to the footer: places and counts that are not so. */
function mutateProperties(table: Uint8Array, prng: Prng): Uint8Array {
  const { properties, tableId } = footerOf(table)
  const content = mutated(contentAt(table, properties), prng)
  const { offset } = properties
  const result = new Uint8Array(offset + content.length + blockTrailerBytes + tableFooterBytes)
  result.set(table.subarray(0, offset))
  result.set(content, offset)
  const end = offset + content.length
  const checksum = placedChecksum(result.subarray(offset, end + 1), tableId, offset)
  writeU32(result, end + 1, checksum)
  const footerAt = end + blockTrailerBytes
  result.set(table.subarray(table.length - tableFooterBytes), footerAt)
  writeU32(result, footerAt + 4, content.length + blockTrailerBytes)
  writeU32(result, footerAt + 8, checksum)
  if (prng.chance(0.3)) writeU32(result, footerAt + prng.pick([12, 16]), prng.uint32())
  const covered = result.subarray(footerAt, footerAt + tableFooterBytes - 4)
  writeU32(result, result.length - 4, placedChecksum(covered, tableId, footerAt))
  return result
}

// ---- Manifest and CURRENT

const manifestNumber = 1

function readManifestFile(bytes: Uint8Array): void {
  const path = manifestPath(directory, manifestNumber)
  readManifest(diskWith(path, bytes), directory, manifestNumber)
}

/** The whole state, wrong under right checksums. The first sector is the header, edit 1 is the state. */
function mutateEdit(manifest: Uint8Array, prng: Prng): Uint8Array {
  const payloads: Array<Uint8Array> = []
  let at = sectorBytes
  for (let isLast = false; !isLast; at += sectorBytes) {
    const length = manifest[at + 8] + 256 * manifest[at + 9]
    payloads.push(manifest.subarray(at + 12, at + 12 + length))
    isLast = manifest[at + 10] === 1
  }
  const payload = mutated(concatBytes(...payloads), prng)
  const place = { fileNumber: manifestNumber, offset: sectorBytes, editNumber: 1 }
  return concatBytes(manifest.subarray(0, sectorBytes), encodeSectors(payload, place))
}

function readCurrentFile(bytes: Uint8Array): void {
  readCurrent(diskWith(currentPath(directory), bytes), directory)
}

function mutateCurrent(current: Uint8Array, prng: Prng): Uint8Array {
  const result = current.slice()
  const at = prng.int(0, 15)
  result[at] = prng.int(0, 255)
  writeU32(result, 16, placedChecksum(result.subarray(0, 16), 0, 0))
  return result
}

// ---- Spill and journal

function readSpill(bytes: Uint8Array): void {
  const cursor = new SpillCursor(diskWith("spill/1", bytes), "spill/1", 1)
  try {
    for (cursor.seek(undefined); cursor.valid; cursor.advance());
  } finally {
    cursor.close()
  }
}

/** As the one segment of a journal: recovered, read, and gone on from. */
function readSegment(bytes: Uint8Array): void {
  const disk = diskWith(segmentPath("journal", 1), bytes)
  const { journal } = Journal.recover(disk, "journal", smallOptions)
  for (const group of journal.list()) {
    if (group.lastIndex >= group.firstIndex) {
      group.entries(group.firstIndex, group.lastIndex + 1, Number.POSITIVE_INFINITY)
    }
  }
  for (const job of journal.segmentsToPrepare()) prepareSegment(disk, job)
  removeSegments(disk, journal.segmentsToDelete())
  journal.close()
}
