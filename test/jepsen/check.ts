import { checkRegister, type RegisterOperation, type Verdict } from "../sim/linearizability.ts"
import {
  conditionError,
  type HistoryEvent,
  type HistoryOperation,
  type HistoryValue,
  operationsOf,
} from "./history.ts"

/**
 * Is a recorded history linearizable, key by key? Registers are checked as they are. A list that only grows by transactions of one read and one append is
 * a register too: its content is known by its last element, an append is a compare-and-set from the last element seen to the new one; besides, each
 * list read must be the one that its last element ended when it was appended.
 */

/** What is wrong, a line a key; empty when nothing is. */
export function violationsOf(events: ReadonlyArray<HistoryEvent>): ReadonlyArray<string> {
  const registers = new Map<string, Array<RegisterOperation>>()
  const put = (key: string, operation: RegisterOperation | undefined) => {
    if (operation === undefined) return
    const known = registers.get(key)
    if (known === undefined) registers.set(key, [operation])
    else known.push(operation)
  }
  const lists = new Lists()
  for (const operation of operationsOf(events)) {
    const { f, key } = operation.invoke
    if (f === "txn") put(...lists.registerOperation(operation))
    else if (key !== undefined) put(key, registerOperation(operation))
  }
  const problems: Array<string> = [...lists.problems]
  for (const [key, operations] of registers) {
    const verdict = checkRegister(operations)
    if (verdict._tag !== "Linearizable") problems.push(`${key}: ${said(verdict)}`)
  }
  return problems
}

function said(verdict: Verdict): string {
  if (verdict._tag !== "Violation") return "too much to check"
  const { kind, value, callTime, returnTime } = verdict.stuckAt
  return `no place for ${kind} ${value}, ${callTime} to ${returnTime} ns`
}

const content = (value: HistoryValue | undefined) => (value === null ? 0 : Number(value))

/** `undefined` for what surely had no effect and saw nothing. */
function registerOperation({ invoke, end }: HistoryOperation): RegisterOperation | undefined {
  const isCondition = end?.type === "fail" && end.error === conditionError
  if (end?.type === "fail" && !isCondition) return undefined
  const outcome = isCondition ? "no" : end?.type === "ok" ? "ok" : "info"
  const common = {
    outcome,
    found: undefined,
    callTime: invoke.time,
    returnTime: end?.time ?? invoke.time,
  } as const
  switch (invoke.f) {
    case "read":
      return { kind: "get", value: content(end?.value), expected: 0, ...common }
    case "write":
      return { kind: "put", value: content(invoke.value), expected: 0, ...common }
    case "delete":
      return { kind: "delete", value: 0, expected: 0, ...common }
    case "cas": {
      const [expected, value] = invoke.value as ReadonlyArray<HistoryValue>
      return {
        kind: "compareAndSet",
        value: content(value),
        expected: content(expected),
        ...common,
      }
    }
    default:
      throw new Error(`event ${invoke.index}: no checker for ${invoke.f}`)
  }
}

type MicroOperation = readonly [string, string, HistoryValue]

class Lists {
  readonly problems: Array<string> = []
  /** Of each element of each key: all before it in its list. */
  private readonly before = new Map<string, string>()

  registerOperation(operation: HistoryOperation): [string, RegisterOperation | undefined] {
    const { invoke, end } = operation
    const micro = (end?.type === "ok" ? end : invoke).value as ReadonlyArray<MicroOperation>
    const [[, key, list] = ["r", "", null], append] = micro
    const seen = end?.type === "ok" || append !== undefined ? asList(list) : []
    this.compare(key, seen)
    if (end?.type === "fail" && end.error !== conditionError) return [key, undefined]
    const outcome = end?.type === "ok" ? "ok" : end?.type === "fail" ? "no" : "info"
    const expected = seen.at(-1) ?? 0
    const times = { callTime: invoke.time, returnTime: end?.time ?? invoke.time }
    const common = { outcome, found: undefined, ...times } as const
    if (append === undefined) return [key, { kind: "get", value: expected, expected: 0, ...common }]
    const value = Number(append[2])
    this.compare(key, [...seen, value])
    return [key, { kind: "compareAndSet", value, expected, ...common }]
  }

  private compare(key: string, list: ReadonlyArray<number>): void {
    list.forEach((element, at) => {
      const name = `${key} ${element}`
      const prefix = list.slice(0, at).join(" ")
      const known = this.before.get(name)
      if (known === undefined) this.before.set(name, prefix)
      else if (known !== prefix) {
        this.problems.push(`${key}: before ${element} once [${known}], once [${prefix}]`)
      }
    })
  }
}

function asList(value: HistoryValue): ReadonlyArray<number> {
  return Array.isArray(value) ? value.map(Number) : []
}
