import { existsSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import { Context, Effect, Layer } from "effect"
import { capacityMax } from "../admin/verbs.ts"
import * as Node from "../Node.ts"
import { type NodeStanding, StoreFailure } from "../server/Store.ts"
import {
  type Address,
  clientOf,
  formatAddress,
  localMembers,
  type Member,
  parseMembers,
  portBaseDefault,
} from "./addresses.ts"
import { probeMembers } from "./Cluster.ts"
import { clusterFileName, identityFileName } from "./clusterData.ts"
import { Command, Flag } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { joinedIdentity, joinedNode } from "./Join.ts"
import * as Log from "./Log.ts"
import { note, refusal, usageError } from "./Output.ts"

interface ServeOptions {
  readonly data: string
  readonly id: number | undefined
  readonly cluster: string | undefined
  readonly join: string | undefined
  readonly host: string | undefined
  readonly portBase: number | undefined
  readonly zone: string | undefined
  readonly rack: string | undefined
  readonly hostName: string | undefined
  readonly capacity: number | undefined
  readonly advertiseClients: string | undefined
  readonly advertisePeers: string | undefined
  readonly stopWithStdin: boolean
}

/** As the order to join has it (admin/verbs.ts). */
const domainCharactersMax = 64

const domainFlag = (name: string, what: string) =>
  Flags.maybe(
    Flag.String(name).pipe(
      Flag.withMetavar("NAME"),
      Flag.withDescription(
        `Where this node stands: ${what}; copies of a key are spread over these`,
      ),
    ),
  )

const advertiseFlag = (who: "clients" | "peers") =>
  Flags.maybe(
    Flag.String(`advertise-${who}`).pipe(
      Flag.withMetavar("HOST:PORT"),
      Flag.withDescription(
        `With --join: where ${who} reach this node, if not at the address that it binds, as behind NAT or in a container; it then binds --host (default 0.0.0.0) at --port-base plus ${who === "clients" ? 1 : 101}`,
      ),
    ),
  )

export const serve = Command.make(
  "serve",
  {
    data: Flags.data.pipe(
      Flag.withDescription("Where this node keeps its data; made if it is not there"),
    ),
    id: Flags.maybe(
      Flag.Int("id").pipe(
        Flag.withMetavar("N"),
        Flag.withDescription("Which of the --cluster's nodes this is; 1 is called n1"),
      ),
    ),
    cluster: Flags.maybe(
      Flag.String("cluster").pipe(
        Flag.withMetavar("1=HOST:PORT,2=..."),
        Flag.withDescription(
          "Every node of the cluster with the address for its peers, the same list on every node. " +
            "Clients use the same host and the peer port less 100",
        ),
      ),
    ),
    host: Flags.maybe(
      Flags.host.pipe(
        Flag.withDescription(
          "The address to bind, for clients and peers, and with --join the one where the others reach this node; " +
            "default: this node's host in --cluster, else 127.0.0.1",
        ),
      ),
    ),
    join: Flags.maybe(
      Flag.String("join").pipe(
        Flag.withMetavar("HOST:PORT,..."),
        Flag.withDescription(
          "Join the running cluster that has these client addresses; one that answers is enough",
        ),
      ),
    ),
    portBase: Flags.maybe(
      Flag.Int("port-base").pipe(
        Flag.withMetavar("N"),
        Flag.withDescription(
          "With --join: clients at N plus the next free id, peers 100 above; default: as the cluster's other nodes",
        ),
      ),
    ),
    zone: domainFlag("zone", "the data centre or zone"),
    rack: domainFlag("rack", "the rack, within its zone"),
    hostName: domainFlag("host-name", "the machine; default: the host of its address for peers"),
    capacity: Flags.maybe(
      Flag.Int("capacity").pipe(
        Flag.withMetavar("N"),
        Flag.withDescription(
          "What it is given in comparison with other nodes: 2 = twice as much; default 1",
        ),
      ),
    ),
    advertiseClients: advertiseFlag("clients"),
    advertisePeers: advertiseFlag("peers"),
    // For a process that starts nodes that must not outlive it (Supervisor.ts); nothing that a person would use.
    stopWithStdin: Flag.withHidden(Flags.toggle("stop-with-stdin", "Stop when stdin ends")),
  },
  (options) => Effect.scoped(runNode(options)).pipe(Effect.provide(Log.layer)),
).pipe(
  Command.withShortDescription("Run one node"),
  Command.withDescription(
    "Runs one node until Ctrl-C. With --data alone it is a whole cluster of one node, at the ports of the first node of npm start. With --id and --cluster it is one of the nodes that a cluster " +
      "begins with: start each of them once with an empty directory and the same list. With --join it becomes a further node of a cluster that runs: it is given an id, and within a minute or so " +
      "its share of the ranges. A directory that has joined knows its cluster: --data alone starts it again, at the same addresses.",
  ),
  Command.withExamples([
    { command: "kvorum serve --data /var/lib/kvorum", description: "a cluster of one node" },
    {
      command: "kvorum serve --data /var/lib/kvorum --id 1 --cluster 1=127.0.0.1:7901",
      description: "the same at another port; clients reach it at 127.0.0.1:7801",
    },
    {
      command:
        "kvorum serve --data /var/lib/kvorum --id 2 --cluster 1=10.0.0.1:7501,2=10.0.0.2:7502,3=10.0.0.3:7503",
      description: "the second of three; clients reach it at 10.0.0.2:7402",
    },
    {
      command: "kvorum serve --data .kvorum/n4 --join 127.0.0.1:7401",
      description: "a fourth node beside those of npm start",
    },
  ]),
)

/** Where the node stands, as far as it is told. */
const standingOf = Effect.fnUntraced(function* (options: ServeOptions) {
  const { zone, rack, hostName: host, capacity } = options
  for (const [flag, name] of [
    ["--zone", zone],
    ["--rack", rack],
    ["--host-name", host],
  ] as const) {
    if (name !== undefined && (name.length === 0 || name.length > domainCharactersMax)) {
      return yield* usageError(`${flag} is a name of 1 to ${domainCharactersMax} characters`)
    }
  }
  if (capacity !== undefined && !(capacity >= 1 && capacity <= capacityMax)) {
    return yield* usageError(`--capacity is a whole number from 1 to ${capacityMax}`)
  }
  const standing: NodeStanding = {
    ...(zone === undefined ? {} : { zone }),
    ...(rack === undefined ? {} : { rack }),
    ...(host === undefined ? {} : { host }),
    ...(capacity === undefined ? {} : { capacity }),
  }
  return standing
})

/** The members, or a sentence that says what is wrong with the options. */
function membersOf(options: ServeOptions): ReadonlyArray<Member> | string {
  const { id, cluster } = options
  if (cluster === undefined) {
    if (id !== undefined && id !== 1) return `--id ${id} needs --cluster`
    const host = options.host ?? "127.0.0.1"
    return localMembers({ nodes: 1, host, portBase: portBaseDefault })
  }
  if (id === undefined) return "--cluster needs --id: which of its nodes is this?"
  const members = parseMembers(cluster)
  if (typeof members === "string") return `--cluster: ${members}`
  if (!members.some((member) => member.id === id)) return `--cluster names no node ${id}`
  return members
}

const runNode = Effect.fnUntraced(function* (options: ServeOptions) {
  const { join, id, cluster, portBase } = options
  if (join !== undefined && (id !== undefined || cluster !== undefined)) {
    return yield* usageError(
      "--join and --id, --cluster exclude each other: the cluster gives the id",
    )
  }
  const hasJoined = cluster === undefined && id === undefined && holdsJoined(options.data)
  if (join !== undefined || hasJoined) return yield* runJoined(options)
  if (options.advertiseClients !== undefined || options.advertisePeers !== undefined) {
    return yield* usageError(
      "--advertise-clients and --advertise-peers are for --join; without it, --cluster names the addresses that others call",
    )
  }
  if (portBase !== undefined) {
    return yield* usageError("--port-base is for --join; without it, --cluster names the ports")
  }
  return yield* runFounder(options)
})

/** A directory that cannot be read is found out by whoever opens it. */
function holdsJoined(directory: string): boolean {
  try {
    return joinedIdentity(directory) !== undefined
  } catch {
    return false
  }
}

const runJoined = Effect.fnUntraced(function* (options: ServeOptions) {
  yield* checkNotTop(options.data)
  const standing = yield* standingOf(options)
  const node = { ...(yield* joinedNode(options)), standing }
  yield* runLayer(Node.joinedLayer(node), {
    name: () => `n${joinedIdentity(options.data)?.node}`,
    ...node,
    stopWithStdin: options.stopWithStdin,
  })
})

const runFounder = Effect.fnUntraced(function* (options: ServeOptions) {
  const members = membersOf(options)
  if (typeof members === "string") return yield* usageError(members)
  const id = options.id ?? 1
  const self = members[id - 1] as Member
  yield* prepareDirectory({ directory: options.data, id, members })
  const standing = yield* standingOf(options)
  const layer = Node.layer({
    dataDirectory: options.data,
    node: id,
    standing,
    members: members.map((member) => ({
      node: member.id,
      peer: member.peer,
      client: clientOf(member.peer),
    })),
    bindHost: options.host ?? self.peer.host,
  })
  yield* runLayer(layer, {
    name: () => `n${id}`,
    dataDirectory: options.data,
    client: clientOf(self.peer),
    peer: self.peer,
    stopWithStdin: options.stopWithStdin,
  })
})

/** Builds the node, says where it is, and waits for its end. */
const runLayer = Effect.fnUntraced(function* <E extends { readonly message: string }>(
  layer: Layer.Layer<StoreFailure, E>,
  options: {
    readonly name: () => string
    readonly dataDirectory: string
    readonly client: Address
    readonly peer: Address
    readonly stopWithStdin: boolean
  },
) {
  const { client, peer, dataDirectory } = options
  const context = yield* Layer.build(layer).pipe(Effect.mapError(explain))
  const addresses = `clients ${formatAddress(client)}, peers ${formatAddress(peer)}`
  yield* note(`${options.name()} is up: ${addresses}, data in ${dataDirectory}`)
  const failed = Context.get(context, StoreFailure).failed.pipe(Effect.mapError(explain))
  const stdin = options.stopWithStdin ? untilStdinEnds : Effect.never
  yield* Effect.raceFirst(failed, stdin)
})

const explain = (error: { readonly message: string }) => refusal(error.message)

/** Waits for the end of stdin; what arrives there is thrown away. */
const untilStdinEnds = Effect.promise(async () => {
  for await (const _ of Bun.stdin.stream()) {
    // Nothing is said on this pipe; that it is open is all.
  }
})

const checkNotTop = Effect.fnUntraced(function* (directory: string) {
  if (!existsSync(join(directory, clusterFileName))) return
  return yield* refusal(
    `${directory} is the data of \`kvorum start\`, a folder for each node: use one of those`,
  )
})

/** Refuses a directory that is not a node's, and a new directory while the other nodes already are a cluster without it. */
const prepareDirectory = Effect.fnUntraced(function* (options: {
  readonly directory: string
  readonly id: number
  readonly members: ReadonlyArray<Member>
}) {
  const { directory, id, members } = options
  yield* checkNotTop(directory)
  if (!existsSync(join(directory, identityFileName))) {
    const others = members.filter((member) => member.id !== id)
    const found = yield* probeMembers(others.map(({ peer }) => clientOf(peer)))
    const expected = members.map((member) => member.id).join()
    if (found !== undefined && found.nodes.join() !== expected) {
      const named = found.nodes.map((node) => `n${node}`).join(", ")
      return yield* refusal(
        `${found.address} belongs to a running cluster of ${named}: a further node joins it with --join ${found.address}, without --id and --cluster`,
      )
    }
  }
  yield* Effect.try({
    try: () => mkdirSync(directory, { recursive: true, mode: 0o700 }),
    catch: (error) => refusal(`cannot make ${directory}: ${(error as Error).message}`),
  })
})
