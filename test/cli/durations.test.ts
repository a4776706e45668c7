import { describe, expect, test } from "bun:test"
import { parseNode } from "../../src/cli/addresses.ts"
import { parseConsistency, parseDurationMs } from "../../src/cli/Durations.ts"
import { ttlOption } from "../../src/cli/Flags.ts"

describe("durations", () => {
  test.each([
    ["500ms", 500],
    ["30s", 30_000],
    ["1.5 h", 5_400_000],
    ["2m", 120_000],
    ["2min", 120_000],
    ["1d", 86_400_000],
    ["1w", 604_800_000],
    ["250us", 0.25],
    ["3 seconds", 3_000],
  ])("%p is %p ms", (source, ms) => {
    expect(parseDurationMs(source)).toBe(ms)
  })

  test.each(["", "30", "s", "30x", "-5s", "1e3s", "30s5", "Infinity", "1..5s"])(
    "%p is none, and the text says how to write one",
    (source) => {
      expect(parseDurationMs(source)).toContain("such as 500ms or 30s")
    },
  )

  test("a ttl is above 0, or left out", () => {
    expect(ttlOption(undefined)).toEqual({})
    expect(ttlOption("2s")).toEqual({ ttlMs: 2000 })
    expect(ttlOption("0s")).toContain("leave it out")
    expect(ttlOption("soon")).toStartWith("--ttl: ")
  })
})

describe("levels", () => {
  test("a level is one of three, and bounded has its age", () => {
    expect(parseConsistency("linearizable")).toEqual({ level: "linearizable" })
    expect(parseConsistency("local")).toEqual({ level: "local" })
    expect(parseConsistency("bounded:500ms")).toEqual({ level: "bounded", maxStalenessMs: 500 })
    expect(parseConsistency("bounded")).toContain("bounded:500ms")
    expect(parseConsistency("bounded:1us")).toContain("1ms or more")
    expect(parseConsistency("bounded:soon")).toContain("not a duration")
    expect(parseConsistency("strong")).toContain("none of linearizable, bounded:500ms")
  })
})

test("a node is named n4 or 4", () => {
  expect([parseNode("n4"), parseNode("12")]).toEqual([4, 12])
  for (const word of ["", "n0", "n", "x4", "n4 ", "n-1", "n1.5"]) {
    expect(parseNode(word)).toBeUndefined()
  }
})
