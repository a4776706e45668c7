import { Clock, Context, Effect, Layer, Option, Random, Stream } from "effect"
import {
  InvalidRequest,
  type KvorumError,
  NamespaceNotFound,
  QuorumUnavailable,
} from "../Errors.ts"
import { emptyBytes, fromHex, prefixEnd, toHex, utf8 } from "../lib/bytes.ts"
import { hashPosition, hashPrefixBytes, keyOf, namespaceStart, slotStart } from "../lib/position.ts"
import { hashTag, slotOf } from "../lib/slot.ts"
import type { Consistency, NamespaceId, NodeId, Position, Version } from "../types.ts"
import type {
  MutatedAnswer,
  NamespaceInfo,
  NodeStatus,
  RangeReport,
  Receipt,
} from "../wire/answers.ts"
import { commandStatuses } from "../wire/command.ts"
import { batchProblem, deadlineProblem, keyProblem, limits, valueProblem } from "../wire/limits.ts"
import type { Outcome } from "./Call.ts"
import { ClientCore } from "./ClientCore.ts"
import { parseAddress } from "./NodeLink.ts"
import {
  type CallPlan,
  type Condition,
  getPlan,
  type Mutation,
  mutatePlan,
  pagePlan,
  type RangePage,
  type ScanInterval,
} from "./plans.ts"
import { mergeReports } from "./reports.ts"

/**
 * The client: what a program imports to use Kvorum.
 *
 *     import { Client } from "kvorum/src/client/Client.ts"
 *     const program = Effect.gen(function* () {
 *       const client = yield* Client
 *       yield* client.put("default", "greeting", "hello")
 *       return yield* client.get("default", "greeting")
 *     }).pipe(Effect.provide(Client.layer({ endpoints: ["127.0.0.1:7401"] })))
 *
 * 1. A call is checked against the limits (wire/limits.ts); keys and values are bytes, and text stands for its UTF-8.
 * 2. The namespace's name gives its id, the key its position (lib/position.ts), and the routing table (routes.ts) the range and its
 *    leader. The table is fetched at the first call from any endpoint, and corrected by what nodes answer.
 * 3. The request goes over a connection to that node (Connection.ts, NodeLink.ts), with many others at a time.
 * 4. Whatever a retry can help is retried (ClientCore.ts) until the call's deadline: another leader, a moved range, a full
 *    queue, a lost connection. Every copy of a mutation carries the same identity (session.ts), so it is applied once.
 * 5. The answer, or a typed error (Errors.ts) that says what to do, goes to the caller.
 *
 * Invariants:
 * - A mutation ends in a refusal only if no copy of it can have been carried out; else in `OutcomeUnknown`.
 * - Retrying happens in one layer, ClientCore; nothing above or below it repeats a request.
 *
 * Left out: namespaces with schemas, sessions that read their own writes at followers, and eventual namespaces.
 * Sources: RIFL (Lee et al., SOSP 2015) for exactly-once; the routing of TiKV's and etcd's clients for hints and refreshes.
 */
export type Bytes = string | Uint8Array

export interface CallOptions {
  /** Milliseconds that the whole call may take, retries included; default 10,000. */
  readonly deadlineMs?: number
}

export interface ReadOptions extends CallOptions {
  /** Default linearizable. `local` answers from any replica, without asking others. */
  readonly level?: Consistency
}

export type Found =
  | {
      readonly found: true
      readonly value: Uint8Array
      readonly version: Version
      readonly receipt: Receipt
    }
  | { readonly found: false; readonly receipt: Receipt }

export interface Written {
  readonly version: Version
  readonly receipt: Receipt
}

export interface Deleted extends Written {
  /** False when there was no such key. */
  readonly existed: boolean
}

export interface Compared {
  /** False when the condition did not hold: nothing changed, and `version` is the key's present one, 0 when absent. */
  readonly swapped: boolean
  readonly version: Version
  readonly receipt: Receipt
}

export type Expectation =
  | { readonly version: Version }
  | { readonly absent: true }
  | { readonly value: Bytes }

export type BatchOperation =
  | { readonly op: "put"; readonly key: Bytes; readonly value: Bytes }
  | { readonly op: "delete"; readonly key: Bytes }

export type BatchResult =
  | {
      readonly ok: true
      readonly existed: boolean
      readonly version: Version
      readonly receipt: Receipt
    }
  | { readonly ok: false; readonly error: KvorumError }

/** Where a scan goes on: opaque, printable. */
export type Cursor = string

export interface ScanOptions extends ReadOptions {
  /**
   * Only keys that begin with it. Keys come in order of slot, then key, through all ranges; a prefix that holds a whole hash tag
   * (`{user1}:`) names one slot, so that its keys come sorted and only one slot is read.
   */
  readonly prefix?: Bytes
  /** Entries wanted: of a page, up to 1000 and by default 1000; of a stream, any number and by default all. */
  readonly limit?: number
  readonly cursor?: Cursor
}

export interface ScanEntry {
  readonly key: Uint8Array
  readonly value: Uint8Array
  readonly version: Version
}

export interface ScanPage {
  readonly entries: ReadonlyArray<ScanEntry>
  /** `undefined` at the end. */
  readonly cursor: Cursor | undefined
}

export interface ClusterStatus {
  readonly nodes: ReadonlyArray<NodeStatus>
  /** Nodes that the cluster has, but that did not answer. */
  readonly unreachable: ReadonlyArray<NodeId>
}

export interface ClientShape {
  readonly get: (
    namespace: string,
    key: Bytes,
    options?: ReadOptions,
  ) => Effect.Effect<Found, KvorumError>
  readonly put: (
    namespace: string,
    key: Bytes,
    value: Bytes,
    options?: CallOptions,
  ) => Effect.Effect<Written, KvorumError>
  readonly delete: (
    namespace: string,
    key: Bytes,
    options?: CallOptions,
  ) => Effect.Effect<Deleted, KvorumError>
  /** Writes `value` if the key is as expected. A condition that does not hold is a result, not an error. */
  readonly compareAndSet: (
    namespace: string,
    key: Bytes,
    options: CallOptions & { readonly expect: Expectation; readonly value: Bytes },
  ) => Effect.Effect<Compared, KvorumError>
  /**
   * Many writes at once, not atomic: each has its own result, in the order given. Writes of the same key happen in the order given.
   * Fails as a whole only before anything was sent.
   */
  readonly batch: (
    namespace: string,
    operations: ReadonlyArray<BatchOperation>,
    options?: CallOptions,
  ) => Effect.Effect<ReadonlyArray<BatchResult>, KvorumError>
  /** One page. Linearizable inside a range, not a snapshot across ranges. The deadline counts for each range asked. */
  readonly scanPage: (
    namespace: string,
    options?: ScanOptions,
  ) => Effect.Effect<ScanPage, KvorumError>
  /** All pages, fetched as they are consumed. */
  readonly scan: (namespace: string, options?: ScanOptions) => Stream.Stream<ScanEntry, KvorumError>
  /** The namespaces that the cluster has. */
  readonly namespaces: () => Effect.Effect<ReadonlyArray<NamespaceInfo>, KvorumError>
  /** Every range as the nodes that answer see it, the best informed report of each, in order of start. */
  readonly ranges: () => Effect.Effect<ReadonlyArray<RangeReport>, KvorumError>
  readonly status: () => Effect.Effect<ClusterStatus, KvorumError>
}

export interface ClientOptions {
  /** `host:port` of native doors; any one that answers tells of the others. */
  readonly endpoints: ReadonlyArray<string>
  readonly deadlineMs?: number
  /** TCP connections to each node, default 1: one carries over 100,000 requests a second. */
  readonly connectionsPerNode?: number
  readonly handshakeTimeoutMs?: number
  /** How long a node may take to answer before the request also goes to another; default 2,000. */
  readonly attemptTimeoutMs?: number
}

export class Client extends Context.Service<Client, ClientShape>()("kvorum/client/Client") {
  /** Connects at the first call; fails only when an endpoint is not `host:port`. */
  static readonly layer = (options: ClientOptions): Layer.Layer<Client, InvalidRequest> =>
    Layer.effect(Client, make(options))
}

const defaultDeadlineMs = 10_000

const make = Effect.fnUntraced(function* (options: ClientOptions) {
  for (const endpoint of options.endpoints) {
    if (parseAddress(endpoint) === undefined) {
      return yield* new InvalidRequest({ detail: `endpoint ${endpoint} is not HOST:PORT` })
    }
  }
  if (options.endpoints.length === 0) return yield* new InvalidRequest({ detail: "no endpoint" })
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  const core = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new ClientCore({
          endpoints: options.endpoints,
          connectionsPerNode: options.connectionsPerNode ?? 1,
          handshakeTimeoutMs: options.handshakeTimeoutMs ?? 1000,
          attemptTimeoutMs: options.attemptTimeoutMs ?? 2000,
          nowMs: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
          random: () => random.nextDoubleUnsafe(),
        }),
    ),
    (created) => Effect.sync(() => created.close()),
  )
  return Client.of(new Facade(core, options.deadlineMs ?? defaultDeadlineMs).shape())
})

const toBytes = (input: Bytes): Uint8Array => (typeof input === "string" ? utf8(input) : input)
const noCondition: Condition = { _tag: "None" }

function conditionOf(expect: Expectation): Condition {
  if ("version" in expect) return { _tag: "Version", version: expect.version }
  if ("absent" in expect) return { _tag: "Absent" }
  return { _tag: "Value", value: toBytes(expect.value) }
}

/** The interval that a scan walks: one slot when the prefix holds a whole hash tag, else the namespace. */
function intervalOf(namespace: NamespaceId, prefix: Uint8Array): ScanInterval {
  if (hashTag(prefix).start === 0) {
    return { lower: namespaceStart(namespace), upper: namespaceStart(namespace + 1), prefix }
  }
  const start = slotStart(namespace, slotOf(prefix))
  const lower = new Uint8Array(start.length + prefix.length)
  lower.set(start)
  lower.set(prefix, start.length)
  // A hash tag holds "}", so some byte of the prefix is below 0xff.
  return { lower, upper: prefixEnd(lower) as Position, prefix }
}

/** Effects over the core. */
class Facade {
  private readonly core: ClientCore
  private readonly deadlineMs: number

  constructor(core: ClientCore, deadlineMs: number) {
    this.core = core
    this.deadlineMs = deadlineMs
  }

  shape(): ClientShape {
    return {
      get: (namespace, key, options) => this.get(namespace, toBytes(key), options),
      put: (namespace, key, value, options) =>
        this.mutate(namespace, {
          operation: "put",
          key: toBytes(key),
          value: toBytes(value),
          condition: noCondition,
          options,
          result: ({ version, receipt }) => ({ version, receipt }),
        }),
      delete: (namespace, key, options) =>
        this.mutate(namespace, {
          operation: "delete",
          key: toBytes(key),
          value: emptyBytes,
          condition: noCondition,
          options,
          result: deleted,
        }),
      compareAndSet: (namespace, key, options) =>
        this.mutate(namespace, {
          operation: "put",
          key: toBytes(key),
          value: toBytes(options.value),
          condition: conditionOf(options.expect),
          options,
          result: ({ status, version, receipt }) => ({
            swapped: status === commandStatuses.done,
            version,
            receipt,
          }),
        }),
      batch: (namespace, operations, options) => this.batch(namespace, operations, options),
      scanPage: (namespace, options) => this.scanPage(namespace, options ?? {}),
      scan: (namespace, options) => this.scan(namespace, options ?? {}),
      namespaces: () => Effect.map(this.refreshed, () => this.core.namespaces),
      ranges: () => this.ranges(),
      status: () => this.status(),
    }
  }

  private deadline(options: CallOptions | undefined): number {
    return options?.deadlineMs ?? this.deadlineMs
  }

  /** One call of the core as an Effect; interruption gives it up. */
  private call<A, B>(plan: CallPlan<A>, deadlineMs: number, result: (answer: A) => B) {
    return Effect.callback<B, KvorumError>((resume) => {
      const call = this.core.start({
        plan,
        deadlineMs,
        done: (outcome: Outcome<A>) =>
          resume(
            "error" in outcome
              ? Effect.fail(outcome.error)
              : Effect.succeed(result(outcome.answer)),
          ),
      })
      return Effect.sync(() => this.core.cancel(call))
    })
  }

  private readonly refreshed: Effect.Effect<void, KvorumError> = Effect.callback((resume) => {
    this.core.refresh((reached) => {
      if (reached) return resume(Effect.void)
      const detail = `no node answered: ${this.core.reachability()}`
      resume(Effect.fail(new QuorumUnavailable({ detail })))
    })
  })

  /** The namespace of this name; a name not known is asked for, until the deadline while no node answers. */
  private namespace(name: string, deadlineMs: number): Effect.Effect<NamespaceInfo, KvorumError> {
    const known = this.core.namespaces.find((each) => each.name === name)
    if (known !== undefined) return Effect.succeed(known)
    const find = Effect.suspend(() => {
      const found = this.core.namespaces.find((each) => each.name === name)
      return found === undefined
        ? Effect.fail(new NamespaceNotFound({ namespace: name }))
        : Effect.succeed(found)
    })
    return Effect.callback<void, KvorumError>((resume) => {
      const cancel = this.core.reach(deadlineMs, (detail) =>
        resume(detail === undefined ? Effect.void : Effect.fail(new QuorumUnavailable({ detail }))),
      )
      return Effect.sync(cancel)
    }).pipe(Effect.andThen(find))
  }

  /** Runs `use` with the namespace: at once when its name is known, which is every call but the first. */
  private within<A>(
    name: string,
    deadlineMs: number,
    use: (namespace: NamespaceInfo) => Effect.Effect<A, KvorumError>,
  ): Effect.Effect<A, KvorumError> {
    return Effect.suspend(() => {
      const problem = deadlineProblem(deadlineMs)
      if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
      const known = this.core.namespaces.find((each) => each.name === name)
      if (known !== undefined) return use(known)
      return Effect.flatMap(this.namespace(name, deadlineMs), use)
    })
  }

  private get(namespace: string, key: Uint8Array, options: ReadOptions | undefined) {
    const deadlineMs = this.deadline(options)
    const problem = keyProblem(key.length)
    if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
    return this.within(namespace, deadlineMs, ({ id }) =>
      this.call(
        getPlan({ position: hashPosition(id, key), level: options?.level ?? "linearizable" }),
        deadlineMs,
        ({ value, version, receipt }): Found =>
          value === undefined
            ? { found: false, receipt }
            : // An own copy: a view would keep everything that arrived with it.
              { found: true, value: value.slice(), version, receipt },
      ),
    )
  }

  private mutate<B>(
    namespace: string,
    what: Omit<Mutation, "position"> & {
      readonly key: Uint8Array
      readonly options: CallOptions | undefined
      readonly result: (answer: MutatedAnswer) => B
    },
  ): Effect.Effect<B, KvorumError> {
    const { operation, key, value, condition } = what
    const deadlineMs = this.deadline(what.options)
    const problem =
      keyProblem(key.length) ??
      valueProblem(value.length) ??
      (condition._tag === "Value"
        ? valueProblem(condition.value.length, "expected value")
        : undefined)
    if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
    return this.within(namespace, deadlineMs, ({ id }) => {
      const mutation: Mutation = { operation, value, condition, position: hashPosition(id, key) }
      return this.call(
        mutatePlan({ mutation, deadlineMs, identities: this.core }),
        deadlineMs,
        what.result,
      )
    })
  }

  private batch(
    namespace: string,
    operations: ReadonlyArray<BatchOperation>,
    options: CallOptions | undefined,
  ): Effect.Effect<ReadonlyArray<BatchResult>, KvorumError> {
    const parsed = operations.map((operation) => ({
      operation: operation.op,
      key: toBytes(operation.key),
      value: operation.op === "put" ? toBytes(operation.value) : emptyBytes,
    }))
    const sizeBytes = parsed.reduce((sum, each) => sum + each.key.length + each.value.length, 0)
    let problem = batchProblem({ operations: operations.length, sizeBytes })
    for (const each of parsed) {
      problem ??= keyProblem(each.key.length) ?? valueProblem(each.value.length)
    }
    if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
    const results = new Array<BatchResult>(parsed.length)
    // Operations of one key in one chain, so that they happen in the order given; chains side by side.
    const chains = new Map<string, Array<Effect.Effect<void>>>()
    parsed.forEach((each, index) => {
      const name = toHex(each.key)
      const chain = chains.get(name) ?? []
      chains.set(name, chain)
      const run = this.mutate(namespace, {
        ...each,
        condition: noCondition,
        options,
        result: deleted,
      }).pipe(
        Effect.match({
          onSuccess: (written): BatchResult => ({ ok: true, ...written }),
          onFailure: (error): BatchResult => ({ ok: false, error }),
        }),
        Effect.map((result): void => {
          results[index] = result
        }),
      )
      chain.push(run)
    })
    const run = Effect.forEach(
      [...chains.values()],
      (chain) => Effect.forEach(chain, (step) => step, { discard: true }),
      { concurrency: "unbounded", discard: true },
    )
    return this.within(namespace, this.deadline(options), () => Effect.as(run, results))
  }

  private scanPage(namespace: string, options: ScanOptions): Effect.Effect<ScanPage, KvorumError> {
    const deadlineMs = this.deadline(options)
    const limit = options.limit ?? limits.scanPageEntries
    const prefix = toBytes(options.prefix ?? emptyBytes)
    const problem = scanOptionsProblem({ limit, prefix })
    if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
    return this.within(namespace, deadlineMs, ({ id }) => {
      const interval = intervalOf(id, prefix)
      const from = options.cursor === undefined ? interval.lower : fromHex(options.cursor)
      if (from === undefined || !isInside(from, interval)) {
        return Effect.fail(new InvalidRequest({ detail: "cursor is not one of this scan" }))
      }
      return this.gather({ ...interval, lower: from }, { ...options, limit, deadlineMs })
    })
  }

  /** Asks range after range until there are `limit` entries, or no more. */
  private readonly gather = Effect.fnUntraced(function* (
    this: Facade,
    interval: ScanInterval,
    options: ReadOptions & { readonly limit: number; readonly deadlineMs: number },
  ): Effect.fn.Return<ScanPage, KvorumError> {
    const level = options.level ?? "linearizable"
    const entries: Array<ScanEntry> = []
    let next: Position | undefined = interval.lower
    while (next !== undefined && entries.length < options.limit) {
      const page: RangePage = yield* this.call(
        pagePlan({
          interval: { ...interval, lower: next },
          level,
          limit: options.limit - entries.length,
        }),
        options.deadlineMs,
        (answer) => answer,
      )
      for (const { position, value, version } of page.entries) {
        entries.push({ key: keyOf(position).slice(), value: value.slice(), version })
      }
      next = page.next
    }
    return { entries, cursor: next === undefined ? undefined : toHex(next) }
  })

  private scan(namespace: string, options: ScanOptions): Stream.Stream<ScanEntry, KvorumError> {
    const { limit, cursor } = options
    const start = { cursor, left: limit ?? Number.POSITIVE_INFINITY }
    return Stream.paginate(start, (state) =>
      this.scanPage(namespace, {
        ...options,
        limit: Math.min(state.left, limits.scanPageEntries),
        ...(state.cursor === undefined ? {} : { cursor: state.cursor }),
      }).pipe(
        Effect.map((page) => {
          const left = state.left - page.entries.length
          const more = page.cursor !== undefined && left > 0
          return [
            page.entries,
            more ? Option.some({ cursor: page.cursor, left }) : Option.none(),
          ] as const
        }),
      ),
    )
  }

  private ranges(): Effect.Effect<ReadonlyArray<RangeReport>, KvorumError> {
    return Effect.andThen(
      this.refreshed,
      Effect.callback<ReadonlyArray<RangeReport>>((resume) => {
        this.core.askAll("AskRoutes", (answers) => {
          const reports = [...answers.values()].flatMap((answer) =>
            answer?._tag === "Routes" ? answer.routes.ranges : [],
          )
          resume(Effect.succeed(mergeReports(reports)))
        })
      }),
    )
  }

  private status(): Effect.Effect<ClusterStatus, KvorumError> {
    return Effect.andThen(
      this.refreshed,
      Effect.callback<ClusterStatus>((resume) => {
        this.core.askAll("AskStatus", (answers) => {
          const nodes: Array<NodeStatus> = []
          const unreachable: Array<NodeId> = []
          for (const [node, answer] of answers) {
            if (answer?._tag === "Status") nodes.push(answer.status)
            else unreachable.push(node)
          }
          resume(Effect.succeed({ nodes, unreachable }))
        })
      }),
    )
  }
}

const deleted = ({ status, version, receipt }: MutatedAnswer) => ({
  existed: status !== commandStatuses.absent,
  version,
  receipt,
})

function scanOptionsProblem(options: { readonly limit: number; readonly prefix: Uint8Array }) {
  const { limit, prefix } = options
  if (!Number.isInteger(limit) || limit < 1 || limit > limits.scanPageEntries) {
    return `scan page of ${limit} entries: limit is 1 to ${limits.scanPageEntries} entries`
  }
  if (prefix.length <= limits.keyBytes) return undefined
  return `prefix of ${prefix.length} bytes: limit is ${limits.keyBytes} bytes`
}

function isInside(position: Position, interval: ScanInterval): boolean {
  return (
    position.length <= hashPrefixBytes + limits.keyBytes + 1 &&
    Buffer.compare(position, interval.lower) >= 0 &&
    Buffer.compare(position, interval.upper) < 0
  )
}
