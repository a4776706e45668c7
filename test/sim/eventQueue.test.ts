import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { EventQueue } from "./eventQueue.ts"

test("events come out by time, and in order of scheduling at one time", () => {
  for (let seed = 0; seed < 50; seed++) {
    const prng = new Prng(seed)
    const queue = new EventQueue()
    const out: Array<number> = []
    const times: Array<number> = []
    let scheduled = 0
    let now = 0
    const schedule = () => {
      const id = scheduled++
      times[id] = now + prng.int(0, 20)
      queue.push(times[id] as number, () => out.push(id))
    }
    for (let i = 0; i < 50; i++) schedule()
    while (queue.size > 0) {
      const event = queue.pop()
      expect(event.time).toBeLessThanOrEqual(queue.nextTime)
      now = event.time
      event.run()
      if (scheduled < 400 && prng.chance(0.9)) schedule()
    }
    expect(out.length).toBe(scheduled)
    for (let i = 1; i < out.length; i++) {
      const before = out[i - 1] as number
      const after = out[i] as number
      const timeBefore = times[before] as number
      const timeAfter = times[after] as number
      expect(timeBefore < timeAfter || (timeBefore === timeAfter && before < after)).toBe(true)
    }
  }
})
