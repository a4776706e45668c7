import type { ReadOptions } from "./Api.ts"
import type { ReadLevel } from "./readPlans.ts"

/** The staleness that a request can name is a number of 32 bits. */
const stalenessMsMax = 2 ** 32 - 1

/** What a read asks for, or why it can't be had. */
export function levelOf(options: ReadOptions | undefined): Omit<ReadLevel, "floors"> | string {
  const { level = "linearizable", maxStalenessMs, anyReplica = false } = options ?? {}
  if (level === "bounded") {
    if (maxStalenessMs === undefined) return "a bounded read needs maxStalenessMs"
    if (!(maxStalenessMs >= 1 && maxStalenessMs <= stalenessMsMax)) {
      return `maxStalenessMs of ${maxStalenessMs}: limit is 1 to ${stalenessMsMax} ms`
    }
    return { level, maxStalenessMs: Math.floor(maxStalenessMs), anyReplica: false }
  }
  if (maxStalenessMs !== undefined) return `maxStalenessMs is for bounded reads, not ${level}`
  return { level, maxStalenessMs: 0, anyReplica: level === "linearizable" && anyReplica }
}
