import { Effect } from "effect"
import type { Plane } from "./Plane.ts"
import { addReplica, removeReplica } from "./Ranges.ts"

/**
 * Replaces the replicas that hold other data than most of their range (server/comparison.ts): the odd one is removed, with its data, and a new one takes its
 * place on the same node, filled by a snapshot. One after another, so that a range lacks one replica at a time. What stops on its way is found again in a
 * later round.
 */
export const replaceOddReplicas = Effect.fnUntraced(function* (plane: Plane) {
  for (const { range, node } of plane.control.odd()) {
    yield* Effect.logWarning(`range ${range}: its replica on n${node} differs and is replaced`)
    yield* removeReplica(plane, range, node)
    yield* addReplica(plane, range, node)
    yield* Effect.logInfo(`range ${range}: its replica on n${node} was replaced`)
  }
})
