import { Effect } from "effect"
import { Client, type ClientShape } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { type Address, formatAddress, resolveEndpoints } from "./addresses.ts"
import { CommandEnded, exitCodes, printJson, usageError } from "./Output.ts"

/** How commands reach the cluster, and how its refusals become exit codes. */

export interface ClusterFlags {
  readonly endpoints: string | undefined
  readonly portBase: number | undefined
}

const endpointsOf = Effect.fnUntraced(function* (
  flags: ClusterFlags,
): Effect.fn.Return<ReadonlyArray<string>, CommandEnded> {
  const resolved = resolveEndpoints({
    endpoints: flags.endpoints,
    portBase: flags.portBase,
    environment: process.env.KVORUM_ENDPOINTS,
  })
  if (typeof resolved === "string") return yield* usageError(resolved)
  return resolved.map(formatAddress)
})

/** The exit code of an error, its name and text for stderr, and with `--json` both as the last line of stdout. */
export const endWith = Effect.fnUntraced(function* (
  error: KvorumError,
  json: boolean,
): Effect.fn.Return<never, CommandEnded> {
  if (json) yield* printJson({ error: error._tag, message: error.message })
  const code = error._tag === "OutcomeUnknown" ? exitCodes.outcomeUnknown : exitCodes.refused
  return yield* new CommandEnded({ code, message: `${error._tag}: ${error.message}` })
})

/** Runs `use` with a client of the cluster that the flags point at. */
export const withCluster = <A, R>(
  options: ClusterFlags & { readonly json: boolean },
  use: (client: ClientShape) => Effect.Effect<A, KvorumError | CommandEnded, R>,
): Effect.Effect<A, CommandEnded, Exclude<R, Client>> =>
  Effect.gen(function* () {
    const endpoints = yield* endpointsOf(options)
    return yield* Effect.flatMap(Client, use).pipe(Effect.provide(Client.layer({ endpoints })))
  }).pipe(
    Effect.catch((error) =>
      error._tag === "CommandEnded" ? Effect.fail(error) : endWith(error, options.json),
    ),
  ) as Effect.Effect<A, CommandEnded, Exclude<R, Client>>

const clientAt = (endpoints: ReadonlyArray<Address>, attemptTimeoutMs: number) =>
  Client.layer({
    endpoints: endpoints.map(formatAddress),
    handshakeTimeoutMs: 500,
    attemptTimeoutMs,
  })

/** Waits until no node is electing any more, every range has a leader, and all know the ring: one whose disk is full has started, too. */
export const awaitLeaders = (options: {
  readonly endpoints: ReadonlyArray<Address>
  /** How many there must be; asked again each time. */
  readonly nodes: () => number
}): Effect.Effect<void> =>
  Effect.gen(function* () {
    const client = yield* Client
    const isReady = Effect.gen(function* () {
      const { nodes } = yield* client.status()
      if (nodes.length < options.nodes() || nodes.some(({ state }) => state === "electing"))
        return false
      if (nodes.some(({ eventual }) => eventual.ringVersion === 0)) return false
      const ranges = yield* client.ranges()
      return ranges.length > 0 && ranges.every(({ leader }) => leader !== undefined)
    }).pipe(Effect.catch(() => Effect.succeed(false)))
    while (!(yield* isReady)) yield* Effect.sleep("50 millis")
  }).pipe(Effect.provide(clientAt(options.endpoints, 500)), Effect.orDie)

/** What the nodes of the cluster at these addresses say of themselves. */
export const statusOf = (endpoints: ReadonlyArray<Address>) =>
  Effect.gen(function* () {
    const client = yield* Client
    return yield* client.status()
  }).pipe(Effect.provide(clientAt(endpoints, 2000)))

export interface RunningCluster {
  /** The address that answered. */
  readonly address: string
  /** Ids of its cluster's nodes, in order. */
  readonly nodes: ReadonlyArray<number>
}

/** What cluster runs at any of `addresses`; `undefined` when none answers within half a second. */
export const probeMembers = (
  addresses: ReadonlyArray<Address>,
): Effect.Effect<RunningCluster | undefined> =>
  Effect.forEach(addresses, probe, { concurrency: "unbounded" }).pipe(
    Effect.map((answers) => answers.find((answer) => answer !== undefined)),
  )

const probe = (address: Address): Effect.Effect<RunningCluster | undefined> =>
  Effect.gen(function* () {
    const client = yield* Client
    const { nodes, unreachable } = yield* client.status()
    const ids = [...nodes.map(({ id }) => id), ...unreachable]
    return {
      address: formatAddress(address),
      nodes: ids.sort((left, right) => left - right),
    }
  }).pipe(
    Effect.timeout("500 millis"),
    Effect.provide(clientAt([address], 400)),
    Effect.catch(() => Effect.succeed(undefined)),
  )
