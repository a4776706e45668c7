import { Effect } from "effect"
import { metaRange } from "../server/bootstrap.ts"
import type { NodeId, RangeId } from "../types.ts"
import { liveNodes, type Plane, rangesOf } from "./Plane.ts"
import { loadsOf, placeVoters } from "./placement.ts"
import { addReplica, removeReplica } from "./Ranges.ts"
import { reshape } from "./Reshape.ts"
import { votersOf } from "./reshaping.ts"

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

/**
 * Makes the replicas of nodes that have been down for so long anew, on nodes that are up: a range that lacks one is one failure nearer to standing still. A range that no other node could
 * take stays as it is. A node that comes back after all holds nothing, and is given something like any other.
 *
 * Slots of eventual namespaces stay with their owner: stand-ins and repair keep them, and a node that is gone for good is replaced by order (kvorum node replace), after which it may never answer again.
 */
export const replaceDead = Effect.fnUntraced(function* (plane: Plane, deadAfterMs: number) {
  const { control } = plane
  const dead = new Set<NodeId>()
  for (const { id, state } of control.directory().nodes) {
    const life = control.believes(id)
    if (state === "removed" || life?.belief !== "down" || life.forMs < deadAfterMs) continue
    dead.add(id)
  }
  if (dead.size === 0) return 0
  const candidates = (yield* liveNodes(plane)).filter(({ node }) => !dead.has(node))
  const descriptors = (yield* rangesOf(plane)).map(({ descriptor }) => descriptor)
  const loads = loadsOf(descriptors)
  let made = 0
  for (const descriptor of descriptors) {
    const voters = votersOf(descriptor)
    const keep = voters.filter((node) => !dead.has(node))
    // Without a majority of its voters a range takes no change.
    if (keep.length === voters.length || 2 * keep.length <= voters.length) continue
    const wanted = placeVoters({ candidates, loads, keep, present: [], count: voters.length })
    if (wanted.length < voters.length) continue
    for (const node of wanted) loads.set(node, (loads.get(node) ?? 0) + 1)
    const heirs = wanted.filter((node) => !keep.includes(node))
    const gone = voters.filter((node) => dead.has(node))
    yield* Effect.logInfo(
      `range ${descriptor.id}: ${named(gone)} has been down for long, a replica on ${named(heirs)} takes its place`,
    )
    yield* reshape(plane, descriptor.id, (present) => [
      ...present.filter((node) => !dead.has(node) && !heirs.includes(node)),
      ...heirs,
    ])
    made++
    if (!control.led().some(({ id }) => id === metaRange)) break
  }
  return made
})

function named(nodes: ReadonlyArray<NodeId>): string {
  return nodes.map((node) => `n${node}`).join(", ")
}
