import { describe, expect, test } from "bun:test"
import { type Caller, eventualProblem } from "../../src/doors/native/checks.ts"
import type { EventualChange, EventualPage, EventualWrite } from "../../src/dynamo/node/requests.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { eventualNamespaces } from "./memoryEventual.ts"

const strong = { id: 1, name: "default", mode: "strong", partitioning: "hash" } as const
const client: Caller = { namespaces: [strong, ...eventualNamespaces], internal: false }

const base = { token: 0, namespace: 2 ** 31, level: undefined, deadlineMs: 1000 }
const write = (fields: Partial<EventualWrite>): EventualWrite => ({
  ...{ ...base, _tag: "EventualWrite", key: utf8("k"), change: { _tag: "Delete" } },
  ...{ context: undefined, strict: false, requestId: 0 },
  ...fields,
})
const page = (fields: Partial<EventualPage>): EventualPage => ({
  ...{ ...base, _tag: "EventualPage", slots: [0, 16_384], prefix: utf8(""), after: undefined },
  limit: 1000,
  ...fields,
})
const problemOf = (fields: Partial<EventualWrite>) => eventualProblem(write(fields), client)
const change = (given: EventualChange) => problemOf({ change: given })

describe("what the native door checks of a request to an eventual namespace", () => {
  test("the namespace is there, and eventual; the deadline is one", () => {
    expect(problemOf({})).toBeUndefined()
    expect(problemOf({ namespace: 7 })).toContain("no namespace with id 7")
    expect(problemOf({ namespace: 1 })).toContain("default is not eventual")
    expect(problemOf({ deadlineMs: 0 })).toContain("deadline")
    expect(problemOf({ deadlineMs: 110_001 })).toContain("deadline")
  })

  test("keys, members, values, contexts and prefixes are as large as they may be", () => {
    for (const [bytes, problem] of [
      [1, undefined],
      [2048, undefined],
      [2049, "2048 bytes"],
    ] as const) {
      const some = new Uint8Array(bytes)
      const found = [
        problemOf({ key: some }),
        eventualProblem({ ...base, _tag: "EventualRead", key: some }, client),
        change({ _tag: "Add", member: some }),
        change({ _tag: "Remove", member: some }),
        eventualProblem(page({ prefix: some }), client),
      ]
      for (const each of found) {
        if (problem === undefined) expect(each).toBeUndefined()
        else expect(each).toContain(problem)
      }
    }
    expect(problemOf({ key: utf8("") })).toContain("key is empty")
    const put = (bytes: number, ttlMs = 0) =>
      change({ _tag: "Put", value: new Uint8Array(bytes), ttlMs })
    expect(put(2 ** 20)).toBeUndefined()
    expect(put(2 ** 20 + 1)).toContain("limit is 1048576 bytes")
    expect(problemOf({ context: new Uint8Array(16_384) })).toBeUndefined()
    expect(problemOf({ context: new Uint8Array(16_385) })).toContain("context")
  })

  test("a value expires within what every node can reckon with", () => {
    const put = (ttlMs: number) => change({ _tag: "Put", value: utf8("v"), ttlMs })
    expect(put(2_251_799_813_685)).toBeUndefined()
    expect(put(2_251_799_813_686)).toContain("ttlMs")
    expect(put(2 ** 53 - 1)).toContain("ttlMs")
  })

  test("a page is of slots in order, from a place that there is, and of a size", () => {
    const problem = (fields: Partial<EventualPage>) => eventualProblem(page(fields), client)
    expect(problem({})).toBeUndefined()
    expect(problem({ slots: [0, 5, 5, 1, 16_383, 1] })).toBeUndefined()
    for (const slots of [[0, 0], [5], [3, 2, 4, 1], [3, 2, 2, 1], [16_383, 2], [16_384, 1]]) {
      expect(problem({ slots }), `${slots}`).toContain("out of order")
    }
    for (const limit of [0, 1001]) expect(problem({ limit })).toContain("limit")
    expect(problem({ after: { slot: 16_383, key: utf8("") } })).toBeUndefined()
    expect(problem({ after: { slot: 16_384, key: utf8("") } })).toContain("no place")
    expect(problem({ after: { slot: 1, key: new Uint8Array(2049) } })).toContain("no place")
  })
})
