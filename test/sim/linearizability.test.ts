import { expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import { checkRegister, type RegisterOperation } from "./linearizability.ts"

/**
 * One operation a line: `put 1 0-9`, `get 1 2-3`, `get - 2-3` (absent), `cas 1>2 0-9`, `cas ->2 0-9` (if absent), `del 0-9`; then `no`,
 * `no=5` (the condition was false and 5 was found) or `info`.
 */
function history(text: string): Array<RegisterOperation> {
  return text
    .trim()
    .split("\n")
    .map((line) => {
      const words = line.trim().split(/\s+/)
      const name = words.shift() as string
      const argument = name === "del" ? "-" : (words.shift() as string)
      const [callTime, returnTime] = (words.shift() as string).split("-").map(Number) as [
        number,
        number,
      ]
      const [outcome = "ok", found] = (words.shift() ?? "ok").split("=")
      const [expected, value] = argument.includes(">") ? argument.split(">") : ["-", argument]
      const number = (word: string | undefined) => (word === "-" ? 0 : Number(word))
      const kinds = { put: "put", get: "get", cas: "compareAndSet", del: "delete" } as const
      return {
        kind: kinds[name as keyof typeof kinds],
        value: number(value),
        expected: number(expected),
        outcome: outcome as "ok" | "no" | "info",
        found: found === undefined ? undefined : number(found),
        callTime,
        returnTime,
      }
    })
}

const good: Record<string, string> = {
  "reads follow writes": "put 1 0-1\n get 1 2-3\n put 2 4-5\n get 2 6-7",
  "a key begins absent": "get - 0-1\n put 1 2-3",
  "a read during a write may see either (new)": "put 1 0-1\n put 2 2-9\n get 2 3-4",
  "a read during a write may see either (old)": "put 1 0-1\n put 2 2-9\n get 1 3-4",
  "concurrent writes take any order": "put 1 0-9\n put 2 0-9\n get 1 10-11",
  "three overlapping writes, reads fix the order":
    "put 1 0-20\n put 2 0-20\n put 3 0-20\n get 2 1-2\n get 1 3-4\n get 3 5-6\n get 3 21-22",
  "intervals are closed: touching operations overlap": "put 1 0-5\n get - 5-6",
  "an unknown write may have happened": "put 1 0-1\n put 2 2-2 info\n get 2 5-6",
  "an unknown write may not have happened": "put 1 0-1\n put 2 2-2 info\n get 1 5-6",
  "an unknown write may happen late": "put 1 0-1\n put 2 2-2 info\n get 1 5-6\n get 2 7-8",
  "an unknown write may happen after everything": "put 2 0-0 info\n put 1 1-2\n get 1 100-101",
  "compare and set takes over": "put 1 0-1\n cas 1>2 2-3\n get 2 4-5",
  "compare and set refused": "put 1 0-1\n cas 7>2 2-3 no\n get 1 4-5",
  "compare and set refused, telling why": "put 1 0-1\n cas 7>2 2-3 no=1\n get 1 4-5",
  "compare and set on an absent key": "cas ->1 0-1\n get 1 2-3",
  "of two racing compare-and-sets one wins":
    "put 1 0-1\n cas 1>2 2-9\n cas 1>3 2-9 no=2\n get 2 10-11",
  "an unknown compare-and-set may have won":
    "put 1 0-1\n cas 1>2 2-2 info\n cas 1>3 4-5 no=2\n get 2 6-7",
  "an unknown compare-and-set may have lost":
    "put 1 0-1\n cas 1>2 2-2 info\n cas 1>3 4-5\n get 3 6-7",
  "delete and write again":
    "put 1 0-1\n del 2-3\n get - 4-5\n del 6-7 no\n put 2 8-9\n get 2 10-11",
  "of two racing deletes one finds nothing": "put 1 0-1\n del 2-9\n del 2-9 no\n get - 10-11",
  "an unknown delete may have happened": "put 1 0-1\n del 2-2 info\n get - 3-4",
  "an unknown write that only a delete shows": "put 1 0-0 info\n del 2-3\n get - 4-5",
  "an unknown read says nothing": "put 1 0-1\n get 9 2-3 info\n get 1 4-5",
  "a long operation overlaps a whole chain":
    "put 9 0-100\n put 1 1-2\n get 1 3-4\n put 2 5-6\n get 2 7-8\n get 9 101-102",
}

const bad: Record<string, string> = {
  "a stale read": "put 1 0-1\n put 2 2-3\n get 1 4-5",
  "an acknowledged write is lost": "put 1 0-1\n get - 2-3",
  "a value from nowhere": "put 1 0-1\n get 2 2-3",
  "a read goes back": "put 1 0-1\n put 2 2-9\n get 2 3-4\n get 1 5-6",
  "a value read before it was written": "get 1 0-1\n put 1 2-3",
  "a refused write is seen": "put 1 0-1\n cas 7>2 2-3 no\n get 2 4-5",
  "a compare-and-set that could not hold": "put 1 0-1\n cas 2>3 2-3",
  "a compare-and-set refused although it held": "put 1 0-1\n cas 1>2 2-3 no",
  "a compare-and-set that found what was not there": "put 1 0-1\n cas 7>2 2-3 no=5",
  "both of two racing compare-and-sets win": "put 1 0-1\n cas 1>2 2-9\n cas 1>3 2-9",
  "both of two racing if-absent writes win": "cas ->1 0-9\n cas ->2 0-9",
  "a deleted value comes back": "put 1 0-1\n del 2-3\n get 1 4-5",
  "a delete of nothing says done": "del 0-1\n get - 2-3",
  "a delete says absent although the key was there": "put 1 0-1\n del 2-3 no\n get 1 4-5",
  "both of two racing deletes say done": "put 1 0-1\n del 2-9\n del 2-9",
  "an unknown write happens twice":
    "put 1 0-0 info\n get 1 1-2\n put 2 3-4\n get 2 5-6\n get 1 7-8",
  "a write applied twice": "put 1 0-1\n put 2 2-3\n get 2 4-5\n get 1 6-7",
  "an unknown write seen before its call": "put 1 0-1\n get 2 2-3\n put 2 4-4 info",
  "two readers disagree on the order":
    "put 1 0-9\n put 2 0-9\n get 1 10-11\n get 2 12-13\n get 1 14-15",
  "a reader between two that agree": "put 1 0-1\n put 2 2-20\n get 2 3-4\n get 1 5-6\n get 2 7-8",
  "an unknown delete cannot undo twice": "put 1 0-1\n del 2-2 info\n get - 3-4\n get 1 5-6",
  "an unknown compare-and-set cannot hold later than its value":
    "put 1 0-1\n put 2 2-3\n cas 1>3 4-4 info\n get 3 6-7",
}

for (const [name, text] of Object.entries(good)) {
  test(`linearizable: ${name}`, () => {
    expect(checkRegister(history(text))._tag).toBe("Linearizable")
  })
}

for (const [name, text] of Object.entries(bad)) {
  test(`not linearizable: ${name}`, () => {
    expect(checkRegister(history(text))._tag).toBe("Violation")
  })
}

test("a violation names an operation that could not be placed", () => {
  const verdict = checkRegister(history("put 1 0-1\n put 2 2-3\n get 2 4-5\n get 1 6-7"))
  expect(verdict).toMatchObject({ _tag: "Violation", stuckAt: { kind: "get", value: 1 } })
})

test("a search past its budget is undecided, not fine", () => {
  expect(checkRegister(history("put 1 0-9\n put 2 0-9\n get 1 10-11"), 2)._tag).toBe("Undecided")
})

/** A register served at one random instant inside each operation's interval, so that the history is linearizable. */
function randomHistory(prng: Prng, count: number, unknownShare: number): Array<RegisterOperation> {
  const processes = Array.from({ length: 8 }, () => 0)
  const drafts = Array.from({ length: count }, (_, i) => {
    const process = prng.int(0, 7)
    const callTime = (processes[process] as number) + prng.int(1, 20)
    const returnTime = callTime + prng.int(0, 60)
    processes[process] = returnTime
    const kind = prng.pick(["put", "get", "get", "compareAndSet", "delete"] as const)
    const at = callTime + prng.float() * (returnTime - callTime)
    return { kind, callTime, returnTime, at, value: i + 1 }
  }).sort((left, right) => left.at - right.at)
  let state = 0
  let before = 0
  return drafts.map(({ kind, callTime, returnTime, value }) => {
    const expected = kind === "compareAndSet" ? prng.pick([state, before, 0]) : 0
    const unknown = kind !== "get" && prng.chance(unknownShare)
    const happened = !unknown || prng.chance(0.5)
    const holds = kind === "compareAndSet" ? expected === state : state !== 0
    const result = kind === "get" ? state : value
    const outcome = unknown
      ? "info"
      : holds || kind === "put" || kind === "get"
        ? "ok"
        : ("no" as const)
    const found = outcome === "no" && kind === "compareAndSet" ? state : undefined
    if (happened && kind !== "get") {
      const after = kind === "delete" ? 0 : kind === "put" || holds ? value : state
      if (after !== state) before = state
      state = after
    }
    return { kind, value: result, expected, outcome, found, callTime, returnTime }
  })
}

test("histories of a real register pass, also with unknown outcomes, inside the budget", () => {
  for (let seed = 0; seed < 150; seed++) {
    const operations = randomHistory(new Prng(seed), 200, seed % 3 === 0 ? 0 : 0.04)
    expect({ seed, ...checkRegister(operations) }).toEqual({ seed, _tag: "Linearizable" })
  }
})

/** Every order of up to seven operations, the plain way. */
function bruteForce(operations: ReadonlyArray<RegisterOperation>): boolean {
  const place = (placed: ReadonlySet<RegisterOperation>, state: number): boolean => {
    const open = operations.filter((operation) => !placed.has(operation))
    if (open.every(({ outcome }) => outcome === "info")) return true
    const limit = Math.min(
      ...open.filter(({ outcome }) => outcome !== "info").map(({ returnTime }) => returnTime),
    )
    return open.some((operation) => {
      if (operation.callTime > limit) return false
      const { kind, outcome, expected, value, found } = operation
      const afters: Array<number> = []
      const holds = kind === "compareAndSet" ? state === expected : state !== 0
      if (kind === "put") afters.push(value)
      else if (kind === "get") {
        if (outcome === "info" || value === state) afters.push(state)
      } else if (outcome === "no") {
        if (!holds && (found === undefined || found === state)) afters.push(state)
      } else if (holds) afters.push(kind === "delete" ? 0 : value)
      return afters.some((after) => place(new Set([...placed, operation]), after))
    })
  }
  return place(new Set(), 0)
}

test("agrees with trying every order on small random histories, most of them spoilt", () => {
  const verdicts = { true: 0, false: 0 }
  for (let seed = 0; seed < 12_000; seed++) {
    const prng = new Prng(seed)
    const operations = randomHistory(prng, 7, prng.pick([0.25, 0.6]))
    if (prng.chance(0.7)) {
      const i = prng.int(0, 6)
      const operation = operations[i] as RegisterOperation
      if (operation.kind === "get") operations[i] = { ...operation, value: prng.int(0, 7) }
      else if (operation.outcome !== "info") {
        operations[i] = {
          ...operation,
          outcome: operation.outcome === "ok" ? "no" : "ok",
          found: undefined,
        }
      }
    }
    const spoilt = operations.map((operation) =>
      operation.kind === "put"
        ? ({
            ...operation,
            outcome: operation.outcome === "no" ? "ok" : operation.outcome,
          } as const)
        : operation,
    )
    const expected = bruteForce(spoilt)
    verdicts[`${expected}`]++
    expect({ seed, linearizable: checkRegister(spoilt)._tag === "Linearizable" }).toEqual({
      seed,
      linearizable: expected,
    })
  }
  expect(verdicts.true).toBeGreaterThan(500)
  expect(verdicts.false).toBeGreaterThan(500)
})
