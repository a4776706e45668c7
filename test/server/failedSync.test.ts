import { afterAll, afterEach, describe, expect, mock, test } from "bun:test"
import * as nodeFs from "node:fs"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { DiskError } from "../../src/disk/disk.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { EmbeddedStore } from "../../src/server/EmbeddedStore.ts"
import { defaultSettings, type StoreSettings } from "../../src/server/settings.ts"
import { DrivenNode } from "./drivenNode.ts"
import { FailingDisk, kindOf } from "./failingDisk.ts"
import { keyOf } from "./localDriver.ts"
import { LoopNode, outcomeOf } from "./loopNode.ts"
import { type SyncFault, SyncFaults } from "./syncFaults.ts"

const settings: StoreSettings = {
  ...defaultSettings,
  tickMs: 5,
  voteSilenceMs: 10,
  leaseMs: 0,
  electionTicksMin: 4,
  electionTicksMax: 8,
  retentionBytes: 0,
  retentionMs: 0,
  retainedEntries: 0,
  journal: { segmentBytes: 8192, tailCacheBytes: 1024 },
  engine: { memtableBytes: 4096, blockBytes: 256, manifestBytes: 1024 },
  space: { reserveBytes: 4096, lowFreeBytes: 0 },
  journalScrub: { bytesPerSecond: 0, sliceBytes: 1024 },
}

const realFs = { ...nodeFs }
const faults = new SyncFaults()
mock.module("node:fs", () => ({ ...realFs, ...faults.calls(realFs as typeof nodeFs) }))
afterAll(() => void mock.module("node:fs", () => realFs))

const folders: Array<string> = []
afterEach(() => {
  faults.fault = undefined
  faults.failedPath = undefined
  faults.shortWrites = false
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true })
})

function temporary(): string {
  const path = mkdtempSync(join(tmpdir(), "kvorum-sync-"))
  folders.push(path)
  return path
}

/** Each kind of sync, by what stands in the path. */
const places: ReadonlyArray<SyncFault> = [
  { path: ".log.new", skip: 1 },
  { path: ".table", skip: 2 },
  { path: ".manifest", skip: 2 },
  { path: "CURRENT", skip: 1 },
  { path: "/journal", skip: 40 },
  { path: "/engine", skip: 12 },
  { path: "reserve", skip: 0 },
]

describe("pitfall 35: the store loop over a disk whose syncs fail", () => {
  /** Puts in batches until the disk fails a sync; returns what was acknowledged. */
  function live(disk: FailingDisk, acknowledged: Map<string, string>): void {
    const node = new LoopNode({ disk, settings })
    node.untilLeader()
    const prng = new Prng(5)
    const tokens = new Map<number, readonly [string, string]>()
    const hear = () => {
      for (const reply of node.replies.splice(0)) {
        const put = tokens.get(reply.token)
        if (put !== undefined && outcomeOf(reply) === "Mutated") acknowledged.set(...put)
      }
    }
    for (let i = 0; i < 150; i++) {
      for (let batch = 0; batch < 3; batch++) {
        const put = [`k${i}-${batch}`, `${i}`.padEnd(60, "v")] as const
        tokens.set(node.mutate(put[0], { put: put[1] }), put)
      }
      node.turn(5)
      hear()
      node.someWork(prng)
      hear()
    }
  }

  test("a failed sync stops the node, and all that was acknowledged survives any loss", () => {
    const calm = new FailingDisk()
    live(calm, new Map())
    const byKind = Map.groupBy(calm.synced.keys(), (n) => kindOf(calm.synced[n] as string))
    expect([...byKind.keys()].sort()).toEqual(
      ["current", "folder", "journal", "manifest", "reserve", "segment", "table"].sort(),
    )
    for (const numbers of byKind.values()) {
      const stride = Math.max(1, Math.floor(numbers.length / 12))
      for (let i = 0; i < numbers.length; i += stride) {
        const disk = new FailingDisk()
        disk.failAt = numbers[i] as number
        const acknowledged = new Map<string, string>()
        let stopped: unknown
        try {
          live(disk, acknowledged)
        } catch (error) {
          stopped = error
        }
        const name = `sync ${numbers[i]} (${calm.synced[numbers[i] as number]})`
        expect(stopped, name).toBeInstanceOf(DiskError)
        expect((stopped as DiskError).reason, name).toBe("io")
        expect(disk.synced.length, `syncs after the failed one: ${name}`).toBe(disk.failAt + 1)
        for (const ending of ["lose", "keep", "some"] as const) {
          const copy = disk.clone()
          if (ending === "lose") copy.loseAllUnsynced()
          else if (ending === "keep") copy.keepAll()
          else copy.crash(new Prng(i))
          const again = new LoopNode({ disk: copy, settings, nowMs: 10_000 })
          again.untilLeader()
          for (const [key, value] of acknowledged) {
            const reply = again.answer(again.read(key))
            if (reply._tag !== "Value")
              throw new Error(`${key} after ${name}, ${ending}: ${JSON.stringify(reply)}`)
            const found = reply.value && text(reply.value)
            expect(found, `${key} after ${name}, ${ending}`).toBe(value)
          }
        }
      }
    }
  }, 60_000)
})

describe("the driver of a node over real files", () => {
  const batch: SyncFault = { path: ".log", skip: 30 }
  test.each([...places, batch])(
    "stops at a sync that fails once: %p",
    async (fault) => {
      const root = temporary()
      let later: Array<string> = []
      faults.onLaterSync = (path) => void later.push(path)
      if (fault.path === "reserve") faults.arm(fault)
      const node = new DrivenNode(root, settings)
      await node.ready()
      if (fault.path !== "reserve") faults.arm(fault)
      let puts = 0
      while (node.failures.length === 0 && puts < 4000) {
        for (let i = 0; i < 8; i++) node.put(`k${++puts}`, `${puts}`.padEnd(80, "v"))
        await Bun.sleep(1)
      }
      const { answers } = node
      expect(node.failures).toHaveLength(1)
      expect(node.failures[0]).toBeInstanceOf(DiskError)
      expect(node.failures[0]).toMatchObject({ reason: "io" })
      // A batch of the journal may be under way while a job's sync fails, and the other way round.
      later = later.filter((path) => path === faults.failedPath)
      await Bun.sleep(60)
      expect(later).toEqual([])
      expect(node.answers, "answers after the failure").toBe(answers)
      node.close()
      await Bun.sleep(10)
      const again = new DrivenNode(root, settings)
      await again.ready()
      for (const [key, value] of node.acknowledged) expect(await again.get(key)).toBe(value)
      again.close()
    },
    20_000,
  )

  test("a write that takes a part of the bytes is gone on with", async () => {
    const root = temporary()
    faults.shortWrites = true
    const node = new DrivenNode(root, settings)
    await node.ready()
    let puts = 0
    while (node.answers < 300 && node.failures.length === 0) {
      for (let i = 0; i < 8; i++) node.put(`k${++puts}`, `${puts}`.padEnd(80, "v"))
      while (node.answers < puts && node.failures.length === 0) await Bun.sleep(1)
    }
    expect(node.failures).toEqual([])
    expect(node.acknowledged.size).toBe(puts)
    node.close()
    const again = new DrivenNode(root, settings)
    await again.ready()
    for (const [key, value] of node.acknowledged) expect(await again.get(key)).toBe(value)
    again.close()
  })

  test("no member of a batch whose sync failed is acknowledged, and no later one", async () => {
    const node = new DrivenNode(temporary(), settings)
    await node.ready()
    for (let i = 0; i < 8; i++) node.put(`before${i}`, "1")
    while (node.answers < 8) await Bun.sleep(1)
    let later = 0
    faults.onLaterSync = () => void later++
    faults.arm({ path: ".log", skip: 0 })
    for (let i = 0; i < 50; i++) node.put(`k${i}`, "2")
    await Bun.sleep(1)
    for (let i = 50; i < 80; i++) node.put(`k${i}`, "2")
    await Bun.sleep(100)
    expect(node.failures).toHaveLength(1)
    expect(node.acknowledged.size).toBe(8)
    expect(later).toBe(0)
    node.close()
  })
})

describe("the embedded store", () => {
  const small = {
    journal: { segmentBytes: 16 * 1024, tailCacheBytes: 0 },
    engine: { memtableBytes: 8192, blockBytes: 256, manifestBytes: 1024 },
    space: { reserveBytes: 4096, lowFreeBytes: 0 },
  }

  function batchOf(key: string, value: string): WriteBatch {
    const made = new WriteBatch()
    made.put(keyOf(key), utf8(value))
    return made
  }

  const acknowledge = (store: EmbeddedStore, key: string, acknowledged: Set<string>) =>
    store.writeDurable(batchOf(key, key.padEnd(80, "v"))).then(() => void acknowledged.add(key))

  async function expectAll(root: string, acknowledged: ReadonlySet<string>): Promise<void> {
    const store = EmbeddedStore.open({ root, settings: small })
    for (const key of acknowledged) {
      const value = store.get(keyOf(key))
      expect(value && text(value)).toBe(key.padEnd(80, "v"))
    }
    await store.close()
  }

  test("writes that share a failed sync are all refused, and so is everything after", async () => {
    const root = temporary()
    const store = EmbeddedStore.open({ root, settings: small })
    const acknowledged = new Set<string>()
    for (let i = 0; i < 20; i++) await acknowledge(store, `a${i}`, acknowledged)
    let later = 0
    faults.onLaterSync = () => void later++
    faults.arm({ path: ".log", skip: 0 })
    const ends = await Promise.allSettled(
      Array.from({ length: 10 }, (_, i) => acknowledge(store, `b${i}`, acknowledged)),
    )
    for (const end of ends) {
      expect(end).toMatchObject({ status: "rejected", reason: { name: "DiskError", reason: "io" } })
    }
    expect(() => store.write(batchOf("c", "c"))).toThrow("io")
    expect(() => store.writeSync(batchOf("c", "c"))).toThrow("io")
    await expect(store.writeDurable(batchOf("c", "c"))).rejects.toThrow("io")
    await expect(store.close()).rejects.toThrow("io")
    expect(later).toBe(0)
    expect(acknowledged.size).toBe(20)
    await expectAll(root, acknowledged)
  })

  test("a write that takes a part of the bytes is gone on with", async () => {
    const root = temporary()
    faults.shortWrites = true
    const store = EmbeddedStore.open({ root, settings: small })
    const acknowledged = new Set<string>()
    for (let i = 0; i < 200; i++) await acknowledge(store, `a${i}`, acknowledged)
    await store.close()
    expect(acknowledged.size).toBe(200)
    await expectAll(root, acknowledged)
  })

  test("a sync that failed in the background is not hidden by one in the caller's thread", async () => {
    const root = temporary()
    const store = EmbeddedStore.open({ root, settings: small })
    for (let i = 0; i < 5; i++) store.writeSync(batchOf(`a${i}`, "a"))
    faults.onLaterSync = () => {}
    faults.arm({ path: ".log", skip: 0 })
    const shared = store.writeDurable(batchOf("b", "b"))
    shared.catch(() => {})
    // The kernel has told the sync in the background; its callback has not run.
    while (faults.failedPath === undefined) await new Promise((resolve) => setImmediate(resolve))
    expect(() => store.writeSync(batchOf("c", "c"))).toThrow("io")
    await expect(shared).rejects.toThrow("io")
    await expect(store.close()).rejects.toThrow("io")
  })

  test("a synchronous write whose sync failed throws, and is not tried again", async () => {
    const root = temporary()
    const store = EmbeddedStore.open({ root, settings: small })
    const acknowledged = new Set<string>()
    for (let i = 0; i < 20; i++) {
      store.writeSync(batchOf(`a${i}`, `a${i}`.padEnd(80, "v")))
      acknowledged.add(`a${i}`)
    }
    let later = 0
    faults.onLaterSync = () => void later++
    faults.arm({ path: ".log", skip: 0 })
    expect(() => store.writeSync(batchOf("b", "b"))).toThrow("io")
    expect(() => store.writeSync(batchOf("b", "b"))).toThrow("io")
    await expect(store.close()).rejects.toThrow("io")
    expect(later).toBe(0)
    await expectAll(root, acknowledged)
  })

  /** A store whose worker threads meet the fault. */
  function openFailing(root: string, fault: SyncFault, log: string): EmbeddedStore {
    const Plain = globalThis.Worker
    const preload = [join(import.meta.dir, "failingWorker.ts")]
    process.env.KVORUM_SYNC_FAULT = JSON.stringify({ fault, log })
    globalThis.Worker = class extends Plain {
      constructor(url: string | URL, options?: object) {
        super(url, { ...options, preload } as never)
      }
    } as typeof Worker
    try {
      return EmbeddedStore.open({ root, settings: small })
    } finally {
      globalThis.Worker = Plain
    }
  }

  test.each(places.map((place) => ({ ...place, skip: Math.min(place.skip, 3) })))(
    "stops at a sync that fails once in a worker thread: %p",
    async (fault) => {
      const folder = temporary()
      const root = join(folder, "data")
      const log = join(folder, "later")
      mkdirSync(root)
      const store = openFailing(root, fault, log)
      const acknowledged = new Set<string>()
      let failure: unknown
      const endMs = performance.now() + 8000
      for (let i = 0; failure === undefined && performance.now() < endMs; i++) {
        await acknowledge(store, `a${i}`, acknowledged).catch((error) => {
          if (error._tag !== "Overloaded") failure = error
        })
        // Whatever is heard of a worker is heard in another round of the event loop.
        await new Promise<void>((resolve) => setImmediate(resolve))
      }
      expect(failure).toMatchObject({ name: "DiskError", reason: "io" })
      expect(() => store.write(batchOf("c", "c"))).toThrow("io")
      await expect(store.close()).rejects.toThrow("io")
      const later = existsSync(log) ? readFileSync(log, "utf8").split("\n") : []
      expect(later.filter((path) => path.includes(fault.path))).toEqual([])
      await expectAll(root, acknowledged)
    },
    20_000,
  )
})
