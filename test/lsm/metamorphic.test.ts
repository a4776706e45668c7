import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { freshSeed } from "./harness.ts"
import { runMetamorphic } from "./metamorphic.ts"
import { optionSets } from "./metamorphicOptions.ts"
import { makeTrace } from "./metamorphicTrace.ts"

describe("however it is set up, an engine answers as a sorted map does", () => {
  test("there are at least 25 ways, each with a name of its own", () => {
    expect(new Set(optionSets.map(({ name }) => name)).size).toBe(optionSets.length)
    expect(optionSets.length).toBeGreaterThanOrEqual(25)
  })

  test("a trace has every kind of operation", () => {
    const tags = new Set(makeTrace(1, 10_000).map(({ operation }) => operation._tag))
    expect(tags.size).toBe(20)
  })

  test("every option set, over a short trace", () => {
    const report = runMetamorphic(2, 600)
    const kinds = ["Checkpoint", "Compact", "Flush", "Ingest", "IngestTables", "Move", "Scrub"]
    expect(Object.keys(report.jobs).sort()).toEqual(kinds)
  }, 60_000)

  test("some of them, over a long one", () => {
    runMetamorphic(1, 4000, new Prng(1).shuffle([...optionSets]).slice(0, 6))
  }, 60_000)

  test("a fresh seed", () => {
    const seed = freshSeed("metamorphic")
    runMetamorphic(seed, 1500, new Prng(seed).shuffle([...optionSets]).slice(0, 12))
  }, 60_000)
})
