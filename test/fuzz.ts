import { runBitFlips } from "./lsm/bitFlips.ts"
import { runStorageFuzz } from "./lsm/fuzz.ts"
import { runMetamorphic } from "./lsm/metamorphic.ts"
import { runFrameFuzz } from "./wire/fuzz.ts"

/**
 * `npm run fuzz [-- --seed N --frames N --inputs N --flips N --operations N --json]`: what `npm test` does a share of, at a larger volume.
 *
 * - frames: mutated bytes into every reader that meets bytes from outside;
 * - inputs: mutated bytes into every decoder of stored bytes;
 * - flips: one flipped bit in files of every kind;
 * - operations: random ones, under every set of options of the engine, against a sorted map.
 *
 * A number of 0 leaves a part out. A reader may refuse with a typed error and nothing else, takes no longer than 100 ms, and sets nothing aside by a
 * claimed length. Exit code 1, with what reproduces it, at the first that does otherwise.
 */
const volumes = { frames: 1_000_000, inputs: 1_000_000, flips: 5_000, operations: 10_000 }

function parse(words: ReadonlyArray<string>) {
  const seed = Math.floor(performance.timeOrigin % 2 ** 31)
  const options = { seed, ...volumes, json: false }
  for (let i = 0; i < words.length; i++) {
    const name = (words[i] as string).slice(2)
    if (words[i] === "--json") options.json = true
    else if (name === "seed" || name in volumes) {
      const value = Number(words[++i])
      if (!Number.isSafeInteger(value) || value < 0) usage(`--${name} needs a whole number`)
      options[name as "seed" | keyof typeof volumes] = value
    } else usage(`unknown option ${words[i]}`)
  }
  return options
}

function usage(problem: string): never {
  console.error(
    `${problem}\nnpm run fuzz -- [--seed N] [--frames N] [--inputs N] [--flips N] [--operations N] [--json]`,
  )
  process.exit(2)
}

const { seed, frames, inputs, flips, operations, json } = parse(process.argv.slice(2))

/** In slices, so that a failure is found again in a fraction of the time. */
function slices<A>(count: number, size: number, run: (count: number, seed: number) => A): Array<A> {
  const reports: Array<A> = []
  for (let done = 0; done < count; done += size) {
    reports.push(run(Math.min(size, count - done), seed + done / size))
  }
  return reports
}

function fuzzFrames() {
  const total = { frames: 0, accepted: 0, refused: 0, streamsBroken: 0 }
  for (const report of slices(frames, 100_000, runFrameFuzz)) {
    total.frames += report.frames
    total.accepted += report.accepted
    total.refused += report.refused
    total.streamsBroken += report.streamsBroken
  }
  console.error(`${total.frames} frames`)
  return total
}

function fuzzStorage() {
  const total = { inputs: 0, slowestMs: 0, slowest: "", grownMebibytes: 0, decoders: {} }
  const decoders: Record<string, { taken: number; refused: number }> = total.decoders
  for (const report of slices(inputs, 100_000, runStorageFuzz)) {
    total.inputs += report.inputs
    total.grownMebibytes += Math.round(report.grownBytes / 2 ** 20)
    if (report.slowestMs > total.slowestMs) {
      total.slowestMs = report.slowestMs
      total.slowest = report.slowest
    }
    for (const name of Object.keys(report.taken)) {
      decoders[name] ??= { taken: 0, refused: 0 }
      decoders[name].taken += report.taken[name] as number
      decoders[name].refused += report.refused[name] as number
    }
  }
  console.error(`${total.inputs} inputs of ${Object.keys(decoders).length} decoders`)
  return total
}

function flipBits() {
  const kinds: Record<string, Record<string, number>> = {}
  for (const report of slices(flips, 500, runBitFlips)) {
    for (const [kind, counts] of Object.entries(report.kinds)) {
      kinds[kind] ??= {}
      for (const [by, count] of Object.entries(counts)) {
        kinds[kind][by] = (kinds[kind][by] ?? 0) + (count as number)
      }
    }
    console.error(`${report.flips} flips`)
  }
  return { flips, kinds }
}

function operate(from: number) {
  const report = runMetamorphic(from, operations)
  console.error(`${report.operations} operations under ${report.optionSets} sets of options`)
  return report
}

const residentBytes = process.memoryUsage.rss()
try {
  const report = {
    seed,
    frames: fuzzFrames(),
    storage: fuzzStorage(),
    bitFlips: flipBits(),
    // Two seeds: of every four one gives a trace without range deletes (metamorphicTrace.ts).
    metamorphic: operations === 0 ? [] : [4 * seed, 4 * seed + 3].map(operate),
    residentMebibytesGrown: 0,
  }
  report.residentMebibytesGrown = Math.round((process.memoryUsage.rss() - residentBytes) / 2 ** 20)
  console.log(
    json
      ? JSON.stringify(report)
      : `from seed ${seed}: ${report.frames.frames} frames, ${report.storage.inputs} inputs, ${flips} flips, ${operations} operations under ${report.metamorphic[0]?.optionSets ?? 0} sets of options: all as they should be`,
  )
} catch (error) {
  console.error(error)
  console.error(`npm run fuzz -- --seed ${seed}`)
  process.exit(1)
}
