import { Effect } from "effect"
import type { ClientShape } from "../client/Client.ts"
import { fromHex, toHex } from "../lib/bytes.ts"
import type { HotKey } from "../server/load/hotKeys.ts"
import type { RangeMeasure } from "../server/load/rangeMeasures.ts"
import type { ControlShape } from "../server/StoreService.ts"
import type { NodeId, RangeId } from "../types.ts"
import { verbs } from "./verbs.ts"

/** What a node says of the ranges that it leads, as the order `node.report` answers; positions are in hexadecimal. */
export interface NodeReport {
  readonly ranges: ReadonlyArray<MeasureAsJson>
}

interface MeasureAsJson extends Omit<RangeMeasure, "hot"> {
  readonly hot: ReadonlyArray<Omit<HotKey, "position"> & { readonly position: string }>
}

export function nodeReport(control: ControlShape): NodeReport {
  const ranges = control.measures().map((measure): MeasureAsJson => {
    const hot = measure.hot.map((key) => ({ ...key, position: toHex(key.position) }))
    return { ...measure, hot }
  })
  return { ranges }
}

const reportWaitMs = 2000

/** What every node that answers says, by range: what the leader says that was asked last, where two believe to lead. */
export const measuresOf = Effect.fnUntraced(function* (
  client: ClientShape,
  nodes: ReadonlyArray<NodeId>,
) {
  const byRange = new Map<RangeId, RangeMeasure>()
  yield* Effect.forEach(
    nodes,
    (node) =>
      Effect.match(client.admin(verbs.nodeReport, {}, { node, deadlineMs: reportWaitMs }), {
        onSuccess: (report) => {
          for (const measure of (report as NodeReport).ranges) {
            byRange.set(measure.range, measureOf(measure))
          }
        },
        onFailure: () => undefined,
      }),
    { concurrency: 16, discard: true },
  )
  return byRange as ReadonlyMap<RangeId, RangeMeasure>
})

function measureOf({ hot, ...rest }: MeasureAsJson): RangeMeasure {
  const positions = hot.map((key) => fromHex(key.position) ?? new Uint8Array())
  return { ...rest, hot: hot.map((key, i) => ({ ...key, position: positions[i] as Uint8Array })) }
}
