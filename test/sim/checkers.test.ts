import { expect, test } from "bun:test"
import { Counters } from "./counters.ts"
import { History, type RecordedOperation } from "./history.ts"
import { Observer } from "./observer.ts"
import { type ServedRead, ServedReads } from "./servedReads.ts"
import type { Violation } from "./violation.ts"

/** The invariant that `run` finds broken. */
function invariantOf(run: () => void): string | undefined {
  try {
    run()
    return undefined
  } catch (error) {
    return (error as Violation).invariant
  }
}

function added(...adds: ReadonlyArray<[number, number, "ok" | "info" | "fail", number?]>) {
  const counters = new Counters()
  for (const [delta, callTime, outcome, sum] of adds) {
    const add = counters.begin(1, delta, callTime)
    add.outcome = outcome
    add.sum = sum
    add.returnTime = callTime + 5
  }
  return counters
}

test("a counter is the sum of its distinct adds, unknown ones counted or not", () => {
  const counters = added([2, 0, "ok", 2], [3, 10, "info"], [4, 20, "fail"], [1, 30, "ok", 6])
  counters.check(1, 6, 100)
  const other = added([2, 0, "ok", 2], [3, 10, "info"], [1, 30, "ok", 3])
  other.check(1, 3, 100)
  other.check(1, 6, 100)
})

test("an add that counted twice is found, and one that is lost", () => {
  const twice = added([2, 0, "ok", 2], [1, 10, "ok", 3])
  expect(invariantOf(() => twice.check(1, 5, 100))).toBe("counter")
  expect(invariantOf(() => twice.check(1, 2, 100))).toBe("counter")
  const sameSum = added([2, 0, "ok", 2], [2, 10, "ok", 2])
  expect(invariantOf(() => sameSum.check(1, 2, 100))).toBe("counter")
})

test("adds answer in the order of time", () => {
  const counters = added([2, 0, "ok", 3], [1, 10, "ok", 1])
  expect(invariantOf(() => counters.check(1, 3, 100))).toBe("counter")
})

test("an add that is answered after the last read may be in it or not", () => {
  const counters = added([2, 0, "ok", 2], [3, 98, "ok", 5])
  counters.check(1, 2, 100)
  counters.check(1, 5, 100)
})

const read: ServedRead = {
  node: 1,
  life: 1,
  replica: 1,
  range: 1,
  index: 5,
  key: 7,
  value: 3,
  version: 50,
  atLeast: 0,
  rangeTime: 60,
}

test("reads of one replica never go backwards within a life", () => {
  const served = new ServedReads()
  served.note(read)
  served.note({ ...read, life: 2, index: 4, version: 40 })
  served.note({ ...read, node: 2, index: 4, version: 40 })
  expect(invariantOf(() => served.note({ ...read, index: 4 }))).toBe("staleRead")
  expect(invariantOf(() => served.note({ ...read, version: 49 }))).toBe("staleRead")
})

test("a read behind its session's floor is found", () => {
  const served = new ServedReads()
  served.note({ ...read, atLeast: 50 })
  expect(invariantOf(() => served.note({ ...read, atLeast: 51 }))).toBe("staleRead")
  const absent = { ...read, version: 0, value: 0 }
  served.note({ ...absent, atLeast: 60 })
  expect(invariantOf(() => served.note({ ...absent, atLeast: 61 }))).toBe("staleRead")
})

function operation(options: Partial<RecordedOperation>): RecordedOperation {
  const usual = { process: 1, key: 1, kind: "get", value: 0, expected: 0, staleUs: 0 } as const
  return { ...usual, callTime: 0, returnTime: 1, outcome: "ok", found: undefined, ...options }
}

test("a bounded read may be as old as its bound, and no older", () => {
  const history = (staleUs: number) => {
    const result = new History()
    result.invoke(operation({ kind: "put", value: 1 }))
    result.invoke(operation({ kind: "put", value: 2, callTime: 10, returnTime: 11 }))
    result.invoke(operation({ value: 1, callTime: 100, returnTime: 101, staleUs }))
    return result
  }
  expect(invariantOf(() => history(90).check())).toBeUndefined()
  expect(invariantOf(() => history(88).check())).toBe("linearizability")
  expect(invariantOf(() => history(Number.POSITIVE_INFINITY).check())).toBeUndefined()
})

const space = { start: Uint8Array.of(1), end: Uint8Array.of(9), namespace: 1 }
const voter = (replica: number) => ({ node: replica, replica, role: "voter" }) as const
const whole = {
  id: 1,
  ...space,
  boundsVersion: 1,
  membersVersion: 1,
  replicas: [voter(1), voter(2)],
}

test("what is committed of the ranges tiles their space", () => {
  const observer = new Observer()
  observer.described(1, whole, 1)
  const left = { ...whole, end: Uint8Array.of(5), boundsVersion: 2 }
  observer.described(1, left, 2)
  observer.described(1, { ...whole, id: 2, start: Uint8Array.of(5), boundsVersion: 2 }, 1)
  observer.checkTiling()
  expect(observer.overlapIn(observer.latest)).toBeUndefined()
  observer.described(1, { ...whole, id: 3, start: Uint8Array.of(4), boundsVersion: 2 }, 1)
  expect(invariantOf(() => observer.checkTiling())).toBe("tiling")
  expect(observer.overlapIn(observer.latest)).toBe("r1 and r3")
})

test("a range's versions only rise, and its replicas agree on them", () => {
  const observer = new Observer()
  observer.described(1, whole, 1)
  const next = { ...whole, membersVersion: 2, replicas: [voter(1), voter(3)] }
  observer.described(1, next, 4)
  observer.described(2, whole, 3)
  expect(invariantOf(() => observer.described(2, whole, 4))).toBe("versions")
  expect(observer.isRemoved(1, 2)).toBe(true)
  expect(observer.isRemoved(1, 1)).toBe(false)
  const back = { ...next, membersVersion: 3, replicas: [voter(1), voter(2), voter(3)] }
  expect(invariantOf(() => observer.described(1, back, 6))).toBe("removed")
})
