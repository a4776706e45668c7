import { Clock, Context, Effect, Layer, Random } from "effect"
import { InvalidRequest } from "../Errors.ts"
import type { ClientShape } from "./Api.ts"
import { ClientCore } from "./ClientCore.ts"
import { facade } from "./Facade.ts"
import { parseAddress } from "./NodeLink.ts"

export type * from "./Api.ts"

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
 * 2. The namespace's name gives its id and partitioning, the key its position (lib/position.ts), and the routing table (routes.ts) the range and
 *    its leader. The table is fetched at the first call from any endpoint, and corrected by what nodes answer: ranges that split or move are followed.
 * 3. The request (readPlans.ts, mutationPlans.ts) goes over a connection to that node (Connection.ts, NodeLink.ts), with many others at a time.
 * 4. Whatever a retry can help is retried (ClientCore.ts) until the call's deadline: another leader, a moved range, a full
 *    queue, a lost connection. Every copy of a mutation carries the same identity (session.ts), so it is applied once, also when its range is split between
 *    two copies: the half has the whole's table of results.
 * 5. The answer, or a typed error (Errors.ts) that says what to do, goes to the caller, and what it showed into the caller's session (sessionFloors.ts), if
 *    there is one: later reads at any replica ask for at least that.
 *
 * Invariants:
 * - A mutation ends in a refusal only if no copy of it can have been carried out; else it is tried until its deadline, and then ends in `OutcomeUnknown`.
 * - Retrying happens in one layer, ClientCore; nothing above or below it repeats a request. (One exception: a name whose namespace was deleted and made anew.)
 * - A session never shows a state older than one that it has shown, or than its own writes.
 *
 * Eventual namespaces have calls of their own (`client.eventual`, eventual/EventualApi.ts), without compare-and-set and atomic batches. They go to an owner of the key by the
 * ring, else to any node, which stands in; a write is sent to a second node only if the first has refused it (eventual/EventualCalls.ts).
 *
 * Left out: namespaces with schemas.
 * Sources: RIFL (Lee et al., SOSP 2015) for exactly-once; the routing of TiKV's and etcd's clients for hints and refreshes.
 */
export interface ClientOptions {
  /** `host:port` of native doors; any one that answers tells of the others. */
  readonly endpoints: ReadonlyArray<string>
  readonly deadlineMs?: number
  /** TCP connections to each node, default 1: one carries over 100,000 requests a second. */
  readonly connectionsPerNode?: number
  readonly handshakeTimeoutMs?: number
  /** How long a node may take to answer before the request also goes to another; default 1,000. It bounds how long a node that hangs holds up a call. */
  readonly attemptTimeoutMs?: number
  /** For nodes: this client speaks for one, and may write the namespace `system` and change ranges. Default false. */
  readonly internal?: boolean
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
          attemptTimeoutMs: options.attemptTimeoutMs ?? 1000,
          internal: options.internal ?? false,
          nowMs: () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6,
          random: () => random.nextDoubleUnsafe(),
        }),
    ),
    (created) => Effect.sync(() => created.close()),
  )
  return Client.of(facade(core, options.deadlineMs ?? defaultDeadlineMs))
})
