import { describe, expect, test } from "bun:test"
import { shownBy } from "../mutants/mutant.ts"
import { damageMutants } from "./damageMutants.ts"
import { EventualWorld, runEventualSeed } from "./world.ts"

/** Seeds that show them, with damage in their worlds. */
const shown: Readonly<Record<string, number>> = { clock: 17, epoch: 362 }

describe("eventual mode while one node's disk is damaged, again and again", () => {
  for (const mutant of damageMutants) {
    test(`it is found out when ${mutant.title}`, () => {
      const seed = shown[mutant.name] as number
      expect(new EventualWorld({ seed }).parameters.rates.damage).toBeGreaterThan(0)
      expect(shownBy(mutant, runEventualSeed({ seed, mutant }).violation)).toBe(true)
      expect(runEventualSeed({ seed }).violation).toBe(undefined)
    }, 60_000)
  }
})
