import { describe, expect, test } from "bun:test"
import { AssertionError } from "../../../src/lib/assert.ts"
import { type RuleModel, ruleModels } from "../rules.ts"
import { plantedBugs } from "./exchangesBugs.ts"
import { Divergence } from "./exchangesHistory.ts"
import { ExchangesWorld } from "./exchangesWorld.ts"

/** The first seeds in which all of {@link ExchangesWorld.counts} happens, for each rule: the ones before 4 are long, and reap little. */
const firstSeed = 4
/** More are tried by hand: SEEDS=200 bun test test/dynamo/node/exchanges.test.ts. */
const seeds = Number(process.env.SEEDS ?? 5)

function modelOf(rule: string): RuleModel {
  const model = ruleModels.find((other) => other.rule === rule)
  if (model === undefined) throw new Error(`no rule ${rule}`)
  return model
}

describe("owners that exchange", () => {
  test.each(ruleModels.map(({ rule }) => rule))(
    "%s: clocks tell the truth, slots are filled, and in the end all are equal",
    (rule) => {
      const sums = new Map<string, number>()
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
        const world = new ExchangesWorld(seed, modelOf(rule))
        try {
          world.run()
        } catch (cause) {
          throw new Error(`seed ${seed}: ${cause}`, { cause })
        }
        for (const [name, count] of Object.entries(world.counts)) {
          sums.set(name, (sums.get(name) ?? 0) + count)
        }
      }
      // The worlds are worth something only if all of this happens in them.
      for (const [name, count] of sums) {
        const isMeant = rule !== "lww" || name !== "reaped"
        if (isMeant) expect(count, name).toBeGreaterThan(seeds / 4)
      }
    },
  )

  test.each(plantedBugs)("seen to fail: %s", (_, World, rules) => {
    for (const [rule, first] of Object.entries(rules)) {
      const isSeen = Array.from({ length: 60 }, (_, i) => first + i).some((seed) =>
        isWrong(new World(seed, modelOf(rule))),
      )
      expect(isSeen, rule).toBe(true)
    }
  })
})

function isWrong(world: ExchangesWorld): boolean {
  try {
    world.run()
    return false
  } catch (error) {
    if (error instanceof Divergence || error instanceof AssertionError) return true
    throw error
  }
}
