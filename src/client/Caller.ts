import { Effect } from "effect"
import {
  InvalidRequest,
  type KvorumError,
  NamespaceNotFound,
  NotSupportedInMode,
  QuorumUnavailable,
} from "../Errors.ts"
import { utf8 } from "../lib/bytes.ts"
import type { NamespaceInfo } from "../wire/answers.ts"
import { deadlineProblem } from "../wire/limits.ts"
import type { Bytes, CallOptions, ClientSession } from "./Api.ts"
import type { Outcome } from "./Call.ts"
import type { ClientCore } from "./ClientCore.ts"
import type { CallPlan } from "./plans.ts"
import { SessionFloors } from "./sessionFloors.ts"

export const toBytes = (input: Bytes): Uint8Array =>
  typeof input === "string" ? utf8(input) : input

export const invalid = (detail: string) => Effect.fail(new InvalidRequest({ detail }))

/** What a call inside a namespace needs to know. */
export interface Where {
  readonly namespace: NamespaceInfo
  readonly leftMs: number
  readonly floors: SessionFloors | undefined
}

/** Calls of the core as Effects, and the namespaces that they are made in. */
export class Caller {
  readonly core: ClientCore
  private readonly deadlineMs: number

  constructor(core: ClientCore, deadlineMs: number) {
    this.core = core
    this.deadlineMs = deadlineMs
  }

  deadline(options: CallOptions | undefined): number {
    return options?.deadlineMs ?? this.deadlineMs
  }

  /** One call of the core as an Effect; interruption gives it up. */
  call<A, B>(plan: CallPlan<A>, deadlineMs: number, result: (answer: A) => B) {
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

  readonly refreshed: Effect.Effect<void, KvorumError> = Effect.callback((resume) => {
    this.core.directory.refresh((reached) => {
      if (reached) return resume(Effect.void)
      const detail = `no node answered: ${this.core.directory.reachability()}`
      resume(Effect.fail(new QuorumUnavailable({ detail })))
    })
  })

  readonly refreshedFromAll: Effect.Effect<void> = Effect.callback((resume) =>
    this.core.directory.refreshFromAll(() => resume(Effect.void)),
  )

  /** Once a node has answered; tried again until the deadline. */
  reached(deadlineMs: number): Effect.Effect<void, KvorumError> {
    return Effect.callback<void, KvorumError>((resume) => {
      const cancel = this.core.directory.reach(deadlineMs, (detail) =>
        resume(detail === undefined ? Effect.void : Effect.fail(new QuorumUnavailable({ detail }))),
      )
      return Effect.sync(cancel)
    })
  }

  /** The namespace of this name; a name not known is asked for, at last of every node. */
  private namespace(name: string, deadlineMs: number): Effect.Effect<NamespaceInfo, KvorumError> {
    const { directory } = this.core
    return this.reached(deadlineMs).pipe(
      Effect.andThen(
        Effect.suspend(() =>
          directory.namespace(name) === undefined ? this.refreshedFromAll : Effect.void,
        ),
      ),
      Effect.andThen(Effect.suspend(() => this.knownNamespace(name))),
    )
  }

  private knownNamespace(name: string): Effect.Effect<NamespaceInfo, KvorumError> {
    const found = this.core.directory.namespace(name)
    return found === undefined
      ? Effect.fail(new NamespaceNotFound({ namespace: name }))
      : Effect.succeed(found)
  }

  /**
   * Runs `use` with the namespace: at once when its name is known, which is every call but the first. A request that is refused although it is well-formed may
   * have been made in a namespace that was deleted, and perhaps made anew under another id.
   */
  withinAny<A>(
    name: string,
    options: CallOptions | undefined,
    use: (where: Where) => Effect.Effect<A, KvorumError>,
  ): Effect.Effect<A, KvorumError> {
    return Effect.suspend(() => {
      const { directory } = this.core
      const deadlineMs = this.deadline(options)
      const session = options?.session
      const problem = deadlineProblem(deadlineMs) ?? sessionProblem(session)
      if (problem !== undefined) return invalid(problem)
      const known = directory.namespace(name)
      const startedAt = directory.nowMs()
      const run = (namespace: NamespaceInfo, leftMs: number) => {
        const floors = session as SessionFloors | undefined
        const foreign = floors === undefined ? undefined : this.foreignProblem(floors)
        return foreign === undefined ? use({ namespace, leftMs, floors }) : invalid(foreign)
      }
      const runLate = (namespace: NamespaceInfo) =>
        run(namespace, Math.max(1, deadlineMs - (directory.nowMs() - startedAt)))
      if (known === undefined) return Effect.flatMap(this.namespace(name, deadlineMs), runLate)
      return run(known, deadlineMs).pipe(
        Effect.catchTag("InvalidRequest", (error) =>
          this.refreshed.pipe(
            Effect.andThen(Effect.suspend(() => this.knownNamespace(name))),
            Effect.flatMap((found) =>
              found.id === known.id ? Effect.fail(error) : runLate(found),
            ),
          ),
        ),
      )
    })
  }

  /** The same, in a strong namespace only. */
  within<A>(
    name: string,
    options: CallOptions | undefined,
    use: (where: Where) => Effect.Effect<A, KvorumError>,
  ): Effect.Effect<A, KvorumError> {
    return this.withinAny(name, options, (where) => {
      if (where.namespace.mode === "strong") return use(where)
      const detail = `namespace ${name} is eventual: this is to be had in strong ones only`
      return Effect.fail(new NotSupportedInMode({ detail }))
    })
  }

  private foreignProblem({ clusterId }: SessionFloors): string | undefined {
    const own = this.core.directory.clusterId
    if (own === undefined || own === clusterId) return undefined
    return `the session is of another cluster (${clusterId}; this one is ${own}): begin a new one here`
  }

  /** A session, from a token or empty. */
  readonly session = (token?: string): Effect.Effect<ClientSession, KvorumError> =>
    Effect.suspend((): Effect.Effect<ClientSession, KvorumError> => {
      const parsed = token === undefined ? undefined : SessionFloors.parse(token)
      if (typeof parsed === "string") return invalid(parsed)
      const { directory } = this.core
      const isReached = directory.clusterId !== undefined
      return (isReached ? Effect.void : this.reached(this.deadlineMs)).pipe(
        Effect.andThen(
          Effect.suspend((): Effect.Effect<ClientSession, KvorumError> => {
            const session = parsed ?? new SessionFloors(directory.clusterId ?? "")
            const problem = this.foreignProblem(session)
            return problem === undefined ? Effect.succeed(session) : invalid(problem)
          }),
        ),
      )
    })
}

function sessionProblem(session: ClientSession | undefined): string | undefined {
  if (session === undefined || session instanceof SessionFloors) return undefined
  return "options.session is not one that client.session gave: make one with client.session(token)"
}
