import { expect, test } from "bun:test"
import { runJournalCrashSweep, runJournalLife } from "./crashSweep.ts"

test("a crash at any operation loses nothing durable, and the journal goes on from it", () => {
  for (const seed of [1, 2]) {
    const result = runJournalCrashSweep({ seed, steps: 500, randomLosses: 2 })
    expect(result.points).toBeGreaterThan(100)
    console.log(`journal crash sweep, seed ${seed}: ${JSON.stringify(result)}`)
  }
}, 60_000)

test("a long random life with crashes follows the model", () => {
  const fresh = Math.floor(performance.timeOrigin) % 2 ** 31
  console.log(`journal life: fresh seeds ${fresh} to ${fresh + 99}`)
  for (let i = 0; i < 200; i++) {
    const seed = i < 100 ? i : fresh + i - 100
    try {
      runJournalLife(seed, 2000)
    } catch (error) {
      throw new Error(`seed ${seed}: ${error}`, { cause: error })
    }
  }
}, 60_000)
