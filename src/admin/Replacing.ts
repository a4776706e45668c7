import { Effect } from "effect"
import type { NodeId, RangeId } from "../types.ts"
import type { Plane } from "./Plane.ts"
import { addReplica, removeReplica } from "./Ranges.ts"

interface Place {
  readonly range: RangeId
  readonly node: NodeId
}

const prefix = "replacing/"
const keyOf = ({ range, node }: Place) => `${prefix}${range}/${node}`

function placeOf(key: string): Place | undefined {
  const match = /^replacing\/(\d+)\/(\d+)$/.exec(key)
  return match === null ? undefined : { range: Number(match[1]), node: Number(match[2]) }
}

/**
 * Replaces the replicas that hold other data than most of their range (server/comparison.ts): the odd one is removed, with its data, and a new one takes its
 * place on the same node, filled by a snapshot. One after another, so that a range lacks one replica at a time.
 *
 * What is to be replaced is written down first, in the meta group, and struck out last: whoever leads the range goes on with what stopped on its way.
 */
export const replaceOddReplicas = Effect.fnUntraced(function* (plane: Plane) {
  const { control, meta } = plane
  for (const odd of control.odd()) yield* meta.create(keyOf(odd), "odd")
  const led = new Set(control.led().map(({ id }) => id))
  const { versions } = yield* meta.read
  for (const key of versions.keys()) {
    const place = placeOf(key)
    if (place === undefined || !led.has(place.range)) continue
    const { range, node } = place
    const isOdd = control.odd().some((odd) => odd.range === range && odd.node === node)
    yield* Effect.logWarning(`range ${range}: its replica on n${node} differs and is replaced`)
    if (isOdd) yield* removeReplica(plane, range, node)
    yield* addReplica(plane, range, node)
    yield* meta.remove(key)
    yield* Effect.logInfo(`range ${range}: its replica on n${node} was replaced`)
  }
})
