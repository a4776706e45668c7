import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { OverlapModel, type Rules } from "./overlapModel.ts"

function historyOf(seed: number, rules: Rules): OverlapModel {
  const model = new OverlapModel(new Prng(seed), rules)
  model.run(6000)
  return model
}

describe("with W + R > N a read meets every complete write, whatever versions of the ring are at work", () => {
  test("in random histories of joins, leaves, losses and replacements", () => {
    let reads = 0
    let steps = 0
    for (let seed = 0; seed < 16; seed++) {
      const model = historyOf(seed, {})
      expect(model.findings).toEqual([])
      reads += model.readsMet
      steps += model.stepsMade
    }
    expect(reads).toBeGreaterThan(3000)
    expect(steps).toBeGreaterThan(500)
  })

  const mutants: ReadonlyArray<readonly [keyof Rules, number]> = [
    ["readsOldWhenFilled", 5],
    ["ownsUnconfirmed", 24],
    ["streamsUnconfirmed", 116],
    ["writesOldOnly", 0],
    ["takesMoved", 4],
  ]
  test.each(mutants)("a ring change with the mistake %s is caught (seed %i)", (mistake, seed) => {
    expect(historyOf(seed, { [mistake]: true }).findings).not.toEqual([])
    expect(historyOf(seed, {}).findings).toEqual([])
  })
})
