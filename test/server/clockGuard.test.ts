import { describe, expect, test } from "bun:test"
import { ClockGuard, clockAheadMaxMs } from "../../src/server/clockGuard.ts"
import type { Reply } from "../../src/server/requests.ts"
import { Trio } from "./trio.ts"

const wallMs = 1_700_000_000_000
const own = (monotonicMs: number) => ({ monotonicMs, wallMs })

describe("the guard against a clock that runs ahead", () => {
  const guardOf = (...offsets: ReadonlyArray<number>) => {
    const guard = new ClockGuard()
    for (const [i, offset] of offsets.entries()) guard.observe(i + 2, wallMs + offset, own(1000))
    return guard
  }

  test("alone a node believes its clock", () => {
    expect(guardOf().isTrusted(1000)).toBe(true)
  })

  test("it is ahead of the median, not of any single peer", () => {
    expect(guardOf(-60_000, -100, 200).isTrusted(1000)).toBe(true)
    expect(guardOf(-60_000, -60_100, 200).isTrusted(1000)).toBe(false)
    expect(guardOf(-60_000, 0).isTrusted(1000)).toBe(true)
    expect(guardOf(-60_000, -20_000).isTrusted(1000)).toBe(false)
    expect(guardOf(-60_000).aheadMs(1000)).toBe(60_000)
  })

  test("behind them it may be by any time", () => {
    expect(guardOf(3_600_000, 3_600_000).isTrusted(1000)).toBe(true)
  })

  test("the limit itself is trusted", () => {
    expect(guardOf(-clockAheadMaxMs).isTrusted(1000)).toBe(true)
    expect(guardOf(-clockAheadMaxMs - 1).isTrusted(1000)).toBe(false)
  })

  test("what was heard long ago is forgotten", () => {
    const guard = guardOf(-60_000)
    expect(guard.isTrusted(10_999)).toBe(false)
    expect(guard.isTrusted(11_001)).toBe(true)
  })

  test("it tells its own clock once a second", () => {
    const guard = new ClockGuard()
    const told = []
    for (let nowMs = 0; nowMs <= 2500; nowMs += 30) if (guard.tells(nowMs)) told.push(nowMs)
    expect(told).toEqual([0, 1020, 2040])
  })
})

describe("a leader whose clock runs an hour ahead", () => {
  const hourUs = 3_600_000_000

  test("stamps by its log alone and says so, until it is set right", () => {
    const trio = new Trio()
    const leader = trio.leader()
    const before = trio.put("a", "1").version
    leader.wallAheadMs = 3_600_000
    trio.pass(2500)
    // The client's clock is right.
    leader.wallAheadMs = 0
    const token = leader.mutate("b", { put: "1" })
    leader.wallAheadMs = 3_600_000
    const skewed = trio.answer(leader, token) as Extract<Reply, { _tag: "Mutated" }>
    expect(skewed.version).toBeGreaterThan(before)
    expect(skewed.version - before).toBeLessThan(hourUs / 60)
    expect(skewed.rangeTime - before).toBeLessThan(hourUs / 60)
    expect(leader.reports.filter((line) => line.includes("ClockSkew")).length).toBe(1)
    leader.wallAheadMs = 0
    trio.pass(2500)
    const right = trio.put("c", "1")
    expect(right.version - skewed.version).toBeGreaterThan(2_000_000)
  })

  test("with peers as far ahead it is not alone, and goes on by its clock", () => {
    const trio = new Trio()
    trio.leader()
    const before = trio.put("a", "1").version
    for (const node of trio.nodes) node.wallAheadMs = 3_600_000
    trio.pass(2500)
    expect(trio.put("b", "1").version - before).toBeGreaterThan(hourUs)
  })
})
