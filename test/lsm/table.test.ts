import { describe, expect, test } from "bun:test"
import { compareBytes, emptyBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Caches } from "../../src/lsm/cache/caches.ts"
import type { Fragment, Run } from "../../src/lsm/manifest/version.ts"
import { RunCursor } from "../../src/lsm/read/runCursor.ts"
import { BlockCursor } from "../../src/lsm/table/block.ts"
import { keyHash } from "../../src/lsm/table/bloom.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { kinds, maxSequence } from "../../src/lsm/table/format.ts"
import { identifyTable, Table } from "../../src/lsm/table/tableReader.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { freshSeed, Model, randomKey, randomValue } from "./harness.ts"
import type { Entry } from "./tableHarness.ts"
import { writeTable } from "./tableHarness.ts"

const seeds = [1, 2, 3, 4, 5, 6, freshSeed("table")]

function hashOf(key: Uint8Array): number {
  return keyHash(key, 0, key.length)
}

function randomEntries(prng: Prng, count: number): Array<Entry> {
  const model = new Model()
  for (let i = 0; i < count; i++) model.put(randomKey(prng), randomValue(prng))
  return model.between(emptyBytes, undefined).map(([key, value]) => {
    const isPut = prng.chance(0.9)
    return {
      key,
      value: isPut ? value : emptyBytes,
      sequence: prng.chance(0.8) ? prng.int(1, 1000) : 2 ** 45 + prng.uint32(),
      kind: isPut ? kinds.put : kinds.delete,
    }
  })
}

function randomOptions(prng: Prng) {
  return {
    blockBytes: prng.pick([32, 128, 512, 4096]),
    bloomBitsPerKey: prng.pick([0, 1, 10, 16]),
    compression: prng.pick(Object.values(compressions)),
    indexPageBytes: prng.pick([1, 100, 1000, 65_536]),
  }
}

function randomCaches(prng: Prng): Caches | undefined {
  if (prng.chance(0.2)) return undefined
  return new Caches({
    blockBytes: prng.pick([0, 600, 5000, 1_000_000]),
    keyBytes: prng.pick([0, 16, 4096]),
    rowBytes: 0,
  })
}

function show(cursor: BlockCursor): string {
  const key = toHex(cursor.keyBytes.subarray(0, cursor.keyLength))
  const end = cursor.valueOffset + cursor.valueLength
  const value = toHex(cursor.valueBytes.subarray(cursor.valueOffset, end))
  return `${key}=${value} ${cursor.sequence} ${cursor.kind}`
}

function line({ key, value, sequence, kind }: Entry, baseSequence = 0): string {
  return `${toHex(key)}=${toHex(value)} ${sequence + baseSequence} ${kind}`
}

describe("a table", () => {
  test("finds every key that it holds and no other, whatever its options and caches", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (let round = 0; round < 12; round++) {
        const disk = new SimulatedDisk()
        const entries = randomEntries(prng, prng.int(1, 400))
        const options = randomOptions(prng)
        const baseSequence = prng.pick([0, 5, 2 ** 40])
        const place = { baseSequence, tableId: prng.uint32() }
        const fragment = writeTable(disk, "t", { entries }, options, place)
        const caches = randomCaches(prng)
        const table = new Table({ disk, path: "t", identity: fragment, caches })
        const cursor = new BlockCursor()
        // Twice: the second time from the caches, as far as they hold it.
        for (let pass = 0; pass < 2; pass++) {
          for (const entry of prng.shuffle([...entries])) {
            expect(table.mayContain(hashOf(entry.key))).toBe(true)
            expect(table.find(entry.key, hashOf(entry.key), cursor)).toBe(true)
            expect(show(cursor)).toBe(line(entry, baseSequence))
          }
          for (let i = 0; i < 50; i++) {
            const key = randomKey(prng)
            const isHeld = entries.some((entry) => compareBytes(entry.key, key) === 0)
            expect(table.find(key, hashOf(key), cursor)).toBe(isHeld)
          }
        }
        expect(table.verify()).toBe(table.blockCount)
        const sliced: Array<number> = [0]
        while ((sliced.at(-1) as number) < table.blockCount) {
          sliced.push(table.verify(sliced.at(-1), 500))
        }
        expect(sliced.at(-1)).toBe(table.blockCount)
        const { deletes, sizeBytes, tableId, checksum } = fragment
        expect(deletes).toBe(entries.filter(({ kind }) => kind === kinds.delete).length)
        expect(table.properties.rawBytes).toBe(
          entries.reduce((sum, { key, value }) => sum + key.length + value.length, 0),
        )
        expect(identifyTable(disk, "t")).toEqual({
          fileNumber: 0,
          tableId,
          sizeBytes,
          checksum,
          entries: entries.length,
          baseSequence: 0,
        })
        table.close()
      }
    }
  })

  test("its index finds the block of a key as a walk over all of them does", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const disk = new SimulatedDisk()
      const entries = randomEntries(prng, 500)
      const options = { ...randomOptions(prng), blockBytes: 128 }
      const identity = writeTable(disk, "t", { entries }, options)
      const table = new Table({ disk, path: "t", identity, caches: randomCaches(prng) })
      const lastKeys = Array.from({ length: table.blockCount }, (_, i) => table.lastKey(i))
      for (let i = 0; i < 300; i++) {
        const key = prng.chance(0.5) ? randomKey(prng) : prng.pick(entries).key
        const expected = lastKeys.findIndex((last) => compareBytes(last, key) >= 0)
        expect(table.firstBlockAtOrAfter(key)).toBe(expected < 0 ? lastKeys.length : expected)
        const block = prng.int(0, lastKeys.length - 1)
        const order = compareBytes(lastKeys[block] as Uint8Array, key)
        expect(Math.sign(table.compareLastKey(block, key))).toBe(Math.sign(order))
      }
      expect(table.bytesBetween(emptyBytes, utf8("\xff\xff\xff"))).toBeLessThanOrEqual(
        table.properties.dataBytes,
      )
      expect(table.bytesBetween(emptyBytes, new Uint8Array(30).fill(255))).toBe(
        table.properties.dataBytes,
      )
    }
  })

  test("may hold range tombstones, with or without entries", () => {
    const disk = new SimulatedDisk()
    const tombstones = [
      { lower: utf8("b"), upper: utf8("d"), sequence: 5 },
      { lower: utf8("d"), upper: utf8("d\x00"), sequence: 3 },
      { lower: utf8("x"), upper: utf8("z"), sequence: 9 },
    ]
    const options = { blockBytes: 128, bloomBitsPerKey: 10 }
    const only = writeTable(disk, "only", { entries: [], tombstones }, options)
    expect([only.lower, only.upper, only.entries, only.tombstones]).toEqual([
      utf8("b"),
      utf8("z"),
      0,
      3,
    ])
    expect([only.smallestSequence, only.largestSequence]).toEqual([3, 9])
    const identity = { ...only, baseSequence: 100 }
    const table = new Table({ disk, path: "only", identity })
    expect(table.blockCount).toBe(0)
    expect(table.tombstones).toEqual(
      tombstones.map((one) => ({ ...one, sequence: one.sequence + 100 })),
    )
    expect(table.find(utf8("c"), hashOf(utf8("c")), new BlockCursor())).toBe(false)
    expect(table.verify()).toBe(0)
    const run = new RunCursor([only], { tableOf: () => table, reverse: false })
    run.seek(undefined)
    expect(run.valid).toBe(false)

    const entry = { key: utf8("c"), value: utf8("v"), sequence: 7, kind: kinds.put }
    const both = writeTable(disk, "both", { entries: [entry], tombstones }, options)
    expect([both.lower, both.upper]).toEqual([utf8("b"), utf8("z")])
    const wide = { ...entry, key: utf8("zz") }
    const entries = [{ ...entry, key: utf8("a") }, wide]
    const inside = writeTable(disk, "inside", { entries, tombstones }, options)
    expect([inside.lower, inside.upper]).toEqual([utf8("a"), utf8("zz\x00")])
  })

  test("keeps only filter and top of the index in memory; pages go through the cache", () => {
    const disk = new SimulatedDisk()
    const entries: Array<Entry> = []
    for (let i = 0; i < 20_000; i++) {
      const key = utf8(`key:${String(i).padStart(8, "0")}`)
      entries.push({ key, value: key, sequence: i, kind: kinds.put })
    }
    const options = { blockBytes: 256, bloomBitsPerKey: 0, indexPageBytes: 4096 }
    const identity = writeTable(disk, "t", { entries }, options)
    const caches = new Caches({ blockBytes: 20_000, keyBytes: 0, rowBytes: 0 })
    const table = new Table({ disk, path: "t", identity, caches })
    const { dataBlocks, indexPages } = table.properties
    expect(indexPages).toBeGreaterThan(5)
    expect(table.residentBytes).toBeLessThan(indexPages * 50)
    const cursor = new BlockCursor()
    for (let i = 0; i < 20_000; i += 97) {
      const { key } = entries[i] as Entry
      expect(table.find(key, hashOf(key), cursor)).toBe(true)
    }
    expect(caches.block.sizeBytes).toBeLessThanOrEqual(20_000)
    expect(dataBlocks).toBe(table.blockCount)
  })

  test("may have blocks that compression makes tiny", () => {
    const rows = (length: number, value: Uint8Array) =>
      Array.from({ length }, (_, i) => ({
        key: new Uint8Array(i + 1),
        value,
        sequence: 0,
        kind: kinds.put,
      }))
    for (const compression of Object.values(compressions)) {
      for (const entries of [rows(3, emptyBytes), rows(20, new Uint8Array(64))]) {
        const disk = new SimulatedDisk()
        const options = { blockBytes: 1, bloomBitsPerKey: 10, compression, indexPageBytes: 1 }
        const identity = writeTable(disk, "t", { entries }, options)
        expect(new Table({ disk, path: "t", identity }).verify()).toBe(entries.length)
      }
    }
  })

  test("refuses what no table may hold", () => {
    const disk = new SimulatedDisk()
    const options = { blockBytes: 128, bloomBitsPerKey: 10 }
    const entry = { key: utf8("a"), value: utf8("v"), sequence: 1, kind: kinds.put }
    let files = 0
    const write = (...entries: Array<Entry>) =>
      writeTable(disk, `t${files++}`, { entries }, options)
    expect(() => write()).toThrow("a table holds something")
    expect(() => write(entry, entry)).toThrow("keys of a table ascend")
    expect(() => write({ ...entry, sequence: maxSequence })).toThrow("below the limit")
    expect(() => write({ ...entry, kind: 2 })).toThrow("kind 2")
    expect(() => write({ ...entry, key: emptyBytes })).toThrow("a key of 0 bytes")
    expect(() => write({ ...entry, sequence: maxSequence - 1 })).not.toThrow()
    const tombstone = { lower: utf8("a"), upper: utf8("c"), sequence: 1 }
    const tombstones = [tombstone, { ...tombstone, lower: utf8("b"), upper: utf8("d") }]
    expect(() => writeTable(disk, "x", { entries: [entry], tombstones }, options)).toThrow("ascend")
  })
})

describe("a cursor over a run", () => {
  test("walks, seeks and turns as a sorted list does, in any bounds, over cut fragments", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (let round = 0; round < 8; round++) {
        const { run, tables, shown } = randomRun(prng)
        for (let i = 0; i < 20; i++) checkRun(prng, run, tables, shown)
      }
    }
  })
})

/** Some tables one behind the other, some of them cut, and the entries that then show. */
function randomRun(prng: Prng): { run: Run; tables: Map<number, Table>; shown: Array<Entry> } {
  const disk = new SimulatedDisk()
  const caches = randomCaches(prng)
  const entries = randomEntries(prng, prng.int(1, 600))
  const run: Array<Fragment> = []
  const tables = new Map<number, Table>()
  const shown: Array<Entry> = []
  for (let from = 0; from < entries.length; ) {
    const to = Math.min(entries.length, from + prng.int(1, 300))
    const part = entries.slice(from, to)
    from = to
    const fileNumber = tables.size + 1
    const options = randomOptions(prng)
    const whole = writeTable(disk, `${fileNumber}`, { entries: part }, options, { fileNumber })
    const cuts = [whole.lower, whole.upper]
    if (prng.chance(0.5)) cuts.splice(1, 0, prng.pick(part).key)
    if (prng.chance(0.3)) cuts[0] = prng.pick(part).key
    const sorted = cuts.sort(compareBytes)
    for (let i = 0; i + 1 < sorted.length; i++) {
      const lower = sorted[i] as Uint8Array
      const upper = sorted[i + 1] as Uint8Array
      if (compareBytes(lower, upper) >= 0 || prng.chance(0.1)) continue
      run.push({ ...whole, lower, upper })
      shown.push(
        ...part.filter(({ key }) => compareBytes(lower, key) <= 0 && compareBytes(key, upper) < 0),
      )
    }
    tables.set(fileNumber, new Table({ disk, path: `${fileNumber}`, identity: whole, caches }))
  }
  return { run, tables, shown }
}

function checkRun(prng: Prng, run: Run, tables: Map<number, Table>, shown: Array<Entry>): void {
  const lower = prng.chance(0.5) ? randomKey(prng) : undefined
  const upper = prng.chance(0.5) ? randomKey(prng) : undefined
  const inside = shown
    .filter(
      ({ key }) =>
        (lower === undefined || compareBytes(lower, key) <= 0) &&
        (upper === undefined || compareBytes(key, upper) < 0),
    )
    .map((entry) => ({ key: entry.key, text: line(entry) }))
  const tableOf = (fragment: Fragment) => tables.get(fragment.fileNumber) as Table
  const cursor = new RunCursor([], { tableOf, reverse: prng.chance(0.5) })
  cursor.reset(run, lower, upper)
  for (let i = 0; i < 4; i++) {
    cursor.reverse = prng.chance(0.5)
    const key = prng.chance(0.3) ? undefined : randomKey(prng)
    const expected = cursor.reverse
      ? inside.filter((entry) => key === undefined || compareBytes(entry.key, key) < 0).reverse()
      : inside.filter((entry) => key === undefined || compareBytes(entry.key, key) >= 0)
    const limit = prng.chance(0.5) ? expected.length + 1 : prng.int(0, 10)
    const lines: Array<string> = []
    for (cursor.seek(key); cursor.valid && lines.length < limit; cursor.advance()) {
      lines.push(show(cursor))
    }
    expect(lines).toEqual(expected.slice(0, limit).map(({ text }) => text))
  }
}
