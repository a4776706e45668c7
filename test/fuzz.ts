import { runFrameFuzz } from "./wire/fuzz.ts"

/**
 * `npm run fuzz [-- --seed N --frames N --json]`: mutated bytes into every reader that meets bytes from outside, the fuzz of `npm test` at a larger
 * volume. A reader may refuse with `MalformedBytes` and nothing else, and nothing is set aside by a claimed length. Exit code 1, with what
 * reproduces it, at the first that does otherwise.
 */
function parse(words: ReadonlyArray<string>) {
  const seed = Math.floor(performance.timeOrigin % 2 ** 31)
  const options = { seed, frames: 1_000_000, json: false }
  for (let i = 0; i < words.length; i++) {
    const name = (words[i] as string).slice(2)
    if (words[i] === "--json") options.json = true
    else if (name === "seed" || name === "frames") {
      const value = Number(words[++i])
      if (!Number.isSafeInteger(value) || value < 1) usage(`--${name} needs a whole number above 0`)
      options[name] = value
    } else usage(`unknown option ${words[i]}`)
  }
  return options
}

function usage(problem: string): never {
  console.error(`${problem}\nnpm run fuzz -- [--seed N] [--frames N] [--json]`)
  process.exit(2)
}

const { seed, frames, json } = parse(process.argv.slice(2))
const residentBytes = process.memoryUsage.rss()
try {
  // In slices, so that a failure is found again in a fraction of the time.
  const slice = 100_000
  const total = {
    seed,
    frames: 0,
    accepted: 0,
    refused: 0,
    streamsBroken: 0,
    residentMebibytesGrown: 0,
  }
  for (let done = 0; done < frames; done += slice) {
    const report = runFrameFuzz(Math.min(slice, frames - done), seed + done / slice)
    total.frames += report.frames
    total.accepted += report.accepted
    total.refused += report.refused
    total.streamsBroken += report.streamsBroken
    console.error(`seed ${seed + done / slice}: ${report.frames} frames`)
  }
  total.residentMebibytesGrown = Math.round((process.memoryUsage.rss() - residentBytes) / 2 ** 20)
  console.log(
    json
      ? JSON.stringify(total)
      : `${total.frames} frames from seed ${seed}: ${total.accepted} taken, ${total.refused} refused, ${total.streamsBroken} streams broken off`,
  )
} catch (error) {
  console.error(error)
  process.exit(1)
}
