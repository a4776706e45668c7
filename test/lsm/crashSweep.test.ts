import { expect, test } from "bun:test"
import { runEngineCrashSweep } from "./crashSweep.ts"
import { freshSeed } from "./harness.ts"

const volume = { steps: 200, randomLosses: 2 }

test("after a crash at any disk operation the engine holds a prefix without holes", () => {
  const result = runEngineCrashSweep({ ...volume, seed: 1 })
  expect(result.points).toBeGreaterThan(300)
  expect(result.crashedOpens).toBeGreaterThan(100)
}, 60_000)

test("so it does for a fresh seed", () => {
  const result = runEngineCrashSweep({ ...volume, seed: freshSeed("engine crash sweep") })
  expect(result.opens).toBeGreaterThan(5 * result.points)
}, 60_000)
