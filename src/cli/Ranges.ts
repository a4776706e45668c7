import { Effect } from "effect"
import { toHex } from "../lib/bytes.ts"
import type { NamespaceInfo, RangeReport } from "../wire/answers.ts"
import { withCluster } from "./Cluster.ts"
import { Command } from "./EffectCli.ts"
import * as Flags from "./Flags.ts"
import { print, printJson } from "./Output.ts"
import { nodeName } from "./receipts.ts"

/** The namespace of the meta group, which is in no list of namespaces. */
const systemNamespace = 0

function namespaceName(
  report: RangeReport,
  namespaces: ReadonlyArray<NamespaceInfo>,
): string | null {
  const { namespace } = report.descriptor
  if (namespace === undefined) return null
  if (namespace === systemNamespace) return "system"
  return namespaces.find(({ id }) => id === namespace)?.name ?? `namespace ${namespace} (deleted)`
}

/** `n1 n2 n4(learner)`. */
function placesText(row: {
  readonly replicas: ReadonlyArray<string>
  readonly roles: ReadonlyArray<string>
}): string {
  return row.replicas
    .map((name, i) => (row.roles[i] === "voter" ? name : `${name}(${row.roles[i]})`))
    .join(" ")
}

/** The command that lists the ranges, under the name given: it has two. */
export const rangeList = (name: string) =>
  Command.make(
    name,
    { json: Flags.json, ...Flags.cluster },
    Effect.fnUntraced(function* (options) {
      const [namespaces, reports] = yield* withCluster(options, (client) =>
        Effect.all([client.namespaces(), client.ranges()]),
      )
      const rows = reports.map((report) => {
        const { descriptor, leader, term, index } = report
        return {
          id: descriptor.id,
          namespace: namespaceName(report, namespaces),
          start: toHex(descriptor.start),
          end: toHex(descriptor.end),
          leader: leader === undefined ? null : nodeName(leader),
          term,
          index,
          replicas: descriptor.replicas.map(({ node }) => nodeName(node)),
          roles: descriptor.replicas.map(({ role }) => role),
        }
      })
      if (options.json) return yield* printJson({ ranges: rows })
      for (const row of rows) {
        const interval = `[${row.start}, ${row.end})`
        yield* print(
          `${row.id}  ${row.namespace ?? "-"}  ${interval}  leader ${row.leader ?? "-"}  term ${row.term}  index ${row.index}  replicas ${placesText(row)}`,
        )
      }
    }),
  ).pipe(
    Command.withShortDescription("Show the ranges"),
    Command.withDescription(
      "Prints every range: the positions that it holds, from start up to end without end, in hexadecimal (an empty end is the end of the space), who leads it, and where its replicas are. " +
        "A position is namespace (4 bytes), in a hash namespace slot (2 bytes), and key. A replica that is not a plain voter says so: a learner gets the data first; incoming and outgoing ones are being exchanged. The range of the cluster's own data is of namespace `system`.",
    ),
  )

export const ranges = rangeList("ranges")
