import { describe, expect, test } from "bun:test"
import { concatBytes, emptyBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { decimalOf, int64Of, isInt64, loadInt64, parseDecimal } from "../../src/lib/int64.ts"
import { Prng } from "../../src/lib/prng.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { RangeMachine } from "../../src/server/apply.ts"
import { encodeEntryData } from "../../src/server/entryData.ts"
import { noMerges } from "../../src/server/rangeState.ts"
import { type BatchOperation, BatchView, encodeBatch } from "../../src/wire/batch.ts"
import {
  type Command,
  CommandView,
  commandHeaderBytes,
  conditions,
  encodeCommand,
  operations,
} from "../../src/wire/command.ts"
import { ttlMax } from "../../src/wire/commandCodes.ts"
import { limits } from "../../src/wire/limits.ts"
import { MapValues } from "../server/mapValues.ts"
import { batchOf, bytesOf, commandOf } from "./samples.ts"

const plain: Command = {
  operation: operations.put,
  condition: conditions.none,
  boundsVersion: 1,
  clientId: 7,
  sequence: 1,
  ackedBelow: 0,
  expiresAt: 100,
  expectedVersion: 0,
  ttl: 0,
  position: utf8("p"),
  value: emptyBytes,
  expectedValue: emptyBytes,
}
const part: BatchOperation = {
  operation: operations.put,
  condition: conditions.none,
  expectedVersion: 0,
  ttl: 0,
  position: utf8("p"),
  value: utf8("v"),
  expectedValue: emptyBytes,
}
const problemOf = (fields: Partial<Command>) =>
  CommandView.problem(encodeCommand({ ...plain, ...fields }))
const problemOfBatch = (batch: ReadonlyArray<BatchOperation>, fields: Partial<Command> = {}) =>
  problemOf({ operation: operations.batch, value: encodeBatch(batch), ...fields })

describe("commands", () => {
  test("the header has 64 bytes, and every field comes back from its place", () => {
    const command = { ...plain, condition: conditions.valueEquals, boundsVersion: 2, clientId: 3 }
    const rest = { sequence: 4, ackedBelow: 2, expiresAt: 6, expectedVersion: 7, ttl: 2 ** 40 + 9 }
    const value = utf8("value")
    const expectedValue = utf8("expected")
    const bytes = encodeCommand({ ...command, ...rest, value, expectedValue })
    expect(commandHeaderBytes).toBe(64)
    expect(toHex(bytes.subarray(56, 64))).toBe("0900000000010000")
    const view = new CommandView()
    view.at(concatBytes(utf8("before"), bytes), 6)
    expect(view.ttl).toBe(rest.ttl)
    expect(view.expectedVersion).toBe(7)
    expect(view.positionAndValue).toEqual(utf8("pvalue"))
    expect(view.expectedValue).toEqual(expectedValue)
    expect(view.end).toBe(6 + bytes.length)
  })

  test("a batch comes back operation by operation", () => {
    const prng = new Prng(4)
    for (let i = 0; i < 500; i++) {
      const batch = batchOf(prng)
      const bytes = encodeBatch(batch)
      expect(BatchView.problem(bytes, batch[0]!.position)).toBeUndefined()
      const view = new BatchView()
      view.begin(bytes)
      for (const each of batch) {
        expect(view.next()).toBe(true)
        const { operation, condition, expectedVersion, ttl } = view
        const { position, value, expectedValue } = view
        const read = { operation, condition, expectedVersion, ttl, position, value, expectedValue }
        expect(read as BatchOperation).toEqual(each)
      }
      expect(view.next()).toBe(false)
    }
  })

  test("what does not fit together is refused, and says why", () => {
    const { add, batch, delete: remove } = operations
    expect(problemOf({})).toBeUndefined()
    expect(problemOf({ operation: 5 as 1 })).toBe("unknown operation 5")
    expect(problemOf({ operation: 0 as 1 })).toBe("unknown operation 0")
    expect(problemOf({ operation: remove, ttl: 1 })).toBe("delete with a ttl")
    expect(problemOf({ operation: add, value: new Uint8Array(7) })).toBe("add of 7 bytes, not 8")
    expect(problemOf({ operation: add, value: new Uint8Array(8), ttl: 1 })).toBeUndefined()
    expect(problemOf({ ttl: ttlMax })).toBeUndefined()
    expect(problemOf({ ttl: ttlMax + 1 })).toContain("a ttl above")
    const own = "a batch with a condition or ttl of its own"
    expect(problemOfBatch([part])).toBeUndefined()
    expect(problemOfBatch([part], { ttl: 1 })).toBe(own)
    expect(problemOfBatch([part], { condition: conditions.absent })).toBe(own)
    expect(problemOfBatch([part], { expectedValue: utf8("x") })).toBe(own)
    expect(problemOfBatch([])).toBe("batch: without operations")
    expect(problemOfBatch([part, part])).toBe("batch: operation 1: a second one on its key")
    expect(problemOfBatch([{ ...part, operation: batch as 1 }])).toContain("unknown operation 4")
    expect(problemOfBatch([part], { position: utf8("q") })).toContain("its first operation")
    expect(problemOfBatch([{ ...part, expectedValue: utf8("x") }])).toContain(
      "without its condition",
    )
    const large = { ...part, value: new Uint8Array(limits.valueBytes + 1) }
    expect(problemOfBatch([large])).toContain("limit is 1048576 bytes")
    const many = Array.from({ length: limits.batchOperations + 1 }, (_, i) => ({
      ...part,
      position: utf8(`p${i}`),
    }))
    expect(problemOfBatch(many, { position: utf8("p0") })).toContain("limit is 1000 operations")
    const full = Array.from({ length: 4 }, (_, i) => ({
      ...part,
      position: utf8(`p${i}`),
      value: new Uint8Array(limits.valueBytes),
    }))
    expect(problemOfBatch(full, { position: utf8("p0") })).toContain("limit is 4194304 bytes")
    const value = encodeBatch([part])
    const after = concatBytes(value, utf8("x"))
    expect(problemOf({ operation: batch, value: after })).toBe("batch: bytes after its end")
    for (let length = 0; length < value.length; length++) {
      const cut = value.subarray(0, length)
      expect(problemOf({ operation: batch, value: cut })).toContain("batch: ")
    }
  })

  test("whatever bytes are taken for a command can be applied, and no others reach a range", () => {
    const prng = new Prng(12)
    let taken = 0
    for (let i = 0; i < 20_000; i++) {
      const bytes = commandOf(prng)
      for (let k = prng.int(0, 3); k > 0; k--)
        bytes[prng.int(0, bytes.length - 1)] = prng.int(0, 255)
      const view = new CommandView()
      if (CommandView.problem(bytes) !== undefined) continue
      view.at(bytes, 0)
      if (view.end !== bytes.length) continue
      taken++
      apply(bytes, prng)
    }
    expect(taken).toBeGreaterThan(5000)
    expect(taken).toBeLessThan(19_000)
  })
})

/** Applies a command as if it were for the range and in time, to a key that is there or not. */
function apply(bytes: Uint8Array, prng: Prng): void {
  const view = new CommandView()
  view.at(bytes, 0)
  const base = Math.max(1, Math.min(2 ** 53 - 2 ** 40, view.expiresAt) - 1000)
  const machine = new RangeMachine({
    engine: new MapValues(),
    limits: { results: 10, clients: 10 },
    state: {
      descriptor: {
        id: 1,
        namespace: undefined,
        start: emptyBytes,
        end: emptyBytes,
        boundsVersion: view.boundsVersion,
        membersVersion: 1,
        replicas: [],
      },
      replica: 1,
      appliedIndex: 0,
      appliedTerm: 0,
      rangeTime: 0,
      chain: 0,
      lastReplica: 1,
      ...noMerges,
    },
  })
  const put = { operation: operations.put, condition: conditions.none, expectedValue: emptyBytes }
  const identity = { clientId: 1, sequence: 1, boundsVersion: view.boundsVersion }
  const value = prng.pick([utf8("12"), bytesOf(prng, 0, 10)])
  const first = encodeCommand({ ...plain, ...identity, ...put, position: view.position, value })
  const data = encodeEntryData(base, prng.chance(0.5) ? [first, bytes] : [bytes])
  const entry = { index: 1, term: 1, kind: entryKinds.commands, data }
  machine.probe(entry)
  machine.apply(entry)
}

describe("signed 64-bit numbers", () => {
  const edges = [0n, 1n, -1n, 9n, -10n, 2n ** 63n - 1n, -(2n ** 63n), 2n ** 53n + 1n]

  test("bytes and text come back as they were", () => {
    for (const value of edges) {
      expect(loadInt64(int64Of(value))).toBe(value)
      expect(parseDecimal(decimalOf(value))).toBe(value)
      expect(decimalOf(value)).toEqual(utf8(value.toString()))
    }
    expect(toHex(int64Of(-2n))).toBe("feffffffffffffff")
    expect(isInt64(2n ** 63n)).toBe(false)
    expect(isInt64(-(2n ** 63n) - 1n)).toBe(false)
  })

  test("every number has one text, and nothing else is a number", () => {
    for (const no of [
      "",
      "-",
      "+1",
      "01",
      "-0",
      "-01",
      " 1",
      "1 ",
      "1.0",
      "1e3",
      "0x1",
      "١",
      "1\n",
    ]) {
      expect(parseDecimal(utf8(no))).toBeUndefined()
    }
    for (const far of ["9223372036854775808", "-9223372036854775809", "111111111111111111111"]) {
      expect(parseDecimal(utf8(far))).toBeUndefined()
    }
  })
})
