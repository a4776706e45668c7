/** What a trace records; the number is folded into the hash. */
export const traceKinds = {
  deliver: 1,
  drop: 2,
  duplicate: 3,
  turn: 4,
  journal: 5,
  job: 6,
  start: 7,
  stop: 8,
  pause: 9,
  fault: 10,
  apply: 11,
  invoke: 12,
  complete: 13,
  retry: 14,
} as const

type TraceKind = keyof typeof traceKinds

/**
 * A running hash over everything that happens in a run, in order. Two runs of one seed must end with the same value: whatever
 * leaks into the world that is not drawn from the seed shows here. Optionally writes each event out, to compare two runs or to read.
 */
export class Trace {
  private low = 0x9e3779b9
  private high = 0x85ebca6b
  /** Events folded. */
  count = 0
  private readonly write: ((line: string) => void) | undefined

  constructor(write?: (line: string) => void) {
    this.write = write
  }

  /** Folds an event at `time` microseconds and up to three numbers of it. */
  record(kind: TraceKind, time: number, a = 0, b = 0, c = 0): void {
    this.count++
    this.fold(traceKinds[kind])
    this.fold(time)
    this.fold(a)
    this.fold(b)
    this.fold(c)
    if (this.write !== undefined) {
      this.write(`${(time / 1e6).toFixed(6)} ${kind} ${a} ${b} ${c} #${this.hash}`)
    }
  }

  /** A line for readers only. */
  note(time: number, text: () => string): void {
    if (this.write !== undefined) this.write(`${(time / 1e6).toFixed(6)} ${text()}`)
  }

  private fold(value: number): void {
    const x = value | 0
    const y = (value / 2 ** 32) | 0
    let low = Math.imul(this.low ^ x, 0x01000193) ^ y
    low ^= low >>> 15
    this.high = Math.imul(this.high ^ low, 0x2c1b3c6d) ^ (this.high >>> 13)
    this.low = (low + this.high) | 0
  }

  /** Twelve hex digits. */
  get hash(): string {
    const low = (this.low >>> 0).toString(16).padStart(8, "0")
    return (this.high >>> 0).toString(16).padStart(8, "0").slice(4) + low
  }
}
