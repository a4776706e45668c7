import {
  type Answer,
  hold,
  KeyBook,
  mayHaveHappened,
  type Sight,
  violated,
  type Write,
} from "./book.ts"

/**
 * Adds and removes of a set; a flag is a set with one member. A reader knows which members are there, not by which adds, so of a member that was added more than once nobody can say which
 * of its adds a remove has covered. An add wins over every remove that had not seen it.
 */
export class SetBook extends KeyBook {
  private addsOf(member: string): ReadonlyArray<Write> {
    return this.writes.filter(
      (write) => write.kind === "add" && write.value === member && mayHaveHappened(write),
    )
  }

  read(answer: Answer): Omit<Sight, "context"> {
    const { values, endedMs } = answer
    const met = this.met(answer)
    const covers = new Set<Write>()
    for (const member of values) {
      const adds = this.addsOf(member).filter(({ startedMs }) => startedMs <= endedMs)
      if (adds.length === 0) violated("value", `${this.name} shows ${member}, never added`)
      if (adds.every((add) => this.removersOf(add).some((each) => isMetBy(met, each, add)))) {
        violated("session", `a read of ${this.name} shows ${member}, which was removed long ago`)
      }
      if (adds.length === 1) covers.add(adds[0] as Write)
    }
    for (const write of met) {
      if (write.kind !== "add" || values.includes(write.value) || this.mayBeRemoved(write)) continue
      violated("session", `a read of ${this.name} misses ${write.value}, held by enough owners`)
    }
    for (const write of covers) hold(write, answer.owners, endedMs)
    return { covers, mayCover: new Set(this.before(endedMs)) }
  }

  private removersOf(add: Write): ReadonlyArray<Write> {
    return this.writes.filter(
      ({ kind, value }) => kind === "clear" || (kind === "remove" && value === add.value),
    )
  }

  private mayBeRemoved(add: Write): boolean {
    return this.removersOf(add).some((other) => mayHaveHappened(other) && other.mayCover.has(add))
  }

  private isRemoved(add: Write): boolean {
    return this.removersOf(add).some(
      ({ outcome, covers }) => outcome === "acknowledged" && covers.has(add),
    )
  }

  final({ values }: Answer): void {
    for (const add of this.writes) {
      if (add.kind !== "add" || add.outcome !== "acknowledged") continue
      if (!values.includes(add.value) && !this.mayBeRemoved(add)) {
        violated("lostWrite", `${this.name} has lost ${add.value}`)
      }
    }
    for (const member of values) {
      if (this.addsOf(member).every((add) => this.isRemoved(add))) {
        violated("resurrection", `${this.name} shows ${member}, which was removed`)
      }
    }
  }
}

function isMetBy(met: ReadonlyArray<Write>, remover: Write, add: Write): boolean {
  return remover.covers.has(add) && met.includes(remover)
}
