import { describe, expect, test } from "bun:test"
import { Prng } from "../../../src/lib/prng.ts"
import { kills } from "../kills.ts"
import { shownBy } from "../mutants/mutant.ts"
import { eventualMutants } from "./mutants.ts"
import { runEventualSeed } from "./world.ts"

const freshSeed = Number(process.env.KVORUM_SEED ?? Math.floor(Math.random() * 2 ** 40))
const freshSeeds = 4
const mutantsTried = 5

/** Seeds that found something once. */
const regressionSeeds = [38, 427, 30042]

describe("eventual mode under every fault", () => {
  test("fresh seeds pass", () => {
    console.log(`${freshSeeds} seeds from ${freshSeed}`)
    let faults = 0
    let succeeded = 0
    for (let seed = freshSeed; seed < freshSeed + freshSeeds; seed++) {
      const outcome = runEventualSeed({ seed })
      expect(outcome.violation, `npm run sim -- --eventual ${seed}`).toBe(undefined)
      faults += outcome.faults
      succeeded += outcome.succeeded
    }
    expect(faults).toBeGreaterThan(0)
    expect(succeeded).toBeGreaterThan(10 * freshSeeds)
  }, 120_000)

  test("seeds that found something once pass, and have the same trace when run again", () => {
    for (const seed of regressionSeeds) {
      const [first, again] = [runEventualSeed({ seed }), runEventualSeed({ seed })]
      expect(first.violation, `seed ${seed}`).toBe(undefined)
      expect(again.traceHash).toBe(first.traceHash)
    }
  }, 60_000)
})

describe("bugs of eventual mode", () => {
  test("there are at least 20, each with a seed that kills it", () => {
    expect(eventualMutants.length).toBeGreaterThanOrEqual(20)
    const alive = eventualMutants.filter(({ name }) => kills[name]?.seed === undefined)
    expect(alive.map(({ name }) => name)).toEqual([])
  })

  test("some of them, another choice each time, are found again", () => {
    const chosen = new Prng(freshSeed).shuffle([...eventualMutants]).slice(0, mutantsTried)
    for (const mutant of chosen) {
      const seed = kills[mutant.name]?.seed as number
      const { violation } = runEventualSeed({ seed, mutant })
      const command = `npm run sim -- --eventual ${seed} --mutant ${mutant.name}`
      expect(shownBy(mutant, violation), command).toBe(true)
      expect(runEventualSeed({ seed }).violation, command).toBe(undefined)
    }
  }, 120_000)
})
