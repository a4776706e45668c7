import { describe, expect, test } from "bun:test"
import { compareBytes, equalBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { BlockHome } from "../../src/lsm/cache/blockCache.ts"
import { BlockCache } from "../../src/lsm/cache/blockCache.ts"
import { Caches } from "../../src/lsm/cache/caches.ts"
import { KeyCache } from "../../src/lsm/cache/keyCache.ts"
import { RowCache } from "../../src/lsm/cache/rowCache.ts"
import { RunCursor } from "../../src/lsm/read/runCursor.ts"
import { BlockCursor } from "../../src/lsm/table/block.ts"
import { keyHash } from "../../src/lsm/table/bloom.ts"
import { kinds } from "../../src/lsm/table/format.ts"
import { Table } from "../../src/lsm/table/tableReader.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { freshSeed, randomKey, randomValue } from "./harness.ts"
import type { Entry } from "./tableHarness.ts"
import { writeTable } from "./tableHarness.ts"

const seeds = [1, 2, 3, 4, freshSeed("caches")]

function hashOf(key: Uint8Array): number {
  return keyHash(key, 0, key.length)
}

/** Reads a block as a table does; `size` names its content. */
function use(cache: BlockCache, home: BlockHome, index: number, size = 1000): boolean {
  const held = cache.get(home, index)
  if (held !== undefined) return true
  cache.insert(home, index, new Uint8Array(size).fill(index))
  return false
}

describe("the block cache", () => {
  test("holds what was put there or nothing, within its budget, whatever happens", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const budget = prng.pick([0, 50, 500, 5000, 40_000])
      const cache = new BlockCache(budget)
      let homes: Array<{ home: BlockHome; mark: number }> = []
      for (let step = 0; step < 6000; step++) {
        if (homes.length === 0 || prng.chance(0.01)) {
          homes.push({ home: cache.newHome(40), mark: prng.int(0, 200) })
        }
        if (prng.chance(0.008)) {
          const gone = prng.pick(homes)
          cache.dropTable(gone.home)
          if (prng.chance(0.5)) homes = homes.filter((other) => other !== gone)
          continue
        }
        const { home, mark } = prng.pick(homes)
        const index = Math.floor(prng.float() ** 2 * 40)
        const expected = [mark, index]
        const held = prng.chance(0.2) ? cache.peek(home, index) : cache.get(home, index)
        if (held !== undefined) {
          expect([...held.subarray(0, 2)]).toEqual(expected)
        } else {
          const content = new Uint8Array(prng.int(2, 400))
          content.set(expected)
          cache.insert(home, index, content)
        }
        expect(cache.sizeBytes).toBeLessThanOrEqual(budget)
      }
      for (const { home } of homes) cache.dropTable(home)
      if (homes.length > 0 && cache.blockCount === 0) expect(cache.sizeBytes).toBe(0)
    }
  })

  test("forgets every block of a table that is dropped, and counts down to nothing", () => {
    const cache = new BlockCache(10_000)
    const [first, second] = [cache.newHome(100), cache.newHome(100)]
    for (let i = 0; i < 100; i++) use(cache, i % 2 === 0 ? first : second, i, 60)
    cache.dropTable(first)
    for (let i = 0; i < 100; i += 2) expect(cache.peek(first, i)).toBeUndefined()
    cache.dropTable(second)
    expect([cache.blockCount, cache.sizeBytes]).toEqual([0, 0])
  })

  test("a scan of ten times the budget takes little away from a hot set", () => {
    const blocks = 100
    const cache = new BlockCache(blocks * 1096)
    const hot = cache.newHome(60)
    const cold = cache.newHome(10 * blocks)
    const prng = new Prng(1)
    const readHot = (count: number) => {
      let hits = 0
      for (let i = 0; i < count; i++) if (use(cache, hot, prng.int(0, 59))) hits++
      return hits / count
    }
    readHot(600)
    const before = readHot(600)
    expect(before).toBe(1)
    for (let i = 0; i < 10 * blocks; i++) use(cache, cold, i)
    // Without any read of the hot set in between. An LRU or a CLOCK would hold none of it.
    expect(readHot(60)).toBeGreaterThan(0.9)
    // And with reads in between.
    let hits = 0
    for (let i = 0; i < 10 * blocks; i++) {
      use(cache, cold, i)
      if (use(cache, hot, prng.int(0, 59))) hits++
    }
    expect(hits / (10 * blocks)).toBeGreaterThan(0.95)
  })

  test("takes in a new hot set after the old one, by way of its ghosts", () => {
    const prng = new Prng(1)
    const cache = new BlockCache(100 * 1096)
    const [old, fresh] = [cache.newHome(90), cache.newHome(90)]
    for (let i = 0; i < 2000; i++) use(cache, old, prng.int(0, 89))
    let hits = 0
    for (let i = 0; i < 1000; i++) if (use(cache, fresh, prng.int(0, 89))) hits++
    expect(hits).toBeGreaterThan(780)
    // A loop that is longer than the small queue: nothing of it would ever be seen twice in there.
    const other = new BlockCache(100 * 1096)
    const [first, loop] = [other.newHome(80), other.newHome(60)]
    for (let i = 0; i < 800; i++) use(other, first, i % 80)
    hits = 0
    for (let i = 0; i < 600; i++) if (use(other, loop, i % 60)) hits++
    expect(hits).toBeGreaterThan(450)
  })

  test("with skewed reads it hits more often than first in, first out", () => {
    const prng = new Prng(2)
    const cache = new BlockCache(100 * 1096)
    const home = cache.newHome(1000)
    const queue: Array<number> = []
    let [hits, queueHits] = [0, 0]
    for (let i = 0; i < 30_000; i++) {
      const index = Math.floor(prng.logUniform(1, 1000)) - 1
      if (use(cache, home, index)) hits++
      if (queue.includes(index)) queueHits++
      else if (queue.push(index) > 100) queue.shift()
    }
    expect(queueHits / 30_000).toBeLessThan(0.57)
    expect(hits / 30_000).toBeGreaterThan(0.6)
    expect(cache.hits).toBe(hits)
    expect(cache.hits + cache.misses).toBe(30_000)
  })
})

describe("caches of tables", () => {
  function entriesOf(count: number, mark: string): Array<Entry> {
    return Array.from({ length: count }, (_, i) => {
      const key = utf8(`key:${String(i).padStart(6, "0")}`)
      return { key, value: utf8(`${mark}:${i}`), sequence: i, kind: kinds.put }
    })
  }

  test("never serve a block or a place of one table for another, nor of one that is closed", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const disk = new SimulatedDisk()
      const caches = new Caches({
        blockBytes: prng.pick([3000, 100_000]),
        keyBytes: prng.pick([16, 64, 10_000]),
        rowBytes: 0,
      })
      const options = { blockBytes: 256, bloomBitsPerKey: 0, indexPageBytes: 300, compression: 2 }
      // Same table id, same file number, same path even: only what the files hold tells them apart.
      let generation = 0
      const make = (slot: number) => {
        const mark = `table ${slot} ${generation++}`
        const path = `t${slot}`
        if (disk.exists(path)) disk.remove(path)
        const entries = entriesOf(prng.int(50, 300), mark)
        const identity = writeTable(disk, path, { entries }, options)
        return { table: new Table({ disk, path, identity, caches }), entries }
      }
      const tables = [make(0), make(1), make(2)]
      const cursor = new BlockCursor()
      for (let i = 0; i < 3000; i++) {
        const slot = prng.int(0, 2)
        if (prng.chance(0.01)) {
          tables[slot]?.table.close()
          if (prng.chance(0.7)) tables[slot] = make(slot)
        }
        const { table, entries } = tables[slot] as (typeof tables)[0]
        const { key, value } = prng.pick(entries)
        expect(table.find(key, hashOf(key), cursor)).toBe(true)
        const { valueBytes, valueOffset, valueLength } = cursor
        const found = valueBytes.subarray(valueOffset, valueOffset + valueLength)
        expect(equalBytes(found, value)).toBe(true)
      }
      expect(caches.block.hits).toBeGreaterThan(100)
      for (const { table } of tables) table.close()
      expect([caches.block.blockCount, caches.block.sizeBytes]).toEqual([0, 0])
    }
  })

  test("a value that was read stays as it was when its block has long left", () => {
    const disk = new SimulatedDisk()
    const caches = new Caches({ blockBytes: 2000, keyBytes: 0, rowBytes: 0 })
    for (const compression of [0, 1, 2, 3]) {
      const options = { blockBytes: 256, bloomBitsPerKey: 10, compression }
      const entries = entriesOf(500, "value")
      const identity = writeTable(disk, `t${compression}`, { entries }, options)
      const table = new Table({ disk, path: `t${compression}`, identity, caches })
      const cursor = new BlockCursor()
      const values = entries.map(({ key }) => {
        table.find(key, hashOf(key), cursor)
        const { valueBytes, valueOffset, valueLength } = cursor
        return valueBytes.subarray(valueOffset, valueOffset + valueLength)
      })
      const run = new RunCursor([identity], { tableOf: () => table, reverse: false })
      for (run.seek(undefined); run.valid; run.advance());
      expect(values.map(toHex)).toEqual(entries.map(({ value }) => toHex(value)))
    }
  })

  test("a long scan leaves the block cache as it is; a short one may come again", () => {
    const disk = new SimulatedDisk()
    const caches = new Caches({ blockBytes: 1_000_000, keyBytes: 0, rowBytes: 0 })
    const options = { blockBytes: 256, bloomBitsPerKey: 10 }
    const identity = writeTable(disk, "t", { entries: entriesOf(3000, "value") }, options)
    const table = new Table({ disk, path: "t", identity, caches })
    for (const reverse of [false, true]) {
      const run = new RunCursor([identity], { tableOf: () => table, reverse })
      const before = caches.block.blockCount
      let count = 0
      for (run.seek(undefined); run.valid; run.advance()) count++
      expect(count).toBe(3000)
      // The index page, and the blocks with which it began.
      expect(caches.block.blockCount - before).toBeLessThanOrEqual(3)
      expect(table.blockCount).toBeGreaterThan(150)
    }
  })

  test("each can be switched off", () => {
    const disk = new SimulatedDisk()
    const caches = new Caches({ blockBytes: 0, keyBytes: 0, rowBytes: 0 })
    const entries = entriesOf(300, "value")
    const options = { blockBytes: 256, bloomBitsPerKey: 10 }
    const identity = writeTable(disk, "t", { entries }, options)
    const table = new Table({ disk, path: "t", identity, caches })
    const cursor = new BlockCursor()
    for (const { key } of entries) expect(table.find(key, hashOf(key), cursor)).toBe(true)
    expect(caches.block.sizeBytes).toBe(0)
    expect(caches.key.sizeBytes).toBe(0)
    expect(caches.row.isOff).toBe(true)
    caches.row.set(utf8("a"), 1, utf8("b"), 0, 1)
    caches.row.invalidate(utf8("a"))
    caches.row.clear()
    expect(caches.row.get(utf8("a"), 1)).toBeUndefined()
  })
})

describe("the key cache", () => {
  test("is right when it is used, and spares the search of the index", () => {
    const disk = new SimulatedDisk()
    const caches = new Caches({ blockBytes: 1_000_000, keyBytes: 100_000, rowBytes: 0 })
    const entries: Array<Entry> = Array.from({ length: 2000 }, (_, i) => {
      const key = utf8(`key:${String(i).padStart(6, "0")}`)
      return { key, value: key, sequence: i, kind: kinds.put }
    })
    const options = { blockBytes: 512, bloomBitsPerKey: 10 }
    const identity = writeTable(disk, "t", { entries }, options)
    const table = new Table({ disk, path: "t", identity, caches })
    const cursor = new BlockCursor()
    for (let pass = 0; pass < 2; pass++) {
      for (const { key } of entries) {
        expect(table.find(key, hashOf(key), cursor)).toBe(true)
        expect(compareBytes(cursor.keyBytes.subarray(0, cursor.keyLength), key)).toBe(0)
      }
    }
    expect(caches.key.hits).toBeGreaterThan(1700)
    expect(caches.key.hits + caches.key.misses).toBe(4000)
  })

  test("a hint that is wrong changes no answer", () => {
    const disk = new SimulatedDisk()
    const caches = new Caches({ blockBytes: 1_000_000, keyBytes: 100_000, rowBytes: 0 })
    const entries: Array<Entry> = Array.from({ length: 300 }, (_, i) => {
      const key = utf8(`key:${String(i).padStart(6, "0")}`)
      return { key, value: key, sequence: i, kind: kinds.put }
    })
    const options = { blockBytes: 512, bloomBitsPerKey: 0 }
    const identity = writeTable(disk, "t", { entries }, options)
    const table = new Table({ disk, path: "t", identity, caches })
    const cursor = new BlockCursor()
    for (let i = 0; i < 600; i++) {
      const key = utf8(`key:${String(Math.floor(i / 2)).padStart(6, "0")}${i % 2 === 0 ? "" : "x"}`)
      // The first table of these caches is number 1.
      caches.key.put(1, hashOf(key), (i * 7) % (table.blockCount + 3), i % 5)
      expect(table.find(key, hashOf(key), cursor)).toBe(i % 2 === 0)
      if (i % 2 === 0) expect(cursor.isAt(key)).toBe(true)
    }
    expect(caches.key.hits).toBeGreaterThan(0)
    expect(caches.key.misses).toBeGreaterThan(400)
  })

  test("keeps two hints that share a place, the one in use before the other", () => {
    const cache = new KeyCache(16)
    cache.put(1, 10, 100, 1)
    cache.put(1, 20, 200, 2)
    expect([cache.find(1, 10), cache.find(1, 20)]).toEqual([25_601, 51_202])
    expect(cache.find(1, 10)).toBe(25_601)
    cache.put(1, 30, 300, 3)
    // 20 was used longer ago.
    expect([cache.find(1, 10), cache.find(1, 20), cache.find(1, 30)]).toEqual([25_601, -1, 76_803])
    cache.put(1, 10, 101, 0)
    expect(cache.find(1, 10)).toBe(25_856)
    // What has no room in a hint is not hinted at.
    cache.put(2, 5, 2 ** 24, 0)
    cache.put(2, 5, 0, 256)
    expect(cache.find(2, 5)).toBe(-1)
  })

  test("tells tables apart", () => {
    const cache = new KeyCache(1 << 16)
    for (let owner = 1; owner <= 100; owner++) cache.put(owner, 77, owner, 0)
    for (let owner = 1; owner <= 100; owner++) {
      const found = cache.find(owner, 77)
      if (found >= 0) expect(found).toBe(owner * 256)
    }
  })
})

describe("the row cache", () => {
  test("gives the value put last, or nothing, never another one, in any order of calls", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const budget = prng.pick([256, 1000, 4096, 20_000])
      const cache = new RowCache(budget)
      const model = new Map<string, Uint8Array>()
      let hits = 0
      for (let i = 0; i < 8000; i++) {
        const key = randomKey(prng)
        const choice = prng.float()
        if (choice < 0.4) {
          const value = randomValue(prng)
          const padded = new Uint8Array([1, 2, ...value, 3])
          cache.set(key, hashOf(key), padded, 2, value.length)
          padded.fill(0)
          model.set(toHex(key), value)
        } else if (choice < 0.5) {
          cache.invalidate(key)
          model.delete(toHex(key))
        } else if (choice < 0.501) {
          cache.clear()
          model.clear()
        } else {
          const found = cache.get(key, hashOf(key))
          if (found === undefined) continue
          hits++
          expect(toHex(found)).toBe(toHex(model.get(toHex(key)) ?? utf8("forgotten")))
          // It is the caller's own.
          found.fill(0xee)
        }
        expect(cache.sizeBytes).toBeLessThanOrEqual(budget)
      }
      if (!cache.isOff && budget >= 1000) expect(hits).toBeGreaterThan(20)
      expect(cache.hits).toBe(hits)
    }
  })

  test("keeps what is read again and again while others pass", () => {
    const cache = new RowCache(64 * 1024)
    const value = new Uint8Array(100)
    const hot = utf8("hot")
    cache.set(hot, hashOf(hot), utf8("stays"), 0, 5)
    for (let i = 0; i < 20_000; i++) {
      const key = utf8(`cold:${i}`)
      cache.set(key, hashOf(key), value, 0, value.length)
      if (i % 50 === 0) expect(cache.get(hot, hashOf(hot))).toEqual(utf8("stays"))
    }
    const first = utf8("cold:0")
    expect(cache.get(first, hashOf(first))).toBeUndefined()
  })

  test("does not let one large value push out the rest", () => {
    const cache = new RowCache(8192)
    const key = utf8("a")
    cache.set(key, hashOf(key), utf8("small"), 0, 5)
    const large = utf8("large")
    cache.set(large, hashOf(large), new Uint8Array(4000), 0, 4000)
    expect(cache.get(large, hashOf(large))).toBeUndefined()
    expect(cache.get(key, hashOf(key))).toEqual(utf8("small"))
    // A value that became too large is gone, rather than the old one.
    cache.set(key, hashOf(key), new Uint8Array(4000), 0, 4000)
    expect(cache.get(key, hashOf(key))).toBeUndefined()
  })
})
