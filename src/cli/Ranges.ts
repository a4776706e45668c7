import { Effect } from "effect"
import { measuresOf } from "../admin/Reports.ts"
import type { ClientShape } from "../client/Client.ts"
import { sizeText } from "../doctor/keyText.ts"
import { text, toHex } from "../lib/bytes.ts"
import { keyIn } from "../lib/position.ts"
import type { RangeMeasure } from "../server/load/rangeMeasures.ts"
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

/** What the leaders say that answer: how large a range is, and what is asked of it. */
const measures = (client: ClientShape) =>
  Effect.flatMap(client.status(), ({ nodes }) =>
    measuresOf(
      client,
      nodes.map(({ id }) => id),
    ),
  )

/** Keys that have a large part of a range's load. */
function hotKeys(
  { hot }: RangeMeasure,
  { descriptor }: RangeReport,
  namespaces: ReadonlyArray<NamespaceInfo>,
) {
  const namespace = namespaces.find(({ id }) => id === descriptor.namespace)
  return hot.map(({ position, share }) => {
    const key = keyIn(namespace?.partitioning ?? "ordered", position)
    return { key: text(key), percent: Math.round(100 * share) }
  })
}

function measureText({ bytes, entries, requestsPerSecond }: RangeMeasure): string {
  return `  size ${sizeText(bytes)}  entries ${entries}  load ${Math.round(requestsPerSecond)}/s`
}

/** The command that lists the ranges, under the name given: it has two. */
export const rangeList = (name: string) =>
  Command.make(
    name,
    { json: Flags.json, ...Flags.cluster },
    Effect.fnUntraced(function* (options) {
      const [namespaces, reports, measured] = yield* withCluster(options, (client) =>
        Effect.all([client.namespaces(), client.ranges(), measures(client)]),
      )
      const rows = reports.map((report) => {
        const { descriptor, leader, term, index } = report
        const measure = measured.get(descriptor.id)
        const { bytes = null, entries = null, requestsPerSecond = null } = measure ?? {}
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
          ...{ bytes, entries, requestsPerSecond },
          hot: measure === undefined ? [] : hotKeys(measure, report, namespaces),
        }
      })
      if (options.json) return yield* printJson({ ranges: rows })
      for (const row of rows) {
        const interval = `[${row.start}, ${row.end})`
        const measure = measured.get(row.id)
        const size = measure === undefined ? "" : measureText(measure)
        const hot = row.hot.map(({ key, percent }) => `  hot ${JSON.stringify(key)} ${percent} %`)
        yield* print(
          `${row.id}  ${row.namespace ?? "-"}  ${interval}  leader ${row.leader ?? "-"}  term ${row.term}  index ${row.index}  replicas ${placesText(row)}${size}${hot.join("")}`,
        )
      }
    }),
  ).pipe(
    Command.withShortDescription("Show the ranges"),
    Command.withDescription(
      "Prints every range: the positions that it holds, from start up to end without end, in hexadecimal (an empty end is the end of the space), who leads it, where its replicas are, about how much they hold (older values that are not dropped yet included) and how much is asked of the leader, with keys that have a fifth of that or more. " +
        "A position is namespace (4 bytes), in a hash namespace slot (2 bytes), and key. A replica that is not a plain voter says so: a learner gets the data first; incoming and outgoing ones are being exchanged. The range of the cluster's own data is of namespace `system`.",
    ),
  )

export const ranges = rangeList("ranges")
