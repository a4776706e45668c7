import { describe, expect, test } from "bun:test"
import type { DiskError } from "../../src/disk/disk.ts"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { compareBytes, emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/maintenance/jobs.ts"
import { runJob } from "../../src/lsm/maintenance/jobs.ts"
import type { CorruptionReport } from "../../src/lsm/options.ts"
import { TreesDiffer } from "../../src/lsm/trees.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  carryOut,
  contentOf,
  digest,
  flushAll,
  Model,
  nowMs,
  randomKey,
  randomValue,
  settle,
  step,
  tinyOptions,
  writeSpill,
} from "./harness.ts"

function open(disk = new SimulatedDisk(), options = {}): { disk: SimulatedDisk; engine: Engine } {
  return { disk, engine: Engine.open(disk, "engine", { ...tinyOptions, ...options }) }
}

function fill(engine: Engine, disk: SimulatedDisk, prng: Prng, model: Model, count: number): void {
  for (let i = 0; i < count; i++) {
    const key = randomKey(prng)
    const value = randomValue(prng)
    while (!engine.canWrite(key.length + value.length)) step(engine, disk)
    if (engine.needsSeal(key.length + value.length)) engine.seal()
    engine.put(key, value)
    model.put(key, value)
  }
}

const interval = (lower: string, upper: string | undefined) => ({
  lower: utf8(lower),
  upper: upper === undefined ? undefined : utf8(upper),
})

describe("readers", () => {
  test("a snapshot and its iterators stay the same over 100 flushes and compactions", () => {
    const { disk, engine } = open()
    const prng = new Prng(1)
    const model = new Model()
    fill(engine, disk, prng, model, 300)
    const snapshot = engine.snapshot()
    const expected = model.digest()
    const pairs = model.between(emptyBytes, undefined)
    const forward = engine.iterator({ lower: emptyBytes, upper: undefined, snapshot })
    const backward = engine.iterator({ lower: emptyBytes, upper: undefined, reverse: true })
    const kinds: Record<string, number> = {}
    let jobs = 0
    let seen = 0
    while (jobs < 100 || seen < pairs.length) {
      fill(engine, disk, prng, model, 4)
      const job = engine.nextJob(nowMs)
      if (job === undefined) continue
      kinds[job._tag] = (kinds[job._tag] ?? 0) + 1
      carryOut(engine, disk, job)
      jobs++
      if (seen === pairs.length) continue
      expect(forward.next() && backward.next()).toBe(true)
      expect(digest([[forward.key, forward.value]])).toBe(digest([pairs[seen] as never]))
      const mirrored = pairs[pairs.length - 1 - seen] as never
      expect(digest([[backward.key, backward.value]])).toBe(digest([mirrored]))
      seen++
    }
    expect(kinds.Flush).toBeGreaterThan(20)
    expect((kinds.Compact ?? 0) + (kinds.Move ?? 0)).toBeGreaterThan(20)
    expect(forward.next() || backward.next()).toBe(false)
    expect(digest(contentOf(engine, { snapshot }))).toBe(expected)
    forward.close()
    backward.close()
    snapshot.release()
    settle(engine, disk)
    for (const path of engine.obsoleteFiles()) disk.remove(path)
    const tables = disk.list("engine").filter((name) => name.endsWith(".table"))
    expect(tables.map((name) => `engine/${name}`)).toEqual([...engine.liveFiles()])
    expect(digest(contentOf(engine))).toBe(model.digest())
  })

  test("a file that a snapshot holds is kept until the snapshot is released", () => {
    const { disk, engine } = open(new SimulatedDisk(), { level0Trigger: 2 })
    engine.put(utf8("a"), utf8("1"))
    flushAll(engine, disk)
    const [first] = engine.liveFiles() as [string]
    const snapshot = engine.snapshot()
    engine.put(utf8("a"), utf8("2"))
    flushAll(engine, disk)
    settle(engine, disk)
    expect(engine.liveFiles()).not.toContain(first)
    expect(disk.exists(first)).toBe(true)
    expect(engine.get(utf8("a"), snapshot)).toEqual(utf8("1"))
    snapshot.release()
    expect(engine.obsoleteFiles()).toEqual([first])
    expect(() => engine.get(utf8("a"), snapshot)).toThrow("released")
  })

  test("a value that was handed out does not change when its arena is used again", () => {
    const { disk, engine } = open()
    engine.put(utf8("a"), utf8("first"))
    const value = engine.get(utf8("a")) as Uint8Array
    expect(value.buffer).toBeInstanceOf(ArrayBuffer)
    engine.put(utf8("a"), utf8("later"))
    for (let round = 0; round < 5; round++) {
      flushAll(engine, disk)
      for (let i = 0; i < 20; i++) engine.put(utf8(`a${i}`), utf8("other"))
    }
    expect(value).toEqual(utf8("first"))
  })
})

describe("replacing an interval", () => {
  /** Keys a0 to z9 over several levels, older values below. */
  function filled(): { disk: SimulatedDisk; engine: Engine; model: Model } {
    const { disk, engine } = open()
    const model = new Model()
    for (const version of ["old", "new"]) {
      for (let i = 0; i < 260; i++) {
        const key = utf8(String.fromCharCode(97 + (i % 26)) + Math.floor(i / 26))
        if (version === "new" && i % 3 === 0) continue
        engine.put(key, utf8(version))
        model.put(key, utf8(version))
        if (engine.needsSeal(20)) engine.seal()
        while (!engine.canWrite(20)) step(engine, disk)
      }
      flushAll(engine, disk)
      if (version === "old") settle(engine, disk)
    }
    return { disk, engine, model }
  }

  test("hides what was there in all levels, and only in the interval", () => {
    const { disk, engine, model } = filled()
    const before = engine.snapshot()
    const expectedBefore = model.digest()
    const pairs = [
      [utf8("g5x"), utf8("fresh")],
      [utf8("k"), utf8("fresh")],
    ] as const
    const spillChecksum = writeSpill(disk, "spill", pairs)
    const job = engine.replaceInterval({
      intervals: [interval("c", "d"), interval("g", "k4")],
      spillPath: "spill",
      spillChecksum,
    })
    carryOut(engine, disk, job)
    model.replace(utf8("c"), utf8("d"), [])
    model.replace(utf8("g"), utf8("k4"), pairs)
    expect(digest(contentOf(engine))).toBe(model.digest())
    expect(engine.get(utf8("g5"))).toBeUndefined()
    expect(engine.get(utf8("g5x"))).toEqual(utf8("fresh"))
    expect(digest(contentOf(engine, { snapshot: before }))).toBe(expectedBefore)
    before.release()

    disk.loseAllUnsynced()
    const again = Engine.open(disk, "engine", tinyOptions)
    expect(digest(contentOf(again))).toBe(model.digest())
    fill(again, disk, new Prng(3), model, 600)
    settle(again, disk)
    expect(digest(contentOf(again))).toBe(model.digest())
  })

  test("what is written later lies over it, in memory and in tables", () => {
    const { disk, engine } = filled()
    carryOut(engine, disk, engine.replaceInterval({ intervals: [interval("c", "e")] }))
    expect(engine.get(utf8("c1"))).toBeUndefined()
    engine.put(utf8("c1"), utf8("later"))
    expect(engine.get(utf8("c1"))).toEqual(utf8("later"))
    flushAll(engine, disk)
    expect(engine.get(utf8("c1"))).toEqual(utf8("later"))
    settle(engine, disk)
    expect(contentOf(engine, { lower: utf8("c"), upper: utf8("e") }).length).toBe(1)
  })

  test("what is written between the request and its edit lies over it", () => {
    const { disk, engine } = filled()
    writeSpill(disk, "spill", [[utf8("c1"), utf8("ingested")]])
    const job = engine.replaceInterval({ intervals: [interval("c", "e")], spillPath: "spill" })
    engine.put(utf8("c1"), utf8("during"))
    carryOut(engine, disk, job)
    expect(engine.get(utf8("c1"))).toEqual(utf8("during"))
    flushAll(engine, disk)
    settle(engine, disk)
    expect(engine.get(utf8("c1"))).toEqual(utf8("during"))
  })

  test("to the end of the space, down to nothing, and its files go", () => {
    const { disk, engine } = filled()
    carryOut(engine, disk, engine.replaceInterval({ intervals: [interval("a", undefined)] }))
    expect(contentOf(engine)).toEqual([])
    expect(engine.liveFiles()).toEqual([])
    expect(disk.list("engine").filter((name) => name.endsWith(".table"))).toEqual([])
  })

  test("a spill with a key outside, out of order, twice, or damaged is refused", () => {
    const bad: Array<ReadonlyArray<string>> = [["b"], ["e"], ["c2", "c1"], ["c1", "c1"]]
    for (const keys of bad) {
      const { disk, engine } = filled()
      writeSpill(
        disk,
        "spill",
        keys.map((key) => [utf8(key), utf8("x")] as const),
      )
      const job = engine.replaceInterval({ intervals: [interval("c", "e")], spillPath: "spill" })
      expect(() => runJob(disk, job)).toThrow()
    }
    const { disk, engine } = filled()
    const spillChecksum = writeSpill(disk, "spill", [[utf8("c1"), utf8("value")]])
    disk.corrupt("spill", 12, 1)
    const intervals = [interval("c", "e")]
    const job = engine.replaceInterval({ intervals, spillPath: "spill", spillChecksum })
    expect(() => runJob(disk, job)).toThrow("checksum")
  })
})

describe("jobs", () => {
  test("without flushes writing is held back, sealed or not, and goes on after one", () => {
    const { disk, engine } = open()
    let written = 0
    while (engine.canWrite(100) && written < 1000) {
      if (engine.needsSeal(100)) engine.seal()
      engine.put(utf8(`key:${written++}`), new Uint8Array(100))
    }
    expect(written).toBeLessThan(40)
    expect(engine.stats().sealedMemtables).toBe(3)
    expect(engine.canSeal).toBe(false)
    expect(() => engine.seal()).toThrow("room")
    expect(step(engine, disk)).toBe(true)
    expect(engine.canWrite(100)).toBe(true)
  })

  test("a seal of nothing takes no room and names the generation before", () => {
    const { disk, engine } = open()
    expect(engine.seal()).toBe(0)
    engine.put(utf8("a"), utf8("1"))
    const generation = engine.seal()
    expect(engine.seal()).toBe(generation)
    expect(engine.flushedThrough).toBe(0)
    expect(engine.memtablesEmpty).toBe(false)
    settle(engine, disk)
    expect(engine.flushedThrough).toBe(generation)
    expect(engine.memtablesEmpty).toBe(true)
    const reopened = Engine.open(disk, "engine", tinyOptions)
    expect(reopened.flushedThrough).toBe(generation)
  })

  test("a batch larger than an arena goes in", () => {
    const { disk, engine } = open()
    const value = new Uint8Array(1 << 20).map((_, i) => i * 7)
    expect(engine.canWrite(value.length)).toBe(true)
    engine.put(utf8("small"), utf8("1"))
    engine.put(utf8("large"), value)
    expect(engine.get(utf8("large"))).toEqual(value)
    flushAll(engine, disk)
    expect(engine.get(utf8("large"))).toEqual(value)
    expect(engine.get(utf8("small"))).toEqual(utf8("1"))
  })

  test("no compaction takes much more than its budget, however the keys fall", () => {
    for (const pattern of ["random", "ascending", "hot", "descending"] as const) {
      const compactionBytes = 8000
      const { disk, engine } = open(new SimulatedDisk(), { compactionBytes, tableBytes: 1000 })
      const prng = new Prng(7)
      let largest = 0
      const run = (job: EngineJob | undefined) => {
        if (job === undefined) return
        const bytes = carryOut(engine, disk, job)
        if (job._tag === "Compact") largest = Math.max(largest, bytes)
      }
      for (let i = 0; i < 3000; i++) {
        const number = { random: prng.int(0, 99_999), ascending: i, descending: 99_999 - i, hot: 0 }
        const key = pattern === "hot" ? hotKey(prng, i) : String(number[pattern]).padStart(6, "0")
        while (!engine.canWrite(60)) run(engine.nextJob(nowMs))
        if (engine.needsSeal(60)) engine.seal()
        engine.put(utf8(key), new Uint8Array(20))
      }
      for (let job = engine.nextJob(nowMs); job !== undefined; job = engine.nextJob(nowMs)) run(job)
      const { bytesPerLevel } = engine.stats()
      expect(bytesPerLevel[6]).toBeGreaterThan(5 * compactionBytes)
      // One table and what lies under it may exceed the budget.
      expect(`${pattern} ${largest < 2 * compactionBytes}`).toBe(`${pattern} true`)
    }
  }, 60_000)

  test("deletes vanish with what they deleted once nothing can lie under them", () => {
    const { disk, engine } = open(new SimulatedDisk(), { level0Trigger: 1 })
    for (let i = 0; i < 200; i++) {
      engine.put(utf8(`key:${i}`), new Uint8Array(10))
      if (engine.needsSeal(30)) engine.seal()
      while (!engine.canWrite(30)) step(engine, disk)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    expect(engine.stats().bytesPerLevel[6]).toBeGreaterThan(2000)
    for (let i = 0; i < 200; i++) {
      engine.delete(utf8(`key:${i}`))
      if (engine.needsSeal(30)) engine.seal()
      while (!engine.canWrite(30)) step(engine, disk)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    expect(contentOf(engine)).toEqual([])
    expect(engine.stats().bytesPerLevel).toEqual([0, 0, 0, 0, 0, 0, 0])
  })

  test("a full disk loses nothing: the job is given up, and done once there is room", () => {
    let disk = new SimulatedDisk({ capacityBytes: 6000 })
    const { engine } = open(disk)
    const model = new Model()
    const put = (i: number) => {
      engine.put(utf8(`key:${i}`), new Uint8Array(100))
      model.put(utf8(`key:${i}`), new Uint8Array(100))
    }
    let failed = false
    for (let i = 0; !failed; i++) {
      put(i)
      if (engine.needsSeal(100)) engine.seal()
      const job = engine.nextJob(nowMs)
      if (job === undefined) continue
      try {
        carryOut(engine, disk, job)
      } catch (error) {
        expect((error as DiskError).reason).toBe("no-space")
        failed = true
        const numbers = disk.list("engine")
        engine.abandon(job)
        for (const path of engine.obsoleteFiles()) disk.remove(path)
        expect(disk.list("engine").length).toBeLessThanOrEqual(numbers.length)
      }
    }
    expect(digest(contentOf(engine))).toBe(model.digest())
    // Room appears: here, by way of a disk without a limit.
    Object.assign(disk, { capacityBytes: Number.POSITIVE_INFINITY })
    flushAll(engine, disk)
    settle(engine, disk)
    disk = disk.clone()
    disk.loseAllUnsynced()
    expect(digest(contentOf(open(disk).engine))).toBe(model.digest())
  })

  test("no file number is used twice, that of an orphan included", () => {
    const { disk, engine } = open()
    engine.put(utf8("a"), utf8("1"))
    engine.seal()
    const job = engine.nextJob(nowMs) as EngineJob
    const [orphan] = runJob(disk, job).tables
    const reopened = Engine.open(disk, "engine", tinyOptions)
    expect(disk.list("engine").filter((name) => name.endsWith(".table"))).toEqual([])
    reopened.put(utf8("a"), utf8("2"))
    reopened.seal()
    expect(reopened.nextJob(nowMs)?.firstFileNumber).toBeGreaterThan(orphan?.tableId as number)
  })

  test("jobs and manifest writes survive the way to another thread", () => {
    const { disk, engine } = open(new SimulatedDisk(), { level0Trigger: 2 })
    engine.put(utf8("a"), utf8("1"))
    flushAll(engine, disk)
    engine.put(utf8("a"), utf8("2"))
    engine.deleteRange(utf8("b"), utf8("c"))
    engine.seal()
    for (let left = 2; left > 0; left--) {
      const job = engine.nextJob(nowMs) as EngineJob
      const result = structuredClone(runJob(disk, structuredClone(job)))
      const write = engine.complete(job, result)
      const file = disk.open(write.path)
      file.write(structuredClone(write).bytes, write.offset)
      file.sync()
      engine.installed(structuredClone(write))
    }
    expect(engine.get(utf8("a"))).toEqual(utf8("2"))
  })

  test("options with which level 0 could never be compacted are refused", () => {
    const options = { maxLevel0Runs: 3, level0Trigger: 4 }
    expect(() => open(new SimulatedDisk(), options)).toThrow("level 0")
  })

  test("pressure rises as level 0 and the memtables fill, and falls by compaction", () => {
    const { disk, engine } = open(new SimulatedDisk(), { level0Trigger: 4 })
    const rates: Array<number> = []
    const states = new Set<string>()
    // Nothing but flushes: what level 0 cannot take stays in memory.
    for (let i = 0; engine.canWrite(100); i++) {
      if (engine.needsSeal(100)) engine.seal()
      engine.put(utf8(`key:${i}`), new Uint8Array(100))
      const { state, bytesPerSecond } = engine.pressure
      if (states.size === 0) expect(state).toBe("ok")
      states.add(state)
      rates.push(bytesPerSecond)
      if (engine.stats().sealedMemtables > 0 && engine.stats().level0Runs < 8)
        flushOne(engine, disk)
    }
    expect(engine.stats().level0Runs).toBe(8)
    while (engine.memtableUsedBytes < 1024) engine.put(utf8("more"), new Uint8Array(2000))
    states.add(engine.pressure.state)
    expect([...states]).toEqual(["ok", "slow", "stop"])
    expect(rates.every((rate, i) => i === 0 || rate <= (rates[i - 1] as number))).toBe(true)
    expect(engine.pressure.bytesPerSecond).toBe(0)
    settle(engine, disk)
    expect(engine.pressure.state).toBe("ok")
  })
})

describe("batches", () => {
  test("apply in order, as one step, and return the last sequence", () => {
    const { disk, engine } = open()
    engine.put(utf8("a"), utf8("0"))
    const before = engine.snapshot()
    const batch = new WriteBatch()
    batch.put(utf8("b"), utf8("1"))
    batch.deleteRange(utf8("a"), utf8("c"))
    batch.putParts(utf8("b"), utf8("2"), utf8("3"))
    batch.put(utf8("c"), utf8("4"))
    batch.delete(utf8("c"))
    batch.put(utf8("d"), new Uint8Array(100).fill(7))
    const sequence = engine.write(batch)
    expect(sequence).toBe(before.sequence + 6)
    const after = engine.snapshot()
    expect(after.sequence).toBe(sequence)
    batch.bytes().fill(0xaa)
    for (let round = 0; round < 3; round++) {
      const expected = [
        [utf8("b"), utf8("23")],
        [utf8("d"), new Uint8Array(100).fill(7)],
      ] as const
      expect(digest(contentOf(engine))).toBe(digest(expected))
      expect(engine.get(utf8("a"))).toBeUndefined()
      expect(engine.get(utf8("b"))).toEqual(utf8("23"))
      expect(engine.get(utf8("c"))).toBeUndefined()
      expect(engine.get(utf8("a"), before)).toEqual(utf8("0"))
      expect(engine.get(utf8("b"), before)).toBeUndefined()
      expect(digest(contentOf(engine, { snapshot: after }))).toBe(digest(expected))
      if (round === 0) flushAll(engine, disk)
      else settle(engine, disk)
    }
  })

  test("an empty batch changes nothing", () => {
    const { engine } = open()
    engine.put(utf8("a"), utf8("0"))
    expect(engine.write(new WriteBatch())).toBe(1)
    expect(engine.memtablesEmpty).toBe(false)
  })
})

describe("trees", () => {
  const trees = [
    { id: 1, name: "one" },
    { id: 2, name: "two" },
  ]

  test("keys are of a declared tree, and a range is of one", () => {
    const { engine } = open(new SimulatedDisk(), { trees })
    engine.put(Uint8Array.of(1, 5), utf8("x"))
    engine.put(Uint8Array.of(2), utf8("x"))
    engine.deleteRange(Uint8Array.of(1), Uint8Array.of(2))
    const batch = new WriteBatch()
    batch.put(Uint8Array.of(4), utf8("x"))
    expect(() => engine.put(Uint8Array.of(3), utf8("x"))).toThrow("tree 3")
    expect(() => engine.delete(Uint8Array.of(0, 1))).toThrow("tree 0")
    expect(() => engine.write(batch)).toThrow("tree 4")
    expect(() => engine.deleteRange(Uint8Array.of(1), Uint8Array.of(2, 0))).toThrow("one declared")
    expect(contentOf(engine).length).toBe(1)
  })

  test("the folder remembers them: another name or a missing one is refused, more may come", () => {
    const { disk, engine } = open(new SimulatedDisk(), { trees })
    engine.put(Uint8Array.of(1), utf8("x"))
    flushAll(engine, disk)
    const more = [...trees, { id: 9, name: "nine" }]
    for (const other of [undefined, [trees[0]], [trees[0], { id: 2, name: "zwei" }]]) {
      expect(() => Engine.open(disk, "engine", { ...tinyOptions, trees: other as never })).toThrow(
        TreesDiffer,
      )
    }
    expect(open(disk, { trees: more }).engine.get(Uint8Array.of(1))).toEqual(utf8("x"))
    expect(() => open(disk, { trees })).toThrow(TreesDiffer)
  })

  test("no table spans two", () => {
    const { disk, engine } = open(new SimulatedDisk(), { trees })
    for (let i = 0; i < 40; i++) engine.put(Uint8Array.of(1 + (i % 2), i), utf8("x"))
    flushAll(engine, disk)
    expect(engine.stats().trees.map(({ tables, entries }) => [tables, entries])).toEqual([
      [1, 20],
      [1, 20],
    ])
  })
})

describe("sizes", () => {
  test("size and split key follow the data, in memory and in tables", () => {
    const { disk, engine } = open(new SimulatedDisk(), {
      memtableBytes: 1 << 20,
      tableBytes: 4000,
      blockBytes: 300,
    })
    const key = (i: number) => utf8(`key:${String(i).padStart(5, "0")}`)
    for (let i = 0; i < 2000; i++) engine.put(key((i * 7919) % 2000), new Uint8Array(50))
    for (let round = 0; round < 3; round++) {
      const whole = engine.approximateSize({ lower: key(0), upper: undefined })
      const half = engine.approximateSize({ lower: key(0), upper: key(1000) })
      expect(whole.entries).toBeGreaterThan(1400)
      expect(whole.entries).toBeLessThan(2600)
      expect(whole.bytes).toBeGreaterThan(50_000)
      expect(half.bytes / whole.bytes).toBeGreaterThan(0.35)
      expect(half.bytes / whole.bytes).toBeLessThan(0.65)
      const split = engine.splitKey({ lower: key(500), upper: key(1500) }) as Uint8Array
      expect(compareBytes(split, key(750))).toBeGreaterThan(0)
      expect(compareBytes(split, key(1250))).toBeLessThan(0)
      expect(engine.splitKey({ lower: utf8("z"), upper: undefined })).toBeUndefined()
      if (round === 0) flushAll(engine, disk)
      else settle(engine, disk)
    }
  })
})

describe("the row cache", () => {
  test("never answers with what was written over, deleted, or replaced", () => {
    const { disk, engine } = open(new SimulatedDisk(), { rowCacheBytes: 1 << 20 })
    const read = (key: string) => text(engine.get(utf8(key)) ?? utf8("none"))
    for (const key of ["a", "b", "c", "d"]) engine.put(utf8(key), utf8("old"))
    flushAll(engine, disk)
    const snapshot = engine.snapshot()
    for (let i = 0; i < 2; i++) expect(read("a") + read("b") + read("c")).toBe("oldoldold")
    expect(engine.stats().rowCache.hits).toBe(3)
    engine.put(utf8("a"), utf8("new"))
    engine.deleteRange(utf8("b"), utf8("b1"))
    expect(read("c")).toBe("old")
    const batch = new WriteBatch()
    batch.delete(utf8("c"))
    engine.write(batch)
    expect(read("a") + read("b") + read("c")).toBe("newnonenone")
    flushAll(engine, disk)
    settle(engine, disk)
    expect(read("a") + read("b") + read("c")).toBe("newnonenone")
    expect(engine.get(utf8("b"), snapshot)).toEqual(utf8("old"))
    expect(read("b") + read("d")).toBe("noneold")
    const kept = engine.get(utf8("d")) as Uint8Array
    carryOut(engine, disk, engine.replaceInterval({ intervals: [interval("d", "e")] }))
    expect(read("d")).toBe("none")
    expect(kept).toEqual(utf8("old"))
  })
})

describe("damage", () => {
  test("met by a read, it is thrown again for all that it covers, and reported once", () => {
    const reports: Array<CorruptionReport> = []
    const disk = new SimulatedDisk()
    const onCorruption = (report: CorruptionReport) => reports.push(report)
    let { engine } = open(disk, { level0Trigger: 2, onCorruption })
    for (const key of ["a", "b", "m", "z"]) engine.put(utf8(key), utf8("old"))
    flushAll(engine, disk)
    const [path] = engine.liveFiles() as [string]
    engine.close()
    disk.corrupt(path, 20, 1)
    engine = open(disk, { level0Trigger: 2, blockCacheBytes: 0, onCorruption }).engine
    engine.put(utf8("m"), utf8("new"))
    const iterator = engine.iterator()
    expect(() => iterator.next()).toThrow(StorageCorruption)
    expect(() => iterator.seek(utf8("c"))).toThrow(StorageCorruption)
    iterator.close()
    for (const key of ["a", "b", "y"]) {
      expect(() => engine.get(utf8(key))).toThrow(StorageCorruption)
    }
    expect(engine.get(utf8("m"))).toEqual(utf8("new"))
    expect(engine.get(utf8("zz"))).toBeUndefined()
    expect(reports.map((report) => report.path)).toEqual([path])
    expect(engine.quarantined().length).toBe(1)
    flushAll(engine, disk)
    settle(engine, disk)
    expect(() => contentOf(engine)).toThrow(StorageCorruption)
    carryOut(engine, disk, engine.replaceInterval({ intervals: [interval("a", "{")] }))
    expect(engine.quarantined()).toEqual([])
    expect(contentOf(engine)).toEqual([])
  })
})

/** A flush and nothing else. */
function flushOne(engine: Engine, disk: SimulatedDisk): void {
  const job = engine.nextJob(nowMs) as EngineJob
  expect(job._tag).toBe("Flush")
  carryOut(engine, disk, job)
}

/** Now and then a far key, so that tables under the hot ones span much. */
function hotKey(prng: Prng, i: number): string {
  return i % 50 === 0 ? String(prng.int(0, 9) * 100_000) : `5${String(i).padStart(8, "0")}`
}
