import type { ConflictRule } from "../../../src/dynamo/elements.ts"
import {
  type Answer,
  hold,
  isGone,
  KeyBook,
  mayBeGone,
  mayHaveHappened,
  type Sight,
  violated,
  type Write,
} from "./book.ts"

/**
 * Puts and deletes under `siblings`, `lww` and `register`, by true causality: each write is known with all that its writer had seen, and what that had replaced. Under `siblings`
 * the values shown are exactly the writes that no other has covered.
 */
export class ValuesBook extends KeyBook {
  private readonly rule: ConflictRule

  constructor(name: string, rule: ConflictRule) {
    super(name)
    this.rule = rule
  }

  private shown({ values, endedMs }: Answer): ReadonlyArray<Write> {
    if (new Set(values).size < values.length) {
      violated("falseSibling", `${this.name} shows one put twice: ${values.join()}`)
    }
    return values.map((value) => {
      const write = this.writes.find((each) => each.kind === "put" && each.value === value)
      if (write === undefined) return violated("value", `${this.name} shows ${value}, never put`)
      if (!mayHaveHappened(write)) violated("value", `${this.name} shows ${value}, refused`)
      if (isGone(write, endedMs)) violated("resurrection", `${this.name} shows ${value}, expired`)
      return write
    })
  }

  read(answer: Answer): Omit<Sight, "context"> {
    const shown = this.shown(answer)
    if (this.rule !== "siblings" && shown.length > 1) {
      violated("falseSibling", `${this.name} shows ${answer.values.join(" and ")}`)
    }
    for (const write of shown) {
      const heir = shown.find(({ covers }) => covers.has(write))
      if (heir !== undefined) {
        violated("falseSibling", `${this.name} shows ${write.value} beside its heir ${heir.value}`)
      }
    }
    this.checkMet(answer, shown)
    for (const write of shown) hold(write, answer.owners, answer.endedMs)
    const covers = new Set<Write>()
    for (const write of shown) {
      covers.add(write)
      for (const older of write.covers) covers.add(older)
    }
    // A register holds more than it shows.
    const mayCover = this.rule === "register" ? new Set(this.before(answer.endedMs)) : covers
    return { covers, mayCover }
  }

  private checkMet(answer: Answer, shown: ReadonlyArray<Write>): void {
    const met = this.met(answer)
    for (const write of shown) {
      const heir = met.find(({ covers }) => covers.has(write))
      if (heir === undefined) continue
      const what = heir.kind === "delete" ? "a delete" : heir.value
      violated("session", `a read of ${this.name} shows ${write.value}, long covered by ${what}`)
    }
    // Elsewhere a write that is not shown may have lost against another one.
    if (this.rule !== "siblings") return
    for (const write of met) {
      if (write.kind !== "put" || shown.includes(write) || this.mayBeCovered(write)) continue
      if (mayBeGone(write, answer.endedMs)) continue
      violated("session", `a read of ${this.name} misses ${write.value}, held by enough owners`)
    }
  }

  private mayBeCovered(write: Write): boolean {
    return this.writes.some((other) => mayHaveHappened(other) && other.mayCover.has(write))
  }

  final(answer: Answer): void {
    const shown = this.shown(answer)
    for (const write of shown) {
      const heir = this.writes.find((other) => isDone(other) && other.covers.has(write))
      if (heir === undefined) continue
      violated("resurrection", `${this.name} shows ${write.value}, covered by ${heir.value}`)
    }
    const lasting = this.writes.filter(
      (write) => write.kind === "put" && isDone(write) && write.expiry === undefined,
    )
    const uncovered = lasting.filter((write) => !this.mayBeCovered(write))
    if (this.rule === "siblings") {
      const lost = uncovered.find((write) => !shown.includes(write))
      if (lost !== undefined) violated("lostWrite", `${this.name} has lost ${lost.value}`)
      return
    }
    // One of several stays, and a delete or an expiry beside it may be the last.
    const mayBeEmpty = this.writes.some(
      (write) => mayHaveHappened(write) && (write.kind === "delete" || write.expiry !== undefined),
    )
    if (uncovered.length > 0 && shown.length === 0 && !mayBeEmpty) {
      violated("lostWrite", `${this.name} shows nothing, not even ${uncovered[0]?.value}`)
    }
  }
}

function isDone({ outcome }: Write): boolean {
  return outcome === "acknowledged"
}
