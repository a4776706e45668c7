import { assert } from "../../src/lib/assert.ts"
import { compareBytes, text, utf8 } from "../../src/lib/bytes.ts"
import {
  type CompactionOptions,
  type CompactionPlan,
  levelShape,
  liveBytes,
  planCompaction,
  type QuarantinedSlice,
} from "../../src/lsm/maintenance/compaction.ts"
import { assertPlan } from "../../src/lsm/maintenance/planChecks.ts"
import { deepestLevel, type Fragment, takesPart, Version } from "../../src/lsm/manifest/version.ts"

/**
 * The language of golden/*.txt, for the compaction planner. Keys are numbers of four digits; the bytes of a table lie evenly over its keys, and
 * merging adds them up, as if no two runs shared a key.
 *
 *     options NAME=VALUE ...       of CompactionOptions; the sizes of this file's `start` otherwise
 *     run N 0000-5000=100 ...      tables of run N of level 0: keys, then bytes
 *     level N 0000-5000=100 ...    tables of a level
 *         +D  after the bytes: so many deletes; @S: written at second S; !: with a compression that no deeper level asks for
 *     now S                        seconds
 *     quarantine 0100-0200 [#N]    damage, of run N of level 0 or of a deeper level
 *     show                         the levels in use, their targets, what they hold
 *     plan                         what comes next
 *     do [N]                       carries out the plan, N times, or until there is none (at most 40)
 */
export function runPlannerScript(commands: ReadonlyArray<string>): ReadonlyArray<string> {
  const planner = new PlannerScript()
  return commands.flatMap((command) => planner.run(command))
}

export const start: CompactionOptions = {
  memtableBytes: 100,
  level0Trigger: 4,
  lazyLevel0Runs: 4,
  maxLevel0Runs: 8,
  baseBytes: 400,
  levelRatioMax: 8,
  compactionBytes: 400,
  tombstoneAgeSeconds: 1000,
}

interface Kept extends Fragment {
  readonly uncompressed?: boolean
}

class PlannerScript {
  private options = start
  private fragments: Array<Kept> = []
  private files = 0
  private nowSeconds = 0
  private readonly cursors = new Map<number, Uint8Array>()
  private readonly quarantined: Array<QuarantinedSlice> = []

  run(command: string): ReadonlyArray<string> {
    const [verb, ...words] = command.split(/\s+/) as [string, ...Array<string>]
    switch (verb) {
      case "options":
        for (const word of words) {
          const [name, value] = word.split("=") as [keyof CompactionOptions, string]
          assert(name in start, () => `option ${name}`)
          this.options = { ...this.options, [name]: Number(value) }
        }
        return []
      case "run":
        return this.add(0, Number(words[0]), words.slice(1))
      case "level":
        return this.add(Number(words[0]), 0, words.slice(1))
      case "now":
        this.nowSeconds = Number(words[0])
        return []
      case "quarantine": {
        const [lower, upper] = (words[0] as string).split("-") as [string, string]
        const run = words[1] === undefined ? undefined : Number(words[1].slice(1))
        const damagedRuns = run === undefined ? undefined : { oldest: run, newest: run }
        this.quarantined.push({ lower: utf8(lower), upper: utf8(upper), damagedRuns })
        return []
      }
      case "show":
        return this.show()
      case "plan": {
        const plan = this.plan()
        return [plan === undefined ? "nothing to do" : describePlan(plan)]
      }
      case "do":
        return this.carryOut(words[0] === undefined ? 40 : Number(words[0]))
      default:
        throw new Error(`unknown command ${command}`)
    }
  }

  private add(level: number, run: number, words: ReadonlyArray<string>): ReadonlyArray<string> {
    for (const word of words) {
      const match = /^(\d{4})-(\d{4})=(\d+)(?:\+(\d+))?(?:@(\d+))?(!)?$/.exec(word)
      assert(match !== null, () => `a table ${word}`)
      const [, lower, upper, bytes, deletes = "0", created = "0", raw] = match
      const fileNumber = ++this.files
      this.fragments.push({
        fileNumber,
        tableId: fileNumber,
        sizeBytes: Number(bytes),
        checksum: 0,
        entries: Number(bytes) / 10,
        baseSequence: 0,
        level,
        run,
        liveBytes: Number(bytes),
        lower: utf8(lower as string),
        upper: utf8(upper as string),
        deletes: Number(deletes),
        tombstones: 0,
        createdSeconds: Number(created),
        compression: raw === undefined ? 2 : 0,
      })
    }
    return []
  }

  private plan(): CompactionPlan | undefined {
    const version = Version.of(this.fragments)
    const plan = planCompaction({
      version,
      options: this.options,
      cursors: this.cursors,
      nowSeconds: this.nowSeconds,
      measure,
      quarantined: this.quarantined,
      fits: (fragment) => fragment.compression === 2,
    })
    if (plan !== undefined) assertPlan(version, plan)
    return plan
  }

  private carryOut(limit: number): ReadonlyArray<string> {
    const lines: Array<string> = []
    for (let i = 0; i < limit; i++) {
      const plan = this.plan()
      if (plan === undefined) {
        lines.push("nothing to do")
        break
      }
      lines.push(describePlan(plan))
      this.apply(plan)
    }
    lines.push(this.summary())
    return lines
  }

  /** As a job and its edit would: what lies in the slice becomes one table of the output level. */
  private apply(plan: CompactionPlan): void {
    const { inputLevels, outputLevel, lower, upper } = plan
    const kept: Array<Kept> = []
    let bytes = 0
    let deletes = 0
    let newest = 0
    for (const fragment of this.fragments) {
      const inside = measure(fragment, lower, upper)
      const { only } = plan
      const isOut = fragment.level === 0 && !takesPart([fragment], only)
      if (!inputLevels.includes(fragment.level) || isOut || inside === 0) {
        kept.push(fragment)
        continue
      }
      bytes += inside
      newest = Math.max(newest, fragment.run)
      if (!plan.dropDeletes) deletes += fragment.deletes
      for (const [from, to] of [
        [fragment.lower, lower],
        [upper, fragment.upper],
      ] as const) {
        const liveBytes = measure(fragment, from, to)
        if (compareBytes(from, to) >= 0 || liveBytes === 0) continue
        const left = compareBytes(from, fragment.lower) > 0 ? from : fragment.lower
        const right = compareBytes(to, fragment.upper) < 0 ? to : fragment.upper
        kept.push({ ...fragment, lower: left, upper: right, liveBytes })
      }
    }
    this.fragments = kept
    const suffix = `${deletes === 0 ? "" : `+${deletes}`}@${this.nowSeconds}`
    const run = outputLevel === 0 ? newest : 0
    this.add(outputLevel, run, [`${text(lower)}-${text(upper)}=${Math.round(bytes)}${suffix}`])
    const [from] = inputLevels as [number]
    if (from > 0) this.cursors.set(from, upper)
  }

  private show(): ReadonlyArray<string> {
    const version = Version.of(this.fragments)
    const { first, targets } = levelShape(version, this.options)
    const lines = [`level 0 goes to level ${first}`]
    for (let level = first; level <= deepestLevel; level++) {
      lines.push(
        `L${level} target ${level === deepestLevel ? "none" : Math.round(targets[level] as number)}`,
      )
    }
    return [...lines, this.summary()]
  }

  private summary(): string {
    const version = Version.of(this.fragments)
    const runs = version.level0.map((run) => Math.round(liveBytes(run))).join("+")
    const levels = version.levels.flatMap((run, level) =>
      level === 0 || run.length === 0 ? [] : [`L${level} ${Math.round(liveBytes(run))}`],
    )
    return [...(runs === "" ? [] : [`L0 ${runs}`]), ...levels].join(", ") || "empty"
  }
}

function describePlan(plan: CompactionPlan): string {
  const { inputLevels, outputLevel, lower, upper, dropDeletes, move, reason } = plan
  const inputs = inputLevels.map((level) => `L${level}`).join("+")
  const verb = move ? "move" : "merge"
  const deletes = move ? "" : dropDeletes ? ", deletes go" : ", deletes stay"
  return `${reason}: ${verb} ${inputs} [${text(lower)}, ${text(upper)}) to L${outputLevel}${deletes}`
}

/** The bytes of a fragment in [lower, upper), evenly spread. */
export function measure(fragment: Fragment, lower: Uint8Array, upper: Uint8Array): number {
  const number = (bytes: Uint8Array) => Number(text(bytes).slice(0, 4))
  const [from, to] = [number(fragment.lower), number(fragment.upper)]
  const covered = Math.min(to, number(upper)) - Math.max(from, number(lower))
  return covered <= 0 ? 0 : (fragment.liveBytes * covered) / (to - from)
}
