import { describe, expect, test } from "bun:test"
import { debtOf, JobCancelled, PaceController, paceWords } from "../../src/server/pace.ts"
import { WorkerPace } from "../../src/server/WorkerPace.ts"

const settings = { limitMs: 5, leastBytesPerSecond: 10, mostBytesPerSecond: 1000 }

describe("the pace of background work", () => {
  test("it is unlimited while the foreground does not feel it", () => {
    const pace = new PaceController(settings)
    for (let i = 0; i < 5; i++) expect(pace.step({ latencyMs: 4, debt: 0 })).toBe(0)
    expect(pace.step({ latencyMs: undefined, debt: 0 })).toBe(0)
  })

  test("it halves with each step in which the foreground is slow, and comes back by tenths", () => {
    const pace = new PaceController(settings)
    expect(pace.step({ latencyMs: 9, debt: 0 })).toBe(500)
    expect(pace.step({ latencyMs: 9, debt: 0 })).toBe(250)
    expect(pace.step({ latencyMs: 1, debt: 0 })).toBe(275)
    for (let i = 0; i < 20; i++) pace.step({ latencyMs: 9, debt: 0 })
    expect(pace.step({ latencyMs: 9, debt: 0 })).toBe(10)
    let steps = 0
    while (pace.step({ latencyMs: undefined, debt: 0 }) !== 0) steps++
    expect(steps).toBeLessThan(60)
  })

  test("debt sets a floor under it, and lifts it altogether before writers are held back", () => {
    const pace = new PaceController(settings)
    for (let i = 0; i < 20; i++) pace.step({ latencyMs: 9, debt: 0 })
    expect(pace.step({ latencyMs: 9, debt: 0.5 })).toBe(505)
    expect(pace.step({ latencyMs: 9, debt: 1 })).toBe(0)
    expect(debtOf(0.1)).toBe(0)
    expect(debtOf(0.41)).toBe(1)
  })

  test("a worker sleeps as its pace says, counts what it spends, and stops when told", () => {
    const memory = new SharedArrayBuffer(paceWords.length * 4)
    const words = new Int32Array(memory)
    const pace = new WorkerPace(memory)
    const began = performance.now()
    for (let i = 0; i < 100; i++) pace.spend(64 * 1024)
    expect(performance.now() - began).toBeLessThan(50)
    expect(words[paceWords.spentKib]).toBe(6400)
    words[paceWords.kibPerSecond] = 6400
    const slow = performance.now()
    for (let i = 0; i < 10; i++) pace.spend(64 * 1024)
    const tookMs = performance.now() - slow
    expect(tookMs).toBeGreaterThan(60)
    expect(tookMs).toBeLessThan(500)
    words[paceWords.cancel] = 1
    expect(() => pace.spend(1)).toThrow(JobCancelled)
  })
})
