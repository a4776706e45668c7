import { Prng } from "../../src/lib/prng.ts"
import { runBitFlips } from "./bitFlips.ts"
import { runEngineCrashSweep } from "./crashSweep.ts"
import { runStoreCrashSweep } from "./crashSweepStore.ts"
import { runStorageFuzz } from "./fuzz.ts"
import { runMetamorphic } from "./metamorphic.ts"
import { optionSets } from "./metamorphicOptions.ts"

/**
 * `bun mutantsKiller.ts NAME SEED`, in a copy of the tree with a mutant in it: prints `{killed, detail}`, whether the test of that name notices.
 */
const killers: Readonly<Record<string, (seed: number) => unknown>> = {
  metamorphic: (seed) => {
    // Traces without range deletes and iterators cost little.
    const sets = seed % 4 === 3 ? optionSets.length : 14
    runMetamorphic(seed, 1200, new Prng(seed).shuffle([...optionSets]).slice(0, sets))
  },
  crashSweep: (seed) => runEngineCrashSweep({ seed, steps: 120, randomLosses: 0 }),
  storeSweep: (seed) => runStoreCrashSweep({ seed, steps: 20, randomLosses: 0 }),
  bitFlips: (seed) => runBitFlips(200, seed),
  fuzz: (seed) => runStorageFuzz(20_000, seed),
}

const [, , name, seed] = process.argv
const killer = killers[name as string]
if (killer === undefined) throw new Error(`no killer ${name}`)
try {
  killer(Number(seed))
  console.log(JSON.stringify({ killed: false, detail: "" }))
} catch (error) {
  const detail = String(error instanceof Error ? error.message : error)
  console.log(JSON.stringify({ killed: true, detail: detail.slice(0, 300) }))
}
process.exit(0)
