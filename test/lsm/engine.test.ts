import { describe, expect, test } from "bun:test"
import type { DiskError } from "../../src/disk/disk.ts"
import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { EngineJob } from "../../src/lsm/jobs.ts"
import { runJob } from "../../src/lsm/jobs.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  carryOut,
  contentOf,
  digest,
  flushAll,
  Model,
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
    const kinds = { Flush: 0, Compact: 0, Ingest: 0 }
    let jobs = 0
    let seen = 0
    while (jobs < 100 || seen < pairs.length) {
      fill(engine, disk, prng, model, 20)
      const job = engine.nextJob()
      if (job === undefined) continue
      kinds[job._tag]++
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
    expect(kinds.Compact).toBeGreaterThan(20)
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
    const { disk, engine } = open()
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
    expect(engine.stats().sealedMemtables).toBe(2)
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
        while (!engine.canWrite(60)) run(engine.nextJob())
        if (engine.needsSeal(60)) engine.seal()
        engine.put(utf8(key), new Uint8Array(20))
      }
      for (let job = engine.nextJob(); job !== undefined; job = engine.nextJob()) run(job)
      const { bytesPerLevel } = engine.stats()
      expect(bytesPerLevel[2]).toBeGreaterThan(5 * compactionBytes)
      // One table and what lies under it may exceed the budget.
      expect(`${pattern} ${largest < 2 * compactionBytes}`).toBe(`${pattern} true`)
    }
  }, 60_000)

  test("deletes vanish with what they deleted once nothing can lie under them", () => {
    const { disk, engine } = open(new SimulatedDisk(), { level0Trigger: 1, level1Bytes: 1 << 20 })
    for (let i = 0; i < 200; i++) {
      engine.put(utf8(`key:${i}`), new Uint8Array(10))
      if (engine.needsSeal(30)) engine.seal()
      while (!engine.canWrite(30)) step(engine, disk)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    expect(engine.stats().bytesPerLevel[1]).toBeGreaterThan(3000)
    for (let i = 0; i < 200; i++) {
      engine.delete(utf8(`key:${i}`))
      if (engine.needsSeal(30)) engine.seal()
      while (!engine.canWrite(30)) step(engine, disk)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    expect(contentOf(engine)).toEqual([])
    expect(engine.stats().bytesPerLevel).toEqual([0, 0, 0])
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
      const job = engine.nextJob()
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
    const job = engine.nextJob() as EngineJob
    const [orphan] = runJob(disk, job).tables
    const reopened = Engine.open(disk, "engine", tinyOptions)
    expect(disk.list("engine").filter((name) => name.endsWith(".table"))).toEqual([])
    reopened.put(utf8("a"), utf8("2"))
    reopened.seal()
    expect(reopened.nextJob()?.firstFileNumber).toBeGreaterThan(orphan?.fileNumber as number)
  })

  test("jobs and manifest writes survive the way to another thread", () => {
    const { disk, engine } = open()
    engine.put(utf8("a"), utf8("1"))
    flushAll(engine, disk)
    engine.put(utf8("a"), utf8("2"))
    engine.seal()
    for (let left = 2; left > 0; left--) {
      const job = engine.nextJob() as EngineJob
      const result = structuredClone(runJob(disk, structuredClone(job)))
      const write = engine.complete(job, result)
      const file = disk.open(write.path)
      file.write(structuredClone(write).bytes, write.offset)
      file.sync()
      engine.installed(structuredClone(write))
    }
    expect(engine.get(utf8("a"))).toEqual(utf8("2"))
  })

  test("options that would let a read look into more than eight runs are refused", () => {
    expect(() => open(new SimulatedDisk(), { maxSealedMemtables: 3 })).toThrow("9 sorted runs")
    expect(() => open(new SimulatedDisk(), { level0Trigger: 4 })).toThrow("level 0")
  })
})

/** Now and then a far key, so that tables under the hot ones span much. */
function hotKey(prng: Prng, i: number): string {
  return i % 50 === 0 ? String(prng.int(0, 9) * 100_000) : `5${String(i).padStart(8, "0")}`
}
