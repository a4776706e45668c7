import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { freshSeed } from "./harness.ts"
import { MutantTree, misplacedMutants } from "./mutants.ts"
import { type EngineMutant, engineMutants } from "./mutantsList.ts"
import { killingSeeds } from "./mutantsSeeds.ts"

const replayed = 6

describe("mutants of the engine", () => {
  test("every mutant has its place, and there are at least 20", () => {
    expect(misplacedMutants()).toEqual([])
    expect(engineMutants.length).toBeGreaterThanOrEqual(20)
    expect(new Set(engineMutants.map(({ name }) => name)).size).toBe(engineMutants.length)
  })

  test("for every one the test that kills it is known", () => {
    const known = Object.keys(killingSeeds)
    expect(engineMutants.map(({ name }) => name).filter((name) => !known.includes(name))).toEqual(
      [],
    )
  })

  test("some of them, another choice each time, are killed again", async () => {
    const prng = new Prng(freshSeed("engine mutants"))
    // Those killed by a named test alone would take the time of all named tests.
    const drawn = engineMutants.filter(({ name }) => killingSeeds[name]?.[0] !== "named test")
    const tree = new MutantTree()
    try {
      for (const mutant of prng.shuffle([...drawn]).slice(0, replayed)) {
        expect(`${mutant.name}: ${await isKilled(tree, mutant)}`).toBe(`${mutant.name}: true`)
      }
    } finally {
      tree.remove()
    }
  }, 180_000)
})

async function isKilled(tree: MutantTree, mutant: EngineMutant): Promise<boolean> {
  const [killer, seed] = killingSeeds[mutant.name] as readonly [string, number]
  tree.plant(mutant)
  try {
    // A change of the engine moves what a seed does: the next ones may do as well.
    for (let next = seed; next < seed + 4; next++) {
      if ((await tree.try(killer, next)).killed) return true
    }
    return false
  } finally {
    tree.heal(mutant)
  }
}
