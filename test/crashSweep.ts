import { runJournalCrashSweep, runJournalLife } from "./journal/crashSweep.ts"
import { runEngineCrashSweep } from "./lsm/crashSweep.ts"
import { runStoreCrashSweep } from "./lsm/crashSweepStore.ts"
import { runLoopCrashSweep } from "./server/crashSweepLoop.ts"

/**
 * `npm run crash-sweep [-- --seed N --seeds N --steps N --json]`: the sweeps of `npm test` at a larger volume. Journal, engine, both as one store, and
 * a node whose ranges come, split and go are crashed at every operation that they make on a simulated disk, in every way a crash can end (all kept, all unsynced lost, the process alone
 * killed, some of it lost at random, the last write torn), and again during the recovery; what was durable must be there, and nothing else but a
 * prefix. Exit code 1, with seed and point, at the first recovery that is wrong.
 */
const defaults = { seed: Math.floor(performance.timeOrigin % 2 ** 31), seeds: 12, steps: 300 }

function parse(words: ReadonlyArray<string>) {
  const options = { ...defaults, json: false }
  for (let i = 0; i < words.length; i++) {
    const name = (words[i] as string).slice(2)
    if (words[i] === "--json") options.json = true
    else if (name === "seed" || name === "seeds" || name === "steps") {
      const value = Number(words[++i])
      if (!Number.isSafeInteger(value) || value < 1) usage(`--${name} needs a whole number above 0`)
      options[name] = value
    } else usage(`unknown option ${words[i]}`)
  }
  return options
}

function usage(problem: string): never {
  console.error(`${problem}\nnpm run crash-sweep -- [--seed N] [--seeds N] [--steps N] [--json]`)
  process.exit(2)
}

const { seed: first, seeds, steps, json } = parse(process.argv.slice(2))
const total = { seeds, firstSeed: first, points: 0, recoveries: 0, lives: 0, seconds: 0 }
const start = performance.now()
try {
  for (let seed = first; seed < first + seeds; seed++) {
    const journal = runJournalCrashSweep({ seed, steps, randomLosses: 2 })
    const engine = runEngineCrashSweep({ seed, steps, randomLosses: 0 })
    // A step of the store makes about twenty operations.
    const store = runStoreCrashSweep({ seed, steps: Math.ceil(steps / 5), randomLosses: 0 })
    total.points += journal.points + engine.points + store.points
    // Each journal crash is recovered, crashed a second time, and recovered again.
    total.recoveries += 2 * journal.crashes + engine.opens + store.opens
    const loop = runLoopCrashSweep({ seed, points: steps })
    total.points += loop.points
    total.recoveries += loop.opens
    runJournalLife(seed, 20 * steps)
    total.lives++
    console.error(
      `seed ${seed}: crash points: journal ${journal.points}, engine ${engine.points}, store ${store.points}, node ${loop.points}; all recovered`,
    )
  }
} catch (error) {
  console.error(error)
  console.error(`npm run crash-sweep -- --seed ${first} --seeds ${seeds} --steps ${steps}`)
  process.exit(1)
}
total.seconds = Math.round((performance.now() - start) / 1000)
console.log(
  json
    ? JSON.stringify(total)
    : `${total.points} crash points, ${total.recoveries} recoveries, ${total.lives} long lives, from seed ${first}, in ${total.seconds} s: nothing durable was lost`,
)
