import { describe, expect, test } from "bun:test"
import { compareBytes, startsWith, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import type { EngineIterator, EngineOptions, EngineSnapshot } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { removeFiles } from "../../src/lsm/maintenance/jobs.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  carryOut,
  contentOf,
  digest,
  flushAll,
  freshSeed,
  Model,
  type Pairs,
  randomKey,
  randomValue,
  sealWhenPossible,
  settle,
  step,
  writeSpill,
} from "./harness.ts"

interface Held {
  readonly snapshot: EngineSnapshot
  readonly model: Model
}

/** An iterator and, as in a list of pairs, where it should stand: -1 and the length are outside. */
interface Walk {
  readonly iterator: EngineIterator
  readonly pairs: Pairs
  readonly reverse: boolean
  /** `undefined`: nowhere yet. */
  at: number | undefined
}

/** Random operations against a map, everything checked as it goes. */
class Comparison {
  readonly prng: Prng
  readonly disk = new SimulatedDisk()
  readonly options: EngineOptions
  engine: Engine
  model = new Model()
  /** The model as of each seal, by generation, and the last one flushed. */
  snapshots: Array<Held> = []
  walks: Array<Walk> = []
  mostRuns = 0

  constructor(seed: number) {
    this.prng = new Prng(seed)
    const { prng } = this
    const compression = () => prng.pick(["none", "snappy", "lz4", "zstd"] as const)
    const maxLevel0Runs = prng.int(1, 8)
    this.options = {
      memtableBytes: prng.pick([300, 1024, 4096]),
      maxSealedMemtables: prng.int(1, 3),
      maxLevel0Runs,
      level0Trigger: prng.int(1, Math.min(4, maxLevel0Runs)),
      baseBytes: prng.pick([1000, 4000, 20_000]),
      levelRatioMax: prng.pick([2, 4, 8]),
      blockBytes: prng.pick([1, 64, 300, 4096]),
      indexPageBytes: prng.pick([1, 200, 65_536]),
      tableBytes: prng.pick([200, 512, 5000]),
      compactionBytes: prng.pick([1, 2000, 20_000]),
      tombstoneAgeSeconds: prng.pick([0, 86_400]),
      blockCacheBytes: prng.pick([0, 2000, 1 << 20]),
      keyCacheBytes: prng.pick([0, 1000, 1 << 16]),
      rowCacheBytes: prng.pick([0, 4000, 1 << 20]),
      bloomBitsPerKey: prng.pick([0, 1, 10]),
      compression: { level0: compression(), middle: compression(), bottom: compression() },
      manifestBytes: prng.pick([1, 4096, 1 << 20]),
    }
    this.engine = Engine.open(this.disk, "engine", this.options)
  }

  run(operations: number): void {
    for (let i = 0; i < operations; i++) {
      this.operate()
      const { runs } = this.engine.stats()
      expect(runs).toBeLessThanOrEqual(1 + 3 + 8 + 6)
      this.mostRuns = Math.max(this.mostRuns, runs)
    }
    this.closeReaders()
    settle(this.engine, this.disk)
    this.check()
    this.engine.verify()
  }

  private operate(): void {
    const { prng } = this
    const draw = prng.int(0, 999)
    if (draw < 500) this.write()
    else if (draw < 530) this.writeBatch()
    else if (draw < 560) this.deleteRange()
    else if (draw < 700) this.read()
    else if (draw < 760) this.scan()
    else if (draw < 800) this.openReader()
    else if (draw < 880) this.useReader()
    else if (draw < 910) this.closeReader()
    else if (draw < 930) sealWhenPossible(this.engine, this.disk)
    else if (draw < 980) step(this.engine, this.disk)
    else if (draw < 984) settle(this.engine, this.disk)
    else if (draw < 994) this.replace()
    else if (draw < 998) this.reopen()
    else this.check()
  }

  private write(): void {
    const { prng, engine } = this
    const key = randomKey(prng)
    const value = randomValue(prng)
    while (!engine.canWrite(key.length + value.length)) step(engine, this.disk)
    if (engine.needsSeal(key.length + value.length)) engine.seal()
    if (prng.chance(0.3)) {
      engine.delete(key)
      this.model.delete(key)
    } else {
      const cut = prng.int(0, value.length)
      engine.putParts(key, value.subarray(0, cut), value.subarray(cut))
      this.model.put(key, value)
      // The engine keeps no reference to what it was given.
      key.fill(0x55)
      const kept = value.slice()
      this.replaceLast(value, kept)
    }
  }

  private makeRoom(bytes: number): void {
    while (!this.engine.canWrite(bytes)) step(this.engine, this.disk)
    if (this.engine.needsSeal(bytes)) this.engine.seal()
  }

  /** Two keys in order, often near each other, now and then the same. */
  private range(): [Uint8Array, Uint8Array] {
    const { prng } = this
    const lower = prng.chance(0.05) ? new Uint8Array(0) : randomKey(prng)
    const upper = prng.chance(0.3) ? new Uint8Array([...lower, prng.int(0, 255)]) : randomKey(prng)
    return compareBytes(lower, upper) <= 0 ? [lower, upper] : [upper, lower]
  }

  private deleteRange(): void {
    const [lower, upper] = this.range()
    this.makeRoom(lower.length + upper.length)
    this.engine.deleteRange(lower, upper)
    this.model.deleteRange(lower, upper)
    lower.fill(0x55)
    upper.fill(0x55)
  }

  private writeBatch(): void {
    const { prng, model } = this
    const batch = new WriteBatch(prng.int(0, 100))
    for (let i = prng.int(0, 12); i > 0; i--) {
      const key = randomKey(prng)
      const draw = prng.int(0, 9)
      if (draw === 0) {
        const [lower, upper] = this.range()
        batch.deleteRange(lower, upper)
        model.deleteRange(lower, upper)
      } else if (draw < 3) {
        batch.delete(key)
        model.delete(key)
      } else {
        const value = randomValue(prng)
        batch.put(key, value)
        model.put(key, value)
      }
    }
    this.makeRoom(batch.sizeBytes)
    this.engine.write(prng.chance(0.5) ? batch : WriteBatch.decode(batch.bytes()))
    batch.bytes().fill(0x55)
  }

  /** Ruins the array that was handed in; the model keeps a copy. */
  private replaceLast(given: Uint8Array, copy: Uint8Array): void {
    for (const [hex, value] of this.model.pairs) {
      if (value === given) this.model.pairs.set(hex, copy)
    }
    given.fill(0xaa)
  }

  private read(): void {
    const key = randomKey(this.prng)
    expectValue(this.engine.get(key), this.model.get(key), key)
    if (this.snapshots.length === 0) return
    const { snapshot, model } = this.prng.pick(this.snapshots)
    expectValue(this.engine.get(key, snapshot), model.get(key), key)
  }

  private bounds(): { lower: Uint8Array; upper: Uint8Array | undefined } {
    const { prng } = this
    let lower = prng.chance(0.3) ? new Uint8Array(0) : randomKey(prng)
    let upper = prng.chance(0.3) ? undefined : randomKey(prng)
    if (upper !== undefined && compareBytes(lower, upper) > 0) [lower, upper] = [upper, lower]
    return { lower, upper }
  }

  /** Pairs of the bounds and perhaps a prefix, with the options that ask for them. */
  private selection(model: Model) {
    const { prng } = this
    const { lower, upper } = this.bounds()
    const key = randomKey(prng)
    const prefix = prng.chance(0.3) ? key.subarray(0, prng.int(0, key.length)) : undefined
    const within = model.between(lower, upper)
    const pairs = prefix ? within.filter(([other]) => startsWith(other, prefix)) : within
    return { lower, upper, prefix, pairs }
  }

  private scan(): void {
    const reverse = this.prng.chance(0.5)
    const held = this.prng.chance(0.5) ? this.snapshots.at(0) : undefined
    const { pairs, ...bounds } = this.selection(held?.model ?? this.model)
    if (reverse) pairs.reverse()
    const snapshot = held === undefined ? {} : { snapshot: held.snapshot }
    const actual = contentOf(this.engine, { ...bounds, reverse, ...snapshot })
    expect(digest(actual)).toBe(digest(pairs))
  }

  private openReader(): void {
    const { prng } = this
    if (prng.chance(0.5)) {
      this.snapshots.push({ snapshot: this.engine.snapshot(), model: this.model.clone() })
      return
    }
    const reverse = prng.chance(0.3)
    const { pairs, ...bounds } = this.selection(this.model)
    const iterator = this.engine.iterator({ ...bounds, reverse })
    this.walks.push({ iterator, pairs, reverse, at: undefined })
  }

  private useReader(): void {
    if (this.walks.length === 0) return
    const walk = this.prng.pick(this.walks)
    for (let i = this.prng.int(1, 12); i > 0; i--) this.move(walk)
  }

  /** One move of an iterator and of its place in the list of pairs. */
  private move(walk: Walk): void {
    const { prng } = this
    const { iterator, pairs, reverse } = walk
    const draw = prng.int(0, 99)
    let found: boolean
    if (draw < 80) {
      const isUp = draw < 50 !== reverse
      found = draw < 50 ? iterator.next() : iterator.previous()
      const start = isUp ? -1 : pairs.length
      const next = (walk.at ?? start) + (isUp ? 1 : -1)
      walk.at = Math.max(-1, Math.min(pairs.length, next))
    } else if (draw < 96) {
      const near = prng.chance(0.5) && pairs.length > 0 ? prng.pick(pairs)[0] : randomKey(prng)
      const key = prng.chance(0.1) ? new Uint8Array(0) : near.slice()
      const before = pairs.filter(([other]) => compareBytes(other, key) < 0).length
      found = draw < 88 ? iterator.seek(key) : iterator.seekBefore(key)
      walk.at = draw < 88 ? before : before - 1
      key.fill(0x55)
    } else {
      found = draw < 98 ? iterator.seekFirst() : iterator.seekLast()
      walk.at = draw < 98 || pairs.length === 0 ? 0 : pairs.length - 1
      if (pairs.length === 0) walk.at = draw < 98 ? 0 : -1
    }
    const pair = pairs[walk.at]
    expect(found).toBe(pair !== undefined)
    expect(iterator.valid).toBe(found)
    if (pair === undefined) return
    const { keyBytes, keyOffset, keyLength } = iterator.pair
    expect(toHex(keyBytes.subarray(keyOffset, keyOffset + keyLength))).toBe(toHex(pair[0]))
    expectValue(iterator.value, pair[1], iterator.key)
  }

  private closeReader(): void {
    if (this.snapshots.length > 0 && this.prng.chance(0.5)) {
      const index = this.prng.int(0, this.snapshots.length - 1)
      this.snapshots.splice(index, 1)[0]?.snapshot.release()
    } else if (this.walks.length > 0) {
      const index = this.prng.int(0, this.walks.length - 1)
      this.walks.splice(index, 1)[0]?.iterator.close()
    }
  }

  private closeReaders(): void {
    for (const { snapshot } of this.snapshots) snapshot.release()
    for (const { iterator } of this.walks) iterator.close()
    this.snapshots = []
    this.walks = []
  }

  private replace(): void {
    const { prng, engine, disk } = this
    flushAll(engine, disk)
    const first = this.bounds()
    const intervals = [first]
    if (first.upper !== undefined && prng.chance(0.5)) {
      const lower = new Uint8Array([...first.upper, 0])
      intervals.push({ lower, upper: prng.chance(0.5) ? undefined : new Uint8Array([...lower, 9]) })
    }
    if (intervals.some(({ lower, upper }) => upper && compareBytes(lower, upper) >= 0)) return
    const fresh = new Model()
    for (let i = prng.int(0, 40); i > 0; i--) fresh.put(randomKey(prng), randomValue(prng))
    const pairs = intervals.flatMap(({ lower, upper }) => fresh.between(lower, upper))
    const empty = pairs.length === 0 && prng.chance(0.5)
    const spillChecksum = writeSpill(disk, "spill", pairs)
    const request = empty ? { intervals } : { intervals, spillPath: "spill", spillChecksum }
    carryOut(engine, disk, engine.replaceInterval(request))
    for (const { lower, upper } of intervals) this.model.replace(lower, upper, [])
    for (const [key, value] of pairs) this.model.put(key, value)
    this.check()
  }

  private reopen(): void {
    this.closeReaders()
    flushAll(this.engine, this.disk)
    this.disk.loseAllUnsynced()
    this.engine = Engine.open(this.disk, "engine", this.options)
    this.check()
  }

  private check(): void {
    removeFiles(this.disk, this.engine.obsoleteFiles())
    expect(digest(contentOf(this.engine))).toBe(this.model.digest())
    for (const { snapshot, model } of this.snapshots) {
      expect(digest(contentOf(this.engine, { snapshot }))).toBe(model.digest())
    }
    if (this.snapshots.length > 0 || this.walks.length > 0) return
    const tables = this.disk.list("engine").filter((name) => name.endsWith(".table"))
    expect(tables.map((name) => `engine/${name}`)).toEqual([...this.engine.liveFiles()])
  }
}

function expectValue(
  actual: Uint8Array | undefined,
  expected: Uint8Array | undefined,
  key: Uint8Array,
): void {
  const show = (value: Uint8Array | undefined) => (value === undefined ? "absent" : toHex(value))
  expect(`${toHex(key)}=${show(actual)}`).toBe(`${toHex(key)}=${show(expected)}`)
}

describe("an engine answers as a sorted map does", () => {
  for (let seed = 1; seed <= 12; seed++) {
    test(`seed ${seed}`, () => new Comparison(seed).run(4000), 60_000)
  }
  test("a fresh seed", () => new Comparison(freshSeed("model")).run(4000), 60_000)
  test("a long run", () => new Comparison(freshSeed("model, long")).run(20_000), 120_000)
})
