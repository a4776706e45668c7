import { Effect } from "effect"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import { eventualStatusLines, jsonEventualStatus } from "./eventualLines.ts"
import * as Flags from "./Flags.ts"
import { print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

export const status = Command.make(
  "status",
  { json: Flags.json, ...Flags.cluster },
  Effect.fnUntraced(function* (options) {
    const found = yield* withCluster(options, (client) => client.status())
    const nodes = [...found.nodes].sort((left, right) => left.id - right.id)
    const unreachable = [...found.unreachable].sort((left, right) => left - right).map(nodeName)
    if (options.json) {
      return yield* printJson({
        nodes: nodes.map(({ id, pid, state, addresses, eventual }) => {
          const { client, peer } = addresses
          const shown = jsonEventualStatus(eventual)
          return { id: nodeName(id), pid, state, addresses: { client, peer }, eventual: shown }
        }),
        unreachable,
      })
    }
    for (const { id, pid, state, addresses } of nodes) {
      yield* print(
        `${nodeName(id)}  ${state}  pid ${pid}  clients ${addresses.client}  peers ${addresses.peer}`,
      )
    }
    for (const name of unreachable) yield* print(`${name}  unreachable`)
    for (const { id, eventual } of nodes) {
      for (const line of eventualStatusLines(eventual)) yield* print(`${nodeName(id)}  ${line}`)
    }
  }),
).pipe(
  Command.withShortDescription("Show the nodes"),
  Command.withDescription(
    "Prints every node of the cluster: its state, process and addresses, or that it is out of reach; and where eventual namespaces differ between nodes, how far. With --json also what requests to them took at each level (p50, p95, p99 of the last 4,096).",
  ),
)
