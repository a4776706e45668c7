import type { Disk } from "../../src/disk/disk.ts"
import { compareBytes, concatBytes, emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import type { Prng } from "../../src/lib/prng.ts"
import { newManifest } from "../../src/lsm/manifest/manifest.ts"
import { runManifestWrite } from "../../src/lsm/manifest/manifestWrite.ts"
import type { Cursor } from "../../src/lsm/read/cursor.ts"
import { kinds } from "../../src/lsm/table/format.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { JournalDriver } from "../journal/driver.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { randomKey, randomValue, writeSpill } from "./harness.ts"

export interface SampleFiles {
  readonly tables: ReadonlyArray<Uint8Array>
  readonly manifests: ReadonlyArray<Uint8Array>
  readonly currents: ReadonlyArray<Uint8Array>
  readonly spills: ReadonlyArray<Uint8Array>
  readonly segments: ReadonlyArray<Uint8Array>
}

export function bytesOf(disk: Disk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  file.close()
  return bytes
}

/** One entry, for a table writer. */
export class EntryCursor implements Cursor {
  readonly valid = true
  reverse = false
  readonly keyBytes: Uint8Array
  readonly keyOffset = 0
  readonly keyLength: number
  readonly sequence: number
  readonly kind: number
  readonly valueBytes: Uint8Array
  readonly valueOffset = 0
  readonly valueLength: number

  constructor(key: Uint8Array, value: Uint8Array | undefined, sequence = 0) {
    this.keyBytes = key
    this.keyLength = key.length
    this.sequence = sequence
    this.kind = value === undefined ? kinds.delete : kinds.put
    this.valueBytes = value ?? emptyBytes
    this.valueLength = this.valueBytes.length
  }

  seek(): void {}
  advance(): void {}
}

/** A file of each kind, well-formed. */
export function sampleFiles(prng: Prng): SampleFiles {
  const disk = new SimulatedDisk()
  disk.makeDirectory("engine")
  return {
    tables: Array.from({ length: 8 }, (_, i) => sampleTable(disk, prng, i)),
    ...sampleManifests(disk),
    spills: Array.from({ length: 4 }, () => sampleSpill(disk, prng)),
    segments: [sampleSegment(prng)],
  }
}

function sortedKeys(prng: Prng, count: number): Array<Uint8Array> {
  const keys = Array.from({ length: count }, () =>
    concatBytes(new Uint8Array([1]), randomKey(prng)),
  )
  keys.sort(compareBytes)
  return keys.filter((key, i) => i === 0 || compareBytes(keys[i - 1], key) !== 0)
}

function sampleTable(disk: SimulatedDisk, prng: Prng, number: number): Uint8Array {
  const path = `engine/${number}.sample`
  const options = {
    blockBytes: prng.pick([1, 100, 4096]),
    bloomBitsPerKey: prng.pick([0, 10]),
    compression: number % 4,
    indexPageBytes: prng.pick([1, 100, 4096]),
  }
  const writer = new TableWriter({ disk, path, tableId: number + 1, options })
  for (const key of sortedKeys(prng, 40)) {
    const value = prng.chance(0.2) ? undefined : randomValue(prng)
    writer.add(new EntryCursor(key, value, prng.int(1, 1000)))
  }
  const bound = (text: string) => concatBytes(new Uint8Array([1]), utf8(text))
  writer.addTombstone({ lower: bound("a"), upper: bound("b"), sequence: 7 })
  writer.addTombstone({ lower: bound("c"), upper: bound("d"), sequence: 9 })
  writer.finish()
  return bytesOf(disk, path)
}

function sampleManifests(disk: SimulatedDisk) {
  const fragment = (fileNumber: number, lower: string, upper: string) => ({
    level: 6,
    run: 0,
    fileNumber,
    tableId: fileNumber,
    baseSequence: 0,
    sizeBytes: 1000,
    liveBytes: 900,
    entries: 20,
    checksum: 12345,
    deletes: 1,
    tombstones: 1,
    createdSeconds: 5,
    compression: 2,
    lower: utf8(lower),
    upper: utf8(upper),
  })
  const fragments = Array.from({ length: 12 }, (_, i) => {
    return fragment(
      i + 2,
      `key:${String(i).padStart(20, "0")}`,
      `key:${String(i + 1).padStart(20, "0")}`,
    )
  })
  const state = {
    flushedThrough: 3,
    lastSequence: 99,
    nextFileNumber: 20,
    fragments,
    trees: [{ id: 0x6b, name: "keys" }],
    written: { userBytes: 1, flushedBytes: 2, compactedBytes: 3, ingestedBytes: 4 },
  }
  const { write } = newManifest({ id: 0, directory: "engine", fileNumber: 1, state })
  runManifestWrite(disk, write)
  return {
    manifests: [bytesOf(disk, write.path)],
    currents: [bytesOf(disk, "engine/CURRENT")],
  }
}

function sampleSpill(disk: SimulatedDisk, prng: Prng): Uint8Array {
  const pairs = sortedKeys(prng, 30).map((key) => [key, randomValue(prng)] as const)
  writeSpill(disk, "engine/spill", pairs)
  return bytesOf(disk, "engine/spill")
}

function sampleSegment(prng: Prng): Uint8Array {
  const disk = new SimulatedDisk()
  const driver = new JournalDriver(disk)
  for (let i = 1; i <= 6; i++) {
    const group = driver.journal.group({ range: 1 + (i % 2), replica: 3 })
    if (i % 3 === 0) group.setHardState({ term: i, vote: 3, commit: group.lastIndex })
    const data = randomValue(prng)
    group.append([{ index: group.lastIndex + 1, term: i, kind: 1, data }])
    driver.commit()
  }
  const [name] = disk.list("journal")
  return bytesOf(disk, `journal/${name}`)
}
