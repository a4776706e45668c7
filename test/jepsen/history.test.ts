import { describe, expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { Prng } from "../../src/lib/prng.ts"
import { History } from "../sim/history.ts"
import { violationsOf } from "./check.ts"
import { parseEdn, printEdn } from "./edn.ts"
import {
  fromRegisterEdn,
  fromTransactionsEdn,
  NotExportable,
  toListAppendEdn,
  toRegisterEdn,
  toRwRegisterEdn,
} from "./exports.ts"
import {
  conditionError,
  fromJsonLines,
  type HistoryEvent,
  type HistoryValue,
  MalformedHistory,
  Recorder,
  toJsonLines,
} from "./history.ts"

/** With KVORUM_REWRITE=1 it is written anew: only for a change of which every line can be explained. */
function golden(name: string, text: string): void {
  const path = join(import.meta.dir, "golden", name)
  if (process.env.KVORUM_REWRITE === "1") writeFileSync(path, text)
  expect(text).toBe(readFileSync(path, "utf8"))
}

/** A recorder whose clock moves on by a microsecond with each event. */
function recorder(concurrency = 2): Recorder {
  let now = 5000
  return new Recorder({
    concurrency,
    nowNs: () => {
      now += 1000
      return now
    },
  })
}

/** Every operation with every outcome, and a fault between them. */
function registers(withDeletes: boolean): ReadonlyArray<HistoryEvent> {
  const history = recorder()
  const ask = (worker: number, f: string, key: string, value: HistoryValue) =>
    history.invoke(worker, { f, key, value })
  history.complete(ask(0, "read", "a", null), { type: "ok", value: null })
  const write = ask(0, "write", "a", 1)
  const read = ask(1, "read", "a", null)
  history.complete(write, { type: "ok" })
  history.complete(read, { type: "ok", value: 1 })
  history.complete(ask(1, "cas", "a", [1, 2]), { type: "ok" })
  history.complete(ask(0, "cas", "a", [1, 3]), { type: "fail", error: conditionError })
  history.complete(ask(0, "write", "b", 4), { type: "fail", error: "NotLeader" })
  history.nemesis("kill", ["n1"])
  history.complete(ask(0, "write", "b", 5), { type: "info", error: "OutcomeUnknown" })
  history.complete(ask(0, "read", "b", null), { type: "ok", value: 5 })
  history.complete(ask(1, "cas", "c", [null, 6]), { type: "info" })
  history.nemesis("start", ["n1"])
  if (withDeletes) {
    history.complete(ask(1, "delete", "a", null), { type: "ok" })
    history.complete(ask(1, "delete", "a", null), { type: "fail", error: conditionError })
    history.complete(ask(0, "read", "a", null), { type: "ok", value: null })
  }
  // Still under way at the end.
  ask(1, "write", "c", 7)
  return history.events
}

function lists(): ReadonlyArray<HistoryEvent> {
  const history = recorder()
  const read = (worker: number, list: HistoryValue) =>
    history.complete(history.invoke(worker, { f: "txn", value: [["r", "x", null]] }), {
      type: "ok",
      value: [["r", "x", list]],
    })
  const append = (worker: number, before: HistoryValue, element: number) =>
    history.invoke(worker, {
      f: "txn",
      value: [
        ["r", "x", before],
        ["append", "x", element],
      ],
    })
  read(0, [])
  history.complete(append(0, [], 1), { type: "ok" })
  history.complete(append(1, [], 2), { type: "fail", error: conditionError })
  history.complete(append(1, [1], 3), { type: "info", error: "OutcomeUnknown" })
  read(0, [1, 3])
  history.complete(append(1, [1, 3], 4), { type: "ok" })
  read(0, [1, 3, 4])
  return history.events
}

describe("canonical histories", () => {
  test("their lines are those of the golden file, and read back as they were", () => {
    for (const [name, events] of [
      ["registers.jsonl", registers(true)],
      ["lists.jsonl", lists()],
    ] as const) {
      const text = toJsonLines(events)
      golden(name, text)
      expect(toJsonLines(fromJsonLines(text))).toBe(text)
    }
  })

  test("those of the simulator are canonical", () => {
    const history = new History()
    const kinds = ["put", "get", "compareAndSet", "delete", "get", "put"] as const
    const outcomes = ["ok", "ok", "no", "ok", "fail", undefined] as const
    kinds.forEach((kind, i) => {
      const times = { callTime: 10 * i, returnTime: 0 }
      const fields = { process: 0, key: 1, staleUs: 0, expected: 9, found: undefined }
      const operation = {
        ...fields,
        kind,
        value: kind === "get" ? 1 : i + 1,
        outcome: undefined,
        ...times,
      }
      history.invoke(operation)
      const outcome = outcomes[i]
      if (outcome !== undefined)
        history.complete(operation, 10 * i + 5, { outcome, found: undefined })
    })
    const events = fromJsonLines(history.jsonLines())
    expect(events.map(({ type }) => type).join()).toBe(
      "invoke,ok,invoke,ok,invoke,fail,invoke,ok,invoke,fail,invoke",
    )
    expect(violationsOf(events)).toEqual([])
  })

  test("after info a process never comes back: its worker goes on as process + concurrency", () => {
    const processes = registers(true).map(({ process }) => process)
    expect(processes).toContain(2)
    expect(processes).toContain(3)
  })

  test("what breaks a rule is refused by its place", () => {
    const events = registers(true)
    const broken: Array<[string, (event: HistoryEvent, at: number) => object]> = [
      ["has index", (event, at) => (at === 3 ? { ...event, index: 9 } : event)],
      ["goes back in time", (event, at) => (at === 3 ? { ...event, time: 1 } : event)],
      ["two things at once", (event, at) => (at === 1 ? { ...event, type: "invoke" } : event)],
      ["did not begin", (event, at) => (at === 0 ? { ...event, type: "ok" } : event)],
      ["another operation", (event, at) => (at === 1 ? { ...event, key: "z" } : event)],
      ["has type", (event, at) => (at === 1 ? { ...event, type: "done" } : event)],
      ["comes back", (event) => (event.process === 2 ? { ...event, process: 0 } : event)],
    ]
    for (const [problem, change] of broken) {
      const text = toJsonLines(events.map(change) as ReadonlyArray<HistoryEvent>)
      expect(() => fromJsonLines(text), problem).toThrow(problem)
      expect(() => fromJsonLines(text)).toThrow(MalformedHistory)
    }
    expect(() => fromJsonLines("{")).toThrow("is not JSON")
  })
})

describe("forms for outside checkers", () => {
  test("a register of Jepsen: one file a key, and back", () => {
    const texts = toRegisterEdn(registers(true))
    for (const [key, text] of texts) golden(`register.${key}.edn`, text)
    expect([...texts.keys()]).toEqual(["a", "b", "c"])
    expect(toRegisterEdn(fromRegisterEdn(texts))).toEqual(
      new Map([...texts].map(([key, text]) => [key, renumber(text, texts)])),
    )
  })

  test("Elle's list-append, and back", () => {
    const text = toListAppendEdn(lists())
    golden("list-append.edn", text)
    expect(toListAppendEdn(fromTransactionsEdn(text))).toBe(text)
    expect(() => toListAppendEdn(registers(false))).toThrow(NotExportable)
  })

  test("Elle's rw-register: a compare-and-set reads and writes at once; a delete has no form", () => {
    const text = toRwRegisterEdn(registers(false))
    golden("rw-register.edn", text)
    expect(fromTransactionsEdn(text).every(({ f }) => f === "txn")).toBe(true)
    expect(() => toRwRegisterEdn(registers(true))).toThrow(NotExportable)
  })

  test("EDN reads back what it prints, and refuses the rest", () => {
    const text = '{:a [1 -2 nil "x \\"y\\" z" true :k [] {}], :b "[:no {map}"}'
    expect(parseEdn(text).map(printEdn)).toEqual([text])
    for (const bad of ["{:a}", "[1", '"x', "{1 2}", "]", "1.5", "#{1}"]) {
      expect(() => parseEdn(bad), bad).toThrow()
    }
  })
})

/** The same text with indexes counted over all keys without the fault events. */
function renumber(text: string, texts: ReadonlyMap<string, string>): string {
  const indexOf = (line: string) => Number(/:index (\d+)/.exec(line)?.[1])
  const all = [...texts.values()].flatMap((each) => each.trim().split("\n").map(indexOf))
  all.sort((left, right) => left - right)
  return text.replace(/:index (\d+)/g, (_, index) => `:index ${all.indexOf(Number(index))}`)
}

describe("the checker on recorded histories", () => {
  test("fine ones pass", () => {
    expect(violationsOf(registers(true))).toEqual([])
    expect(violationsOf(lists())).toEqual([])
  })

  test("a read of what was overwritten, and a list that lost an element, are found", () => {
    const stale = registers(true).map((event) =>
      event.type === "ok" && event.f === "read" && event.value === 5
        ? { ...event, value: null }
        : event,
    )
    // Its write may never have happened.
    expect(violationsOf(stale)).toEqual([])
    const wrong = registers(true).map((event) =>
      event.type === "ok" && event.f === "read" && event.value === 1
        ? { ...event, value: 2 }
        : event,
    )
    expect(violationsOf(wrong).join()).toContain("a: no place for get 2")
    const torn = lists().map((event) =>
      JSON.stringify(event.value) === '[["r","x",[1,3,4]]]'
        ? { ...event, value: [["r", "x", [1, 4]]] as HistoryValue }
        : event,
    )
    expect(violationsOf(torn).join()).toContain("x: before 4 once")
    const lost = lists().map((event) =>
      JSON.stringify(event.value) === '[["r","x",[1,3,4]]]'
        ? { ...event, value: [["r", "x", [1]]] as HistoryValue }
        : event,
    )
    expect(violationsOf(lost).join()).toContain("x: no place for")
  })

  test("random histories of one register in a sequence pass through every form and back", () => {
    const prng = new Prng(11)
    for (let round = 0; round < 30; round++) {
      const history = recorder(3)
      let state: number | null = null
      for (let value = 1; value <= 40; value++) {
        const worker = prng.int(0, 2)
        const draw = prng.float()
        if (draw < 0.4) {
          const invocation = history.invoke(worker, { f: "read", key: "k", value: null })
          history.complete(invocation, { type: "ok", value: state })
        } else if (draw < 0.7) {
          const invocation = history.invoke(worker, { f: "write", key: "k", value })
          const type = prng.chance(0.1) ? ("info" as const) : ("ok" as const)
          if (type === "ok" || prng.chance(0.5)) state = value
          history.complete(invocation, { type })
        } else {
          const fits: boolean = prng.chance(0.5)
          const expected = fits ? state : 1000 + value
          const invocation = history.invoke(worker, {
            f: "cas",
            key: "k",
            value: [expected, value],
          })
          if (fits) {
            state = value
            history.complete(invocation, { type: "ok" })
          } else {
            history.complete(invocation, { type: "fail", error: conditionError })
          }
        }
      }
      expect(violationsOf(history.events)).toEqual([])
      const again = fromRegisterEdn(toRegisterEdn(fromJsonLines(toJsonLines(history.events))))
      expect(toJsonLines(again)).toBe(toJsonLines(history.events))
    }
  })
})
