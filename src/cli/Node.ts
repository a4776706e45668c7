import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Argument, Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { nodeOf, order } from "./Orders.ts"
import { note, print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

const list = Command.make(
  "list",
  { json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const [status, ranges] = yield* withCluster(options, (client) =>
      Effect.all([client.status(), client.ranges()]),
    )
    const known = new Map(status.nodes.map((node) => [node.id, node]))
    const ids = [...known.keys(), ...status.unreachable].sort((left, right) => left - right)
    const rows = ids.map((id) => {
      const replicas = ranges.filter(({ descriptor }) =>
        descriptor.replicas.some((place) => place.node === id),
      ).length
      const leads = ranges.filter(({ leader }) => leader === id).length
      return { id: nodeName(id), replicas, leads, node: known.get(id) }
    })
    if (options.json) {
      const nodes = rows.map(({ id, replicas, leads, node }) => {
        const where = node === undefined ? {} : { pid: node.pid, addresses: node.addresses }
        return { id, state: node?.state ?? "unreachable", replicas, leads, ...where }
      })
      return yield* printJson({ nodes })
    }
    for (const { id, replicas, leads, node } of rows) {
      const held = `replicas ${replicas}  leads ${leads}`
      if (node === undefined) yield* print(`${id}  unreachable  ${held}`)
      else {
        const { client, peer } = node.addresses
        const where = `pid ${node.pid}  clients ${client}  peers ${peer}`
        yield* print(`${id}  ${node.state}  ${held}  ${where}`)
      }
    }
  }),
).pipe(
  Command.withShortDescription("Show the nodes and what they hold"),
  Command.withDescription(
    "Prints every node of the cluster: its state, how many ranges it has a replica of and how many it leads, its process and addresses.",
  ),
)

const remove = Command.make(
  "remove",
  {
    node: Argument.String("node").pipe(Argument.withDescription("The node that is to go: n4")),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const node = yield* nodeOf("node", options.node)
    const result = yield* order(options, "node.remove", { node })
    if (options.json) return yield* printJson(result)
    const { moved, fewer } = result
    const said = typeof moved === "number" && moved > 0 ? `, ${moved} replicas were moved away` : ""
    yield* note(
      `${nodeName(node)} is no longer of the cluster${said}: its process ends by itself, and its data is of no more use`,
    )
    if (typeof fewer === "number" && fewer > 0) {
      yield* note(
        `${fewer} ranges have one replica fewer, since no other node could take it: let a node join, then kvorum range add-replica`,
      )
    }
  }),
).pipe(
  Command.withShortDescription("Take a node out of the cluster"),
  Command.withDescription(
    "Moves every replica of the node to other nodes, one range after another, and its slots of eventual namespaces, then takes the node out of the cluster. Data stays available meanwhile. A node that was " +
      "not heard of for 10 s is not waited for: what it alone held is lost. One that has been removed never comes back " +
      "under its old name: to use the machine again, start with an empty directory and --join. " +
      "When fewer nodes are left than a range is to have replicas, it goes on with fewer.",
  ),
  Command.withExamples([{ command: "kvorum node remove n4", description: "data first" }]),
)

const drain = Command.make(
  "drain",
  {
    node: Argument.String("node").pipe(
      Argument.withDescription("The node that is to be empty: n2"),
    ),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const node = yield* nodeOf("node", options.node)
    const result = yield* order(options, "node.drain", { node })
    if (options.json) return yield* printJson(result)
    yield* note(
      `${nodeName(node)} is empty, ${result.moved} replicas were moved away: it stays in the cluster and is given nothing; kvorum node remove ${nodeName(node)} takes it out`,
    )
  }),
).pipe(
  Command.withShortDescription("Empty a node before it is taken out"),
  Command.withDescription(
    "Moves every replica of the node to other nodes, and its slots of eventual namespaces, and has it given nothing new. Data stays available meanwhile, with as many copies as before: where no other node " +
      "could take one, it is refused. The node stays in the cluster, answers and forwards, until kvorum node remove.",
  ),
  Command.withExamples([{ command: "kvorum node drain n2", description: "then node remove n2" }]),
)

export const node = Command.make("node").pipe(
  Command.withShortDescription("List, drain and remove nodes"),
  Command.withDescription(
    "Nodes join with `kvorum serve --join HOST:PORT --data DIR`, and leave with `kvorum node remove`.",
  ),
  Command.withSubcommands([list, drain, remove]),
)
