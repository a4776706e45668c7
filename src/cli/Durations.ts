import { Duration, Option } from "effect"
import type { ReadOptions } from "../client/Client.ts"

/** Durations and levels as people write them on a command line. */

/** The short units, in the words of Effect's `Duration`, which does the arithmetic. */
const units: Readonly<Record<string, string>> = {
  us: "micros",
  ms: "millis",
  s: "seconds",
  m: "minutes",
  min: "minutes",
  h: "hours",
  d: "days",
  w: "weeks",
}

/** `500ms`, `30s`, `1.5h` in milliseconds; or a sentence that says what is wrong. */
export function parseDurationMs(source: string): number | string {
  const [, amount, name] = /^(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]+)$/.exec(source.trim()) ?? []
  const unit = name === undefined ? undefined : (units[name] ?? name)
  const parsed = Duration.fromInput(`${amount} ${unit}` as Duration.Input)
  if (amount === undefined || Option.isNone(parsed)) {
    return `"${source}" is not a duration: write a number and ms, s, m, h or d, such as 500ms or 30s`
  }
  return Duration.toMillis(parsed.value)
}

/** `linearizable`, `local` or `bounded:DURATION` as options of a read; or a sentence that says what is wrong. */
export function parseConsistency(
  source: string,
): Pick<ReadOptions, "level" | "maxStalenessMs"> | string {
  if (source === "linearizable" || source === "local") return { level: source }
  const choices = "linearizable, bounded:500ms (or any other duration) or local"
  if (source === "bounded") {
    return "--consistency bounded needs the age allowed, such as bounded:500ms"
  }
  if (!source.startsWith("bounded:")) {
    return `--consistency "${source}" is none of ${choices}`
  }
  const maxStalenessMs = parseDurationMs(source.slice("bounded:".length))
  if (typeof maxStalenessMs === "string") return `--consistency: ${maxStalenessMs}`
  if (maxStalenessMs >= 1) return { level: "bounded", maxStalenessMs }
  return "--consistency bounded allows an age of 1ms or more; for less, use linearizable"
}
