import { describe, expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { runJob } from "../../src/lsm/maintenance/jobs.ts"
import { NewerFormat, OlderFormat, placedChecksum } from "../../src/lsm/table/format.ts"
import { writeU32 } from "../../src/lsm/table/varint.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, digest, flushAll, settle, step, tinyOptions } from "./harness.ts"
import { partsOf } from "./tableHarness.ts"

/** An engine with a table on two levels and a manifest of several edits. */
function smallEngine(): { disk: SimulatedDisk; content: string } {
  const disk = new SimulatedDisk()
  const options = { ...tinyOptions, level0Trigger: 2 }
  const engine = Engine.open(disk, "engine", options)
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 12; i++) engine.put(utf8(`key:${i * (round + 1)}`), utf8(`value ${round}`))
    engine.delete(utf8(`key:${round}`))
    flushAll(engine, disk)
    if (round === 1) settle(engine, disk)
  }
  const content = digest(contentOf(engine))
  disk.keepAll()
  return { disk, content }
}

/** What a reader gets: the content, "corrupt", or "newer". */
function outcome(disk: SimulatedDisk): string {
  try {
    const engine = Engine.open(disk, "engine", tinyOptions)
    return digest(contentOf(engine))
  } catch (error) {
    if (error instanceof StorageCorruption) return "corrupt"
    throw error
  }
}

function sizeOf(disk: SimulatedDisk, path: string): number {
  const file = disk.open(path)
  const { sizeBytes } = file
  file.close()
  return sizeBytes
}

function bytesOf(disk: SimulatedDisk, path: string): Uint8Array {
  const file = disk.open(path)
  const bytes = new Uint8Array(file.sizeBytes)
  file.read(bytes, 0)
  file.close()
  return bytes
}

function overwrite(disk: SimulatedDisk, path: string, bytes: Uint8Array): void {
  if (disk.exists(path)) disk.remove(path)
  const file = disk.create(path)
  file.write(bytes, 0)
  file.sync()
  file.close()
}

function theManifest(disk: SimulatedDisk): string {
  const name = disk.list("engine").find((other) => other.endsWith(".manifest"))
  return `engine/${name}`
}

describe("damage is reported, never answered", () => {
  test("one flipped bit in any byte of any file", () => {
    const { disk, content } = smallEngine()
    const prng = new Prng(1)
    expect(outcome(disk.clone())).toBe(content)
    let flips = 0
    for (const name of disk.list("engine")) {
      const path = `engine/${name}`
      const size = sizeOf(disk, path)
      for (let offset = 0; offset < size; offset++) {
        const copy = disk.clone()
        copy.corrupt(path, offset, 1 << prng.int(0, 7))
        expect(`${path} ${offset} ${outcome(copy)}`).toBe(`${path} ${offset} corrupt`)
        flips++
      }
    }
    expect(flips).toBeGreaterThan(3000)
  })

  test("verify finds a flipped bit in any byte of any table, below newer entries too", () => {
    const { disk } = smallEngine()
    for (const name of disk.list("engine").filter((other) => other.endsWith(".table"))) {
      const path = `engine/${name}`
      for (let offset = 0; offset < sizeOf(disk, path); offset++) {
        const copy = disk.clone()
        copy.corrupt(path, offset, 0x10)
        const engine = Engine.open(copy, "engine", tinyOptions)
        expect(() => engine.verify()).toThrow(StorageCorruption)
      }
    }
  })

  test("a table that is missing, shorter, longer, or another one of the same size", () => {
    const { disk } = smallEngine()
    const tables = disk.list("engine").filter((name) => name.endsWith(".table"))
    expect(tables.length).toBeGreaterThan(1)
    const path = `engine/${tables[0]}`
    const bytes = bytesOf(disk, path)
    const missing = disk.clone()
    missing.remove(path)
    expect(outcome(missing)).toBe("corrupt")
    for (const changed of [bytes.slice(0, -1), new Uint8Array([...bytes, 0])]) {
      const copy = disk.clone()
      overwrite(copy, path, changed)
      expect(outcome(copy)).toBe("corrupt")
    }
    const swapped = disk.clone()
    overwrite(swapped, path, bytesOf(disk, `engine/${tables[1]}`))
    expect(outcome(swapped)).toBe("corrupt")
  })

  test("a block in another block's place, though its own checksum is right", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", { ...tinyOptions, blockBytes: 64 })
    // Blocks of equal size: each holds keys and values of the same lengths.
    for (let i = 100; i < 130; i++) engine.put(utf8(`key:${i}`), new Uint8Array(20).fill(i))
    flushAll(engine, disk)
    const [path] = engine.liveFiles() as [string]
    disk.keepAll()
    const bytes = bytesOf(disk, path)
    const [first, second] = partsOf(bytes)
    expect(first?.sizeBytes).toBe(second?.sizeBytes as number)
    const { offset, sizeBytes } = second as NonNullable<typeof second>
    const moved = bytes.slice()
    moved.copyWithin(first?.offset as number, offset, offset + sizeBytes)
    expect(moved).not.toEqual(bytes)
    overwrite(disk, path, moved)
    const reopened = Engine.open(disk, "engine", tinyOptions)
    expect(() => contentOf(reopened)).toThrow(StorageCorruption)
  })

  test("a compaction does not copy damage under a new checksum", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", { ...tinyOptions, level0Trigger: 2 })
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 20; i++) engine.put(utf8(`key:${i}`), utf8(`value ${round}`))
      flushAll(engine, disk)
    }
    // The reads before leave good blocks in the cache.
    expect(contentOf(engine).length).toBe(20)
    const job = engine.nextJob(0)
    expect(job?._tag).toBe("Compact")
    disk.corrupt(engine.liveFiles()[0] as string, 40, 1)
    expect(() => runJob(disk, job as NonNullable<typeof job>)).toThrow(StorageCorruption)
  })

  test("a folder with tables and no CURRENT", () => {
    const { disk } = smallEngine()
    disk.remove("engine/CURRENT")
    expect(outcome(disk)).toBe("corrupt")
    const { disk: other } = smallEngine()
    other.remove(theManifest(other))
    expect(outcome(other)).toBe("corrupt")
  })
})

describe("the end of a manifest", () => {
  test("an edit cut off at any byte never happened; one cut off earlier is damage", () => {
    const { disk, content } = smallEngine()
    const engine = Engine.open(disk, "engine", tinyOptions)
    const path = theManifest(disk)
    const before = sizeOf(disk, path)
    engine.put(utf8("last"), utf8("edit"))
    flushAll(engine, disk)
    const whole = digest(contentOf(engine))
    expect(whole).not.toBe(content)
    disk.keepAll()
    const bytes = bytesOf(disk, path)
    expect(theManifest(disk)).toBe(path)
    for (let length = 0; length <= bytes.length; length += length < before - 600 ? 97 : 1) {
      for (const zeros of [false, true]) {
        const copy = disk.clone()
        const cut = zeros ? new Uint8Array(bytes.length) : bytes.slice(0, length)
        if (zeros) cut.set(bytes.subarray(0, length))
        overwrite(copy, path, cut)
        const actual = outcome(copy)
        // Zeros behind a whole edit, or a file that ends with one, are as if nothing more had been
        // written.
        const wholeEdits = Math.floor(length / 512)
        if (length === bytes.length) expect(actual).toBe(whole)
        else if (length >= before) expect(actual).toBe(content)
        else if (zeros && wholeEdits >= 2) expect(actual).not.toBe(whole)
        else if (wholeEdits < 2) expect(`${length} ${actual}`).toBe(`${length} corrupt`)
      }
    }
  })

  test("after a torn edit the log goes on in a new manifest, and holds", () => {
    const { disk, content } = smallEngine()
    const path = theManifest(disk)
    const torn = new Uint8Array(bytesOf(disk, path).length + 100)
    torn.set(bytesOf(disk, path))
    torn.fill(3, torn.length - 100, torn.length - 50)
    overwrite(disk, path, torn)
    expect(outcome(disk)).toBe(content)
    expect(theManifest(disk)).not.toBe(path)
    const engine = Engine.open(disk, "engine", tinyOptions)
    engine.put(utf8("more"), utf8("value"))
    flushAll(engine, disk)
    disk.loseAllUnsynced()
    const again = Engine.open(disk, "engine", tinyOptions)
    expect(again.get(utf8("more"))).toEqual(utf8("value"))
  })

  test("a torn edit with a later one behind it is a hole, though every table is there", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", tinyOptions)
    for (const key of ["a", "b", "c"]) {
      engine.put(utf8(key), utf8("value"))
      flushAll(engine, disk)
    }
    disk.keepAll()
    const path = theManifest(disk)
    const bytes = bytesOf(disk, path)
    expect(bytes.length).toBe(5 * 512)
    for (const edit of [1, 2, 3, 4]) {
      // Its sector as if it had never been written.
      const copy = disk.clone()
      overwrite(copy, path, bytes.slice().fill(0, edit * 512, (edit + 1) * 512))
      expect(`${edit} ${outcome(copy)}`).toBe(
        edit < 4 ? `${edit} corrupt` : "4 61=76616c7565 62=76616c7565",
      )
    }
  })
})

describe("another format is refused with a clear line, and nothing is changed", () => {
  /** Sets a number inside what a checksum covers, and the checksum with it. */
  function patch(
    disk: SimulatedDisk,
    path: string,
    options: {
      at: number
      from: number
      to: number
      checksumAt: number
      file: number
      seed: number
      found: number
    },
  ): void {
    const bytes = bytesOf(disk, path)
    writeU32(bytes, options.at, options.found)
    const covered = bytes.subarray(options.from, options.to)
    writeU32(bytes, options.checksumAt, placedChecksum(covered, options.file, options.seed))
    overwrite(disk, path, bytes)
  }

  for (const kind of ["CURRENT", "manifest", "table"] as const) {
    for (const [found, expected] of [
      [1, OlderFormat],
      [99, NewerFormat],
    ] as const) {
      test(`${found} in a ${kind}`, () => {
        const { disk } = smallEngine()
        const names = disk.list("engine")
        const name = names.find((other) => other.endsWith(kind)) as string
        const path = `engine/${name}`
        const file = Number.parseInt(name, 10)
        if (kind === "CURRENT") {
          patch(disk, path, { at: 4, from: 0, to: 16, checksumAt: 16, file: 0, seed: 0, found })
        } else if (kind === "manifest") {
          patch(disk, path, { at: 16, from: 4, to: 512, checksumAt: 0, file, seed: 0, found })
        } else {
          patch(disk, path, { at: 4, from: 0, to: 12, checksumAt: 12, file, seed: 0, found })
        }
        disk.keepAll()
        const before = disk.operations
        const read = () => contentOf(Engine.open(disk, "engine", tinyOptions))
        expect(read).toThrow(expected)
        expect(read).toThrow(`${path} has format ${found}`)
        // A table is looked at when it is read; by then the manifest has been synced, and only that.
        expect(disk.operations - before).toBe(kind === "table" ? 4 : 0)
        expect(disk.list("engine")).toEqual(names)
      })
    }
  }
})

test("an engine in a folder that a crash left half made is made anew", () => {
  const disk = new SimulatedDisk()
  Engine.open(disk, "engine", tinyOptions)
  disk.remove("engine/CURRENT")
  const engine = Engine.open(disk, "engine", tinyOptions)
  engine.put(utf8("a"), utf8("b"))
  flushAll(engine, disk)
  while (step(engine, disk));
  expect(outcome(disk)).not.toBe("")
})
