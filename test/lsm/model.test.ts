import { describe, expect, test } from "bun:test"
import { compareBytes, toHex } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { EngineIterator, EngineOptions, EngineSnapshot } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { removeFiles } from "../../src/lsm/jobs.ts"
import { maxRuns } from "../../src/lsm/options.ts"
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

interface Walk {
  readonly iterator: EngineIterator
  /** Pairs still to come, in the iterator's order. */
  rest: Pairs
  readonly whole: Pairs
  readonly reverse: boolean
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
    this.options = {
      memtableBytes: prng.pick([300, 1024, 4096]),
      blockBytes: prng.pick([1, 64, 300, 4096]),
      tableBytes: prng.pick([200, 512, 5000]),
      compactionBytes: prng.pick([1, 2000, 20_000]),
      level1Bytes: prng.pick([1, 2000, 8000]),
      level0Trigger: prng.pick([1, 2, 3]),
      blockCacheBytes: prng.pick([0, 2000, 1 << 20]),
      bloomBitsPerKey: prng.pick([1, 10]),
      manifestBytes: prng.pick([1, 4096, 1 << 20]),
    }
    this.engine = Engine.open(this.disk, "engine", this.options)
  }

  run(operations: number): void {
    for (let i = 0; i < operations; i++) {
      this.operate()
      const { runs } = this.engine.stats()
      expect(runs).toBeLessThanOrEqual(maxRuns)
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
    if (draw < 560) this.write()
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

  private scan(): void {
    const { lower, upper } = this.bounds()
    const reverse = this.prng.chance(0.5)
    const held = this.prng.chance(0.5) ? this.snapshots.at(0) : undefined
    const expected = (held?.model ?? this.model).between(lower, upper)
    if (reverse) expected.reverse()
    const snapshot = held === undefined ? {} : { snapshot: held.snapshot }
    const actual = contentOf(this.engine, { lower, upper, reverse, ...snapshot })
    expect(digest(actual)).toBe(digest(expected))
  }

  private openReader(): void {
    if (this.prng.chance(0.5)) {
      this.snapshots.push({ snapshot: this.engine.snapshot(), model: this.model.clone() })
      return
    }
    const { lower, upper } = this.bounds()
    const reverse = this.prng.chance(0.5)
    const iterator = this.engine.iterator({ lower, upper, reverse })
    const whole = this.model.between(lower, upper)
    if (reverse) whole.reverse()
    this.walks.push({ iterator, rest: whole, whole, reverse })
  }

  private useReader(): void {
    if (this.walks.length === 0) return
    const walk = this.prng.pick(this.walks)
    if (this.prng.chance(0.4)) {
      const key = randomKey(this.prng)
      walk.iterator.seek(key)
      walk.rest = walk.whole.filter(([other]) =>
        walk.reverse ? compareBytes(other, key) < 0 : compareBytes(other, key) >= 0,
      )
    }
    for (let i = this.prng.int(1, 6); i > 0; i--) {
      const [next] = walk.rest
      expect(walk.iterator.next()).toBe(next !== undefined)
      if (next === undefined) return
      expect(toHex(walk.iterator.key)).toBe(toHex(next[0]))
      expectValue(walk.iterator.value, next[1], next[0])
      walk.rest = walk.rest.slice(1)
    }
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
})
