import { describe, expect, test } from "bun:test"
import { emptyBytes, text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { commandLifetimeMax, type KeyValues, RangeMachine } from "../../src/server/apply.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { dataKey } from "../../src/server/engineKeys.ts"
import { encodeEntryData } from "../../src/server/entryData.ts"
import { noMerges } from "../../src/server/rangeState.ts"
import { recordValue, recordVersion } from "../../src/server/valueRecord.ts"
import { commandStatuses, conditions, operations } from "../../src/wire/command.ts"
import { command } from "./commands.ts"

class MapValues implements KeyValues {
  readonly records = new Map<string, Uint8Array>()
  get(key: Uint8Array): Uint8Array | undefined {
    return this.records.get(toHex(key))
  }
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void {
    this.records.set(toHex(key), Uint8Array.of(...head, ...tail))
  }
  delete(key: Uint8Array): void {
    this.records.delete(toHex(key))
  }
  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    for (const key of this.records.keys()) {
      if (key >= toHex(lower) && key < toHex(upper)) this.records.delete(key)
    }
  }
}

/** A machine of one range that holds all of namespace 1. */
function machine(limits = { results: 100, clients: 10 }) {
  const engine = new MapValues()
  const [, descriptor] = bootstrapDescriptors([1], 1)
  const state = { descriptor: descriptor!, replica: 1, appliedIndex: 0, appliedTerm: 0 }
  const range = new RangeMachine({
    state: { ...state, rangeTime: 0, chain: 0, lastReplica: 3, ...noMerges },
    engine,
    limits,
  })
  let base = 1000
  const apply = (...commands: ReadonlyArray<Uint8Array>) => {
    const data = encodeEntryData(base, commands)
    range.apply({ index: range.appliedIndex + 1, term: 1, kind: 1, data })
    base += commands.length + 10
    const { count, statuses, versions } = range.outcomes
    return Array.from({ length: count }, (_, i) => [statuses[i]!, versions[i]!] as const)
  }
  const read = (key: string) => {
    const record = engine.get(dataKey(hashPosition(1, utf8(key))))
    if (record === undefined) return undefined
    return { value: text(recordValue(record)), version: recordVersion(record) }
  }
  return { range, engine, apply, read }
}

const { done, conditionFalse, absent, expired, overloaded, rangeMoved } = commandStatuses

describe("a range's state machine", () => {
  test("command j of an entry gets the entry's base plus j as its version", () => {
    const { range, apply, read } = machine()
    const results = apply(
      command("a", { text: "1" }),
      command("b", { text: "2", sequence: 2 }),
      command("a", { text: "3", sequence: 3 }),
    )
    expect(results).toEqual([
      [done, 1000],
      [done, 1001],
      [done, 1002],
    ])
    expect(read("a")).toEqual({ value: "3", version: 1002 })
    expect(range.rangeTime).toBe(1002)
  })

  test("a retry gets the first answer and has no second effect", () => {
    const { apply, read } = machine()
    const [first] = apply(command("a", { text: "1" }))
    apply(command("a", { text: "2", sequence: 2 }))
    expect(apply(command("a", { text: "1" }))).toEqual([first!])
    expect(read("a")?.value).toBe("2")
  })

  test("a failed condition is a result that a retry gets again, even when it would hold by then", () => {
    const { apply, read } = machine()
    const compare = command("a", {
      text: "x",
      condition: conditions.versionEquals,
      expectedVersion: 9,
    })
    expect(apply(compare)).toEqual([[conditionFalse, 0]])
    apply(command("a", { text: "1", sequence: 2 }))
    expect(apply(compare)).toEqual([[conditionFalse, 0]])
    expect(read("a")?.value).toBe("1")
  })

  test("compare-and-set decides by version, by absence and by value", () => {
    const { apply, read } = machine()
    const { versionEquals, valueEquals, absent: isAbsent } = conditions
    expect(apply(command("a", { text: "1", condition: isAbsent }))).toEqual([[done, 1000]])
    expect(apply(command("a", { text: "2", condition: isAbsent, sequence: 2 }))).toEqual([
      [conditionFalse, 1000],
    ])
    const byVersion = { condition: versionEquals, expectedVersion: 1000, sequence: 3 }
    expect(apply(command("a", { text: "3", ...byVersion }))[0]?.[0]).toBe(done)
    const byValue = { condition: valueEquals, expectedValue: utf8("3"), sequence: 4 }
    expect(apply(command("a", { text: "4", ...byValue }))[0]?.[0]).toBe(done)
    const wrong = { condition: valueEquals, expectedValue: utf8("3"), sequence: 5 }
    expect(apply(command("a", { text: "5", ...wrong }))[0]?.[0]).toBe(conditionFalse)
    expect(read("a")?.value).toBe("4")
  })

  test("a delete says whether the key was there, and removes it", () => {
    const { apply, read } = machine()
    apply(command("a", { text: "1" }))
    const remove = { operation: operations.delete } as const
    expect(apply(command("a", { ...remove, sequence: 2 }))[0]?.[0]).toBe(done)
    expect(apply(command("a", { ...remove, sequence: 3 }))[0]?.[0]).toBe(absent)
    expect(read("a")).toBeUndefined()
  })

  test("a sequence below what the client acknowledged is refused, so forgetting never applies twice", () => {
    const { range, apply, read } = machine()
    apply(command("a", { text: "1" }))
    apply(command("a", { text: "2", sequence: 2, ackedBelow: 2 }))
    expect(range.sessions.find(7, 1)).toBeUndefined()
    expect(apply(command("a", { text: "1" }))).toEqual([[expired, 0]])
    expect(read("a")?.value).toBe("2")
  })

  test("a command whose time has passed at its own stamp is refused", () => {
    const { apply, read } = machine()
    expect(apply(command("a", { text: "1", expiresAt: 1000 }))).toEqual([[expired, 0]])
    expect(apply(command("a", { text: "1", expiresAt: 1012 }))[0]?.[0]).toBe(done)
    expect(read("a")?.value).toBe("1")
  })

  test("a command that claims a longer life than a client may ask for is refused: its session would stay", () => {
    const { range, apply } = machine()
    const long = command("a", { text: "1", expiresAt: 1000 + commandLifetimeMax + 1 })
    expect(apply(long)).toEqual([[expired, 0]])
    expect(range.sessions.clients).toBe(0)
  })

  test("refusals leave no trace", () => {
    const { range, apply } = machine({ results: 1, clients: 10 })
    apply(command("a", { text: "1" }))
    expect(apply(command("b", { text: "1", sequence: 2 }))).toEqual([[overloaded, 0]])
    expect(apply(command("b", { text: "1", sequence: 2, boundsVersion: 9 }))).toEqual([
      [rangeMoved, 0],
    ])
    expect(range.sessions.results).toBe(1)
  })

  test("what a client has answered makes room, even in a full table", () => {
    const { range, apply } = machine({ results: 1, clients: 10 })
    apply(command("a", { text: "1" }))
    expect(apply(command("b", { text: "1", sequence: 2, ackedBelow: 2 }))[0]?.[0]).toBe(done)
    expect(range.sessions.results).toBe(1)
  })

  test("a position outside the bounds is refused at apply, whatever the proposer thought", () => {
    const { apply } = machine()
    const outside = command("a", { position: hashPosition(2, utf8("a")) })
    expect(apply(outside)).toEqual([[rangeMoved, 0]])
  })

  test("a session goes only when no retry can come any more", () => {
    const { range } = machine()
    const apply = (base: number, data: Uint8Array) =>
      range.apply({
        index: range.appliedIndex + 1,
        term: 1,
        kind: 1,
        data: encodeEntryData(base, [data]),
      })
    apply(1000, command("a", { expiresAt: 40_000_000 }))
    apply(31_000_000, command("b", { clientId: 8 }))
    expect(range.sessions.find(7, 1)).toBeDefined()
    apply(61_000_000, command("c", { clientId: 9 }))
    expect(range.sessions.find(7, 1)).toBeUndefined()
    expect(range.sessions.find(8, 1)).toBeDefined()
  })

  test("replicas that apply the same entries agree in chain, others do not", () => {
    const prng = new Prng(11)
    const left = machine()
    const right = machine()
    for (let i = 1; i <= 200; i++) {
      const key = `k${prng.int(0, 5)}`
      const operation = prng.chance(0.3) ? operations.delete : operations.put
      const bytes = command(key, {
        operation,
        sequence: i,
        ackedBelow: i - 3,
        ...(operation === operations.put ? { text: `v${i}` } : {}),
      })
      left.apply(bytes)
      right.apply(bytes)
      expect(right.range.chain).toBe(left.range.chain)
    }
    left.apply(command("x", { text: "1", sequence: 999 }))
    right.apply(command("x", { text: "2", sequence: 999 }))
    expect(right.range.chain).not.toBe(left.range.chain)
  })

  test("an entry out of order, or stamped into the past, is a bug and stops the replica", () => {
    const { range, apply } = machine()
    apply(command("a", { text: "1" }))
    const data = encodeEntryData(1000, [command("b", { sequence: 2 })])
    expect(() => range.apply({ index: 3, term: 1, kind: 1, data })).toThrow("3 after 1")
    expect(() => range.apply({ index: 2, term: 1, kind: 1, data })).toThrow("stamped 1000")
    range.apply({ index: 2, term: 1, kind: 0, data: emptyBytes })
    expect(range.appliedIndex).toBe(2)
  })
})
