import { afterEach, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { EmbeddedStore } from "../../src/server/EmbeddedStore.ts"
import type { LocalSettings } from "../../src/server/localStorage.ts"
import { keyOf } from "./localDriver.ts"

const small: Partial<LocalSettings> = {
  journal: { segmentBytes: 256 * 1024, tailCacheBytes: 0 },
  engine: { memtableBytes: 128 * 1024 },
  space: { reserveBytes: 0, lowFreeBytes: 0 },
}

const cleanups: Array<() => unknown> = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function folder(): string {
  const root = mkdtempSync(join(tmpdir(), "kvorum-embedded-"))
  cleanups.push(() => rmSync(root, { recursive: true, force: true }))
  return root
}

function open(root: string, settings = small): EmbeddedStore {
  const store = EmbeddedStore.open({ root, settings })
  cleanups.push(() => store.close().catch(() => {}))
  return store
}

function put(name: string, value: Uint8Array): WriteBatch {
  const batch = new WriteBatch()
  batch.put(keyOf(name), value)
  return batch
}

/** Puts `count` values over 500 keys, and says what they come to. */
async function fill(store: EmbeddedStore, count: number): Promise<Map<string, Uint8Array>> {
  const prng = new Prng(count)
  const expected = new Map<string, Uint8Array>()
  for (let i = 0; i < count; i++) {
    const name = `key${prng.int(0, 499)}`
    const value = Uint8Array.from({ length: 100 }, () => prng.int(0, 255))
    expected.set(name, value)
    if (!store.write(put(name, value))) await store.room()
  }
  return expected
}

function expectAll(store: EmbeddedStore, expected: ReadonlyMap<string, Uint8Array>): void {
  for (const [name, value] of expected) expect(store.get(keyOf(name))).toEqual(value)
}

describe("the engine on its own", () => {
  test("what was written is there after a close, and the journal gives its segments back", async () => {
    const root = folder()
    const store = open(root)
    const expected = await fill(store, 20_000)
    expectAll(store, expected)
    await store.compacted()
    expectAll(store, expected)
    const endMs = performance.now() + 5000
    while (store.stats().journal.segments > 2 && performance.now() < endMs) await Bun.sleep(10)
    expect(store.stats().journal.segments).toBeLessThanOrEqual(2)
    await store.close()
    expectAll(open(root), expected)
  }, 30_000)

  test("a second store in the directory is refused, and closing lets go of it", async () => {
    const root = folder()
    const store = open(root)
    expect(() => EmbeddedStore.open({ root, settings: small })).toThrow("in use")
    await store.close()
    await open(root).close()
    expect(() => store.write(put("a", new Uint8Array(1)))).toThrow("closed")
  })

  test("many writers share one sync", async () => {
    const store = open(folder())
    // Those that one sync has made durable go on together, before anything else happens.
    let syncs = 0
    let isCounted = false
    const goesOn = () => {
      if (isCounted) return
      isCounted = true
      syncs++
      setImmediate(() => {
        isCounted = false
      })
    }
    const writers = Array.from({ length: 64 }, async (_, writer) => {
      for (let i = 0; i < 20; i++) {
        await store.writeDurable(put(`many${writer}-${i}`, new Uint8Array(100)))
        goesOn()
      }
    })
    await Promise.all(writers)
    expect(store.stats().journal.unsyncedBytes).toBe(0)
    expect(syncs).toBeGreaterThanOrEqual(20)
    expect(syncs).toBeLessThan((64 * 20) / 8)
  }, 30_000)

  test("a checkpoint is a store of its own, as of its call", async () => {
    const root = folder()
    const store = open(root)
    const expected = await fill(store, 5000)
    await store.checkpoint("backup")
    await store.writeDurable(put("key1", new Uint8Array(1)))
    const copy = open(join(root, "backup"))
    expectAll(copy, expected)
    await copy.writeDurable(put("key2", new Uint8Array(2)))
    expect(copy.get(keyOf("key2"))).toEqual(new Uint8Array(2))
    expect(store.get(keyOf("key1"))).toEqual(new Uint8Array(1))
  }, 30_000)

  test("a checkpoint under writes, and a second one into the same folder, leave the store alive", async () => {
    const root = folder()
    const store = open(root)
    const expected = await fill(store, 1000)
    let isOver = false
    const writer = (async () => {
      const value = crypto.getRandomValues(new Uint8Array(500))
      for (let i = 0; !isOver; i++)
        if (!store.write(put(`more${i % 1000}`, value))) await store.room()
    })()
    for (let i = 0; i < 3; i++) await store.checkpoint(`backup${i}`)
    isOver = true
    await writer
    expect(store.checkpoint("backup0")).rejects.toThrow("exists")
    expectAll(store, expected)
    expectAll(open(join(root, "backup2")), expected)
    await store.compacted()
  }, 30_000)

  test("the first write after an open needs no wait, wherever the journal's segment ended", async () => {
    const root = folder()
    const settings = { ...small, engine: { memtableBytes: 4 * 1024 * 1024 } }
    for (let i = 0; i < 24; i++) {
      const store = open(root, settings)
      for (let j = 0; j < 3; j++) store.write(put(`k${i}-${j}`, new Uint8Array(15_000)))
      await store.close()
    }
    const store = open(root, settings)
    expect(store.get(keyOf("k23-2"))).toEqual(new Uint8Array(15_000))
  }, 30_000)

  test("whoever waits for jobs or room is told when the store is closed", async () => {
    const store = open(folder())
    await fill(store, 5000)
    const waits = [store.compacted(), store.checkpoint("backup"), store.room(2 ** 20)]
    const settled = Promise.allSettled(waits)
    await store.close()
    for (const { status } of await settled) expect(status).toBe("rejected")
    expect(store.compacted()).rejects.toThrow("closed")
  }, 10_000)

  test("a batch outside the declared trees is refused before it is logged", async () => {
    const root = folder()
    const tree = keyOf("")[0] ?? 0
    const engine = {
      ...small.engine,
      memtableBytes: 128 * 1024,
      trees: [{ id: tree, name: "keys" }],
    }
    const settings = { ...small, engine }
    const store = open(root, settings)
    const batch = put("inside", new Uint8Array(10))
    batch.put(Uint8Array.of(tree + 1, 1), new Uint8Array(1))
    expect(() => store.writeSync(batch)).toThrow("not declared")
    const ranges = new WriteBatch()
    ranges.deleteRange(Uint8Array.of(tree), Uint8Array.of(tree + 2))
    expect(() => store.writeSync(ranges)).toThrow("one declared tree")
    expect(store.get(keyOf("inside"))).toBeUndefined()
    store.writeSync(put("later", new Uint8Array(3)))
    await store.close()
    expect(open(root, settings).get(keyOf("later"))).toEqual(new Uint8Array(3))
  })

  test("a batch that deletes a range, iterators and snapshots see one state", async () => {
    const store = open(folder())
    const expected = await fill(store, 3000)
    const snapshot = store.snapshot()
    const batch = new WriteBatch()
    batch.deleteRange(keyOf("key1"), keyOf("key3"))
    await store.writeDurable(batch)
    await store.compacted()
    for (const [name, value] of expected) {
      const isGone = name >= "key1" && name < "key3"
      expect(store.get(keyOf(name))).toEqual((isGone ? undefined : value) as Uint8Array)
      expect(store.get(keyOf(name), snapshot)).toEqual(value)
    }
    snapshot.release()
    const iterator = store.iterator({ lower: keyOf(""), upper: keyOf("~") })
    let count = 0
    while (iterator.next()) count++
    iterator.close()
    const left = [...expected.keys()].filter((name) => !(name >= "key1" && name < "key3"))
    expect(count).toBe(left.length)
  }, 30_000)

  test("a caller that never waits is refused in the end, and goes on after waiting", async () => {
    const store = open(folder())
    const value = crypto.getRandomValues(new Uint8Array(1000))
    const flood = () => {
      for (let i = 0; i < 100_000; i++) store.write(put(`k${i}`, value))
    }
    expect(flood).toThrow("full")
    await store.room()
    for (let i = 0; i < 2000; i++) {
      if (!store.write(put(`after${i}`, value))) await store.room()
    }
    expect(store.get(keyOf("after1999"))).toEqual(value)
  }, 30_000)
})
