import { describe, expect, test } from "bun:test"
import { join } from "node:path"
import { compareBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import {
  type CompactionOptions,
  type CompactionPlan,
  levelShape,
  liveBytes,
  planCompaction,
  type QuarantinedSlice,
} from "../../src/lsm/maintenance/compaction.ts"
import {
  deepestLevel,
  type Fragment,
  overlaps,
  type Run,
  takesPart,
  Version,
} from "../../src/lsm/manifest/version.ts"
import { goldenScripts } from "../golden.ts"
import { freshSeed } from "./harness.ts"
import { measure, start as options, runPlannerScript } from "./plannerScript.ts"

goldenScripts({
  of: "the compaction planner",
  directory: join(import.meta.dir, "golden"),
  atLeast: 10,
  run: runPlannerScript,
})

/** One entry: where it lies and how new it is. The planner's work is checked against these. */
interface Entry {
  readonly key: number
  readonly sequence: number
  readonly isDelete: boolean
}

interface Table extends Fragment {
  readonly content: ReadonlyArray<Entry>
}

const keySpace = 200
const keyBytes = (key: number) => utf8(String(key).padStart(4, "0"))

/**
 * An engine without bytes: tables hold entries, a compaction merges them as the planner says. After each step a read of every key must find what a
 * plain map holds: a delete that was dropped too early, or a slice that passed over older data, shows as a key that came back.
 */
class ToyEngine {
  tables: Array<Table> = []
  readonly truth = new Map<number, number>()
  private sequence = 0
  private files = 0
  private readonly cursors = new Map<number, Uint8Array>()
  readonly quarantined: Array<QuarantinedSlice> = []
  nowSeconds = 0

  flush(prng: Prng): void {
    const content = new Map<number, Entry>()
    const from = prng.chance(0.3) ? prng.int(0, keySpace - 20) : 0
    const to = from === 0 ? keySpace : from + 20
    for (let i = prng.int(1, 12); i > 0; i--) {
      const key = prng.int(from, to - 1)
      const isDelete = prng.chance(0.4)
      const sequence = ++this.sequence
      content.set(key, { key, sequence, isDelete })
      if (isDelete) this.truth.delete(key)
      else this.truth.set(key, sequence)
    }
    const sorted = [...content.values()].sort((left, right) => left.key - right.key)
    this.write(sorted, 0, ++this.files)
  }

  /** Puts one file of entries on a level, cut into tables of a few. */
  private write(content: ReadonlyArray<Entry>, level: number, run: number): void {
    for (let i = 0; i < content.length; i += 5) {
      const part = content.slice(i, i + 5)
      const fileNumber = ++this.files
      this.tables.push({
        fileNumber,
        tableId: fileNumber,
        sizeBytes: 10 * part.length,
        checksum: 0,
        entries: part.length,
        baseSequence: 0,
        level,
        run,
        liveBytes: 10 * part.length,
        lower: keyBytes((part[0] as Entry).key),
        upper: keyBytes((part[part.length - 1] as Entry).key + 1),
        deletes: part.filter(({ isDelete }) => isDelete).length,
        tombstones: 0,
        createdSeconds: this.nowSeconds,
        compression: 0,
        content: part,
      })
    }
  }

  version(): Version {
    return Version.of(this.tables)
  }

  plan(settings = options): CompactionPlan | undefined {
    return planCompaction({
      version: this.version(),
      options: settings,
      cursors: this.cursors,
      nowSeconds: this.nowSeconds,
      measure,
      quarantined: this.quarantined,
      fits: () => true,
    })
  }

  carryOut(plan: CompactionPlan): void {
    const { inputLevels, outputLevel, lower, upper } = plan
    const inside = (entry: Entry) => {
      const key = keyBytes(entry.key)
      return compareBytes(lower, key) <= 0 && compareBytes(key, upper) < 0
    }
    const inputs = this.tables.filter(
      (table) =>
        inputLevels.includes(table.level) && overlaps(table, plan) && takesPart([table], plan.only),
    )
    const newestRun = Math.max(...inputs.map(({ run }) => run))
    // A slice beside a quarantine may cover a table without meeting one of its keys: then it gets smaller.
    expect(inputs.length).toBeGreaterThan(0)
    this.tables = this.tables.filter((table) => !inputs.includes(table))
    const newest = new Map<number, Entry>()
    for (const table of inputs) {
      for (const entry of table.content) {
        if (!inside(entry)) continue
        const known = newest.get(entry.key)
        if (plan.move) expect(known).toBeUndefined()
        if (known === undefined || known.sequence < entry.sequence) newest.set(entry.key, entry)
      }
      for (const side of [
        (entry: Entry) => compareBytes(keyBytes(entry.key), lower) < 0,
        (entry: Entry) => compareBytes(upper, keyBytes(entry.key)) <= 0,
      ]) {
        this.write(table.content.filter(side), table.level, table.run)
      }
    }
    const merged = [...newest.values()].sort((left, right) => left.key - right.key)
    const kept = merged.filter((entry) => !(plan.dropDeletes && entry.isDelete))
    this.write(kept, outputLevel, outputLevel === 0 ? newestRun : 0)
    const [from] = inputLevels as [number]
    if (from > 0) this.cursors.set(from, upper)
  }

  /** As a point read: the runs from the newest to the oldest, and the first entry decides. */
  read(key: number): number | undefined {
    for (const run of this.version().runs) {
      for (const fragment of run) {
        const entry = (fragment as Table).content.find((candidate) => candidate.key === key)
        if (entry !== undefined) return entry.isDelete ? undefined : entry.sequence
      }
    }
    return undefined
  }

  check(): void {
    for (let key = 0; key < keySpace; key++) expect(this.read(key)).toBe(this.truth.get(key))
  }
}

function randomOptions(prng: Prng): CompactionOptions {
  return {
    ...options,
    level0Trigger: prng.int(1, 4),
    lazyLevel0Runs: prng.int(4, 7),
    baseBytes: prng.pick([10, 40, 200, 1000]),
    levelRatioMax: prng.pick([2, 4, 8]),
    compactionBytes: prng.pick([1, 50, 200, 10_000]),
    tombstoneAgeSeconds: prng.pick([1, 50, 100_000]),
  }
}

describe("the planner over random engines", () => {
  const fresh = freshSeed("compaction planner")
  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8, fresh]) {
    test(`no delete goes too early and no data is passed over (pitfall 11), seed ${seed}`, () => {
      const prng = new Prng(seed)
      const settings = randomOptions(prng)
      const engine = new ToyEngine()
      for (let i = 0; i < 150; i++) {
        engine.nowSeconds += prng.int(0, 10)
        if (engine.version().level0.length < settings.maxLevel0Runs) engine.flush(prng)
        const plan = prng.chance(0.7) ? engine.plan(settings) : undefined
        if (plan !== undefined) engine.carryOut(plan)
        engine.check()
      }
      // It comes to rest: no plan undoes another one.
      let left = 2000
      for (let plan = engine.plan(settings); plan !== undefined; plan = engine.plan(settings)) {
        engine.carryOut(plan)
        expect(--left).toBeGreaterThan(0)
      }
      engine.check()
      const version = engine.version()
      expect(version.level0.length).toBeLessThan(settings.lazyLevel0Runs)
      const { targets } = levelShape(version, settings)
      for (let level = 1; level < deepestLevel; level++) {
        expect(liveBytes(version.levels[level] as Run)).toBeLessThanOrEqual(
          targets[level] as number,
        )
      }
    })

    test(`a quarantined interval is never part of a merge with damage, seed ${seed}`, () => {
      const prng = new Prng(seed)
      const settings = randomOptions(prng)
      const engine = new ToyEngine()
      for (let i = 0; i < 60; i++) {
        if (engine.version().level0.length < settings.maxLevel0Runs) engine.flush(prng)
        const plan = engine.plan(settings)
        if (plan !== undefined) engine.carryOut(plan)
      }
      const deep = engine.tables.filter((table) => table.level > 0)
      const damaged = prng.pick(deep)
      engine.quarantined.push({
        lower: damaged.lower,
        upper: damaged.upper,
        damagedRuns: undefined,
      })
      // What a table of level 0 covers is wide: more than its keys are in quarantine then.
      const wide = prng.pick(engine.tables)
      if (!overlaps(wide, damaged)) {
        engine.quarantined.push({
          lower: wide.lower,
          upper: wide.upper,
          damagedRuns: wide.level > 0 ? undefined : { oldest: wide.run, newest: wide.run },
        })
        engine.quarantined.sort((left, right) => compareBytes(left.lower, right.lower))
      }
      let merges = 0
      for (let i = 0; i < 120; i++) {
        if (engine.version().level0.length < settings.maxLevel0Runs) engine.flush(prng)
        const plan = engine.plan(settings)
        if (plan === undefined) continue
        merges++
        expect(compareBytes(plan.lower, plan.upper)).toBeLessThan(0)
        if (overlaps(damaged, plan)) expect(plan.inputLevels).toEqual([0])
        engine.carryOut(plan)
        engine.check()
      }
      expect(merges).toBeGreaterThan(0)
      expect(engine.tables).toContainEqual(damaged)
    })
  }
})

describe("the planner", () => {
  test("leaves an empty engine alone", () => {
    expect(new ToyEngine().plan()).toBeUndefined()
  })

  test("cuts slices at the ends of tables when they are larger than a job", () => {
    const lines = runPlannerScript([
      "level 6 0000-2000=500 2000-4000=500 4000-9999=500",
      "run 1 1000-3000=100",
      "run 2 1000-3000=100",
      "run 3 1000-3000=100",
      "run 4 1000-3000=100",
      "plan",
    ])
    expect(lines).toEqual(["runs: merge L0+L6 [0000, 2000) to L6, deletes go"])
  })

  test("says what the keys of a slice are in order", () => {
    const [line = ""] = runPlannerScript([
      ...[1, 2, 3, 4].map((run) => `run ${run} 0100-0900=100`),
      "plan",
    ])
    expect(line).toBe("runs: merge L0+L6 [0100, 0900) to L6, deletes go")
    expect(text(keyBytes(7))).toBe("0007")
  })
})
