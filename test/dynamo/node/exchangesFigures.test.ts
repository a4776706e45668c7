import { describe, expect, test } from "bun:test"
import { LargePair } from "./exchangesLarge.ts"

const passMs = 10_000

describe("two owners of 100,000 keys", () => {
  // Of 1,000,000 keys it is 12 KiB for each owner's pass as well, and 147 KiB for the 100 keys.
  test("exchange 13 KiB in a pass when equal, and less than 192 KiB in two to bring 100 keys over", () => {
    const pair = new LargePair(100_000, { passMs })
    // The first pass is made in a hurry.
    pair.run(1000)
    const equal = pair.run(passMs)
    expect(equal).toBeGreaterThan(0)
    expect(equal).toBeLessThan(2 * 13 * 1024)
    pair.rewrite(100)
    expect(pair.isEqual).toBe(false)
    expect(pair.run(2 * passMs)).toBeLessThan(192 * 1024)
    expect(pair.isEqual).toBe(true)
    expect(pair.run(passMs)).toBeLessThan(2 * 13 * 1024)
    expect(pair.differing).toBe(0)
  })
})
