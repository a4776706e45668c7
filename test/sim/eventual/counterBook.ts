import { type Answer, KeyBook, mayHaveHappened, type Sight, violated, type Write } from "./book.ts"

const nothing: Omit<Sight, "context"> = { covers: new Set(), mayCover: new Set() }

/** Increments, all of them positive: in the end a counter is the sum of those that were acknowledged, and of some of unknown outcome. */
export class CounterBook extends KeyBook {
  /** What reads have shown, by how many owners. */
  private readonly shown: Array<{ readonly total: number; readonly answer: Answer }> = []

  read(answer: Answer): Omit<Sight, "context"> {
    const total = Number(answer.total ?? 0n)
    const most = sumOf(this.before(answer.endedMs))
    if (total > most) violated("counter", `${this.name} is ${total}, above ${most}, all there is`)
    const least = sumOf(this.met(answer))
    if (total < least) violated("session", `a read of ${this.name} is ${total}, below ${least}`)
    const floor = this.floorOf(answer)
    if (total < floor) violated("session", `a read of ${this.name} is ${total}, after ${floor}`)
    if (answer.owners > 0) this.shown.push({ total, answer })
    return nothing
  }

  private floorOf({ startedMs, meetsOwners }: Answer): number {
    const known = this.shown.filter(
      ({ answer }) => answer.endedMs < startedMs && answer.owners >= meetsOwners,
    )
    return Math.max(0, ...known.map(({ total }) => total))
  }

  final({ total }: Answer): void {
    const done = this.writes.filter(({ outcome }) => outcome === "acknowledged")
    const doubtful = this.writes.filter(
      (write) => write.outcome !== "acknowledged" && mayHaveHappened(write),
    )
    let sums = new Set([sumOf(done)])
    for (const { delta } of doubtful) sums = new Set([...sums, ...[...sums].map((s) => s + delta)])
    const found = Number(total ?? 0n)
    if (sums.has(found)) return
    violated(
      "counter",
      `${this.name} is ${found}, the sum of no increments: ${sumOf(done)} and more`,
    )
  }
}

function sumOf(writes: ReadonlyArray<Write>): number {
  return writes.reduce((sum, { delta }) => sum + delta, 0)
}
