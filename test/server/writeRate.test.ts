import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { delayMaxMs, WriteRate } from "../../src/server/writeRate.ts"

const mebibyte = 1024 * 1024

/** A writer that would write 100 MiB/s into stages of 256 MiB that drain in flushes of 64 MiB at `drain` MiB/s. */
function simulate(drain: number, seconds: number, jitter = 0) {
  const prng = new Prng(1)
  const rate = new WriteRate(20 * mebibyte)
  let nowMs = 0
  let held = 0
  let flushEndsMs = Number.POSITIVE_INFINITY
  const waits: Array<number> = []
  const written: Array<number> = []
  let stops = 0
  while (nowMs < seconds * 1000) {
    const bytes = 16 * 1024
    if (flushEndsMs <= nowMs) {
      held -= 64 * mebibyte
      rate.flushed(nowMs, 64 * mebibyte, true)
      flushEndsMs = Number.POSITIVE_INFINITY
    }
    if (held >= 64 * mebibyte && flushEndsMs === Number.POSITIVE_INFINITY) {
      const factor = 1 + jitter * (prng.int(0, 1000) / 1000)
      flushEndsMs = nowMs + (64_000 / drain) * factor
    }
    if (held + bytes > 256 * mebibyte) {
      stops++
      nowMs++
      continue
    }
    held += bytes
    written.push(nowMs)
    nowMs += (bytes / (100 * mebibyte)) * 1000
    const wait = rate.delayMs(nowMs, bytes, held / (256 * mebibyte))
    waits.push(wait)
    nowMs += wait
  }
  return { waits, stops, rate: (written.length * 16 * 1024) / mebibyte / seconds, held }
}

describe("the write rate", () => {
  test("a writer slower than the engine never waits", () => {
    const { waits, stops } = simulate(400, 20)
    expect(stops).toBe(0)
    expect(Math.max(...waits)).toBe(0)
  })

  test("a writer faster than the engine is slowed to its rate by short waits, and never stopped", () => {
    for (const drain of [10, 25, 50]) {
      const { waits, stops, rate } = simulate(drain, 120, 0.5)
      expect(stops).toBe(0)
      expect(Math.max(...waits)).toBeLessThanOrEqual(delayMaxMs)
      expect(rate).toBeGreaterThan(drain * 0.6)
      expect(rate).toBeLessThan(drain * 1.3)
    }
  })

  test("when the stages have emptied writers are free at once", () => {
    const rate = new WriteRate(mebibyte)
    expect(rate.delayMs(0, mebibyte, 0.99)).toBe(delayMaxMs)
    expect(rate.bytesPerSecond).toBeLessThan(mebibyte)
    expect(rate.delayMs(1, mebibyte, 0.1)).toBe(0)
    expect(rate.bytesPerSecond).toBe(Number.POSITIVE_INFINITY)
  })

  test("idle time between bursts does not count as time that a flush took", () => {
    const rate = new WriteRate(32 * mebibyte)
    let nowMs = 0
    for (let burst = 0; burst < 20; burst++) {
      nowMs += 60_000
      rate.flushed(nowMs, 64 * mebibyte, true)
      nowMs += 500
      rate.flushed(nowMs, 64 * mebibyte, false)
    }
    rate.delayMs(nowMs, 1, 0.7)
    expect(rate.bytesPerSecond).toBeGreaterThan(100 * mebibyte)
  })
})
