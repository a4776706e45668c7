/**
 * `npm run mutants [-- --from S] [--only A,B] [--seeds N] [--stale] [--json]`: searches up to N seeds blindly for one that kills each mutant. A seed kills when it
 * ends in a violation with the bug and without one without it; a run that only does not settle counts for bugs that make groups stand still. Prints `{total, killed, table}`, and writes the table (killTable.ts); exit code 1 when a mutant
 * survives. Seeds in whose world the mutant cannot show (`shows`) are passed over, and count as tried. With `--stale` it looks only for those whose recorded
 * seed no longer kills them.
 *
 * `npm run mutants -- eventual` with the same options: those of eventual mode (eventual/mutants.ts).
 *
 * `npm run mutants -- engine [--from S] [--only WORDS] [--json]`: the same for the mutants of the storage engine (test/lsm/mutants.ts), with
 * `table: [{mutant, killedBy, detail}]`.
 */
import { parseArgs } from "node:util"
import { runEngineMutants } from "../lsm/mutants.ts"
import { eventualMutants } from "./eventual/mutants.ts"
import { parametersOf as eventualParametersOf } from "./eventual/parameters.ts"
import { runEventualSeed } from "./eventual/world.ts"
import { freshSeed, type Level, Workers } from "./hunt.ts"
import { kills } from "./kills.ts"
import { type Kill, writeKills } from "./killTable.ts"
import { type Mutant, shownBy } from "./mutants/mutant.ts"
import { mutants } from "./mutants/registry.ts"
import { parametersOf } from "./parameters.ts"
import { runSeed } from "./world.ts"

const seedsUsual = 5_000
const seedsPerTask = 5
const engineSeeds = 4

function isEventual(mutant: Mutant): boolean {
  return eventualMutants.includes(mutant)
}

function run(mutant: Mutant, options: { readonly seed: number; readonly isPlanted: boolean }) {
  const { seed, isPlanted } = options
  const planted = { seed, ...(isPlanted ? { mutant } : {}) }
  return isEventual(mutant) ? runEventualSeed(planted) : runSeed(planted)
}

function mayShow(mutant: Mutant, seed: number): boolean {
  const ofEventual = eventualMutants.find(({ name }) => name === mutant.name)
  if (ofEventual !== undefined) return ofEventual.showsIn?.(eventualParametersOf(seed)) !== false
  return mutant.shows?.(parametersOf(seed)) !== false
}

/** Whether the recorded seed of a mutant no longer kills it. */
function isStale(mutant: Mutant): boolean {
  const seed = kills[mutant.name]?.seed
  if (seed === undefined) return true
  const isShown = shownBy(mutant, run(mutant, { seed, isPlanted: true }).violation)
  return !isShown || run(mutant, { seed, isPlanted: false }).violation !== undefined
}

/** Looks at seeds from `first` on, in order, until one kills. */
async function search(
  workers: Workers,
  mutant: Mutant,
  { first, seedsMax }: { readonly first: number; readonly seedsMax: number },
): Promise<Kill> {
  const limit = first + seedsMax
  let next = first
  const killers: Array<{ seed: number; invariant: string }> = []
  const serve = async (worker: number) => {
    while (next < limit && killers.length === 0) {
      // Passed over one by one, so that a task has as many to run wherever it begins.
      while (next < limit && !mayShow(mutant, next)) next++
      let count = 0
      while (count < seedsPerTask && next + count < limit && mayShow(mutant, next + count)) count++
      if (count === 0) continue
      const level: Level | undefined = isEventual(mutant) ? "eventual" : undefined
      const task = { first: next, count, mutant: mutant.name, level }
      next += count
      for (const { seed, violation } of await workers.run(worker, task)) {
        if (violation === undefined || !shownBy(mutant, violation)) continue
        if (run(mutant, { seed, isPlanted: false }).violation === undefined) {
          killers.push({ seed, invariant: violation.invariant })
          break
        }
        console.error(`seed ${seed} fails without a mutant: npm run sim -- ${seed}`)
      }
    }
  }
  await Promise.all(workers.workers.map((_, worker) => serve(worker)))
  const [found] = killers.sort((left, right) => left.seed - right.seed)
  return {
    mutant: mutant.name,
    seed: found?.seed,
    seedsTried: found === undefined ? seedsMax : found.seed - first + 1,
    invariant: found?.invariant,
  }
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: {
      from: { type: "string" },
      only: { type: "string" },
      seeds: { type: "string" },
      stale: { type: "boolean" },
      json: { type: "boolean" },
    },
    allowPositionals: true,
  })
  const first = values.from === undefined ? freshSeed() : Number(values.from)
  if (positionals[0] === "engine") {
    const report = await runEngineMutants({ first, seeds: engineSeeds, only: values.only })
    if (values.json) console.log(JSON.stringify(report))
    else console.log(`${report.killed} of ${report.total} killed`)
    return report.killed === report.total ? 0 : 1
  }
  const seedsMax = values.seeds === undefined ? seedsUsual : Number(values.seeds)
  const names = values.only?.split(",")
  const of = positionals[0] === "eventual" ? eventualMutants : mutants
  const named = of.filter(({ name }) => names === undefined || names.includes(name))
  const chosen = values.stale === true ? named.filter(isStale) : named
  console.error(`up to ${seedsMax} seeds from ${first} for each of ${chosen.length} mutants`)
  const workers = new Workers(2)
  const table: Array<Kill> = []
  for (const mutant of chosen) {
    const kill = await search(workers, mutant, { first, seedsMax })
    table.push(kill)
    // A search takes hours: what it has found so far is kept.
    writeKills(table)
    const outcome =
      kill.seed === undefined
        ? "survives"
        : `seed ${kill.seed} (${kill.seedsTried} tried): ${kill.invariant}`
    console.error(`${mutant.name} ${mutant.title}: ${outcome}`)
  }
  workers.stop()
  const killed = table.filter(({ seed }) => seed !== undefined).length
  const report = { total: table.length, killed, table }
  if (values.json) console.log(JSON.stringify(report))
  else console.log(`${killed} of ${table.length} killed`)
  return killed === table.length ? 0 : 1
}

if (import.meta.main) process.exit(await main())
