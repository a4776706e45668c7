import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { eventualMutants } from "./eventual/mutants.ts"
import { freshSeed, Workers } from "./hunt.ts"
import { kills } from "./kills.ts"
import { type Mutant, shownBy } from "./mutants/mutant.ts"
import { mutants } from "./mutants/registry.ts"
import type { Outcome } from "./world.ts"
import { runSeed } from "./world.ts"

/** Seeds that once found something. */
const regressionSeeds = [
  8, 13, 20, 26, 52, 61, 69, 371, 1005, 1106, 11367, 21970, 348112448887, 793435453379,
  700000000490, 710000001865, 21660, 9050, 9360, 20698, 730000003099, 740000005143, 740000006368,
]

/** The same of worlds in which ranges merge, which the seeds above had not. */
const mergeSeeds = [779, 848, 1819, 10309, 10913, 21773, 23164, 31552]

/** Seeds that once found something when all nodes of every seed were damaged; that a group waited for its operator counts too. */
const scatteredSeeds = [69, 70, 138, 145, 288]

const freshCount = 10

function failures(outcomes: ReadonlyArray<Outcome>): ReadonlyArray<string> {
  return outcomes.flatMap(({ seed, violation }) =>
    violation === undefined
      ? []
      : [`npm run sim -- ${seed}: ${violation.invariant}: ${violation.message}`],
  )
}

test("seeds that once failed pass", () => {
  const outcomes = regressionSeeds.map((seed) => runSeed({ seed, mergeShare: 0 }))
  expect(failures(outcomes)).toEqual([])
})

test("seeds in which ranges merge that once failed pass", () => {
  const outcomes = mergeSeeds.map((seed) => runSeed({ seed, mergeShare: 1 }))
  expect(failures(outcomes)).toEqual([])
  expect(outcomes.reduce((sum, { merges }) => sum + merges, 0)).toBeGreaterThan(10)
})

test("disjoint damage to all nodes that once stranded a group does so no more", () => {
  const outcomes = scatteredSeeds.map((seed) => runSeed({ seed, scatterShare: 1 }))
  expect(failures(outcomes)).toEqual([])
  expect(outcomes.filter(({ isStranded }) => isStranded)).toEqual([])
})

test("fresh seeds pass, with enough work and faults in each", async () => {
  const first = freshSeed()
  console.log(`${freshCount} seeds from ${first}`)
  const workers = new Workers(2)
  const half = freshCount / 2
  const tasks = [0, 1].map((i) =>
    workers.run(i, { first: first + i * half, count: half, mutant: undefined }),
  )
  const outcomes = (await Promise.all(tasks)).flat()
  expect(failures(outcomes)).toEqual([])
  const seconds = outcomes.reduce((sum, outcome) => sum + outcome.safetySeconds, 0)
  const operations = outcomes.reduce((sum, outcome) => sum + outcome.operations, 0)
  const faults = outcomes.reduce((sum, outcome) => sum + outcome.faults, 0)
  expect(operations / seconds).toBeGreaterThan(20)
  expect(faults / seconds).toBeGreaterThan(1)
  const sample = outcomes[0] as Outcome
  const [again] = await workers.run(1, { first: sample.seed, count: 1, mutant: undefined })
  workers.stop()
  expect({ seed: sample.seed, trace: again?.traceHash }).toEqual({
    seed: sample.seed,
    trace: sample.traceHash,
  })
}, 120_000)

const eventualNames = new Set(eventualMutants.map(({ name }) => name))

test("every mutant has a seed that kills it", () => {
  const names = mutants.map(({ name }) => name)
  const known = Object.keys(kills).filter((name) => !eventualNames.has(name))
  expect(known).toEqual(names)
  expect(new Set(names).size).toBe(names.length)
  expect(names.length).toBeGreaterThanOrEqual(42)
  expect(names.filter((name) => kills[name]?.seed === undefined)).toEqual([])
})

/** Many mutants have the same killer: what it comes to without one is looked at once. */
const withoutMutant = new Map<number, Outcome["violation"]>()

function violationOf(seed: number): Outcome["violation"] {
  if (!withoutMutant.has(seed)) withoutMutant.set(seed, runSeed({ seed }).violation)
  return withoutMutant.get(seed)
}

/** A change of what seeds draw leaves recorded ones stale: so many that follow are looked at before a mutant counts as one that nothing finds. */
const furtherSeeds = 40

function killerOf(mutant: Mutant, first: number): number | undefined {
  for (let seed = first; seed <= first + furtherSeeds; seed++) {
    if (!shownBy(mutant, runSeed({ seed, mutant }).violation)) continue
    if (violationOf(seed) === undefined) return seed
  }
  return undefined
}

/** Another choice each time: `npm run mutants -- --stale` looks at all of them. */
const chosen = new Prng(freshSeed()).shuffle([...mutants]).slice(0, 9)

for (const mutant of chosen) {
  const seed = kills[mutant.name]?.seed
  if (seed === undefined) continue
  test(`a seed finds that ${mutant.title}`, () => {
    const killer = killerOf(mutant, seed)
    if (killer !== seed) console.log(`${mutant.name}: seed ${seed} is stale: npm run mutants`)
    expect(killer).toBeDefined()
  })
}
