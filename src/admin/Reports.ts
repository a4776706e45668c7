import { Effect } from "effect"
import { fromHex, toHex } from "../lib/bytes.ts"
import type { HotKey } from "../server/load/hotKeys.ts"
import type { RangeMeasure } from "../server/load/rangeMeasures.ts"
import type { ControlShape } from "../server/StoreService.ts"
import type { NodeId, RangeId } from "../types.ts"
import type { Plane } from "./Plane.ts"
import { verbs } from "./verbs.ts"

/** What a node says of the ranges that it leads, as the order `node.report` answers; positions are in hexadecimal. */
export interface NodeReport {
  readonly ranges: ReadonlyArray<MeasureAsJson>
}

interface MeasureAsJson extends Omit<RangeMeasure, "cut" | "hot"> {
  readonly cut: string | null
  readonly hot: ReadonlyArray<Omit<HotKey, "position"> & { readonly position: string }>
}

export function nodeReport(control: ControlShape): NodeReport {
  const ranges = control.measures().map((measure): MeasureAsJson => {
    const cut = measure.cut === undefined ? null : toHex(measure.cut)
    const hot = measure.hot.map((key) => ({ ...key, position: toHex(key.position) }))
    return { ...measure, cut, hot }
  })
  return { ranges }
}

const reportWaitMs = 2000

/** What every node that answers says, by range: what the leader says that was asked last, where two believe to lead. */
export const measuresOf = Effect.fnUntraced(function* (plane: Plane, nodes: ReadonlyArray<NodeId>) {
  const byRange = new Map<RangeId, RangeMeasure>()
  yield* Effect.forEach(
    nodes,
    (node) =>
      Effect.match(plane.client.admin(verbs.nodeReport, {}, { node, deadlineMs: reportWaitMs }), {
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

function measureOf({ cut, hot, ...rest }: MeasureAsJson): RangeMeasure {
  return {
    ...rest,
    cut: cut === null ? undefined : fromHex(cut),
    hot: hot.map((key) => ({ ...key, position: fromHex(key.position) ?? new Uint8Array() })),
  }
}
