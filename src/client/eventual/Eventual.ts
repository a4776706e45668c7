import { Effect } from "effect"
import { tokenBytes, tokenText } from "../../dynamo/contextToken.ts"
import type {
  EventualChange,
  EventualReply,
  EventualWritten as WrittenReply,
} from "../../dynamo/node/requests.ts"
import { tokenOf, viewOf } from "../../dynamo/valueView.ts"
import { type KvorumError, NotSupportedInMode } from "../../Errors.ts"
import { emptyBytes, toHex, utf8 } from "../../lib/bytes.ts"
import { isInt64 } from "../../lib/int64.ts"
import { slotOf } from "../../lib/slot.ts"
import type { NamespaceInfo } from "../../wire/answers.ts"
import { batchProblem, keyProblem, limits, ttlProblem, valueProblem } from "../../wire/limits.ts"
import type { Bytes } from "../Api.ts"
import { type Caller, invalid, toBytes, type Where } from "../Caller.ts"
import type {
  EventualBatchOperation,
  EventualBatchResult,
  EventualClient,
  EventualFound,
  EventualOptions,
  EventualPutOptions,
  EventualWriteOptions,
  EventualWritten,
} from "./EventualApi.ts"
import type { EventualCallOptions, EventualCalls } from "./EventualCalls.ts"
import { EventualScan } from "./EventualScan.ts"

const batchAtOnce = 64

function notEventual({ name, mode }: NamespaceInfo): Effect.Effect<never, NotSupportedInMode> {
  const detail = `namespace ${name} is ${mode}: this is for eventual ones`
  return Effect.fail(new NotSupportedInMode({ detail }))
}

/** Calls of eventual namespaces as Effects. */
export class Eventual {
  private readonly caller: Caller
  private readonly calls: EventualCalls
  private readonly scans: EventualScan

  constructor(caller: Caller, calls: EventualCalls) {
    this.caller = caller
    this.calls = calls
    this.scans = new EventualScan(caller, (options) => this.call(options, (reply) => reply))
  }

  /** One call as an Effect; interruption gives it up. */
  private call<A>(options: EventualCallOptions, result: (reply: EventualReply) => A) {
    return Effect.callback<A, KvorumError>((resume) => {
      const cancel = this.calls.start(options, (outcome) =>
        resume(
          "error" in outcome ? Effect.fail(outcome.error) : Effect.succeed(result(outcome.reply)),
        ),
      )
      return Effect.sync(cancel)
    })
  }

  private get(
    name: string,
    key: Uint8Array,
    options: EventualOptions | undefined,
  ): Effect.Effect<EventualFound, KvorumError> {
    const problem = keyProblem(key.length)
    if (problem !== undefined) return invalid(problem)
    return this.caller.withinAny(name, options, ({ namespace, leftMs }) => {
      const { eventual, id } = namespace
      if (eventual === undefined) return notEventual(namespace)
      const call: EventualCallOptions = {
        slot: slotOf(key),
        copies: eventual.copies,
        nodes: undefined,
        request: (deadlineMs) => {
          const level = options?.consistency
          return { _tag: "EventualRead", token: 0, namespace: id, level, deadlineMs, key }
        },
        repeats: "anywhere",
        deadlineMs: leftMs,
      }
      return this.call(call, (reply) => foundIn(reply, namespace, key))
    })
  }

  private write(
    name: string,
    key: Uint8Array,
    change: EventualChange,
    options: EventualPutOptions | undefined,
  ): Effect.Effect<EventualWritten, KvorumError> {
    const problem = keyProblem(key.length) ?? sizeProblem(change)
    if (problem !== undefined) return invalid(problem)
    const context = options?.context === undefined ? undefined : tokenBytes(options.context)
    if (options?.context !== undefined && context === undefined) {
      return invalid("context is no token: give back what a read of this key printed")
    }
    return this.caller.withinAny(name, options, (where) => {
      const { eventual } = where.namespace
      if (eventual === undefined) return notEventual(where.namespace)
      return this.writeIn(where, { key, change, context, copies: eventual.copies, options })
    })
  }

  private writeIn(
    { namespace, leftMs }: Where,
    write: {
      readonly key: Uint8Array
      readonly change: EventualChange
      readonly context: Uint8Array | undefined
      readonly copies: number
      readonly options: EventualWriteOptions | undefined
    },
  ): Effect.Effect<EventualWritten, KvorumError> {
    const { key, change, context, copies, options } = write
    const isCounted = change._tag === "Increment"
    const requestId = isCounted ? this.calls.drawId() : 0
    const call: EventualCallOptions = {
      slot: slotOf(key),
      copies,
      nodes: undefined,
      request: (deadlineMs, isRetry) => ({
        _tag: "EventualWrite",
        token: 0,
        namespace: namespace.id,
        level: options?.consistency,
        deadlineMs,
        key,
        change,
        context,
        strict: options?.strict === true,
        requestId,
        isRetry,
      }),
      repeats: isCounted ? "atFirst" : "never",
      deadlineMs: leftMs,
    }
    return this.call(call, (reply) => {
      const { counter, receipt } = reply as WrittenReply
      return { counter, receipt }
    })
  }

  private batch(
    name: string,
    operations: ReadonlyArray<EventualBatchOperation>,
    options: EventualOptions | undefined,
  ): Effect.Effect<ReadonlyArray<EventualBatchResult>, KvorumError> {
    const changes = operations.map(changeOf)
    const sizeBytes = operations.reduce(
      (sum, { key }, i) => sum + toBytes(key).length + bytesOf(changes[i]),
      0,
    )
    const problem = batchProblem({ operations: operations.length, sizeBytes })
    if (problem !== undefined) return invalid(problem)
    const results = new Array<EventualBatchResult>(operations.length)
    const one = (i: number) => {
      const [operation, change] = [operations[i] as EventualBatchOperation, changes[i]]
      const context = "context" in operation ? operation.context : undefined
      const given = { ...options, ...(context === undefined ? {} : { context }) }
      const done =
        change === undefined || typeof change === "string"
          ? invalid(change ?? "no operation")
          : this.write(name, toBytes(operation.key), change, given)
      return Effect.match(done, {
        onSuccess: (written) => {
          results[i] = { ok: true, ...written }
        },
        onFailure: (error) => {
          results[i] = { ok: false, error }
        },
      })
    }
    return this.caller.withinAny(name, options, ({ namespace }) => {
      if (namespace.eventual === undefined) return notEventual(namespace)
      const concurrency = batchAtOnce
      return Effect.forEach(chainsOf(operations), (chain) => Effect.forEach(chain, one), {
        concurrency,
      }).pipe(Effect.map(() => results))
    })
  }

  get client(): EventualClient {
    const write = (
      namespace: string,
      key: Bytes,
      change: EventualChange | string,
      options: EventualPutOptions | undefined,
    ) =>
      typeof change === "string"
        ? invalid(change)
        : this.write(namespace, toBytes(key), change, options)
    const put: EventualClient["put"] = (namespace, key, value, options) =>
      write(namespace, key, putOf(value, options?.ttlMs), options)
    return {
      get: (namespace, key, options) => this.get(namespace, toBytes(key), options),
      put,
      delete: (namespace, key, options) => write(namespace, key, { _tag: "Delete" }, options),
      add: (namespace, key, member, options) =>
        write(namespace, key, { _tag: "Add", member: toBytes(member) }, options),
      remove: (namespace, key, member, options) =>
        write(namespace, key, { _tag: "Remove", member: toBytes(member) }, options),
      increment: (namespace, key, delta, options) =>
        write(namespace, key, incrementOf(delta), options),
      setFlag: (namespace, key, enabled, options) =>
        write(namespace, key, { _tag: enabled ? "Enable" : "Disable" }, options),
      update: (namespace, key, merge, options) =>
        Effect.flatMap(this.get(namespace, toBytes(key), options), ({ siblings, context }) =>
          put(namespace, key, merge(siblings), { ...options, context }),
        ),
      batch: (namespace, operations, options) => this.batch(namespace, operations, options),
      scanPage: (namespace, options) => this.scans.page(namespace, options ?? {}),
      count: (namespace, options) => this.scans.count(namespace, options ?? {}),
    }
  }
}

function foundIn(reply: EventualReply, namespace: NamespaceInfo, key: Uint8Array): EventualFound {
  if (reply._tag !== "EventualValue") throw new Error(`an answer of kind ${reply._tag}`)
  const { state, receipt } = reply
  const kind = kindOf(namespace)
  if (state === undefined) return { siblings: [], kind, context: undefined, receipt }
  // A view would keep all that came with it.
  const own = state.slice()
  return {
    siblings: siblingsIn(own),
    kind,
    // Made when it is looked at: many who read write nothing back.
    get context() {
      return tokenText(tokenOf(own, namespace.id, key))
    },
    receipt,
  }
}

function kindOf({ eventual }: NamespaceInfo): EventualFound["kind"] {
  const conflict = eventual?.conflict
  return conflict === "set" || conflict === "counter" || conflict === "flag" ? conflict : "values"
}

/** Values as bytes, a counter or a flag as text. */
export function siblingsIn(state: Uint8Array): ReadonlyArray<Uint8Array> {
  const view = viewOf(state)
  switch (view._tag) {
    case "Values":
      return view.values
    case "Set":
      return view.members
    case "Counter":
      return view.value === undefined ? [] : [utf8(`${view.value}`)]
    case "Flag":
      return view.enabled ? [utf8("true")] : []
    default:
      return view satisfies never
  }
}

function putOf(value: Bytes, ttlMs = 0): EventualChange | string {
  const problem = ttlProblem(ttlMs)
  if (problem !== undefined) return problem
  return { _tag: "Put", value: toBytes(value), ttlMs }
}

function incrementOf(delta: number | bigint): EventualChange | string {
  if (typeof delta === "number" && !Number.isSafeInteger(delta)) {
    return `increment of ${delta}: limit is whole numbers of 64 bits`
  }
  const whole = BigInt(delta)
  if (!isInt64(whole)) return `increment of ${delta}: limit is whole numbers of 64 bits`
  return { _tag: "Increment", delta: whole }
}

function changeOf(operation: EventualBatchOperation): EventualChange | string {
  switch (operation.op) {
    case "put":
      return putOf(operation.value, operation.ttlMs)
    case "delete":
      return { _tag: "Delete" }
    case "add":
      return { _tag: "Add", member: toBytes(operation.member) }
    case "remove":
      return { _tag: "Remove", member: toBytes(operation.member) }
    case "increment":
      return incrementOf(operation.delta)
    default:
      return operation satisfies never
  }
}

/** Which operations are of one key, in the order given. */
function chainsOf(operations: ReadonlyArray<EventualBatchOperation>): Array<Array<number>> {
  const chains = new Map<string, Array<number>>()
  operations.forEach(({ key }, i) => {
    const name = toHex(toBytes(key))
    const chain = chains.get(name)
    if (chain === undefined) chains.set(name, [i])
    else chain.push(i)
  })
  return [...chains.values()]
}

/** Of value or member. */
function bytesOf(change: EventualChange | string | undefined): number {
  if (change === undefined || typeof change === "string") return 0
  if (change._tag === "Put") return change.value.length
  return change._tag === "Add" || change._tag === "Remove" ? change.member.length : 0
}

function sizeProblem(change: EventualChange): string | undefined {
  if (change._tag === "Put") return valueProblem(change.value.length)
  const member = change._tag === "Add" || change._tag === "Remove" ? change.member : emptyBytes
  if (member.length <= limits.keyBytes) return undefined
  return `member of ${member.length} bytes: limit is ${limits.keyBytes} bytes`
}
