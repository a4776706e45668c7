import { existsSync } from "node:fs"
import { join } from "node:path"
import { Effect } from "effect"
import { FileDisk } from "../disk/FileDisk.ts"
import type * as Node from "../Node.ts"
import { readDirectory } from "../server/directoryCache.ts"
import { readIdentity } from "../server/Identity.ts"
import {
  type Address,
  clientPort,
  formatAddress,
  type Member,
  parseAddress,
  parseEndpoints,
  peerPort,
  portBaseDefault,
  portBaseOf,
  portBaseProblem,
} from "./addresses.ts"
import { statusOf } from "./Cluster.ts"
import { identityFileName } from "./clusterData.ts"
import { type CommandEnded, refusal, usageError } from "./Output.ts"
import { portProblem } from "./StartChecks.ts"

/**
 * `kvorum serve --join`: where a node that joins a running cluster is reached. Its id is given by the cluster, but its addresses must be known before, because
 * the cluster writes them down: they follow the pattern of `npm start` for the next id, or the first after it whose ports are free. Once it has joined,
 * its directory says where it is, and a start needs nothing else.
 */
export interface JoinFlags {
  readonly data: string
  readonly join: string | undefined
  readonly host: string | undefined
  readonly portBase: number | undefined
  readonly advertiseClients: string | undefined
  readonly advertisePeers: string | undefined
}

/** Ids tried from the next one on. */
const candidatesMax = 50

/** The node that has joined with this directory; `undefined` when it is not that of one. */
export function joinedIdentity(directory: string): { readonly node: number } | undefined {
  if (!existsSync(join(directory, identityFileName))) return undefined
  const { node, nodes } = readIdentity(new FileDisk(directory), directory)
  return nodes.length === 0 ? { node } : undefined
}

/** A node that has joined with a directory, and where it is reached; `undefined` when the directory is not that of one, or does not say. */
export function joinedMember(directory: string): Member | undefined {
  const identity = joinedIdentity(directory)
  const known = identity === undefined ? undefined : knownAddresses(directory, identity.node)
  return identity === undefined || known === undefined
    ? undefined
    : { id: identity.node, peer: known.peer }
}

/** Options of the node, for one that joins or has joined. */
export const joinedNode = Effect.fnUntraced(function* (
  flags: JoinFlags,
): Effect.fn.Return<Node.JoinedNodeOptions, CommandEnded> {
  const parsed = flags.join === undefined ? [] : parseEndpoints(flags.join)
  if (typeof parsed === "string") return yield* usageError(`--join: ${parsed}`)
  const problem = flags.portBase === undefined ? undefined : portBaseProblem(flags.portBase)
  if (problem !== undefined) return yield* usageError(problem)
  const identity = yield* Effect.try({
    try: () => joinedIdentity(flags.data),
    catch: (error) => refusal((error as Error).message),
  })
  const known = identity === undefined ? undefined : knownAddresses(flags.data, identity.node)
  const base = { dataDirectory: flags.data, endpoints: parsed.map(formatAddress) }
  const { advertiseClients, advertisePeers } = flags
  if (advertiseClients !== undefined || advertisePeers !== undefined) {
    return { ...base, ...(yield* advertised(flags)) }
  }
  const addresses = known ?? (yield* freeAddresses(flags, parsed, identity?.node))
  return { ...base, ...addresses, bindHost: flags.host ?? addresses.peer.host }
})

/** A node that others reach elsewhere than where it binds has a network of its own: its ports there do not depend on its id, which is not known yet. */
const advertised = Effect.fnUntraced(function* (
  flags: JoinFlags,
): Effect.fn.Return<
  Pick<Node.JoinedNodeOptions, "peer" | "client" | "bindHost" | "bindPorts">,
  CommandEnded
> {
  const { advertiseClients, advertisePeers, host = "0.0.0.0" } = flags
  if (advertiseClients === undefined || advertisePeers === undefined) {
    return yield* usageError("--advertise-clients and --advertise-peers come together")
  }
  const [client, peer] = [parseAddress(advertiseClients), parseAddress(advertisePeers)]
  if (typeof client === "string") return yield* usageError(`--advertise-clients: ${client}`)
  if (typeof peer === "string") return yield* usageError(`--advertise-peers: ${peer}`)
  const portBase = flags.portBase ?? portBaseDefault
  const bindPorts = { client: clientPort(portBase, 1), peer: peerPort(portBase, 1) }
  return { client, peer, bindHost: host, bindPorts }
})

interface NodeAddresses {
  readonly peer: Address
  readonly client: Address
}

/** As the cluster knows them, by the copy of its directory on disk. */
function knownAddresses(directory: string, node: number): NodeAddresses | undefined {
  const record = readDirectory(new FileDisk(directory))?.nodes.find(({ id }) => id === node)
  if (record === undefined) return undefined
  const [peer, client] = [parseAddress(record.peer), parseAddress(record.client)]
  return typeof peer === "string" || typeof client === "string" ? undefined : { peer, client }
}

const freeAddresses = Effect.fnUntraced(function* (
  flags: JoinFlags,
  endpoints: ReadonlyArray<Address>,
  node: number | undefined,
): Effect.fn.Return<NodeAddresses, CommandEnded> {
  const status = yield* statusOf(endpoints).pipe(
    Effect.catch(({ message }) => Effect.fail(refusal(`--join: ${message}`))),
  )
  const members = status.nodes.flatMap(({ id, addresses }) => {
    const client = parseAddress(addresses.client)
    return typeof client === "string" ? [] : [{ id, client }]
  })
  const host = flags.host ?? "127.0.0.1"
  const elsewhere = members.find(({ client }) => !isLoopback(client.host))
  if (flags.host === undefined && elsewhere !== undefined) {
    return yield* usageError(
      `--host ADDRESS is needed: the cluster's other nodes (n${elsewhere.id} at ${elsewhere.client.host}) must reach this one there`,
    )
  }
  const portBase = flags.portBase ?? members.map(portBaseOf).find(Boolean) ?? portBaseDefault
  const ids = [...members.map(({ id }) => id), ...status.unreachable, 0]
  const first = node ?? Math.max(...ids) + 1
  for (let id = first; id < first + candidatesMax; id++) {
    const client = { host, port: clientPort(portBase, id) }
    const peer = { host, port: peerPort(portBase, id) }
    if (portProblem(client) === undefined && portProblem(peer) === undefined) {
      return { client, peer }
    }
  }
  return yield* refusal(
    `no free ports from ${clientPort(portBase, first)} and ${peerPort(portBase, first)} on: choose others with --port-base N`,
  )
})

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.")
}
