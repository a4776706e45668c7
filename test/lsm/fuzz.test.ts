import { expect, test } from "bun:test"
import { runStorageFuzz } from "./fuzz.ts"
import { freshSeed } from "./harness.ts"

test("every decoder of stored bytes refuses what is malformed, and does nothing else", () => {
  for (const seed of [1, freshSeed("storage fuzz")]) {
    const report = runStorageFuzz(40_000, seed)
    for (const [name, refused] of Object.entries(report.refused)) {
      // The inputs are wrong ones, and reach further than the first check: some are taken.
      expect(refused + report.taken[name], name).toBeGreaterThan(200)
    }
    // Nothing is set aside by a claimed length, which is gigabytes in many inputs.
    expect(report.grownBytes).toBeLessThan(256 * 2 ** 20)
  }
}, 60_000)
