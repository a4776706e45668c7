import { describe, expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { EngineOptions } from "../../src/lsm/engine.ts"
import { type EngineJob, removeFiles, runJob } from "../../src/lsm/maintenance/jobs.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import type { CorruptionReport } from "../../src/lsm/options.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, digest } from "./harness.ts"
import {
  carryOut,
  fill,
  fragmentsOf,
  interval,
  nowMs,
  open,
  settle,
  small,
  step,
  toBottom,
} from "./maintained.ts"

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
