import {
  conditionError,
  type HistoryEvent,
  type HistoryValue,
  toJsonLines,
} from "../jepsen/history.ts"
import { checkRegister, type RegisterOperation, type RegisterValue } from "./linearizability.ts"
import { Violation } from "./violation.ts"

/** One operation of a client, from its call to its end. Times are microseconds of the recorder's one clock. */
export interface RecordedOperation {
  readonly process: number
  readonly key: number
  readonly kind: RegisterOperation["kind"]
  /** How old what a read returns may be, in microseconds of the recorder's clock: 0 for a linearizable one, without limit for a local one. */
  readonly staleUs: number
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

  /** Values of writes that surely had no effect. */
  failedValues(): ReadonlySet<RegisterValue> {
    const failed = new Set<RegisterValue>()
    for (const operations of this.keys.values()) {
      for (const { kind, outcome, value } of operations) {
        const isWrite = kind === "put" || kind === "compareAndSet"
        if (isWrite && (outcome === "fail" || outcome === "no")) failed.add(value)
      }
    }
    return failed
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
      .filter(({ outcome, staleUs }) => outcome !== "fail" && Number.isFinite(staleUs))
      .map((operation) => ({
        ...operation,
        outcome: (operation.outcome ?? "info") as "ok" | "no" | "info",
        // A read that may be so old is as good as one that began so much earlier.
        callTime: operation.callTime - operation.staleUs,
      }))
  }

  /**
   * The linearizable operations as a canonical history (jepsen/history.ts), as JSON lines in the order of events. An operation that is still under way
   * has no end.
   */
  jsonLines(): string {
    const events: Array<{ time: number; isReturn: boolean; operation: RecordedOperation }> = []
    for (const operation of [...this.keys.values()].flat()) {
      if (operation.staleUs > 0) continue
      events.push({ time: operation.callTime, isReturn: false, operation })
      if (operation.outcome === undefined) continue
      events.push({ time: operation.returnTime, isReturn: true, operation })
    }
    events.sort(
      (left, right) => left.time - right.time || Number(left.isReturn) - Number(right.isReturn),
    )
    return toJsonLines(
      events.map(({ time, isReturn, operation }, index) => ({
        index,
        type: isReturn ? typeOf(operation) : "invoke",
        process: operation.process,
        f: names[operation.kind],
        key: `k${operation.key}`,
        value: shownValue(operation, isReturn),
        time: time * 1000,
        ...(isReturn && operation.outcome === "no" ? { error: conditionError } : {}),
      })),
    )
  }
}

const names = { put: "write", get: "read", compareAndSet: "cas", delete: "delete" } as const

function typeOf({ outcome }: RecordedOperation): HistoryEvent["type"] {
  return outcome === "no" ? "fail" : (outcome ?? "info")
}

/** What a delete or a read does not know yet is null, as what is not there. */
function shownValue(operation: RecordedOperation, isReturn: boolean): HistoryValue {
  const { kind, expected, value, outcome } = operation
  const orNull = (number: RegisterValue) => (number === 0 ? null : number)
  if (kind === "compareAndSet") return [orNull(expected), value]
  if (kind === "put") return value
  return kind === "get" && isReturn && outcome === "ok" ? orNull(value) : null
}
