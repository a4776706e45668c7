import { describe, expect, test } from "bun:test"
import {
  adminProblem,
  type Caller,
  getProblem,
  mutateProblem,
  rangeProblem,
  scanProblem,
} from "../../src/doors/native/checks.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { positionIn } from "../../src/lib/position.ts"
import { type BatchOperation, encodeBatch } from "../../src/wire/batch.ts"
import { conditions, encodeCommand, operations } from "../../src/wire/command.ts"
import type { WireGet, WireMutate, WireScan } from "../../src/wire/native.ts"

const system = { id: 0, name: "system", mode: "strong", partitioning: "ordered" } as const
const hashed = { id: 1, name: "default", mode: "strong", partitioning: "hash" } as const
const ordered = { id: 2, name: "log", mode: "strong", partitioning: "ordered" } as const
const client: Caller = { namespaces: [system, hashed, ordered], internal: false }
const node: Caller = { ...client, internal: true }

const base = { id: 1, range: 1, deadlineMs: 1000 }
const plain = { maxStalenessMs: 0, atLeast: 0, anyReplica: false }
const noBytes = new Uint8Array(0)

function operation(position: Uint8Array): BatchOperation {
  const { put } = operations
  const condition = conditions.none
  const rest = { expectedVersion: 0, ttl: 0, value: utf8("v"), expectedValue: noBytes }
  return { operation: put, condition, position, ...rest }
}

function command(fields: Parameters<typeof encodeCommand>[0]): WireMutate {
  return { _tag: "Mutate", ...base, command: encodeCommand(fields) }
}

const identity = { boundsVersion: 1, clientId: 1, sequence: 1, ackedBelow: 0, expiresAt: 1 }

const put = (position: Uint8Array) => command({ ...identity, ...operation(position) })

function batch(...positions: ReadonlyArray<Uint8Array>): WireMutate {
  const value = encodeBatch(positions.map(operation))
  const first = operation(positions[0] as Uint8Array)
  return command({ ...identity, ...first, operation: operations.batch, value })
}

const get = (position: Uint8Array, fields: Partial<WireGet> = {}): WireGet => ({
  ...{ _tag: "Get", ...base, ...plain, level: "linearizable", boundsVersion: 1, position },
  ...fields,
})

describe("what the native door checks", () => {
  test("the slot of a position, in namespaces partitioned by hash only, and in every operation of a batch", () => {
    const wrong = positionIn(hashed, utf8("a"))
    wrong[5] = (wrong[5] as number) ^ 1
    const [right, log] = [positionIn(hashed, utf8("a")), positionIn(ordered, utf8("a"))]
    expect(mutateProblem(put(right), client)).toBeUndefined()
    expect(mutateProblem(put(log), client)).toBeUndefined()
    expect(getProblem(get(log), client)).toBeUndefined()
    expect(mutateProblem(put(wrong), client)).toContain("slot")
    expect(mutateProblem(batch(right, positionIn(hashed, utf8("b"))), client)).toBeUndefined()
    expect(mutateProblem(batch(right, wrong), client)).toContain("slot")
    expect(getProblem(get(wrong), client)).toContain("slot")
  })

  test("keys are 1 to 2048 bytes in either kind of namespace", () => {
    for (const namespace of [hashed, ordered]) {
      const problem = (bytes: number) =>
        getProblem(get(positionIn(namespace, new Uint8Array(bytes))), client)
      expect(problem(0)).toContain("key is empty")
      expect(problem(1)).toBeUndefined()
      expect(problem(2048)).toBeUndefined()
      expect(problem(2049)).toContain("2048 bytes")
    }
    expect(getProblem(get(Uint8Array.of(0, 0, 1)), client)).toContain("shorter than its prefix")
  })

  test("the system namespace is read by anyone and written by nodes alone, alone or in a batch", () => {
    const position = positionIn(system, utf8("node/1"))
    const scan: WireScan = {
      ...{ _tag: "Scan", countOnly: false, ...base, ...plain, level: "local", boundsVersion: 1 },
      ...{ lower: position, upper: noBytes, limit: 1, prefix: noBytes },
    }
    expect(getProblem(get(position), client)).toBeUndefined()
    expect(scanProblem(scan, client)).toBeUndefined()
    for (const write of [put(position), batch(positionIn(hashed, utf8("a")), position)]) {
      expect(mutateProblem(write, client)).toContain("written by the cluster itself")
      expect(mutateProblem(write, node)).toBeUndefined()
    }
  })

  test("ranges are changed by nodes alone; an order may take longer than a request", () => {
    const change = { _tag: "Transfer", to: 2 } as const
    expect(rangeProblem({ _tag: "Range", ...base, change }, client)).toContain("cluster itself")
    expect(rangeProblem({ _tag: "Range", ...base, change }, node)).toBeUndefined()
    const order = { _tag: "Admin", id: 1, verb: "v", args: {} } as const
    expect(adminProblem({ ...order, deadlineMs: 3_600_000 })).toBeUndefined()
    expect(adminProblem({ ...order, deadlineMs: 3_600_001 })).toContain("deadline")
    expect(adminProblem({ ...order, deadlineMs: 0 })).toContain("deadline")
  })

  test("a bound of staleness belongs to bounded reads, any replica to linearizable ones", () => {
    const position = positionIn(hashed, utf8("a"))
    const problem = (fields: Partial<WireGet>) => getProblem(get(position, fields), client)
    expect(problem({ level: "bounded", maxStalenessMs: 5 })).toBeUndefined()
    expect(problem({ level: "local", maxStalenessMs: 5 })).toContain("bounded reads")
    expect(problem({ anyReplica: true })).toBeUndefined()
    expect(problem({ level: "local", anyReplica: true })).toContain("any replica")
  })
})
