import { expect, test } from "bun:test"
import { freshSeed } from "../hunt.ts"
import { plantedBugs } from "./plantedBugs.ts"
import { runServerSeed } from "./ServerWorld.ts"

/** Seeds that once found something. */
const regressionSeeds = [134]
const freshCount = 2
/** Most are found by the second or third. */
const searchedMax = 30

test("seeds of the server simulator pass, and have the same trace when run again", () => {
  const first = freshSeed()
  console.log(`${freshCount} seeds from ${first}`)
  const seeds = [...regressionSeeds, ...Array.from({ length: freshCount }, (_, i) => first + i)]
  const outcomes = seeds.map((seed) => runServerSeed({ seed }))
  const failures = outcomes.flatMap(({ seed, violation }) =>
    violation === undefined
      ? []
      : [`npm run sim -- --server ${seed}: ${violation.invariant}: ${violation.message}`],
  )
  expect(failures).toEqual([])
  const succeeded = outcomes.reduce((sum, outcome) => sum + outcome.succeeded, 0)
  expect(succeeded / outcomes.length).toBeGreaterThan(50)
  const again = runServerSeed({ seed: first })
  expect(again.traceHash).toBe(outcomes[regressionSeeds.length]?.traceHash as string)
}, 120_000)

for (const { title, plant, from = 1 } of plantedBugs) {
  test(`the server simulator finds that ${title}`, () => {
    const takeOut = plant()
    try {
      let seed = from
      while (seed < from + searchedMax && runServerSeed({ seed }).violation === undefined) seed++
      expect(seed).toBeLessThan(from + searchedMax)
    } finally {
      takeOut()
    }
  }, 120_000)
}
