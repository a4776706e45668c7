import { assert } from "../../src/lib/assert.ts"

/**
 * Histories of what clients did and saw, in one master form from which all others are made: one JSON object a line, `invoke` first, then `ok` (it
 * has taken effect), `fail` (it has not, and never will) or `info` (nobody knows).
 *
 * - Times are nanoseconds of the recorder's one monotonic clock: a call's before its first byte leaves, a return's after its last byte came.
 * - `index` is dense. A process does one thing at a time; one whose operation ended in `info` never comes back, its worker goes on as
 *   process + concurrency.
 * - Faults are events of the process "nemesis", of type `info` at their begin and at their end.
 *
 * What operations mean: `read` returns a value or null; `write` sets one; `cas` is [expected, new], where null expects nothing to be there; `delete` makes
 * a key null; `txn` is a list of micro-operations ["r", key, list] and ["append", key, element] that happen as one, where the list before an append is
 * what it was conditional on, already when it is invoked. A condition that was false is a
 * `fail` with the error "condition", and a delete of what was not there is one too: both have seen something, and a checker uses it.
 */
export interface HistoryEvent {
  readonly index: number
  readonly type: "invoke" | "ok" | "fail" | "info"
  readonly process: number | "nemesis"
  readonly f: string
  readonly key?: string
  readonly value: HistoryValue
  /** Nanoseconds since the recorder began. */
  readonly time: number
  /** Of a fail: why it had no effect. Of an info: what went wrong. */
  readonly error?: string
}

export type HistoryValue =
  | null
  | number
  | string
  | boolean
  | ReadonlyArray<HistoryValue>
  | { readonly [name: string]: HistoryValue }

/** What `error` says of a condition that was false. */
export const conditionError = "condition"

export interface Invocation {
  readonly process: number
  readonly worker: number
  readonly f: string
  readonly key: string | undefined
  readonly value: HistoryValue
}

/** Writes a history down while it happens. `nowNs` is the one clock. */
export class Recorder {
  readonly events: Array<HistoryEvent> = []
  private readonly concurrency: number
  private readonly nowNs: () => number
  private readonly beganNs: number
  private readonly processes: Array<number>
  private readonly busy = new Set<number>()

  constructor(options: { readonly concurrency: number; readonly nowNs: () => number }) {
    this.concurrency = options.concurrency
    this.nowNs = options.nowNs
    this.beganNs = options.nowNs()
    this.processes = Array.from({ length: options.concurrency }, (_, worker) => worker)
  }

  private push(event: Omit<HistoryEvent, "index" | "time">): void {
    const time = Math.round(this.nowNs() - this.beganNs)
    this.events.push({ index: this.events.length, ...event, time })
  }

  /** A worker is about to send an operation. */
  invoke(
    worker: number,
    what: { readonly f: string; readonly key?: string; readonly value: HistoryValue },
  ): Invocation {
    const process = this.processes[worker]
    assert(process !== undefined && !this.busy.has(worker), `worker ${worker} is not free`)
    this.busy.add(worker)
    this.push({ type: "invoke", process, ...what })
    return { process, worker, f: what.f, key: what.key, value: what.value }
  }

  /** It has ended. `value` replaces that of the invocation, where it was asked for. */
  complete(
    invocation: Invocation,
    outcome: {
      readonly type: "ok" | "fail" | "info"
      readonly value?: HistoryValue
      readonly error?: string
    },
  ): void {
    const { process, worker, f, key } = invocation
    assert(this.busy.delete(worker), `worker ${worker} does nothing`)
    const { type, error } = outcome
    const value = outcome.value === undefined ? invocation.value : outcome.value
    const named = key === undefined ? {} : { key }
    this.push({ type, process, f, ...named, value, ...(error === undefined ? {} : { error }) })
    if (type === "info") this.processes[worker] = process + this.concurrency
  }

  /** A fault begins or ends. */
  nemesis(f: string, value: HistoryValue): void {
    this.push({ type: "info", process: "nemesis", f, value })
  }
}

export function toJsonLines(events: ReadonlyArray<HistoryEvent>): string {
  return events
    .map(({ index, type, process, f, key, value, time, error }) =>
      JSON.stringify({ index, type, process, f, key, value, time, error }),
    )
    .map((line) => `${line}\n`)
    .join("")
}

/** A line that breaks a rule of histories, by number. */
export class MalformedHistory extends Error {
  constructor(line: number, problem: string) {
    super(`event ${line}: ${problem}`)
  }
}

/** Reads what `toJsonLines` wrote, or anybody else; throws `MalformedHistory`. */
export function fromJsonLines(text: string): ReadonlyArray<HistoryEvent> {
  const lines = text.split("\n").filter((line) => line.trim() !== "")
  const events = lines.map((line, at) => {
    try {
      return JSON.parse(line) as HistoryEvent
    } catch {
      throw new MalformedHistory(at, "is not JSON")
    }
  })
  validate(events)
  return events
}

const types: ReadonlySet<string> = new Set(["invoke", "ok", "fail", "info"])

/** Throws `MalformedHistory` for the first event that breaks a rule. */
export function validate(events: ReadonlyArray<HistoryEvent>): void {
  const open = new Map<number, HistoryEvent>()
  const ended = new Set<number>()
  let time = 0
  events.forEach((event, at) => {
    const wrong = (problem: string) => new MalformedHistory(at, problem)
    if (event.index !== at) throw wrong(`has index ${event.index}`)
    if (!types.has(event.type)) throw wrong(`has type ${event.type}`)
    if (typeof event.f !== "string" || event.value === undefined) throw wrong("lacks f or value")
    if (!(event.time >= time)) throw wrong("goes back in time")
    time = event.time
    const { process } = event
    if (process === "nemesis") {
      if (event.type !== "info") throw wrong("is a fault of another type than info")
      return
    }
    if (!Number.isInteger(process)) throw wrong(`has process ${process}`)
    const begun = open.get(process)
    if (event.type === "invoke") {
      if (begun !== undefined) throw wrong(`process ${process} does two things at once`)
      if (ended.has(process)) throw wrong(`process ${process} comes back after info`)
      open.set(process, event)
      return
    }
    if (begun === undefined) throw wrong(`process ${process} ends what it did not begin`)
    if (begun.f !== event.f || begun.key !== event.key) throw wrong("ends another operation")
    open.delete(process)
    if (event.type === "info") ended.add(process)
  })
}

/** An invocation and how it ended; one that is still open ends in `info`. */
export interface HistoryOperation {
  readonly invoke: HistoryEvent
  readonly end: HistoryEvent | undefined
}

/** Operations of clients in the order of their invocations. */
export function operationsOf(events: ReadonlyArray<HistoryEvent>): ReadonlyArray<HistoryOperation> {
  const operations: Array<{ invoke: HistoryEvent; end: HistoryEvent | undefined }> = []
  const open = new Map<number, { invoke: HistoryEvent; end: HistoryEvent | undefined }>()
  for (const event of events) {
    if (event.process === "nemesis") continue
    if (event.type === "invoke") {
      const operation = { invoke: event, end: undefined }
      open.set(event.process, operation)
      operations.push(operation)
    } else {
      const operation = open.get(event.process)
      if (operation !== undefined) operation.end = event
      open.delete(event.process)
    }
  }
  return operations
}
