import { Context, Effect, Layer, Schedule } from "effect"
import { Client } from "../client/Client.ts"
import { DataDirectories } from "../disk/DataDirectory.ts"
import { DirectoryInUse } from "../disk/DirectoryLock.ts"
import { directoryFromJson } from "../server/directory.ts"
import { keepDirectory } from "../server/directoryCache.ts"
import { Identity, IdentityMismatch, readIdentity } from "../server/Identity.ts"
import { type Address, NodeFailed, type NodeStanding } from "../server/Store.ts"
import type { NodeId } from "../types.ts"
import { verbs } from "./verbs.ts"

/**
 * How a node with an empty directory gets into a cluster. It makes its incarnation durable and asks any node of the cluster (Nodes.ts, `joinNode`), which
 * gives it an id and everything the directory holds. The identity is written last: a crash before it, or a lost answer, and it asks again under the same
 * incarnation and gets the same id. From then on the directory on disk says who it is, and nobody is asked.
 */
export interface JoiningOptions {
  readonly dataDirectory: string
  /** `host:port` of native doors of the cluster. */
  readonly endpoints: ReadonlyArray<string>
  /** Where this node is reached. */
  readonly peer: Address
  readonly client: Address
  readonly standing?: NodeStanding
  /** How long to ask for; default a minute. */
  readonly patienceMs?: number
}

const askMs = 15_000
const pauseMs = 500

const printAddress = ({ host, port }: Address) =>
  `${host.includes(":") ? `[${host}]` : host}:${port}`

/** The id of the node whose data is in the directory, after joining if it was in no cluster yet. */
export const joinCluster: (options: JoiningOptions) => Effect.Effect<NodeId, NodeFailed> = (
  options,
) => Effect.scoped(enter(options))

const enter = Effect.fnUntraced(function* (options: JoiningOptions) {
  const { dataDirectory } = options
  const attempt = <A>(work: () => A) =>
    Effect.try({ try: work, catch: (error) => explain(dataDirectory, error) })
  const directories = yield* DataDirectories
  yield* attempt(() => directories.make(dataDirectory))
  const { disk } = yield* Effect.acquireRelease(
    attempt(() => directories.acquire(dataDirectory)),
    (directory) => Effect.sync(() => directory.release()),
  )
  if (disk.exists("IDENTITY")) {
    const { node, nodes } = yield* attempt(() => readIdentity(disk, dataDirectory))
    if (nodes.length === 0) return node
    return yield* new NodeFailed({
      detail: `${dataDirectory} is the data of n${node}, a founder of its cluster: start it with --id and --cluster, not with --join`,
    })
  }
  const incarnation = yield* attempt(() => Identity.incarnationToJoin(disk))
  const answer = yield* ask(options, incarnation)
  yield* attempt(() => {
    keepDirectory(disk, answer.directory)
    Identity.join(disk, { clusterId: answer.clusterId, node: answer.node, incarnation })
  })
  return answer.node
})

const ask = Effect.fnUntraced(function* (options: JoiningOptions, incarnation: string) {
  const { endpoints, peer, client } = options
  const layer = Client.layer({ endpoints, deadlineMs: askMs })
  const context = yield* Effect.mapError(Layer.build(layer), failed)
  const printed = { peer: printAddress(peer), client: printAddress(client), host: peer.host }
  const address = { ...printed, ...options.standing }
  const question = Context.get(context, Client).admin(
    verbs.nodeJoin,
    { incarnation, ...address },
    { deadlineMs: askMs },
  )
  const result = yield* question.pipe(
    Effect.retry({
      while: (error) => error._tag !== "InvalidRequest",
      schedule: Schedule.spaced(pauseMs),
    }),
    Effect.timeoutOrElse({
      duration: options.patienceMs ?? 60_000,
      orElse: () => Effect.fail({ message: "no node of it has answered in time" }),
    }),
    Effect.mapError(failed),
  )
  const { clusterId, node, directory } = result as Readonly<Record<string, unknown>>
  const read = directoryFromJson(directory)
  if (typeof clusterId !== "string" || typeof node !== "number" || read === undefined) {
    return yield* failed({ message: "the answer of a node is not understood" })
  }
  return { clusterId, node, directory: read }
})

function failed({ message }: { readonly message: string }): NodeFailed {
  return new NodeFailed({ detail: `the cluster was not joined: ${message}` })
}

function explain(directory: string, error: unknown): NodeFailed {
  if (error instanceof DirectoryInUse || error instanceof IdentityMismatch) {
    return new NodeFailed({ detail: error.message, cause: error })
  }
  const message = error instanceof Error ? error.message : String(error)
  return new NodeFailed({ detail: `${directory}: ${message}`, cause: error })
}
