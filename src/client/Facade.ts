import { Effect, Option, Stream } from "effect"
import {
  InvalidRequest,
  type KvorumError,
  NamespaceNotFound,
  QuorumUnavailable,
} from "../Errors.ts"
import { compareBytes, emptyBytes, fromHex, prefixEnd, toHex, utf8 } from "../lib/bytes.ts"
import { hashPosition, keyOf, namespaceStart, slotStart } from "../lib/position.ts"
import { hashTag, slotOf } from "../lib/slot.ts"
import type { NamespaceId, NodeId, Position } from "../types.ts"
import type { MutatedAnswer, NamespaceInfo, NodeStatus, RangeReport } from "../wire/answers.ts"
import { commandStatuses } from "../wire/command.ts"
import {
  batchProblem,
  deadlineProblem,
  keyProblem,
  limits,
  positionBytesMax,
  valueProblem,
} from "../wire/limits.ts"
import type {
  BatchOperation,
  BatchResult,
  Bytes,
  CallOptions,
  ClientShape,
  ClusterStatus,
  Expectation,
  Found,
  ReadOptions,
  ScanEntry,
  ScanOptions,
  ScanPage,
} from "./Api.ts"
import type { Outcome } from "./Call.ts"
import type { ClientCore } from "./ClientCore.ts"
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

/** The client's operations as Effects over the core. */
export class Facade {
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
      namespaces: () => Effect.map(this.refreshed, () => this.core.directory.namespaces),
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
    this.core.directory.refresh((reached) => {
      if (reached) return resume(Effect.void)
      const detail = `no node answered: ${this.core.directory.reachability()}`
      resume(Effect.fail(new QuorumUnavailable({ detail })))
    })
  })

  /** The namespace of this name; a name not known is asked for, until the deadline while no node answers. */
  private namespace(name: string, deadlineMs: number): Effect.Effect<NamespaceInfo, KvorumError> {
    const known = this.core.directory.namespaces.find((each) => each.name === name)
    if (known !== undefined) return Effect.succeed(known)
    const find = Effect.suspend(() => {
      const found = this.core.directory.namespaces.find((each) => each.name === name)
      return found === undefined
        ? Effect.fail(new NamespaceNotFound({ namespace: name }))
        : Effect.succeed(found)
    })
    return Effect.callback<void, KvorumError>((resume) => {
      const cancel = this.core.directory.reach(deadlineMs, (detail) =>
        resume(detail === undefined ? Effect.void : Effect.fail(new QuorumUnavailable({ detail }))),
      )
      return Effect.sync(cancel)
    }).pipe(Effect.andThen(find))
  }

  /** Runs `use` with the namespace: at once when its name is known, which is every call but the first. */
  private within<A>(
    name: string,
    deadlineMs: number,
    use: (namespace: NamespaceInfo, leftMs: number) => Effect.Effect<A, KvorumError>,
  ): Effect.Effect<A, KvorumError> {
    return Effect.suspend(() => {
      const problem = deadlineProblem(deadlineMs)
      if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
      const known = this.core.directory.namespaces.find((each) => each.name === name)
      if (known !== undefined) return use(known, deadlineMs)
      const startedAt = this.core.directory.nowMs()
      return Effect.flatMap(this.namespace(name, deadlineMs), (found) =>
        use(found, Math.max(1, deadlineMs - (this.core.directory.nowMs() - startedAt))),
      )
    })
  }

  private get(namespace: string, key: Uint8Array, options: ReadOptions | undefined) {
    const deadlineMs = this.deadline(options)
    const problem = keyProblem(key.length)
    if (problem !== undefined) return Effect.fail(new InvalidRequest({ detail: problem }))
    return this.within(namespace, deadlineMs, ({ id }, leftMs) =>
      this.call(
        getPlan({ position: hashPosition(id, key), level: options?.level ?? "linearizable" }),
        leftMs,
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
    return this.within(namespace, deadlineMs, ({ id }, leftMs) => {
      const mutation: Mutation = { operation, value, condition, position: hashPosition(id, key) }
      return this.call(
        mutatePlan({ mutation, deadlineMs: leftMs, identities: this.core }),
        leftMs,
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
    // Operations of one key in one chain, so that they happen in the order given; chains side by side.
    const chains = new Map<string, Array<number>>()
    parsed.forEach(({ key }, index) => {
      const name = toHex(key)
      const chain = chains.get(name)
      if (chain === undefined) chains.set(name, [index])
      else chain.push(index)
    })
    const one = (index: number) =>
      this.mutate(namespace, {
        ...(parsed[index] as (typeof parsed)[number]),
        condition: noCondition,
        options,
        result: deleted,
      }).pipe(
        Effect.match({
          onSuccess: (written) => ({ index, result: { ok: true, ...written } as BatchResult }),
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
    return this.within(namespace, this.deadline(options), () => run)
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
        this.core.directory.askAll("AskRoutes", (answers) => {
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
        this.core.directory.askAll("AskStatus", (answers) => {
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
    position.length <= positionBytesMax + 1 &&
    compareBytes(position, interval.lower) >= 0 &&
    compareBytes(position, interval.upper) < 0
  )
}
