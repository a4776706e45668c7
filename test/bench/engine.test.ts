import { describe, expect, test } from "bun:test"
import { formatCaches } from "./Caches.ts"
import { Latencies } from "./engine/latencies.ts"
import {
  amplificationRatios,
  formatRows,
  fullScale,
  names,
  rowsOf,
  stepsFor,
} from "./engine/measurements.ts"
import { Draws, Keys, Values, ZipfianDraws } from "./engine/workload.ts"
import { parseRocksDb, parseRocksDbLarge } from "./RocksDb.ts"

const rocksDbOutput = [
  "rocksdb 7.8.3-2: 16-byte keys, 100-byte values half compressible, lz4, bloom 10 bits, 64 MiB cache, one thread; 1,000,000 keys",
  "rocksdb fillrandom ops/s=247433",
  "rocksdb overwrite ops/s=243001",
  "rocksdb readmissing ops/s=2900000",
  "rocksdb fillsync ops/s=7100",
].join("\n")

const rocksDbLargeOutput = [
  "rocksdb 7.8.3-2: 10,000,000 operations at random over 10,000,000 keys, twice",
  "rocksdb fillrandom ops/s=190000",
  "rocksdb user_gb=2.24 flushed_and_compacted_gb=3.61 write_amplification=1.61",
  "rocksdb space_mb=818",
].join("\n")

describe("the bench beside RocksDB", () => {
  test("reads the lines of peers.sh rocksdb", () => {
    expect([...parseRocksDb(rocksDbOutput)]).toEqual([
      ["fillrandom", 247_433],
      ["overwrite", 243_001],
      ["readmissing", 2_900_000],
      ["fillsync", 7100],
    ])
    expect([...parseRocksDb("db_bench: command not found")]).toEqual([])
  })

  test("reads the lines of peers.sh rocksdb_large, or none of them", () => {
    expect(parseRocksDbLarge(rocksDbLargeOutput)).toEqual({
      userGb: 2.24,
      writtenGb: 3.61,
      writeAmplification: 1.61,
      spaceMb: 818,
    })
    expect(parseRocksDbLarge(rocksDbOutput)).toBeUndefined()
  })

  test("rates stand beside RocksDB's, 64 callers beside our own one", () => {
    const figures = { fillrandom: 250_000, readseq: 1, fillsync: 100, fillsync64: 2500 }
    const rows = rowsOf(figures, parseRocksDb("rocksdb fillrandom ops/s=200000"))
    expect(rows).toEqual([
      { name: "fillrandom", opsPerSecond: 250_000, peerOpsPerSecond: 200_000, ratio: 1.25 },
      { name: "readseq", opsPerSecond: 1, peerOpsPerSecond: undefined, ratio: undefined },
      { name: "fillsync", opsPerSecond: 100, peerOpsPerSecond: undefined, ratio: undefined },
      { name: "fillsync64", opsPerSecond: 2500, peerOpsPerSecond: 100, ratio: 25 },
    ])
    expect(formatRows(rows).split("\n").slice(2)).toEqual([
      "| fillrandom | 250000 | 200000 (RocksDB) | 1.25x |",
      "| readseq | 1 | - | - |",
      "| fillsync | 100 | - | - |",
      "| fillsync64 | 2500 | 100 (own fillsync) | 25.00x |",
    ])
  })

  test("amplifications are ratios, where both sides were measured", () => {
    const peer = parseRocksDbLarge(rocksDbLargeOutput)
    const own = { writeAmplification: 3.22, tablesMb: 409 }
    expect(amplificationRatios(own, peer)).toEqual({ writeRatio: 2, spaceRatio: 0.5 })
    expect(amplificationRatios(own, undefined)).toBeUndefined()
    expect(amplificationRatios(undefined, peer)).toBeUndefined()
  })

  test("only what is asked for is run, with what it needs before it", () => {
    const runs = (...only: ReadonlyArray<(typeof names)[number]>) =>
      stepsFor(new Set(only), fullScale).map(({ run }) => run)
    expect(runs("readseq")).toEqual(["fill", "readSequential"])
    expect(runs("fillsync64")).toEqual(["fillSync", "fillSyncGathered"])
    expect(runs("reopen")).toEqual(["fillUntilKilled", "reopen"])
    expect(runs(...names)).toHaveLength(14)
  })

  test("keys and values are those of db_bench", () => {
    const keys = new Keys({ prefix: Uint8Array.of(1) })
    expect(Buffer.from(keys.of(0x0102030405)).toString("hex")).toBe(
      `01${"0000000102030405"}${"30".repeat(8)}`,
    )
    const missing = new Keys({ prefix: Uint8Array.of(1), sizeBytes: 17 })
    expect(missing.of(7)).toHaveLength(18)
    const value = new Values(1).next()
    expect(value).toHaveLength(100)
    expect(value.subarray(0, 50)).toEqual(value.subarray(50))
  })

  test("streams of two seeds have nothing in common", () => {
    const count = 100_000
    const drawn = new Uint8Array(count)
    const streams = [new Draws(7), new Draws(8), new Draws(107)]
    const numbers = streams.map((draws) => {
      return Array.from({ length: count }, () => draws.below(count))
    })
    for (const number of [...(numbers[0] ?? []), ...(numbers[1] ?? [])]) drawn[number] = 1
    // What fill and overwrite leave of the keys: all but the e-squared-th part.
    const present = drawn.reduce((total, one) => total + one, 0) / count
    expect(present).toBeCloseTo(1 - Math.exp(-2), 2)
    const found = (numbers[2] ?? []).filter((number) => drawn[number] === 1).length / count
    expect(found).toBeCloseTo(1 - Math.exp(-2), 2)
    const equal = numbers[0]?.filter((number, i) => numbers[1]?.[i] === number).length
    expect(equal).toBeLessThan(20)
  })

  test("uniform draws are even, zipfian ones are not", () => {
    const count = 1000
    const times = (next: () => number) => {
      const counts = new Array<number>(count).fill(0)
      for (let i = 0; i < 100_000; i++) counts[next()]++
      return counts.sort((left, right) => right - left)
    }
    const draws = new Draws(1)
    const zipfian = new ZipfianDraws({ seed: 1, count })
    expect(times(() => draws.below(count))[0]).toBeLessThan(160)
    const popular = times(() => zipfian.next())
    expect(popular[0]).toBeGreaterThan(10_000)
    expect(popular[999]).toBeLessThan(30)
  })

  test("percentiles of latencies are right to a few percent", () => {
    const latencies = new Latencies()
    for (let us = 1; us <= 10_000; us++) latencies.record(us)
    expect(latencies.percentile(0.5) / 5000).toBeCloseTo(1, 1)
    expect(latencies.percentile(0.999) / 9990).toBeCloseTo(1, 1)
    expect(latencies.percentile(1)).toBe(10_000)
    expect(new Latencies().percentile(0.5)).toBe(0)
  })

  test("the table of caches has a line a setting and a column a workload", () => {
    const rows = [
      { workload: "uniform", caches: "none", figures: { reads: 10 } },
      { workload: "zipfian", caches: "none", figures: { reads: 20, blockHitShare: 0.5 } },
    ]
    expect(formatCaches(rows).split("\n")).toEqual([
      "| caches on | uniform, reads/s | zipfian, reads/s |",
      "|---|---|---|",
      "| none | 10 | 20 (hits: block 50 %) |",
    ])
  })
})
