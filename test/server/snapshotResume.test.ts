import { expect, test } from "bun:test"
import { BackgroundRate } from "../../src/server/backgroundRate.ts"
import { LoopCluster, learner, voter } from "./loopCluster.ts"

/** A new replica whose node is cut off in the middle of its snapshot; returns the frames sent to it, before the cut and after. */
function cutSnapshot(cutMs: number): { before: Array<number>; after: Array<number> } {
  const cluster = new LoopCluster({
    settings: { snapshotFrameBytes: 1024, snapshotKeepMs: 20_000 },
  })
  for (let i = 0; i < 60; i++) cluster.put(`key${i}`, `${i}`.padEnd(300, "."))
  cluster.start(4)
  const [before, after]: [Array<number>, Array<number>] = [[], []]
  let isCut = false
  let isHealed = false
  cluster.loses = (from, to, message) => {
    const isFrame = message._tag === "SnapshotFrame" && message.range === 1
    if (isFrame) (isHealed ? after : before).push(message.sequence)
    if (isFrame && message.sequence === 6) isCut = true
    return isCut && !isHealed && (from === 4 || to === 4)
  }
  const { node, token } = cluster.begin({
    _tag: "ChangeMembers",
    range: 1,
    membersVersion: 1,
    replicas: [voter(1), voter(2), voter(3), learner(4, 10)],
  })
  expect(cluster.answer(node, token)?._tag).toBe("Changed")
  cluster.until("the stream is cut", () => isCut)
  cluster.pass(cutMs)
  isHealed = true
  cluster.expectWhole()
  return { before, after }
}

test("pitfall 30: a snapshot that was cut off goes on where it was, also when its sender had given up", () => {
  for (const cutMs of [500, 5000]) {
    const { before, after } = cutSnapshot(cutMs)
    expect(before.filter((sequence) => sequence === 0)).toHaveLength(1)
    expect(Math.min(...after)).toBe(6)
    expect(Math.max(...after)).toBeGreaterThan(10)
  }
})

test("a snapshot that was cut off for longer than it is kept begins anew", () => {
  const { after } = cutSnapshot(40_000)
  expect(after[0]).toBe(0)
})

test("snapshots give way to requests, never stand still, and take what is free", () => {
  const rate = new BackgroundRate({
    leastBytesPerSecond: 1000,
    mostBytesPerSecond: 8000,
  })
  const waitAfter = (busy: boolean, ticks: number, nowMs: number) => {
    for (let i = 0; i < ticks; i++) {
      if (busy) rate.noteForeground()
      rate.tick(true)
    }
    expect(rate.takes(nowMs, 1000)).toBe(true)
    expect(rate.takes(nowMs, 1000)).toBe(false)
    return rate.waitMs(nowMs)
  }
  expect(waitAfter(false, 10, 1000)).toBe(125)
  expect(waitAfter(true, 1, 3000)).toBe(250)
  expect(waitAfter(true, 10, 5000)).toBe(1000)
  expect(waitAfter(false, 1, 7000)).toBe(500)
})

test("while requests are served, snapshots take what those do not feel", () => {
  const rate = new BackgroundRate({
    leastBytesPerSecond: 1000,
    mostBytesPerSecond: 64_000,
  })
  let nowMs = 0
  const serve = (ticks: number, latencyMs: number, isSending: boolean) => {
    for (let i = 0; i < ticks; i++) {
      rate.noteForeground()
      if (latencyMs > 0) rate.noticeLatency(latencyMs)
      rate.tick(isSending)
    }
    nowMs += 10_000
    expect(rate.takes(nowMs, 1000)).toBe(true)
    return Math.round(1_000_000 / rate.waitMs(nowMs))
  }
  // Without a snapshot nothing is learned of what one costs.
  expect(serve(20, 4, false)).toBe(1000)
  // As quick as without one, or hardly slower: the rate rises, a quarter a tick.
  expect(serve(1, 4, true)).toBe(1250)
  expect(serve(40, 5, true)).toBe(64_000)
  // Twice as slow: it falls to the least.
  expect(serve(40, 10, true)).toBe(1000)
  expect(serve(40, 4, true)).toBe(64_000)
  // One slow answer of many holds it up for a moment only.
  serve(1, 10_000, true)
  expect(serve(12, 4, true)).toBeGreaterThan(30_000)
  expect(serve(40, 4, true)).toBe(64_000)
  // No answer at all within a tick is felt at once.
  expect(serve(1, 0, true)).toBe(32_000)
  // The next snapshot begins with what is known of times without one alone.
  expect(serve(1, 4, false)).toBe(16_000)
  expect(serve(1, 100, true)).toBe(8000)
})
