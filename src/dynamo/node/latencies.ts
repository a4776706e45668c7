import type { Level } from "../coordinator/slotPlan.ts"

/** What requests of one kind and level took, of late. */
export interface LatencyFigure {
  readonly kind: "read" | "write"
  readonly level: Level
  /** Since the node started. */
  readonly count: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
}

/** The last so many of each kind and level. */
const kept = 4096

class Recent {
  count = 0
  private readonly values = new Float32Array(kept)

  add(ms: number): void {
    this.values[this.count++ % kept] = ms
  }

  /** Of the last ones, the value that a share of them does not pass. */
  quantiles(shares: ReadonlyArray<number>): ReadonlyArray<number> {
    const sorted = this.values.slice(0, Math.min(this.count, kept)).sort()
    return shares.map((share) => {
      const value = sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]
      return Math.round(value * 1000) / 1000
    })
  }
}

/** How long requests took at their coordinator, from the door and back. */
export class RequestLatencies {
  private readonly byName = new Map<string, Recent>()

  add(kind: "read" | "write", level: Level, ms: number): void {
    const name = `${kind} ${level}`
    let recent = this.byName.get(name)
    if (recent === undefined) {
      recent = new Recent()
      this.byName.set(name, recent)
    }
    recent.add(ms)
  }

  figures(): ReadonlyArray<LatencyFigure> {
    return [...this.byName]
      .sort(([left], [right]) => (left < right ? -1 : 1))
      .map(([name, recent]) => {
        const [kind, level] = name.split(" ") as ["read" | "write", Level]
        const [p50Ms, p95Ms, p99Ms] = recent.quantiles([0.5, 0.95, 0.99])
        return { kind, level, count: recent.count, p50Ms, p95Ms, p99Ms }
      })
  }
}
