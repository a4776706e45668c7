import { Effect } from "effect"
import type { KvorumError } from "../Errors.ts"
import { emptyBytes, toHex } from "../lib/bytes.ts"
import { int64Of, isInt64, loadInt64 } from "../lib/int64.ts"
import { positionIn } from "../lib/position.ts"
import type { MutatedAnswer, NamespaceInfo } from "../wire/answers.ts"
import { commandStatuses, numberBytes, ttlMax } from "../wire/commandCodes.ts"
import { batchProblem, keyProblem, valueProblem } from "../wire/limits.ts"
import type {
  Added,
  AtomicOperation,
  AtomicResult,
  BatchOperation,
  BatchResult,
  Bytes,
  CallOptions,
  Expectation,
  PutOptions,
  WriteOptions,
} from "./Api.ts"
import { type Caller, invalid, toBytes, type Where } from "./Caller.ts"
import {
  batchBody,
  type Change,
  type CommandBody,
  type Condition,
  changeBody,
  mutatePlan,
} from "./mutationPlans.ts"

const noCondition: Condition = { _tag: "None" }

/** One change as the caller gave it, checked; where its key lies is known once its namespace is. */
interface Wanted extends Omit<Change, "position"> {
  readonly key: Uint8Array
}

function conditionOf(expect: Expectation | undefined): Condition {
  if (expect === undefined) return noCondition
  if ("version" in expect) return { _tag: "Version", version: expect.version }
  if ("absent" in expect) return { _tag: "Absent" }
  return { _tag: "Value", value: toBytes(expect.value) }
}

/** In microseconds, as commands carry it; or why it is refused. */
function ttlOf(ttlMs: number | undefined): number | string {
  if (ttlMs === undefined) return 0
  const ttl = Math.round(ttlMs * 1000)
  if (ttl >= 1 && ttl <= ttlMax) return ttl
  return `ttlMs of ${ttlMs}: limit is 0.001 to ${Math.floor(ttlMax / 1000)} ms (leave it out for a value that does not expire)`
}

function deltaOf(delta: number | bigint): Uint8Array | string {
  const isWhole = typeof delta === "bigint" || Number.isSafeInteger(delta)
  if (isWhole && isInt64(BigInt(delta))) return int64Of(BigInt(delta))
  return `${delta} cannot be added: whole numbers from -2^63 to 2^63 - 1 can (above 2^53 as a bigint)`
}

/** A change as it can be sent, or why it is refused. */
function wantedOf(operation: AtomicOperation): Wanted | string {
  const key = toBytes(operation.key)
  const condition = conditionOf(operation.expect)
  const ttl = ttlOf("ttlMs" in operation ? operation.ttlMs : undefined)
  const value =
    operation.op === "put"
      ? toBytes(operation.value)
      : operation.op === "add"
        ? deltaOf(operation.delta)
        : emptyBytes
  if (typeof ttl === "string") return ttl
  if (typeof value === "string") return value
  const problem =
    keyProblem(key.length) ??
    valueProblem(value.length) ??
    (condition._tag === "Value"
      ? valueProblem(condition.value.length, "expected value")
      : undefined)
  return problem ?? { operation: operation.op, key, value, condition, ttl }
}

const placed = (wanted: Wanted, namespace: NamespaceInfo): Change => ({
  ...wanted,
  position: positionIn(namespace, wanted.key),
})

const notNumber = (version: number) =>
  invalid(
    `the value of the key (version ${version}) is not a decimal number of 64 bits, or the sum is none: nothing was changed`,
  )

/** Writes as Effects over the core. */
export class Writes {
  private readonly caller: Caller

  constructor(caller: Caller) {
    this.caller = caller
  }

  private send(
    where: Where,
    body: CommandBody,
    positions?: ReadonlyArray<Change["position"]>,
  ): Effect.Effect<MutatedAnswer, KvorumError> {
    const plan = mutatePlan({
      body,
      deadlineMs: where.leftMs,
      identities: this.caller.core,
      floors: where.floors,
      ...(positions === undefined ? {} : { positions }),
    })
    return this.caller.call(plan, where.leftMs, (answer) => answer)
  }

  private mutate(
    namespace: string,
    operation: AtomicOperation,
    options: CallOptions | undefined,
  ): Effect.Effect<MutatedAnswer, KvorumError> {
    const wanted = wantedOf(operation)
    if (typeof wanted === "string") return invalid(wanted)
    return this.caller.within(namespace, options, (where) =>
      this.send(where, changeBody(placed(wanted, where.namespace))),
    )
  }

  put(namespace: string, key: Bytes, value: Bytes, options: PutOptions | undefined) {
    const expect = options?.ifAbsent === true ? ({ absent: true } as const) : undefined
    const operation = { op: "put", key, value, ...ttl(options), ...condition(expect) } as const
    return Effect.map(
      this.mutate(namespace, operation, options),
      ({ status, version, receipt }) => ({
        written: status === commandStatuses.done,
        version,
        receipt,
      }),
    )
  }

  delete(namespace: string, key: Bytes, options: CallOptions | undefined) {
    return Effect.map(
      this.mutate(namespace, { op: "delete", key }, options),
      ({ status, version, receipt }) => ({
        existed: status !== commandStatuses.absent,
        version,
        receipt,
      }),
    )
  }

  compareAndSet(
    namespace: string,
    key: Bytes,
    options: WriteOptions & { readonly expect: Expectation; readonly value: Bytes },
  ) {
    const { expect, value } = options
    const operation = { op: "put", key, value, expect, ...ttl(options) } as const
    return Effect.map(
      this.mutate(namespace, operation, options),
      ({ status, version, receipt }) => ({
        swapped: status === commandStatuses.done,
        version,
        receipt,
      }),
    )
  }

  add(
    namespace: string,
    key: Bytes,
    delta: number | bigint,
    options: WriteOptions | undefined,
  ): Effect.Effect<Added, KvorumError> {
    return Effect.flatMap(
      this.mutate(namespace, { op: "add", key, delta, ...ttl(options) }, options),
      (answer) => {
        const value = sumOf(answer)
        const { version, receipt } = answer
        return value === undefined
          ? notNumber(version)
          : Effect.succeed({ value, version, receipt })
      },
    )
  }

  batch(
    namespace: string,
    operations: ReadonlyArray<BatchOperation>,
    options: CallOptions | undefined,
  ): Effect.Effect<ReadonlyArray<BatchResult>, KvorumError> {
    const parsed = parseAll(operations)
    if (typeof parsed === "string") return invalid(parsed)
    // Operations of one key in one chain, so that they happen in the order given; chains side by side.
    const chains = new Map<string, Array<number>>()
    parsed.forEach(({ key }, index) => {
      const name = toHex(key)
      const chain = chains.get(name)
      if (chain === undefined) chains.set(name, [index])
      else chain.push(index)
    })
    const one = (index: number) =>
      this.mutate(namespace, operations[index] as BatchOperation, options).pipe(
        Effect.flatMap((answer) =>
          answer.status === commandStatuses.notNumber
            ? notNumber(answer.version)
            : Effect.succeed(answer),
        ),
        Effect.match({
          onSuccess: (answer) => ({ index, result: batchResult(answer) }),
          onFailure: (error) => ({ index, result: { ok: false, error } as BatchResult }),
        }),
      )
    const run = Effect.forEach([...chains.values()], (chain) => Effect.forEach(chain, one), {
      concurrency: "unbounded",
    }).pipe(
      Effect.map((done) => {
        const results = new Array<BatchResult>(parsed.length)
        for (const { index, result } of done.flat()) results[index] = result
        return results
      }),
    )
    return this.caller.within(namespace, options, () => run)
  }

  atomicBatch(
    namespace: string,
    operations: ReadonlyArray<AtomicOperation>,
    options: CallOptions | undefined,
  ): Effect.Effect<AtomicResult, KvorumError> {
    const parsed = parseAll(operations)
    if (typeof parsed === "string") return invalid(parsed)
    if (parsed.length === 0) return invalid("an atomic batch needs at least one operation")
    const seen = new Set<string>()
    for (const [place, { key }] of parsed.entries()) {
      const name = toHex(key)
      if (seen.has(name)) {
        return invalid(
          `operation ${place + 1} of ${parsed.length} is a second one on its key: an atomic batch takes one for each key`,
        )
      }
      seen.add(name)
    }
    return this.caller.within(namespace, options, (where) => {
      const changes = parsed.map((wanted) => placed(wanted, where.namespace))
      const positions = changes.map(({ position }) => position)
      return Effect.map(this.send(where, batchBody(changes), positions), atomicResult)
    })
  }
}

const ttl = (options: WriteOptions | undefined) =>
  options?.ttlMs === undefined ? {} : { ttlMs: options.ttlMs }

const condition = (expect: Expectation | undefined) => (expect === undefined ? {} : { expect })

/** What an add left; `undefined` when it could not be carried out, and of other operations. */
function sumOf({ status, value }: MutatedAnswer): bigint | undefined {
  if (status !== commandStatuses.done || value?.length !== numberBytes) return undefined
  return loadInt64(value)
}

function batchResult(answer: MutatedAnswer): BatchResult {
  const { status, version, receipt } = answer
  const existed = status !== commandStatuses.absent
  return { ok: true, existed, value: sumOf(answer), version, receipt }
}

function atomicResult({ status, version, value, receipt }: MutatedAnswer): AtomicResult {
  if (status === commandStatuses.done) return { applied: true, version, receipt }
  const failed = value === undefined ? 0 : (value[0] as number) + 256 * (value[1] ?? 0)
  const reason = status === commandStatuses.notNumber ? "notNumber" : "condition"
  return { applied: false, failed, reason, version, receipt }
}

function parseAll(operations: ReadonlyArray<AtomicOperation>): ReadonlyArray<Wanted> | string {
  const parsed: Array<Wanted> = []
  for (const operation of operations) {
    const wanted = wantedOf(operation)
    if (typeof wanted === "string") return wanted
    parsed.push(wanted)
  }
  const sizeBytes = parsed.reduce((sum, each) => sum + each.key.length + each.value.length, 0)
  return batchProblem({ operations: operations.length, sizeBytes }) ?? parsed
}
