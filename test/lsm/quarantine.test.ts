import { describe, expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { emptyBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { Engine, EngineOptions } from "../../src/lsm/engine.ts"
import { type EngineJob, removeFiles, runJob } from "../../src/lsm/maintenance/jobs.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import type { CorruptionReport } from "../../src/lsm/options.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, digest } from "./harness.ts"
import {
  carryOut,
  fill,
  flushAll,
  fragmentsOf,
  interval,
  nowMs,
  open,
  put,
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

  describe("in a tree that may let go of it", () => {
    const trees = [
      { id: 1, name: "kept" },
      { id: 2, name: "expendable" },
    ]
    const options = { ...small, blockCacheBytes: 0, trees, expendable: [2] }
    const place = (tree: number, i: number) => Uint8Array.of(tree, i)

    /** Old values of both trees, and new ones of some keys in newer tables. */
    function layered() {
      const made = open(options)
      const { engine, disk } = made
      for (const [keys, value] of [
        [40, "old"],
        [4, "new"],
      ] as const) {
        for (let i = 0; i < keys; i++) {
          for (const tree of [1, 2]) put(engine, disk, place(tree, i), utf8(value))
        }
        flushAll(engine, disk)
      }
      return made
    }

    const newest = (disk: SimulatedDisk, tree: number) =>
      fragmentsOf(disk)
        .filter(({ lower }) => lower[0] === tree)
        .sort((left, right) => right.fileNumber - left.fileNumber)[0] as Fragment
    const pathOf = ({ fileNumber }: Fragment) =>
      `engine/${String(fileNumber).padStart(8, "0")}.table`

    const damagedOf = (engine: Engine, tree: number) =>
      engine
        .quarantined()
        .filter(({ interval }) => interval.lower[0] === tree)
        .map(({ path }) => path)

    test("what it hid comes to light, and nothing else changes", () => {
      const { engine, disk } = layered()
      for (const tree of [1, 2]) disk.corrupt(pathOf(newest(disk, tree)), 20, 1)
      for (const tree of [1, 2]) expect(() => engine.get(place(tree, 0))).toThrow(StorageCorruption)
      carryOut(engine, disk, engine.letGoJob(damagedOf(engine, 2)))
      expect(text(engine.get(place(2, 0)) as Uint8Array)).toBe("old")
      expect(text(engine.get(place(2, 9)) as Uint8Array)).toBe("old")
      expect(() => engine.get(place(1, 0))).toThrow(StorageCorruption)
      expect(engine.quarantined().map(({ interval }) => interval.lower[0])).toEqual([1])
    })

    test("it opens without a table's file, and knows what is missing; of another tree it does not", () => {
      const { engine, disk } = layered()
      engine.close()
      const lost = newest(disk, 2)
      disk.remove(pathOf(lost))
      const again = open(options, disk).engine
      expect(again.quarantined().map(({ interval }) => interval.lower)).toEqual([lost.lower])
      expect(() => again.get(place(2, 0))).toThrow(StorageCorruption)
      carryOut(again, disk, again.letGoJob(damagedOf(again, 2)))
      expect(text(again.get(place(2, 0)) as Uint8Array)).toBe("old")
      again.verify()
      again.close()
      disk.remove(pathOf(newest(disk, 1)))
      expect(() => open(options, disk)).toThrow(StorageCorruption)
    })
  })
})
