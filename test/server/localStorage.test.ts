import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { attemptStoreJob } from "../../src/server/storeJobs.ts"
import { SimulatedCrash, SimulatedDisk } from "../sim/simulatedDisk.ts"
import { keyOf, LocalDriver, numbered, tinySettings } from "./localDriver.ts"

/** What a prefix of numbered batches comes to. */
class Model {
  private readonly states: Array<ReadonlyMap<string, number>> = [new Map()]

  get count(): number {
    return this.states.length - 1
  }

  state(count: number): ReadonlyMap<string, number> {
    return this.states[count] as ReadonlyMap<string, number>
  }

  add(batch: WriteBatch, number: number): void {
    const next = new Map(this.state(this.count))
    const name = (key: Uint8Array) => new TextDecoder().decode(key.slice(1))
    WriteBatch.visit(batch.bytes(), {
      put: (key) => void next.set(name(key), number),
      delete: (key) => void next.delete(name(key)),
      deleteRange: () => {},
    })
    this.states.push(next)
  }

  forgetAfter(count: number): void {
    this.states.length = count + 1
  }
}

const names = ["last", ...Array.from({ length: 21 }, (_, i) => `k${i}`)]

function expectState(node: LocalDriver, state: ReadonlyMap<string, number>): void {
  for (const name of names) expect(`${name} ${node.get(name)}`).toBe(`${name} ${state.get(name)}`)
}

/** One life after another, each ended by a power loss or a kill; after each the store is a prefix that holds all that was synced. */
function live(seed: number): { losses: number; replays: number } {
  const prng = new Prng(seed)
  const disk = new SimulatedDisk()
  const model = new Model()
  const counts = { losses: 0, replays: 0 }
  for (let life = 0; life < 6; life++) {
    let node: LocalDriver
    try {
      if (prng.chance(0.3)) disk.crashAfter(disk.operations + prng.int(1, 40))
      node = new LocalDriver(disk)
      disk.crashAfter(undefined)
    } catch (error) {
      if (!(error instanceof SimulatedCrash)) throw error
      disk.crash(prng)
      node = new LocalDriver(disk)
    }
    const survived = node.get("last") ?? 0
    expect(survived).toBeLessThanOrEqual(model.count)
    if (survived < model.count) counts.losses++
    if (node.storage.appliedIndex > 0) counts.replays++
    model.forgetAfter(survived)
    expectState(node, model.state(survived))
    let synced = survived
    if (prng.chance(0.7)) disk.crashAfter(disk.operations + prng.int(1, 600))
    try {
      for (let i = 0; i < 150; i++) {
        const number = model.count + 1
        const batch = numbered(prng, number)
        // It may survive the crash that strikes in the middle of its write.
        model.add(batch, number)
        if (!node.write(batch)) model.forgetAfter(number - 1)
        if (prng.chance(0.05)) {
          const upTo = model.count
          node.sync()
          synced = upTo
        }
        if (prng.chance(0.4)) node.pump()
        if (prng.chance(0.3)) node.runJob("engine")
        if (prng.chance(0.3)) node.runJob("journal")
        if (prng.chance(0.02)) node.loseJob("engine")
      }
      disk.crashAfter(undefined)
    } catch (error) {
      if (!(error instanceof SimulatedCrash)) throw error
    }
    if (prng.chance(0.3)) {
      disk.kill()
    } else {
      const before = model.count
      disk.crash(prng)
      const after = new LocalDriver(disk.clone()).get("last") ?? 0
      expect(after).toBeGreaterThanOrEqual(synced)
      expect(after).toBeLessThanOrEqual(before)
    }
  }
  return counts
}

describe("journal and engine as one store", () => {
  test("after every crash it is a prefix of the batches, with all that was synced", () => {
    let losses = 0
    let replays = 0
    for (let seed = 0; seed < 60; seed++) {
      const counts = live(seed)
      losses += counts.losses
      replays += counts.replays
    }
    expect(losses).toBeGreaterThan(20)
    expect(replays).toBeGreaterThan(60)
  }, 60_000)

  test("a log that lost what a flush made durable begins anew after it, and loses nothing again", () => {
    const disk = new SimulatedDisk()
    const prng = new Prng(9)
    const journal = { segmentBytes: 64 * 1024, tailCacheBytes: 0 }
    const settings = { ...tinySettings, journal, engine: { memtableBytes: 16 * 1024 } }
    let number = 0
    for (let life = 0; life < 5; life++) {
      const node = new LocalDriver(disk, settings)
      expect(node.get("last") ?? 0).toBe(number)
      // Flushed, but never synced in the journal.
      for (let i = 0; i < 6; i++) expect(node.write(numbered(prng, ++number))).toBe(true)
      expect(node.storage.seal()).toBe(true)
      for (let i = 0; i < 10; i++) {
        node.nowMs += 50
        for (const job of node.storage.takeJobs(node.nowMs, node.nowMs)) {
          node.storage.jobDone(job, attemptStoreJob(disk, job))
        }
      }
      expect(node.storage.engine.memtablesEmpty).toBe(true)
      disk.loseAllUnsynced()
      // Synced, but never flushed.
      const next = new LocalDriver(disk, settings)
      expect(next.get("last")).toBe(number)
      for (let i = 0; i < 3; i++) expect(next.write(numbered(prng, ++number))).toBe(true)
      next.sync()
      disk.loseAllUnsynced()
    }
  })

  test("segments whose batches are flushed are given back", () => {
    const node = new LocalDriver(new SimulatedDisk())
    const prng = new Prng(3)
    for (let i = 1; i <= 400; i++) {
      while (!node.write(numbered(prng, i))) node.settle()
      node.settle()
    }
    expect(node.disk.list("journal").length).toBeLessThan(8)
    expect(node.storage.engine.flushedThrough).toBeGreaterThan(5)
  })

  test("it is quiet only once the tables that were replaced are gone from its folder", () => {
    const node = new LocalDriver(new SimulatedDisk())
    const prng = new Prng(7)
    let quiet = 0
    let replaced = 0
    for (let i = 1; i <= 400; i++) {
      while (!node.write(numbered(prng, i))) node.settle()
      node.storage.seal()
      for (let ran = true; ran; ) {
        node.pump()
        const tables = node.disk.list("engine").filter((name) => name.endsWith(".table"))
        const live = node.storage.engine.stats().tablesPerLevel.reduce((sum, n) => sum + n, 0)
        if (tables.length > live) replaced++
        if (node.storage.isQuiet) {
          quiet++
          expect(tables.length).toBe(live)
        }
        ran = node.runJob("engine") || node.runJob("journal")
        node.sync()
      }
    }
    expect(quiet).toBeGreaterThan(50)
    expect(replaced).toBeGreaterThan(50)
  })

  test("a full disk refuses nothing that frees space, and all goes on when there is space again", () => {
    const disk = new SimulatedDisk({ capacityBytes: 64 * 1024 })
    const settings = { ...tinySettings, space: { reserveBytes: 8192, lowFreeBytes: 2048 } }
    const node = new LocalDriver(disk, settings)
    const prng = new Prng(5)
    let written = 0
    const put = (number: number) => {
      const batch = new WriteBatch()
      // Nothing that compresses away.
      const value = Uint8Array.from({ length: 200 }, () => prng.int(0, 255))
      value[0] = number
      value[1] = number >>> 8
      batch.put(keyOf(`w${number}`), value)
      return batch
    }
    for (let i = 0; i < 2000 && !node.storage.isFull; i++) {
      if (node.write(put(written + 1))) written++
      if (prng.chance(0.5)) node.settle()
    }
    expect(node.storage.isFull).toBe(true)
    expect(written).toBeGreaterThan(50)
    node.settle()
    expect(disk.exists("reserve")).toBe(false)
    for (let i = 1; i <= written; i++) expect(node.get(`w${i}`)).toBe(i)
    // Deletes are taken, and compaction with the reserve frees what they deleted.
    let deleted = 0
    for (let i = 1; i <= written / 2; i++) {
      const batch = new WriteBatch()
      batch.delete(keyOf(`w${i}`))
      expect(node.storage.takesNot(batch)).toBe(false)
      if (!node.write(batch)) break
      deleted++
      if (i % 10 === 0) node.settle()
    }
    expect(deleted).toBeGreaterThan(10)
    expect(node.storage.takesNot(put(1))).toBe(true)
    disk.capacityBytes *= 4
    const fromMs = node.nowMs
    while (node.storage.isFull && node.nowMs < fromMs + 5000) {
      node.pump()
      node.runJob("engine")
    }
    expect(node.storage.isFull).toBe(false)
    node.settle()
    expect(node.write(put(++written))).toBe(true)
    disk.crash(prng)
    const again = new LocalDriver(disk, settings)
    for (let i = deleted + 1; i < written; i++) expect(again.get(`w${i}`)).toBe(i)
  })
})
