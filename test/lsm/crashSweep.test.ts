import { expect, test } from "bun:test"
import { runEngineCrashSweep } from "./crashSweep.ts"
import { runStoreCrashSweep } from "./crashSweepStore.ts"
import { freshSeed } from "./harness.ts"

test("after a crash at any disk operation the engine holds a prefix without holes", () => {
  const result = runEngineCrashSweep({ steps: 140, randomLosses: 0, seed: 2 })
  expect(result.points).toBeGreaterThan(250)
  expect(result.crashedOpens).toBeGreaterThan(100)
  expect(result.backups).toBeGreaterThan(50)
}, 60_000)

test("so it does for a fresh seed", () => {
  const result = runEngineCrashSweep({
    steps: 100,
    randomLosses: 0,
    seed: freshSeed("engine crash sweep"),
  })
  expect(result.opens).toBeGreaterThanOrEqual(5 * result.points)
}, 60_000)

test("journal and engine as one lose no batch whose write was durable, and none in the middle", () => {
  for (const seed of [1, freshSeed("store crash sweep")]) {
    const result = runStoreCrashSweep({ steps: 24, randomLosses: 0, seed })
    expect(result.points).toBeGreaterThan(100)
    expect(result.opens).toBeGreaterThanOrEqual(5 * result.points)
  }
}, 60_000)
