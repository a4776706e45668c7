import { checkRegister, type RegisterOperation, type RegisterValue } from "./linearizability.ts"
import { Violation } from "./violation.ts"

/** One operation of a client, from its call to its end. Times are microseconds of the recorder's one clock. */
export interface RecordedOperation {
  readonly process: number
  readonly key: number
  readonly kind: RegisterOperation["kind"]
  value: RegisterValue
  readonly expected: RegisterValue
  readonly callTime: number
  returnTime: number
  /** `fail`: surely without effect. `undefined`: still under way. */
  outcome: RegisterOperation["outcome"] | "fail" | undefined
  found: RegisterValue | undefined
}

/** All that clients did, key by key. */
export class History {
  private readonly keys = new Map<number, Array<RecordedOperation>>()
  invoked = 0
  succeeded = 0

  invoke(operation: RecordedOperation): void {
    const operations = this.keys.get(operation.key)
    if (operations === undefined) this.keys.set(operation.key, [operation])
    else operations.push(operation)
    this.invoked++
  }

  complete(
    operation: RecordedOperation,
    time: number,
    result: Pick<RecordedOperation, "outcome" | "found"> & { value?: RegisterValue },
  ): void {
    operation.returnTime = time
    operation.outcome = result.outcome
    operation.found = result.found
    if (result.value !== undefined) operation.value = result.value
    if (result.outcome === "ok" || result.outcome === "no") this.succeeded++
  }

  /** Throws `Violation` for the first key that is not linearizable, or that the budget does not decide. */
  check(): void {
    for (const [key, operations] of [...this.keys].sort(([left], [right]) => left - right)) {
      const verdict = checkRegister(this.registerOperations(operations))
      if (verdict._tag === "Linearizable") continue
      if (verdict._tag === "Undecided") {
        throw new Violation("undecided", `key ${key}: ${operations.length} operations`)
      }
      const { kind, value, callTime, returnTime } = verdict.stuckAt
      const span = `${(callTime / 1e6).toFixed(6)} to ${(returnTime / 1e6).toFixed(6)} s`
      throw new Violation("linearizability", `key ${key}: no place for ${kind} ${value}, ${span}`)
    }
  }

  private registerOperations(
    operations: ReadonlyArray<RecordedOperation>,
  ): ReadonlyArray<RegisterOperation> {
    return operations
      .filter(({ outcome }) => outcome !== "fail")
      .map((operation) => ({ ...operation, outcome: operation.outcome as "ok" | "no" | "info" }))
      .map((operation) =>
        operation.outcome === undefined ? { ...operation, outcome: "info" } : operation,
      )
  }

  /**
   * The history as JSON lines in the order of events (RELIABILITY section 7.3 a): `invoke`, then `ok`, `fail` or `info`; a condition that
   * was false is a `fail` of its compare-and-set.
   */
  jsonLines(): string {
    const names = { put: "write", get: "read", compareAndSet: "cas", delete: "delete" } as const
    const events: Array<{ time: number; isReturn: boolean; operation: RecordedOperation }> = []
    for (const operations of this.keys.values()) {
      for (const operation of operations) {
        events.push({ time: operation.callTime, isReturn: false, operation })
        const time =
          operation.outcome === undefined ? Number.POSITIVE_INFINITY : operation.returnTime
        events.push({ time, isReturn: true, operation })
      }
    }
    events.sort(
      (left, right) => left.time - right.time || Number(left.isReturn) - Number(right.isReturn),
    )
    return events
      .map(({ time, isReturn, operation }, index) => {
        const { kind, outcome, process } = operation
        const type = !isReturn ? "invoke" : outcome === "no" ? "fail" : (outcome ?? "info")
        const known = kind !== "get" || (isReturn && outcome === "ok")
        const written = known ? operation.value : null
        const value = kind === "compareAndSet" ? [operation.expected, operation.value] : written
        const at = Number.isFinite(time) ? time * 1000 : null
        return JSON.stringify({
          index,
          type,
          process,
          f: names[kind],
          key: `k${operation.key}`,
          value,
          time: at,
        })
      })
      .join("\n")
  }
}
