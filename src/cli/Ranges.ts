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
  return namespaces.find(({ id }) => id === namespace)?.name ?? `namespace ${namespace}`
}

export const ranges = Command.make(
  "ranges",
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
      }
    })
    if (options.json) return yield* printJson({ ranges: rows })
    for (const row of rows) {
      const interval = `[${row.start}, ${row.end})`
      yield* print(
        `${row.id}  ${row.namespace ?? "-"}  ${interval}  leader ${row.leader ?? "-"}  term ${row.term}  index ${row.index}  replicas ${row.replicas.join(" ")}`,
      )
    }
  }),
).pipe(
  Command.withShortDescription("Show the ranges"),
  Command.withDescription(
    "Prints every range: the positions that it holds, from start up to end without end, in hexadecimal (an empty end is the end of the space), who leads it, and where its replicas are. " +
      "A position is namespace (4 bytes), slot (2 bytes) and key. The range of the cluster's own data is of namespace `system`.",
  ),
)
