import { describe, expect, test } from "bun:test"
import { type DiskError, StorageCorruption } from "../../src/disk/disk.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine, type EngineOptions } from "../../src/lsm/engine.ts"
import {
  type EngineJob,
  removeFiles,
  runJob,
  runManifestWrite,
} from "../../src/lsm/maintenance/jobs.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { contentOf, digest, Model, randomKey, randomValue } from "./harness.ts"
import {
  CountingDisk,
  carryOut,
  fill,
  flushAll,
  fragmentsOf,
  nowMs,
  open,
  put,
  settle,
  small,
  step,
  tablesOnDisk,
  toBottom,
} from "./maintained.ts"

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
