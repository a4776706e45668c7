import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { FileDisk } from "../../src/disk/FileDisk.ts"
import { dumpLines } from "../../src/doctor/dump.ts"
import { examine, type Identity } from "../../src/doctor/examination.ts"
import { readWhole } from "../../src/doctor/journalCheck.ts"
import { ReadOnlyDisk } from "../../src/doctor/ReadOnlyDisk.ts"
import type { Report } from "../../src/doctor/report.ts"
import { reportLines } from "../../src/doctor/reportLines.ts"
import { concatBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { appendEdit, newManifest } from "../../src/lsm/manifest/manifest.ts"
import { runManifestWrite } from "../../src/lsm/manifest/manifestWrite.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { kinds, tablePath } from "../../src/lsm/table/format.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { JournalDriver, smallOptions } from "../journal/driver.ts"

interface TableSpec {
  readonly fileNumber: number
  readonly level: number
  readonly tree: number
  readonly from: number
  readonly to: number
  readonly compression: number
  readonly tombstone?: boolean
}

/** What a writer does not ask of a cursor. */
const standing = { reverse: false, valid: true, seek: () => {}, advance: () => {} }

/** The key of a number in a tree. */
export function keyOf(tree: number, number: number): Uint8Array {
  return concatBytes(Uint8Array.of(tree), utf8(`key-${String(number).padStart(5, "0")}`))
}

function writeTable(disk: FileDisk, spec: TableSpec): Fragment {
  const { fileNumber, level, tree, from, to, compression } = spec
  const options = { blockBytes: 1024, bloomBitsPerKey: 10, compression, indexPageBytes: 512 }
  const path = tablePath("engine", fileNumber)
  const writer = new TableWriter({ disk, path, tableId: fileNumber, options })
  for (let i = from; i < to; i++) {
    const keyBytes = keyOf(tree, i)
    const isDelete = level === 0 && i % 10 === 0
    const valueBytes = isDelete ? new Uint8Array(0) : utf8(`value ${i} `.repeat(4))
    writer.add({
      ...standing,
      keyBytes,
      keyOffset: 0,
      keyLength: keyBytes.length,
      sequence: level === 0 ? 1000 + i : 1 + i,
      kind: isDelete ? kinds.delete : kinds.put,
      valueBytes,
      valueOffset: 0,
      valueLength: valueBytes.length,
    })
  }
  if (spec.tombstone) {
    writer.addTombstone({ lower: keyOf(tree, to), upper: keyOf(tree, to + 5), sequence: 2000 })
  }
  const { sizeBytes, checksum, entries, deletes, tombstones, lower, upper } = writer.finish()
  const run = level === 0 ? fileNumber : 0
  const counts = { entries, deletes, tombstones, createdSeconds: 0, compression, baseSequence: 0 }
  const place = { level, run, fileNumber, tableId: fileNumber, lower, upper }
  return { ...place, ...counts, sizeBytes, liveBytes: sizeBytes, checksum }
}

function writeEngine(disk: FileDisk): void {
  disk.makeDirectory("engine")
  const { lz4, none, zstd } = compressions
  const bottom = [
    writeTable(disk, { fileNumber: 2, level: 6, tree: 2, from: 0, to: 400, compression: zstd }),
    writeTable(disk, { fileNumber: 3, level: 6, tree: 3, from: 0, to: 100, compression: lz4 }),
  ]
  const written = { userBytes: 30_000, flushedBytes: 31_000, compactedBytes: 12_000 }
  const counters = { flushedThrough: 2, lastSequence: 2000, nextFileNumber: 9 }
  const state = {
    ...counters,
    written: { ...written, ingestedBytes: 0 },
    trees: [
      { id: 2, name: "strong" },
      { id: 3, name: "eventual" },
    ],
    fragments: bottom,
  }
  const { write, end } = newManifest({ id: 0, directory: "engine", fileNumber: 4, state })
  runManifestWrite(disk, write)
  const top = { fileNumber: 5, level: 0, tree: 2, from: 100, to: 160, compression: none }
  const added = [writeTable(disk, { ...top, tombstone: true })]
  const edit = { removedFiles: [], added }
  runManifestWrite(
    disk,
    appendEdit({ id: 1, directory: "engine", end, counters: state, edit }).write,
  )
}

function writeJournal(disk: FileDisk): void {
  const driver = new JournalDriver(disk, { ...smallOptions, rewriteThresholdSegments: 99 })
  const group = driver.journal.group({ range: 4, replica: 1 })
  group.setHardState({ term: 2, vote: 1, commit: 0 })
  for (let index = 1; index <= 30; index++) {
    group.append([{ index, term: 2, kind: 1, data: utf8(`entry ${index} `.repeat(5)) }])
    driver.commit()
  }
  driver.seal()
}

const identityWords: Identity = {
  fileName: "IDENTITY",
  read(disk) {
    const isSound = text(readWhole(disk, "IDENTITY")) === "node 1\n"
    return isSound ? { words: "node n1" } : { problem: "a file that names no node" }
  },
}

/** A directory as a node leaves it, always the same bytes, and what can happen to it. */
export class Directory {
  readonly root = mkdtempSync(join(tmpdir(), "kvorum-doctor-"))

  constructor() {
    const disk = new FileDisk(this.root)
    writeJournal(disk)
    writeEngine(disk)
    writeFileSync(join(this.root, "IDENTITY"), "node 1\n")
  }

  remove(): void {
    rmSync(this.root, { recursive: true })
  }

  flip(path: string, offset: number): void {
    const file = join(this.root, path)
    const bytes = readFileSync(file)
    bytes[offset < 0 ? bytes.length + offset : offset] ^= 0x10
    writeFileSync(file, bytes)
  }

  examine(): Report {
    const disk = new ReadOnlyDisk(this.root)
    const steps = examine({ disk, directory: "data", identity: identityWords })
    for (;;) {
      const step = steps.next()
      if (step.done) return step.value
    }
  }

  dump(path: string): ReadonlyArray<string> {
    const slash = path.lastIndexOf("/")
    return [
      ...dumpLines(new ReadOnlyDisk(join(this.root, path.slice(0, slash))), path.slice(slash + 1)),
    ]
  }

  /** One line of a golden script. */
  run(command: string): ReadonlyArray<string> {
    const [verb, path = "", number = ""] = command.split(" ")
    const file = join(this.root, path)
    switch (verb) {
      case "examine":
        return reportLines(this.examine())
      case "dump":
        return this.dump(path)
      case "flip":
        this.flip(path, Number(number))
        return []
      case "remove":
        rmSync(file)
        return []
      case "append":
        appendFileSync(file, Buffer.alloc(Number(number), 0x5a))
        return []
      case "copy":
        writeFileSync(join(this.root, number), readFileSync(file))
        return []
      default:
        throw new Error(`unknown command ${command}`)
    }
  }
}
