import { Effect } from "effect"
import { equalBytes } from "../lib/bytes.ts"
import { metaRange } from "../server/bootstrap.ts"
import { rangeAsJson } from "../server/directory.ts"
import { areTogether } from "../server/merge/state.ts"
import type { RangeDescriptor, RangeId } from "../types.ts"
import { boundaryKey, invalid } from "./Meta.ts"
import { type Plane, pause, rangesOf } from "./Plane.ts"
import { reshape } from "./Reshape.ts"
import { votersOf } from "./reshaping.ts"

interface Neighbours {
  readonly target: RangeDescriptor
  readonly source: RangeDescriptor
}

/**
 * Makes one range of two neighbours, named in either order: the left one keeps its id. The replicas of the right one are brought to the nodes of the left one first;
 * then the groups do the rest (server/merge/merges.ts). What fails for want of a replica that answers in time is tried again until the order's deadline. Given again
 * after a crash anywhere, it goes on from where the ranges are.
 */
export const mergeRanges = Effect.fnUntraced(function* (
  plane: Plane,
  one: RangeId,
  other: RangeId,
) {
  for (;;) {
    const { target, source } = yield* neighboursOf(plane, one, other)
    const wanted = votersOf(target)
    if (target.replicas.some(({ role }) => role !== "voter")) {
      // A change is under way, or was broken off and has left a learner.
      yield* reshape(plane, target.id, (voters) => voters)
      continue
    }
    if (!areTogether(target.replicas, source.replicas)) {
      yield* reshape(plane, source.id, () => wanted)
      continue
    }
    const { boundsVersion } = target
    const merged = yield* plane.client
      .changeRange(target.id, { _tag: "Merge", boundsVersion, source: source.id })
      .pipe(
        // One of them was changed meanwhile, or a replica was slow: both are looked at anew.
        Effect.catchTag(["RangeMoved", "Overloaded", "OutcomeUnknown"], () =>
          Effect.as(pause, undefined),
        ),
      )
    if (merged !== undefined) {
      yield* plane.meta.remove(boundaryKey(source.start))
      return { descriptor: rangeAsJson(merged.descriptor) }
    }
    if (yield* isMerged(plane, target, source)) {
      yield* plane.meta.remove(boundaryKey(source.start))
      return { descriptor: rangeAsJson(yield* present(plane, target.id)) }
    }
  }
})

const neighboursOf = Effect.fnUntraced(function* (plane: Plane, one: RangeId, other: RangeId) {
  if (one === other) return yield* invalid(`range ${one} is named twice`)
  const left = yield* present(plane, one)
  const right = yield* present(plane, other)
  const [target, source] = touches(left, right) ? [left, right] : [right, left]
  if (!touches(target, source)) {
    return yield* invalid(
      `ranges ${one} and ${other} are no neighbours: kvorum range list shows which are`,
    )
  }
  if (target.id === metaRange || source.id === metaRange) {
    return yield* invalid("range 0 holds the cluster's own data: it stays alone")
  }
  if (target.namespace === undefined || target.namespace !== source.namespace) {
    return yield* invalid(`ranges ${one} and ${other} are not of one namespace`)
  }
  return { target, source } satisfies Neighbours
})

const present = Effect.fnUntraced(function* (plane: Plane, id: RangeId) {
  const ranges = yield* rangesOf(plane)
  const found = ranges.find(({ descriptor }) => descriptor.id === id)?.descriptor
  return found ?? (yield* invalid(`there is no range ${id}`))
})

function touches(left: RangeDescriptor, right: RangeDescriptor): boolean {
  return left.end.length > 0 && equalBytes(left.end, right.start)
}

/** An answer that was lost may have told that it is done. */
const isMerged = Effect.fnUntraced(function* (
  plane: Plane,
  target: RangeDescriptor,
  source: RangeDescriptor,
) {
  const ranges = yield* rangesOf(plane)
  const isGone = ranges.every(({ descriptor }) => descriptor.id !== source.id)
  return isGone && ranges.some(({ descriptor }) => descriptor.id === target.id)
})
