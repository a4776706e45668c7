import { describe, expect, test } from "bun:test"
import { type Disk, DiskError, StorageCorruption } from "../../src/disk/disk.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { removeFiles, runJob } from "../../src/lsm/maintenance/jobs.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { contentOf, digest } from "./harness.ts"
import {
  carryOut,
  fill,
  fragmentsOf,
  interval,
  nowMs,
  open,
  small,
  tablesOnDisk,
  toBottom,
} from "./maintained.ts"

describe("finished tables", () => {
  function table(
    disk: Disk,
    path: string,
    pairs: ReadonlyArray<readonly [string, string]>,
    sequence = 0,
  ): void {
    const options = { blockBytes: 64, bloomBitsPerKey: 10, compression: compressions.lz4 }
    const writer = new TableWriter({ disk, path, tableId: 777, options })
    for (const [key, value] of pairs) {
      const [keyBytes, valueBytes] = [utf8(key), utf8(value)]
      writer.add({
        reverse: false,
        valid: true,
        keyBytes,
        keyOffset: 0,
        keyLength: keyBytes.length,
        sequence,
        kind: 1,
        valueBytes,
        valueOffset: 0,
        valueLength: valueBytes.length,
        seek() {},
        advance() {},
      })
    }
    writer.finish()
  }

  test("replace intervals in one edit, are newer than what was there, and outlive their maker's name", () => {
    const { disk, engine } = open()
    const model = fill(engine, disk, 150)
    const first = [
      ["k0020", "new"],
      ["k0025x", "new"],
    ] as const
    const second = [["k0035", "new"]] as const
    table(disk, "made1", first)
    table(disk, "made2", second)
    const before = engine.snapshot()
    const expected = model.digest()
    const job = engine.ingestTables({
      intervals: [interval("k0020", "k0030"), interval("k0030", "k0040")],
      paths: ["made1", "made2"],
    })
    carryOut(engine, disk, job)
    removeFiles(disk, ["made1", "made2"])
    for (const [lower, upper, pairs] of [
      ["k0020", "k0030", first],
      ["k0030", "k0040", second],
    ] as const) {
      const bytes = pairs.map(([key, value]) => [utf8(key), utf8(value)] as const)
      model.replace(utf8(lower), utf8(upper), bytes)
    }
    expect(digest(contentOf(engine))).toBe(model.digest())
    expect(digest(contentOf(engine, { snapshot: before }))).toBe(expected)
    before.release()
    // The base of their sequences lies over all that was, under all that comes.
    const adopted = fragmentsOf(disk).filter(({ tableId }) => tableId === 777)
    expect(adopted.map(({ baseSequence }) => baseSequence)).toEqual([151, 151])
    engine.put(utf8("k0020"), utf8("later"))
    model.put(utf8("k0020"), utf8("later"))
    engine.deleteRange(utf8("k0025"), utf8("k0026"))
    model.replace(utf8("k0025"), utf8("k0026"), [])
    toBottom(engine, disk)
    model.put(utf8("k0000"), Uint8Array.of(3))
    disk.loseAllUnsynced()
    const again = Engine.open(disk, "engine", small)
    expect(digest(contentOf(again))).toBe(model.digest())
    again.verify()
  })

  test("what is damaged, outside, out of order, or stamped is refused, and nothing changes", () => {
    const { disk, engine } = open()
    const model = fill(engine, disk, 60)
    const refused = (paths: ReadonlyArray<string>) => {
      const job = engine.ingestTables({
        intervals: [interval("c", "e"), interval("f", "g")],
        paths,
      })
      let met: unknown
      try {
        runJob(disk, job)
      } catch (error) {
        met = error
      }
      expect(met).toBeInstanceOf(StorageCorruption)
      expect(engine.corrupted(job, met as StorageCorruption)).toBe(false)
      removeFiles(disk, engine.obsoleteFiles())
      expect(tablesOnDisk(disk)).toEqual(engine.liveFiles())
      return met as StorageCorruption
    }
    table(disk, "outside", [["b", "1"]])
    expect(refused(["outside"]).message).toContain("outside")
    table(disk, "between", [
      ["d", "1"],
      ["f", "1"],
    ])
    expect(refused(["between"]).message).toContain("outside")
    table(disk, "stamped", [["c1", "1"]], 5)
    expect(refused(["stamped"]).message).toContain("sequence 5")
    table(disk, "late", [["c9", "1"]])
    table(disk, "early", [["c1", "1"]])
    expect(refused(["late", "early"]).message).toContain("overlap")
    table(disk, "flipped", [["c1", "1"]])
    const { sizeBytes } = disk.open("flipped")
    for (let offset = 0; offset < sizeBytes; offset += 3) {
      disk.corrupt("flipped", offset, 4)
      expect(refused(["flipped"]).path).toBe("flipped")
      disk.corrupt("flipped", offset, 4)
    }
    expect(digest(contentOf(engine))).toBe(model.digest())
  })
})

describe("a checkpoint", () => {
  test("is an engine of its own, whatever becomes of the first", () => {
    const { disk, engine } = open()
    const model = fill(engine, disk, 150)
    const expected = model.digest()
    carryOut(engine, disk, engine.checkpointJob("backup"))
    expect(engine.nextJob(nowMs)).toBeUndefined()
    fill(engine, disk, 150)
    carryOut(engine, disk, engine.replaceInterval({ intervals: [interval("k0030", undefined)] }))
    disk.loseAllUnsynced()
    const copy = Engine.open(disk, "backup", small)
    expect(digest(contentOf(copy))).toBe(expected)
    fill(copy, disk, 20, "y")
    expect(copy.get(utf8("y0010"))).toBeDefined()
    expect(Engine.open(disk, "engine", small).get(utf8("k0040"))).toBeUndefined()
    copy.verify()
  })

  test("goes only where nothing is, and leaves nothing behind when it fails", () => {
    const { disk, engine } = open()
    fill(engine, disk, 100)
    disk.makeDirectory("taken")
    disk.create("taken/file").close()
    const job = engine.checkpointJob("taken")
    expect(() => runJob(disk, job)).toThrow(DiskError)
    engine.abandon(job)
    expect(disk.list("taken")).toEqual(["file"])
    disk.capacityBytes = disk.usedBytes + 100
    const other = engine.checkpointJob("backup")
    expect(() => runJob(disk, other)).toThrow("no-space")
    engine.abandon(other)
    expect(disk.list("backup")).toEqual([])
    disk.capacityBytes = Number.POSITIVE_INFINITY
    carryOut(engine, disk, engine.checkpointJob("backup"))
    expect(contentOf(Engine.open(disk, "backup", small)).length).toBe(100)
  })

  test("a crash at any of its operations leaves a whole engine or none", () => {
    const base = open()
    const model = fill(base.engine, base.disk, 60)
    let whole = 0
    let none = 0
    for (let at = 1; ; at++) {
      const disk = base.disk.clone()
      disk.keepAll()
      const engine = Engine.open(disk, "engine", small)
      disk.crashAfter(disk.operations + at)
      const job = engine.checkpointJob("backup")
      let crashed = false
      try {
        runJob(disk, job)
      } catch {
        crashed = true
      }
      if (crashed) disk.crash(new Prng(at))
      disk.crashAfter(undefined)
      if (disk.list("backup").includes("CURRENT")) {
        expect(digest(contentOf(Engine.open(disk, "backup", small)))).toBe(model.digest())
        whole++
      } else none++
      expect(digest(contentOf(Engine.open(disk, "engine", small)))).toBe(model.digest())
      if (!crashed) break
    }
    expect(whole).toBeGreaterThan(0)
    expect(none).toBeGreaterThan(3)
  })
})
