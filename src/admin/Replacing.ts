import { Effect } from "effect"
import type { NodeId, RangeId } from "../types.ts"
import type { Plane } from "./Plane.ts"
import { addReplica, removeReplica } from "./Ranges.ts"
import { reshape } from "./Reshape.ts"

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

/**
 * Takes replicas off nodes that were removed. The order that removes a node leaves none behind that it can see; another one, which looked before, may place
 * one there after. Nobody would ever fill it, and as a voter it would count against the majority.
 */
export const removeStrayReplicas = Effect.fnUntraced(function* (plane: Plane) {
  const { control } = plane
  const removed = new Set<NodeId>()
  for (const { id, state } of control.directory().nodes) if (state === "removed") removed.add(id)
  for (const { id, replicas } of control.led()) {
    if (!replicas.some(({ node }) => removed.has(node))) continue
    yield* Effect.logInfo(`range ${id}: a replica on a node that was removed goes`)
    yield* reshape(plane, id, (voters) => voters.filter((node) => !removed.has(node)))
  }
})
