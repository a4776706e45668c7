import { describe, expect, test } from "bun:test"
import { LogAge, type RetainedLog, releasableIndexes } from "../../src/server/retention.ts"

const log = (fields: Partial<RetainedLog>): RetainedLog => ({
  flushedIndex: 100,
  lastIndex: 100,
  sizeBytes: 1000,
  bytesAbove: (index) => 10 * (100 - index),
  slowestMatch: 100,
  agedIndex: 100,
  ...fields,
})
const rule = { retentionBytes: 10_000, retainedEntries: 10 }

describe("retention", () => {
  test("an entry whose state is not flushed is never released", () => {
    expect(releasableIndexes([log({ flushedIndex: 40 })], rule)).toEqual([40])
    const none = { retentionBytes: 0, retainedEntries: 0 }
    expect(releasableIndexes([log({ flushedIndex: 40 })], none)).toEqual([40])
  })

  test("a leader keeps what its slowest follower lacks, while the budget lasts", () => {
    expect(releasableIndexes([log({ slowestMatch: 30 })], rule)).toEqual([30])
  })

  test("beyond the budget the largest laggard loses first, and only as much as is needed", () => {
    const logs = [log({ slowestMatch: 80 }), log({ slowestMatch: 10 }), log({ slowestMatch: 90 })]
    expect(releasableIndexes(logs, { ...rule, retentionBytes: 400 })).toEqual([80, 100, 90])
  })

  test("what is younger than the retention time stays whatever the budget", () => {
    const logs = [log({ slowestMatch: 10, agedIndex: 25 })]
    expect(releasableIndexes(logs, { ...rule, retentionBytes: 0 })).toEqual([25])
  })

  test("a follower keeps its last entries, in case it must lead", () => {
    expect(releasableIndexes([log({ slowestMatch: undefined })], rule)).toEqual([90])
  })
})

describe("the age of a log", () => {
  test("an index is aged once it was the last one for the retention time", () => {
    const age = new LogAge(1200)
    age.mark(0, 5)
    age.mark(100, 9)
    expect(age.agedIndex(1199)).toBe(0)
    expect(age.agedIndex(1200)).toBe(5)
    for (let nowMs = 200; nowMs <= 5000; nowMs += 100) age.mark(nowMs, nowMs)
    expect(age.agedIndex(5000)).toBe(3800)
  })
})
