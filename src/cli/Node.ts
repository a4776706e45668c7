import { Effect } from "effect"
import type { ShownNode } from "../admin/NodesShown.ts"
import { verbs } from "../admin/verbs.ts"
import type { NodeStatus } from "../wire/answers.ts"
import { withCluster } from "./Cluster.ts"
import { Argument, Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { longOrder, nodeOf, noteCrowded } from "./Orders.ts"
import { note, print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

/** Without a leader of the cluster's own group the list is shorter, and still soon there. */
const listMs = 2000

interface Row {
  readonly id: string
  readonly state: string
  readonly replicas: number
  readonly leads: number
  /** What it says of itself; `undefined` when it does not answer. */
  readonly node: NodeStatus | undefined
  readonly record: ShownNode | undefined
}

function asJson({ id, state, replicas, leads, node, record }: Row) {
  const { zone = null, rack = null, host = null, capacity = null } = record ?? {}
  const where = node === undefined ? {} : { pid: node.pid, addresses: node.addresses }
  const health = node?.state ?? null
  return { id, state, health, replicas, leads, zone, rack, host, capacity, ...where }
}

function lineOf({ id, state, replicas, leads, node, record }: Row): string {
  const held = `replicas ${replicas}  leads ${leads}`
  const { zone = null, rack = null, capacity = 1 } = record ?? {}
  const stands = [
    ...(zone === null ? [] : [`  zone ${zone}`]),
    ...(rack === null ? [] : [`  rack ${rack}`]),
    ...(capacity === 1 ? [] : [`  capacity ${capacity}`]),
  ].join("")
  if (node === undefined) return `${id}  ${state}  ${held}${stands}`
  const { client, peer } = node.addresses
  const isPlain = node.state === "ready" || node.state === state || node.state === "leaving"
  const health = isPlain ? "" : ` (${node.state})`
  return `${id}  ${state}${health}  ${held}${stands}  pid ${node.pid}  clients ${client}  peers ${peer}`
}

const list = Command.make(
  "list",
  { json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const [listed, status, ranges] = yield* withCluster(options, (client) =>
      Effect.all([
        // Who belongs to the cluster is for its own group to say: without that, what the nodes know of each other is shown.
        Effect.catch(client.admin(verbs.nodeList, {}, { deadlineMs: listMs }), () =>
          Effect.succeed(undefined),
        ),
        client.status(),
        client.ranges(),
      ]),
    )
    const answering = new Map(status.nodes.map((node) => [node.id, node]))
    const shown = (listed as { readonly nodes: ReadonlyArray<ShownNode> } | undefined)?.nodes
    const records = new Map(shown?.map((record) => [record.id, record]))
    const ids = new Set([...records.keys(), ...answering.keys(), ...status.unreachable])
    const rows = [...ids]
      .sort((left, right) => left - right)
      .map((id) => {
        const replicas = ranges.filter(({ descriptor }) =>
          descriptor.replicas.some((place) => place.node === id),
        ).length
        const leads = ranges.filter(({ leader }) => leader === id).length
        const node = answering.get(id)
        const record = records.get(id)
        const state = record?.state ?? (node === undefined ? "unreachable" : "up")
        return { id: nodeName(id), state, replicas, leads, node, record }
      })
    if (options.json) return yield* printJson({ nodes: rows.map(asJson) })
    for (const row of rows) if (row.state !== "gone") yield* print(lineOf(row))
  }),
).pipe(
  Command.withShortDescription("Show the nodes and what they hold"),
  Command.withDescription(
    "Prints every node of the cluster: its state, how many ranges it has a replica of and how many it leads, where it stands, its process and addresses. A node that was let in and has not run since is `joining`; " +
      "one that does not answer its peers is `suspect`, and after 10 s `down`; one that is to hold nothing is `draining`. With --json those that were removed are listed, too, as `gone`.",
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
    const of = nodeName(node)
    const result = yield* longOrder(options, { verb: verbs.nodeRemove, args: { node }, of })
    if (options.json) return yield* printJson(result)
    const { moved, fewer } = result
    const said = typeof moved === "number" && moved > 0 ? `, ${moved} replicas were moved away` : ""
    yield* note(
      `${nodeName(node)} is no longer of the cluster${said}: its process ends by itself, and its data is of no more use`,
    )
    yield* noteCrowded(result)
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
    const of = nodeName(node)
    const result = yield* longOrder(options, { verb: verbs.nodeDrain, args: { node }, of })
    if (options.json) return yield* printJson(result)
    yield* note(
      `${nodeName(node)} is empty, ${result.moved} replicas were moved away: it stays in the cluster and is given nothing; kvorum node remove ${nodeName(node)} takes it out`,
    )
    yield* noteCrowded(result)
  }),
).pipe(
  Command.withShortDescription("Empty a node before it is taken out"),
  Command.withDescription(
    "Moves every replica of the node to other nodes, and its slots of eventual namespaces, and has it given nothing new. Data stays available meanwhile, with as many copies as before: where no other node " +
      "could take one, it is refused. The node stays in the cluster, answers and forwards, until kvorum node remove.",
  ),
  Command.withExamples([{ command: "kvorum node drain n2", description: "then node remove n2" }]),
)

const replace = Command.make(
  "replace",
  {
    node: Argument.String("node").pipe(
      Argument.withDescription("The node whose place another one takes: n2"),
    ),
    json: Flags.json,
    ...Flags.cluster,
  },
  Effect.fnUntraced(function* (options) {
    const node = yield* nodeOf("node", options.node)
    const of = nodeName(node)
    const result = yield* longOrder(options, { verb: verbs.nodeReplace, args: { node }, of })
    if (options.json) return yield* printJson(result)
    const { moved, by } = result as { readonly moved: number; readonly by: number }
    yield* note(
      `${nodeName(by)} has taken the place of ${of}: ${moved} replicas were moved, and ${of} is no longer of the cluster`,
    )
    yield* noteCrowded(result)
  }),
).pipe(
  Command.withShortDescription("Put another node in the place of one"),
  Command.withDescription(
    "Gives all that the node holds to the member with the fewest replicas, as a rule one that has just joined, and takes the node out of the cluster. It may run, or be down for good; what a node " +
      "that is down alone held is lost. Refused unless every range keeps as many copies as it has: let a new node join first.",
  ),
  Command.withExamples([
    { command: "kvorum node replace n2", description: "after a new node has joined" },
  ]),
)

export const node = Command.make("node").pipe(
  Command.withShortDescription("List, drain, remove and replace nodes"),
  Command.withDescription(
    "Nodes join with `kvorum serve --join HOST:PORT --data DIR`, and leave with `kvorum node remove`.",
  ),
  Command.withSubcommands([list, drain, remove, replace]),
)
