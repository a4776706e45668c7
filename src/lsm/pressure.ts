/**
 * How near writers are to being stopped. `slow`: level 0 or the sealed memtables are nearly full,
 * and a writer does well to keep to `bytesPerSecond`; `stop`: the next one may not write at all.
 */
export interface Pressure {
  readonly state: "ok" | "slow" | "stop"
  readonly bytesPerSecond: number
}

const none: Pressure = { state: "ok", bytesPerSecond: Number.POSITIVE_INFINITY }
const full: Pressure = { state: "stop", bytesPerSecond: 0 }

/** RocksDB's `delayed_write_rate`, at the first sign of pressure. */
const slowBytesPerSecond = 16 * 1024 * 1024
/** Of that, however little room is left: who may write at all gets on. */
const leastPart = 1 / 64

/** The rate falls with the room that is left, in the stage that has least of it. */
export function pressureOf(options: {
  settings: {
    readonly memtableBytes: number
    readonly slowLevel0Runs: number
    readonly maxLevel0Runs: number
  }
  level0Runs: number
  /** Of the active memtable. */
  usedBytes: number
  /** Whether another memtable may be sealed. */
  canSeal: boolean
}): Pressure {
  const { settings, level0Runs, usedBytes, canSeal } = options
  const { memtableBytes, slowLevel0Runs, maxLevel0Runs } = settings
  if (!canSeal && usedBytes >= memtableBytes) return full
  if (canSeal && level0Runs < slowLevel0Runs) return none
  const memory = canSeal ? 1 : 1 - usedBytes / memtableBytes
  const level0 = (maxLevel0Runs + 1 - level0Runs) / (maxLevel0Runs + 1 - slowLevel0Runs)
  const part = Math.max(leastPart, Math.min(1, memory, level0))
  return { state: "slow", bytesPerSecond: Math.round(slowBytesPerSecond * part) }
}
