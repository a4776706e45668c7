import { expect, test } from "bun:test"
import { ExactlyOnce } from "./exactlyOnce.ts"

test("pitfall 32: 10,000 adds end at 10,000, with answers lost at random, over crashes and snapshots", () => {
  const report = new ExactlyOnce(2, { splits: false }).run(10_000)
  expect(report.total).toBe(10_000n)
  expect(report.repliesLost).toBeGreaterThan(3000)
  expect(report.attempts).toBeGreaterThan(13_000)
  expect(report.crashes).toBeGreaterThan(15)
  expect(report.snapshotFrames).toBeGreaterThan(10)
}, 60_000)

test("pitfall 32: adds that are tried again while their range splits take effect once", () => {
  for (let seed = 2; seed <= 4; seed++) {
    const report = new ExactlyOnce(seed, { splits: true }).run(2000)
    expect(report.total).toBe(2000n)
    expect(report.splits).toBeGreaterThan(0)
  }
}, 60_000)
