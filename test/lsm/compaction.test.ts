import { describe, expect, test } from "bun:test"
import { compareBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { planCompaction } from "../../src/lsm/compaction.ts"
import { type Fragment, Version } from "../../src/lsm/version.ts"

const options = {
  memtableBytes: 1000,
  level0Trigger: 2,
  maxLevel0Runs: 3,
  level1Bytes: 4000,
  compactionBytes: 4000,
}

let files = 0

function fragment(
  level: number,
  lower: string,
  upper: string,
  liveBytes: number,
  run = 0,
): Fragment {
  const file = { fileNumber: ++files, sizeBytes: liveBytes, checksum: 0, entries: 1 }
  return { ...file, level, run, liveBytes, lower: utf8(lower), upper: utf8(upper) }
}

/** As if the bytes of a fragment lay evenly over its keys, of four digits. */
function measure(part: Fragment, lower: Uint8Array, upper: Uint8Array): number {
  const number = (bytes: Uint8Array) => Number(text(bytes))
  const [from, to] = [number(part.lower), number(part.upper)]
  const covered = Math.min(to, number(upper)) - Math.max(from, number(lower))
  return (part.liveBytes * covered) / (to - from)
}

function plan(fragments: ReadonlyArray<Fragment>, level1From?: string) {
  const from = level1From === undefined ? undefined : utf8(level1From)
  const result = planCompaction(new Version(fragments), options, from, measure)
  if (result === undefined) return undefined
  const { inputLevels, outputLevel, lower, upper, dropDeletes } = result
  const deletes = dropDeletes ? "drop" : "keep"
  return `${inputLevels} > ${outputLevel} [${text(lower)}, ${text(upper)}) ${deletes}`
}

describe("the planner", () => {
  test("leaves a small level 0 and a level 1 below its target alone", () => {
    expect(plan([])).toBeUndefined()
    expect(plan([fragment(0, "0000", "9999", 1000, 1)])).toBeUndefined()
    expect(plan([fragment(1, "0000", "9999", 4000)])).toBeUndefined()
  })

  test("merges all of level 0 into level 1 when it fits one job", () => {
    const level0 = [fragment(0, "0100", "0900", 1000, 1), fragment(0, "0000", "0800", 1000, 2)]
    expect(plan(level0)).toBe("0,1 > 1 [0100, 0900) drop")
    expect(plan([...level0, fragment(2, "0300", "0400", 10)])).toBe("0,1 > 1 [0100, 0900) keep")
  })

  test("takes the slice that holds the beginning of the oldest run, cut where level 1 is", () => {
    const fragments = [
      fragment(0, "0000", "4000", 1000, 1),
      fragment(0, "0000", "4000", 1000, 2),
      ...["0000", "1000", "2000", "3000"].map((lower) =>
        fragment(1, lower, String(Number(lower) + 1000).padStart(4, "0"), 1500),
      ),
    ]
    expect(plan(fragments)).toBe("0,1 > 1 [0000, 2000) drop")
  })

  test("merges small runs with each other while much lies under them", () => {
    const small = [fragment(0, "0000", "0900", 100, 1), fragment(0, "0000", "0950", 100, 2)]
    const level1 = fragment(1, "0000", "1000", 3000)
    expect(plan([...small, level1])).toBe("0 > 0 [0000, 0950) keep")
  })

  test("cuts a table of level 2 only where what lies over it is too much for one job", () => {
    const level1 = Array.from({ length: 20 }, (_, i) =>
      fragment(1, String(4000 + 10 * i), String(4010 + 10 * i), 1000),
    )
    const below = fragment(2, "0000", "9000", 1000)
    // Whole, it would be 21,000 bytes.
    expect(plan([...level1, below])).toBe("1,2 > 2 [0000, 4030) drop")
    // Once level 1 is hardly above its target, the table stays whole.
    const few = level1.slice(0, 5).map((part) => ({ ...part, liveBytes: 900 }))
    const light = fragment(2, "4000", "4021", 1000)
    expect(plan([...few, light])).toBe("1,2 > 2 [4000, 4030) drop")
  })

  test("goes round level 1, so that no part of it waits for ever", () => {
    const level1 = Array.from({ length: 8 }, (_, i) =>
      fragment(1, String(1000 * (i + 1)), String(1000 * (i + 2) - 1), 1500),
    )
    const starts = new Set<string>()
    let from: string | undefined
    for (let i = 0; i < 8; i++) {
      const version = new Version(level1)
      const next = planCompaction(version, options, from === undefined ? from : utf8(from), measure)
      expect(next).toBeDefined()
      starts.add(text(next?.lower as Uint8Array))
      expect(compareBytes(next?.lower as Uint8Array, next?.upper as Uint8Array)).toBeLessThan(0)
      from = text(next?.upper as Uint8Array)
    }
    expect(starts.size).toBe(4)
  })
})
