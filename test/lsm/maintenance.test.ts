import { describe, expect, test } from "bun:test"
import type { Disk, DiskFile } from "../../src/disk/disk.ts"
import { DiskError, StorageCorruption } from "../../src/disk/disk.ts"
import { emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine, type EngineOptions } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/maintenance/jobs.ts"
import { removeFiles, runJob, runManifestWrite } from "../../src/lsm/maintenance/jobs.ts"
import { readCurrent, readManifest } from "../../src/lsm/manifest/manifest.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import type { CorruptionReport } from "../../src/lsm/options.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { OlderFormat, placedChecksum } from "../../src/lsm/table/format.ts"
import { TableWriter } from "../../src/lsm/table/tableWriter.ts"
import { TreesDiffer } from "../../src/lsm/trees.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, digest, Model, randomKey, randomValue } from "./harness.ts"

/** Four runs of level 0 come after a few dozen puts, several levels after some hundred. */
const small: EngineOptions = { memtableBytes: 1024, blockBytes: 128, maxLevel0Runs: 8 }
const nowMs = Date.UTC(2026, 0, 1)

function open(options: EngineOptions = small, disk = new SimulatedDisk()) {
  return { disk, engine: Engine.open(disk, "engine", options) }
}

function carryOut(engine: Engine, disk: Disk, job: EngineJob): void {
  const write = engine.complete(job, runJob(disk, structuredClone(job)))
  runManifestWrite(disk, structuredClone(write))
  engine.installed(write)
  removeFiles(disk, engine.obsoleteFiles())
}

function step(engine: Engine, disk: Disk, atMs = nowMs): EngineJob | undefined {
  const job = engine.nextJob(atMs)
  if (job !== undefined) carryOut(engine, disk, job)
  return job
}

function settle(engine: Engine, disk: Disk, atMs = nowMs): ReadonlyArray<EngineJob> {
  const jobs: Array<EngineJob> = []
  for (let job = step(engine, disk, atMs); job !== undefined; job = step(engine, disk, atMs)) {
    jobs.push(job)
  }
  return jobs
}

function flushAll(engine: Engine, disk: Disk): void {
  while (!engine.canSeal) step(engine, disk)
  const generation = engine.seal()
  while (engine.flushedThrough < generation) step(engine, disk)
}

function put(engine: Engine, disk: Disk, key: Uint8Array, value: Uint8Array): void {
  const bytes = key.length + value.length
  while (!engine.canWrite(bytes)) step(engine, disk)
  if (engine.needsSeal(bytes)) engine.seal()
  engine.put(key, value)
}

/** Keys `prefix` 0000 and on, flushed every `perRun` of them, all merged down at the end. */
function fill(engine: Engine, disk: Disk, count: number, prefix = "k", valueBytes = 40): Model {
  const model = new Model()
  for (let i = 0; i < count; i++) {
    const key = utf8(prefix + String(i).padStart(4, "0"))
    const value = new Uint8Array(valueBytes).fill(i)
    put(engine, disk, key, value)
    model.put(key, value)
  }
  flushAll(engine, disk)
  settle(engine, disk)
  return model
}

/** All data to the deepest level: four runs of nothing much make level 0 come down. */
function toBottom(engine: Engine, disk: Disk): void {
  for (let i = 0; i < 4; i++) {
    engine.put(utf8("k0000"), Uint8Array.of(i))
    flushAll(engine, disk)
  }
  settle(engine, disk)
}

function fragmentsOf(disk: Disk, directory = "engine"): ReadonlyArray<Fragment> {
  return readManifest(disk, directory, readCurrent(disk, directory)).state.fragments
}

function tablesOnDisk(disk: Disk, directory = "engine"): ReadonlyArray<string> {
  const names = disk.list(directory).filter((name) => name.endsWith(".table"))
  return names.map((name) => `${directory}/${name}`)
}

const interval = (lower: string, upper: string | undefined) => ({
  lower: utf8(lower),
  upper: upper === undefined ? undefined : utf8(upper),
})

/** Knows which of its files are open. */
class CountingDisk extends SimulatedDisk {
  readonly opened = new Set<DiskFile>()

  override open(path: string): DiskFile {
    return this.watched(super.open(path))
  }

  override create(path: string): DiskFile {
    return this.watched(super.create(path))
  }

  private watched(file: DiskFile): DiskFile {
    const close = file.close.bind(file)
    this.opened.add(file)
    file.close = () => {
      this.opened.delete(file)
      close()
    }
    return file
  }
}

describe("a job that ends early", () => {
  test("at any byte of its pace: files are closed, what it wrote is removed, nothing is lost", () => {
    const disk = new CountingDisk()
    const engine = Engine.open(disk, "engine", small)
    const model = fill(engine, disk, 120)
    for (let i = 10; i < 60; i += 2) {
      engine.deleteRange(utf8(`k00${i}`), utf8(`k00${i}5`))
      model.replace(utf8(`k00${i}`), utf8(`k00${i}5`), [])
    }
    for (let i = 0; i < 5; i++) {
      put(engine, disk, utf8(`x${i}`), new Uint8Array(300))
      model.put(utf8(`x${i}`), new Uint8Array(300))
      engine.seal()
      for (let at = 0; engine.memtablesEmpty === false; at++) {
        const job = engine.nextJob(nowMs)
        if (job === undefined) break
        const open = disk.opened.size
        let left = at % 7
        const pace = {
          spend() {
            if (left-- === 0) throw new Error("cancelled")
          },
        }
        try {
          runJob(disk, job, pace)
        } catch (error) {
          expect((error as Error).message).toBe("cancelled")
        }
        expect(disk.opened.size).toBe(open)
        engine.abandon(job)
        removeFiles(disk, engine.obsoleteFiles())
        expect(tablesOnDisk(disk)).toEqual(engine.liveFiles())
        if (at % 7 === 6) step(engine, disk)
      }
    }
    settle(engine, disk)
    expect(digest(contentOf(engine))).toBe(model.digest())
  })

  test("its file numbers are not used again", () => {
    const { disk, engine } = open()
    engine.put(utf8("a"), utf8("1"))
    engine.seal()
    const job = engine.nextJob(nowMs) as EngineJob
    const [table] = runJob(disk, job).tables
    engine.abandon(job)
    removeFiles(disk, engine.obsoleteFiles())
    const again = engine.nextJob(nowMs) as EngineJob
    expect(again.firstFileNumber).toBeGreaterThan(table?.tableId as number)
    carryOut(engine, disk, again)
    expect(engine.get(utf8("a"))).toEqual(utf8("1"))
  })

  test("a manifest write that met a full disk is repeated, whether it appends or begins anew", () => {
    for (const manifestBytes of [1 << 20, 1]) {
      const { disk, engine } = open({ ...small, manifestBytes })
      const model = new Model()
      let refused = 0
      for (let i = 0; i < 30; i++) {
        const key = utf8(`key:${i}`)
        put(engine, disk, key, new Uint8Array(80))
        model.put(key, new Uint8Array(80))
        engine.seal()
        const job = engine.nextJob(nowMs) as EngineJob
        const write = engine.complete(job, runJob(disk, job))
        // Each time a little more of it fits.
        for (let room = 0; ; room += 100) {
          disk.capacityBytes =
            room < 1500 ? disk.usedBytes + (room % 700) : Number.POSITIVE_INFINITY
          try {
            runManifestWrite(disk, write)
            break
          } catch (error) {
            expect((error as DiskError).reason).toBe("no-space")
            refused++
          }
        }
        disk.capacityBytes = Number.POSITIVE_INFINITY
        engine.installed(write)
        removeFiles(disk, engine.obsoleteFiles())
        const copy = disk.clone()
        copy.loseAllUnsynced()
        const reopened = Engine.open(copy, "engine", { ...small, manifestBytes })
        expect(digest(contentOf(reopened))).toBe(model.digest())
        settle(engine, disk)
      }
      expect(refused).toBeGreaterThan(20)
    }
  })
})

describe("damage", () => {
  /** Damages the first data block of the deepest table that covers `key`. */
  function damage(disk: SimulatedDisk, key: string): Fragment {
    const found = fragmentsOf(disk)
      .filter(({ lower, upper }) => text(lower) <= key && key < text(upper))
      .sort((left, right) => right.level - left.level)[0] as Fragment
    disk.corrupt(`engine/${String(found.fileNumber).padStart(8, "0")}.table`, 20, 1)
    return found
  }

  function damaged(options: EngineOptions = {} as EngineOptions) {
    const reports: Array<CorruptionReport> = []
    const onCorruption = (report: CorruptionReport) => void reports.push(report)
    const made = open({ ...small, blockCacheBytes: 0, onCorruption, ...options })
    const model = fill(made.engine, made.disk, 200)
    toBottom(made.engine, made.disk)
    model.put(utf8("k0000"), Uint8Array.of(3))
    return { ...made, model, reports }
  }

  test("a read that meets it throws, from then on everywhere in that table, and elsewhere nothing", () => {
    const { disk, engine, model, reports } = damaged()
    const { lower, upper } = damage(disk, "k0100")
    expect(engine.quarantined()).toEqual([])
    const inside = model.between(lower, upper).map(([key]) => key)
    expect(inside.length).toBeGreaterThan(5)
    expect(() => engine.get(inside[0] as Uint8Array)).toThrow(StorageCorruption)
    expect(reports.length).toBe(1)
    for (const key of inside) expect(() => engine.get(key)).toThrow(StorageCorruption)
    expect(reports.length).toBe(1)
    expect(engine.quarantined()).toEqual(reports)
    expect(reports[0]?.interval).toEqual({ lower, upper })
    for (const [key, value] of model.between(emptyBytes, undefined)) {
      if (inside.some((other) => text(other) === text(key))) continue
      expect(engine.get(key)).toEqual(value)
    }
    const iterator = engine.iterator({ lower: emptyBytes, upper: undefined })
    expect(() => {
      while (iterator.next());
    }).toThrow(StorageCorruption)
    iterator.close()
    // What is newer still answers.
    engine.put(inside[0] as Uint8Array, utf8("new"))
    expect(engine.get(inside[0] as Uint8Array)).toEqual(utf8("new"))
  })

  test("a compaction that meets it is given up; the planner goes on elsewhere for ever", () => {
    const { disk, engine, model, reports } = damaged({ ...small, compactionBytes: 8192 })
    const { fileNumber, lower, upper } = damage(disk, "k0100")
    const prng = new Prng(5)
    let corrupted = 0
    const run = () => {
      const job = engine.nextJob(nowMs)
      if (job === undefined) return false
      try {
        carryOut(engine, disk, job)
      } catch (error) {
        if (!(error instanceof StorageCorruption)) throw error
        expect(engine.corrupted(job, error)).toBe(true)
        removeFiles(disk, engine.obsoleteFiles())
        corrupted++
      }
      return true
    }
    for (let i = 0; i < 1500; i++) {
      const key = utf8(`k${String(prng.int(0, 199)).padStart(4, "0")}`)
      const value = new Uint8Array(40).fill(i)
      for (let tries = 0; !engine.canWrite(50); tries++) {
        expect(run() && tries < 100).toBe(true)
      }
      if (engine.needsSeal(50)) engine.seal()
      engine.put(key, value)
      model.put(key, value)
    }
    while (run());
    expect(corrupted).toBe(1)
    expect(reports.length).toBeGreaterThanOrEqual(1)
    expect(fragmentsOf(disk).some((fragment) => fragment.fileNumber === fileNumber)).toBe(true)
    const rest = [...model.between(emptyBytes, lower), ...model.between(upper, undefined)]
    for (const [key, value] of rest) expect(engine.get(key)).toEqual(value)
    // Never laundered: no table says anything else of what could not be read.
    let answered = 0
    for (const [key, value] of model.between(lower, upper)) {
      try {
        expect(engine.get(key)).toEqual(value)
        answered++
      } catch (error) {
        expect(error).toBeInstanceOf(StorageCorruption)
      }
    }
    expect(answered).toBeGreaterThan(0)

    // Replaced, it is whole again.
    if (!engine.memtablesEmpty) engine.seal()
    while (run());
    carryOut(engine, disk, engine.replaceInterval({ intervals: [{ lower, upper }] }))
    expect(engine.quarantined()).toEqual([])
    model.replace(lower, upper, [])
    expect(digest(contentOf(engine))).toBe(model.digest())
    engine.verify()
  })

  test("a scrub finds it in what nobody reads, at its rate, and reads everything in turn", () => {
    const { disk, engine, model, reports } = damaged({ ...small, scrubBytesPerSecond: 1_000_000 })
    const files = new Set<number>()
    let atMs = nowMs + 1000
    for (let i = 0; i < 3 * engine.liveFiles().length; i++) {
      const job = engine.nextJob(atMs) as EngineJob & { _tag: "Scrub" }
      expect(job._tag).toBe("Scrub")
      files.add(job.table.fileNumber)
      carryOut(engine, disk, job)
      expect(engine.nextJob(atMs + 1)).toBeUndefined()
      atMs += 250
    }
    expect(files.size).toBe(engine.liveFiles().length)
    damage(disk, "k0150")
    for (let i = 0; reports.length === 0; i++) {
      expect(i).toBeLessThan(2 * files.size)
      atMs += 250
      const job = engine.nextJob(atMs) as EngineJob
      try {
        carryOut(engine, disk, job)
      } catch (error) {
        engine.corrupted(job, error as StorageCorruption)
      }
    }
    expect(() => engine.get(utf8("k0150"))).toThrow(StorageCorruption)
    // It goes on with the others.
    for (let i = 0; i < 2 * files.size; i++) {
      atMs += 250
      step(engine, disk, atMs)
    }
    expect(reports.length).toBe(1)
    expect(engine.get(utf8("k0010"))).toEqual(model.get(utf8("k0010")) as Uint8Array)
  })

  test("in a spill it is no damage of ours", () => {
    const { disk, engine, model } = damaged()
    const file = disk.create("spill")
    file.write(new Uint8Array(20).fill(1), 0)
    file.close()
    const intervals = [interval("k0010", "k0020")]
    const job = engine.replaceInterval({ intervals, spillPath: "spill", spillChecksum: 1 })
    let met: unknown
    try {
      runJob(disk, job)
    } catch (error) {
      met = error
    }
    expect(engine.corrupted(job, met as StorageCorruption)).toBe(false)
    expect(engine.quarantined()).toEqual([])
    settle(engine, disk)
    expect(digest(contentOf(engine))).toBe(model.digest())
  })
})

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

describe("compactions", () => {
  test("drop what a filter names, and what lay under it does not come back", () => {
    const expiry = (at: number) => {
      const value = new Uint8Array(24)
      new DataView(value.buffer).setBigUint64(4, BigInt(at), true)
      return value
    }
    let atOrBefore = 0
    const { disk, engine } = open({
      ...small,
      filters: () => [
        { lower: utf8("d"), upper: utf8("e"), rule: { _tag: "Drop" } },
        { lower: utf8("k"), upper: utf8("l"), rule: { _tag: "Expired", offset: 4, atOrBefore } },
      ],
    })
    fill(engine, disk, 40, "d")
    fill(engine, disk, 20, "e")
    for (let i = 0; i < 60; i++) put(engine, disk, utf8(`k${100 + i}`), expiry(0))
    flushAll(engine, disk)
    toBottom(engine, disk)
    expect(contentOf(engine, { lower: utf8("d"), upper: utf8("e") })).toEqual([])
    expect(contentOf(engine, { lower: utf8("e"), upper: utf8("f") }).length).toBe(20)
    expect(contentOf(engine, { lower: utf8("k1"), upper: utf8("k2") }).length).toBe(60)
    // Values that expire, over others that never do.
    for (let i = 0; i < 60; i++) put(engine, disk, utf8(`k${100 + i}`), expiry(1000 + i))
    put(engine, disk, utf8("k2"), Uint8Array.of(1, 2, 3))
    atOrBefore = 1029
    toBottom(engine, disk)
    const left = contentOf(engine, { lower: utf8("k1"), upper: utf8("k2") }).map(([key]) =>
      text(key),
    )
    expect(left).toEqual(Array.from({ length: 30 }, (_, i) => `k${130 + i}`))
    expect(engine.get(utf8("k2"))).toEqual(Uint8Array.of(1, 2, 3))
  })

  test("write each tree, policy and level as it asks, and no table spans two", () => {
    const policy = (lower: string, upper: string) => ({
      lower: utf8(lower),
      upper: utf8(upper),
      compression: { level0: "snappy", middle: "none", bottom: "none" } as const,
      bloomBitsPerKey: 0,
    })
    const options: EngineOptions = {
      ...small,
      memtableBytes: 8192,
      trees: [
        { id: 97, name: "first" },
        { id: 98, name: "second" },
      ],
      policies: [policy("a0030", "a0060"), policy("b0", "b0010")],
      compression: { level0: "none", middle: "lz4", bottom: "zstd" },
    }
    const { disk, engine } = open(options)
    for (let round = 0; round < 4; round++) {
      for (let i = 0; i < 90; i++) {
        put(engine, disk, utf8(`a${String(i).padStart(4, "0")}`), new Uint8Array(20))
        put(engine, disk, utf8(`b${String(i).padStart(4, "0")}`), new Uint8Array(20))
      }
      engine.deleteRange(utf8("a0080"), utf8("b"))
      engine.deleteRange(utf8("a0020"), utf8("a0040"))
      flushAll(engine, disk)
      const seen = fragmentsOf(disk)
      for (const { lower, upper, level, compression } of seen) {
        const [from, to] = [text(lower), text(upper)]
        expect(to[0] === from[0] || to === "b").toBe(true)
        for (const edge of ["a0030", "a0060", "b0", "b0010"]) {
          expect(`${from} ${to} ${edge} ${from < edge && edge < to}`).toEndWith("false")
        }
        const own = (from >= "a0030" && from < "a0060") || (from >= "b0" && from < "b0010")
        const { none, snappy, zstd } = compressions
        const expected = level === 0 ? (own ? snappy : none) : own ? none : zstd
        expect(compression).toBe(expected)
      }
    }
    settle(engine, disk)
    expect(fragmentsOf(disk).map(({ level }) => level)).toContain(6)
    const stats = engine.stats()
    expect(stats.trees.map(({ name, entries }) => `${name} ${entries}`)).toEqual([
      "first 60",
      "second 90",
    ])
  })

  test("deletes that are old go down and vanish, though nothing else asks for a compaction", () => {
    const { disk, engine } = open({ ...small, tombstoneAgeSeconds: 100 })
    fill(engine, disk, 100)
    toBottom(engine, disk)
    engine.delete(utf8("k0001"))
    engine.deleteRange(utf8("k0050"), utf8("k0070"))
    flushAll(engine, disk)
    expect(settle(engine, disk)).toEqual([])
    expect(settle(engine, disk, nowMs + 99_000)).toEqual([])
    expect(settle(engine, disk, nowMs + 101_000).length).toBeGreaterThan(0)
    const { levels } = engine.stats()
    expect(levels.reduce((sum, { deletes, tombstones }) => sum + deletes + tombstones, 0)).toBe(0)
    expect(levels[6]?.entries).toBe(79)
    expect(contentOf(engine).length).toBe(79)
  })

  test("deletes keep their age when they are merged on the way down", () => {
    const compression = { level0: "none", middle: "none", bottom: "none" } as const
    const options = { ...small, memtableBytes: 4096, tombstoneAgeSeconds: 10_000, compression }
    const { disk, engine } = open(options)
    fill(engine, disk, 300)
    toBottom(engine, disk)
    for (let i = 0; i < 4; i++) {
      if (i === 0) engine.delete(utf8("k0007"))
      else engine.put(utf8(`k0${i % 3}99`), utf8("new"))
      while (!engine.canSeal) step(engine, disk, nowMs + 1000 * i)
      engine.seal()
      step(engine, disk, nowMs + 1000 * i)
    }
    const job = step(engine, disk, nowMs + 9000) as EngineJob & { _tag: "Compact" }
    expect([job._tag, job.inputLevels, job.outputLevel]).toEqual(["Compact", [0], 0])
    const level0 = fragmentsOf(disk).filter(({ level }) => level === 0)
    expect(level0.length).toBe(1)
    const [merged] = level0 as [Fragment]
    expect(merged.deletes).toBe(1)
    expect(merged.createdSeconds).toBe((nowMs - Date.UTC(2020)) / 1000)
  })

  test("ascending keys go down without being written again", () => {
    const { disk, engine } = open({
      ...small,
      compression: { level0: "lz4", middle: "lz4", bottom: "lz4" },
    })
    const model = fill(engine, disk, 1500)
    const { written, levels } = engine.stats()
    expect(levels[6]?.bytes).toBeGreaterThan(10_000)
    expect(written.compactedBytes).toBe(0)
    expect(written.userBytes).toBe(1500 * 45)
    disk.loseAllUnsynced()
    const again = Engine.open(disk, "engine", small)
    expect(digest(contentOf(again))).toBe(model.digest())
    expect(again.stats().written).toEqual(written)
  })
})

describe("trees", () => {
  const one = { id: 1, name: "one" }
  const two = { id: 2, name: "two" }

  test("are recorded; others of the same byte, or fewer, are refused, more are taken", () => {
    const { disk, engine } = open({ ...small, trees: [one] })
    engine.put(Uint8Array.of(1, 5), utf8("x"))
    flushAll(engine, disk)
    const refused = [[], [two], [{ id: 1, name: "other" }]]
    for (const trees of refused) {
      const before = disk.operations
      expect(() => open({ ...small, trees }, disk)).toThrow(TreesDiffer)
      expect(disk.operations).toBe(before)
    }
    disk.loseAllUnsynced()
    const more = open({ ...small, trees: [two, one] }, disk).engine
    more.put(Uint8Array.of(2, 5), utf8("y"))
    flushAll(more, disk)
    disk.loseAllUnsynced()
    expect(() => open({ ...small, trees: [one] }, disk)).toThrow(TreesDiffer)
    const last = open({ ...small, trees: [one, two] }, disk).engine
    expect(last.get(Uint8Array.of(1, 5))).toEqual(utf8("x"))
    expect(last.get(Uint8Array.of(2, 5))).toEqual(utf8("y"))
    expect(() => last.put(Uint8Array.of(3), utf8("z"))).toThrow()
  })

  test("stay recorded when a new manifest takes over", () => {
    const { disk, engine } = open({ ...small, trees: [one], manifestBytes: 1 })
    for (let i = 0; i < 20; i++) {
      engine.put(Uint8Array.of(1, i), utf8("x"))
      flushAll(engine, disk)
    }
    expect(readCurrent(disk, "engine")).toBeGreaterThan(5)
    expect(() => open({ ...small, trees: [] }, disk)).toThrow(TreesDiffer)
  })

  test("a folder of the first format is refused and left as it is", () => {
    const { disk } = open()
    const file = disk.open("engine/CURRENT")
    const bytes = new Uint8Array(file.sizeBytes)
    file.read(bytes, 0)
    bytes[4] = 1
    new DataView(bytes.buffer).setUint32(16, placedChecksum(bytes.subarray(0, 16), 0, 0), true)
    file.write(bytes, 0)
    file.close()
    const before = disk.operations
    expect(() => open(small, disk)).toThrow(OlderFormat)
    expect(disk.operations).toBe(before)
  })
})

describe("sizes", () => {
  test("a split key leaves about half on either side, strictly inside, also in one block", () => {
    const prng = new Prng(11)
    const { disk, engine } = open({ ...small, memtableBytes: 4096 })
    const model = new Model()
    for (let i = 0; i < 3000; i++) {
      const key = utf8(`s${String(prng.int(0, 9999)).padStart(4, "0")}`)
      const value = randomValue(prng).slice(0, 40)
      put(engine, disk, key, value)
      model.put(key, value)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    const bytesOf = (lower: Uint8Array, upper: Uint8Array | undefined) =>
      model.between(lower, upper).reduce((sum, [key, value]) => sum + key.length + value.length, 0)
    for (let i = 0; i < 60; i++) {
      const [from, to] = [prng.int(0, 9999), prng.int(0, 9999)].sort((a, b) => a - b)
      const lower = utf8(`s${String(from).padStart(4, "0")}`)
      const upper = i % 10 === 0 ? undefined : utf8(`s${String((to ?? 0) + 2).padStart(4, "0")}`)
      const inside = model.between(lower, upper)
      const key = engine.splitKey({ lower, upper })
      const total = bytesOf(lower, upper)
      if (inside.length < 4) continue
      expect(key).toBeDefined()
      expect(text(key as Uint8Array) > text(lower)).toBe(true)
      if (upper !== undefined) expect(text(key as Uint8Array) < text(upper)).toBe(true)
      if (total < 6000) continue
      const share = bytesOf(lower, key) / total
      expect(share).toBeGreaterThan(0.3)
      expect(share).toBeLessThan(0.7)
      const { bytes, entries } = engine.approximateSize({ lower, upper })
      expect(bytes).toBeGreaterThan(total / 2)
      expect(entries).toBeGreaterThan(inside.length / 2)
    }
    expect(engine.splitKey(interval("t", "u"))).toBeUndefined()
    expect(engine.approximateSize(interval("t", "u"))).toEqual({ bytes: 0, entries: 0 })
  })
})

describe("whatever is written, over all jobs", () => {
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`the engine holds what a map holds, and the folder what is live or kept: seed ${seed}`, () => {
      const prng = new Prng(seed)
      const options: EngineOptions = {
        memtableBytes: prng.pick([300, 1000]),
        blockBytes: prng.pick([1, 128]),
        tableBytes: prng.pick([100, 400, 2000]),
        compactionBytes: prng.pick([400, 2000]),
        level0Trigger: prng.pick([1, 2, 4]),
        baseBytes: prng.pick([500, 2000]),
        levelRatioMax: prng.pick([2, 4]),
        tombstoneAgeSeconds: 50,
        manifestBytes: 4000,
        scrubBytesPerSecond: prng.pick([0, 1_000_000]),
      }
      const disk = new SimulatedDisk()
      let engine = Engine.open(disk, "engine", options)
      const model = new Model()
      let atMs = nowMs
      const kept: Array<{ snapshot: ReturnType<Engine["snapshot"]>; expected: string }> = []
      const reopen = () => {
        flushAll(engine, disk)
        for (const { snapshot } of kept.splice(0)) snapshot.release()
        disk.loseAllUnsynced()
        engine = Engine.open(disk, "engine", options)
      }
      for (let i = 0; i < 2500; i++) {
        const draw = prng.int(0, 99)
        const key = randomKey(prng)
        const bytes = 3100
        atMs += 100
        while (!engine.canWrite(bytes)) step(engine, disk, atMs)
        if (engine.needsSeal(bytes) && engine.memtableUsedBytes > (options.memtableBytes ?? 0)) {
          engine.seal()
        }
        if (draw < 50) {
          const value = randomValue(prng)
          engine.put(key, value)
          model.put(key, value)
        } else if (draw < 70) {
          engine.delete(key)
          model.delete(key)
        } else if (draw < 76) {
          const other = randomKey(prng)
          const [lower, upper] = Buffer.compare(key, other) < 0 ? [key, other] : [other, key]
          if (Buffer.compare(lower, upper) === 0) continue
          engine.deleteRange(lower, upper)
          model.replace(lower, upper, [])
        } else if (draw < 95) step(engine, disk, atMs)
        else if (draw < 96 && kept.length < 3) {
          kept.push({ snapshot: engine.snapshot(), expected: model.digest() })
        } else if (draw < 97 && kept.length > 0) {
          const [held] = kept.splice(prng.int(0, kept.length - 1), 1)
          if (held === undefined) continue
          expect(digest(contentOf(engine, { snapshot: held.snapshot }))).toBe(held.expected)
          held.snapshot.release()
        } else if (draw === 97 && prng.chance(0.3)) reopen()
        if (i % 50 > 0) continue
        expect(digest(contentOf(engine))).toBe(model.digest())
        removeFiles(disk, engine.obsoleteFiles())
        expect(tablesOnDisk(disk)).toEqual(engine.heldFiles())
      }
      for (const { snapshot } of kept) snapshot.release()
      flushAll(engine, disk)
      for (let i = 0; i < 400; i++) {
        atMs += 60_000
        step(engine, disk, atMs)
      }
      expect(digest(contentOf(engine))).toBe(model.digest())
      removeFiles(disk, engine.obsoleteFiles())
      expect(tablesOnDisk(disk)).toEqual(engine.liveFiles())
      engine.verify()
      // Everything deleted: nothing stays.
      engine.deleteRange(Uint8Array.of(0), new Uint8Array(30).fill(0xff))
      flushAll(engine, disk)
      for (let i = 0; i < 400; i++) {
        atMs += 60_000
        step(engine, disk, atMs)
      }
      expect(engine.liveFiles()).toEqual([])
    }, 60_000)
  }
})

test("an arena is a whole number of words, whatever size is asked for", () => {
  const { engine, disk } = open({ memtableBytes: 5001 })
  engine.put(utf8("a"), utf8("v"))
  flushAll(engine, disk)
  expect(engine.get(utf8("a"))).toEqual(utf8("v"))
})

test("runs of level 0 that damage in the oldest one does not touch come down, and flushes go on", () => {
  const { engine, disk } = open({ memtableBytes: 4096, level0Trigger: 2, maxLevel0Runs: 4 })
  for (let i = 0; i < 10; i++) engine.put(utf8(`a${i}`), utf8("v"))
  flushAll(engine, disk)
  const [path = ""] = engine.liveFiles()
  const file = disk.open(path)
  file.write(Uint8Array.of(0xaa, 0x55), 30)
  file.close()
  expect(() => engine.get(utf8("a1"))).toThrow(StorageCorruption)
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 100; i++) engine.put(utf8(`b${i}`), utf8(`w${round}`))
    const generation = engine.seal()
    for (let jobs = 0; jobs < 50 && step(engine, disk) !== undefined; jobs++);
    expect(engine.flushedThrough).toBe(generation)
  }
  expect(engine.get(utf8("b5"))).toEqual(utf8("w9"))
  expect(() => engine.get(utf8("a1"))).toThrow(StorageCorruption)
})

test("deletes in level 0 go down in time, though the oldest run there holds none", () => {
  const { engine, disk } = open({ memtableBytes: 4096, tombstoneAgeSeconds: 50 })
  engine.put(utf8("a"), utf8("v"))
  flushAll(engine, disk)
  engine.deleteRange(utf8("a"), utf8("z"))
  flushAll(engine, disk)
  settle(engine, disk, nowMs + 100_000)
  expect(engine.liveFiles()).toEqual([])
})
