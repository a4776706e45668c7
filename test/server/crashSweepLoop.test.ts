import { expect, test } from "bun:test"
import { runLoopCrashSweep } from "./crashSweepLoop.ts"

test("pitfall 31: crashes amid snapshot, split and destruction leave a node that replays right", () => {
  const { points, opens } = runLoopCrashSweep({ seed: 1, points: 60 })
  expect(points).toBeGreaterThan(50)
  expect(opens).toBe(5 * points)
}, 60_000)
