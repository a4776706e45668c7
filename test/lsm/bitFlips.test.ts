import { expect, test } from "bun:test"
import { runBitFlips } from "./bitFlips.ts"
import { freshSeed } from "./harness.ts"

const kinds = [
  "CURRENT",
  "journal batch",
  "journal header",
  "manifest",
  "table data and index pages",
  "table filter",
  "table footer",
  "table header",
  "table index",
  "table properties",
  "table tombstones",
]

test("one flipped bit in any kind of file is noticed, and never answered", () => {
  for (const seed of [1, freshSeed("bit flips")]) {
    const report = runBitFlips(200, seed)
    expect(Object.keys(report.kinds).sort()).toEqual(kinds)
    for (const [kind, counts] of Object.entries(report.kinds)) {
      expect(counts.open + counts.verify, kind).toBe(counts.flips)
    }
    // A compaction past the caches meets what it rewrites.
    expect(report.kinds["table data and index pages"]?.compaction).toBeGreaterThan(0)
  }
}, 60_000)
