import { expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import { attemptStoreJob } from "../../src/server/storeJobs.ts"
import { StoreLoop } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"

const ranges = [1, 2, 3, 4]
const underWay = 16
const beginMs = 3000

/** Every range has as many puts under way as it may, while the engine is behind; returns the puts done by range and the longest wait. */
function putEverywhere(untilMs: number): { done: ReadonlyArray<number>; longestMs: number } {
  const disk = new SimulatedDisk()
  let nowMs = 1000
  const clock = () => ({ monotonicMs: nowMs, wallMs: 1_700_000_000_000 + nowMs })
  const settings = {
    ...defaultSettings,
    journal: { ...defaultSettings.journal, segmentBytes: 4 * 1024 * 1024 },
    space: { reserveBytes: 0, lowFreeBytes: 0 },
  }
  const loop = StoreLoop.open({
    node: 1,
    disk,
    prng: new Prng(1),
    settings,
    descriptors: bootstrapDescriptors([1]),
    clock: clock(),
  })
  Object.defineProperty(loop.storage, "fullness", { get: () => 0.75 })
  const keys = ranges.map((range) => {
    for (let i = 0; ; i++) {
      const position = hashPosition(1, utf8(`k${i}`))
      if (loop.replicas.get(range)?.machine.contains(position)) return `k${i}`
    }
  })
  const done = ranges.map(() => 0)
  const asked = new Map<number, { readonly at: number; readonly sinceMs: number }>()
  let token = 0
  const ask = (at: number) => {
    token++
    asked.set(token, { at, sinceMs: nowMs })
    const expiresAt = versionOfWall(clock().wallMs) + 60_000_000
    const ackedBelow = Math.max(1, token - 500)
    const bytes = command(keys[at] as string, {
      sequence: token,
      ackedBelow,
      expiresAt,
      text: "v".repeat(8000),
    })
    loop.request({
      _tag: "Mutate",
      range: ranges[at] as number,
      deadlineMs: 3000,
      token,
      command: bytes,
    })
  }
  let longestMs = 0
  for (; nowMs < untilMs; nowMs++) {
    if (nowMs === beginMs)
      ranges.forEach((_, at) => void Array.from({ length: underWay }, () => ask(at)))
    const output = loop.turn(clock())
    for (const reply of output.replies) {
      const { at, sinceMs } = asked.get(reply.token) ?? { at: -1, sinceMs: 0 }
      asked.delete(reply.token)
      expect(reply._tag).toBe("Mutated")
      done[at] = (done[at] ?? 0) + 1
      longestMs = Math.max(longestMs, nowMs - sinceMs)
      ask(at)
    }
    for (const job of output.jobs) loop.jobDone(job, attemptStoreJob(disk, job))
    if (output.journal === undefined) continue
    const file = disk.open(output.journal.path)
    file.write(output.journal.bytes, output.journal.offset)
    file.sync()
    file.close()
    loop.journalDurable(output.journal)
  }
  return { done, longestMs }
}

test("while proposals are held back all ranges get their share", () => {
  const { done, longestMs } = putEverywhere(beginMs + 1000)
  expect(Math.min(...done)).toBeGreaterThan(100)
  expect(Math.min(...done) / Math.max(...done)).toBeGreaterThan(0.8)
  expect(longestMs).toBeLessThan(100)
}, 30_000)
