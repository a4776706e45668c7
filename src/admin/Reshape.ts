import { Clock, Effect } from "effect"
import type { InvalidRequest, KvorumError } from "../Errors.ts"
import type { NodeId, RangeDescriptor, RangeId } from "../types.ts"
import type { RangeChange } from "../wire/native.ts"
import { oneAtATime } from "./OneAtATime.ts"
import { type Plane, pause, rangeOf } from "./Plane.ts"
import { heirOf, nextStep, votersOf, withLearners } from "./reshaping.ts"

/** A change that is not safe now may be so soon: a node comes back, a follower catches up. A change that only takes away is not waited for much longer. */
const patienceMs = 5000

/**
 * Who is to vote, by who votes now: reckoned anew at every look, so that what another order has done meanwhile stays done.
 */
export type Wish = (voters: ReadonlyArray<NodeId>) => ReadonlyArray<NodeId>

/**
 * Gives a range exactly the voters wished for, step by step (reshaping.ts): learners first, until they have caught up; then one joint change. Ends with the descriptor
 * of then. Asked for again after a crash anywhere, it goes on from where the range is. A change that would cost the range its majority is refused by
 * its leader, and after some patience here. Orders for the same range wait for each other (OneAtATime.ts).
 */
export const reshape = (plane: Plane, range: RangeId, wish: Wish) =>
  oneAtATime(plane, range, stepByStep(plane, range, wish))

const stepByStep = Effect.fnUntraced(function* (plane: Plane, range: RangeId, wish: Wish) {
  const beganMs = yield* Clock.currentTimeMillis
  let catchingUp = false
  const hasPatience = Effect.map(Clock.currentTimeMillis, (now) => now - beganMs < patienceMs)
  for (;;) {
    const { descriptor, leader } = yield* rangeOf(plane, range)
    const wanted = wish(votersOf(descriptor))
    const step = nextStep(descriptor, wanted)
    switch (step._tag) {
      case "Done":
        return descriptor
      case "Wait":
        yield* pause
        break
      case "Learn": {
        // New ids at every attempt: one that was refused may have been buried meanwhile.
        const learners = yield* Effect.forEach(step.nodes, (node) =>
          Effect.map(plane.meta.nextId("replica"), (replica) => ({ node, replica })),
        )
        const refused = yield* change(plane, descriptor, withLearners(descriptor, learners))
        if (refused === undefined) catchingUp = true
        else if (yield* hasPatience) yield* pause
        else return yield* refused
        break
      }
      case "Settle": {
        const heir = heirOf(descriptor, wanted, leader)
        if (heir !== undefined) yield* handOver(plane, range, heir)
        catchingUp ||= step.replicas.some(({ node }) => !votersOf(descriptor).includes(node))
        const refused = yield* change(plane, descriptor, step.replicas)
        if (refused === undefined) break
        // A learner takes as long as its snapshot takes; the order's deadline is its limit.
        if (catchingUp || (yield* hasPatience)) yield* pause
        else return yield* refused
        break
      }
      default:
        step satisfies never
    }
  }
})

/** One change of members. A refusal comes back as a value; a range that has moved on meanwhile is looked at anew. */
function change(
  plane: Plane,
  { id, membersVersion }: RangeDescriptor,
  replicas: RangeDescriptor["replicas"],
): Effect.Effect<InvalidRequest | undefined, KvorumError> {
  return plane.client
    .changeRange(id, { _tag: "ChangeMembers", membersVersion, replicas }, { deadlineMs: 30_000 })
    .pipe(
      Effect.as(undefined),
      Effect.catchTag("InvalidRequest", (error) => Effect.succeed(error)),
      Effect.catchTag("RangeMoved", () => Effect.as(pause, undefined)),
    )
}

/** A range that is not handed over is reshaped all the same: its leader then finishes the change without counting itself. */
function handOver(plane: Plane, range: RangeId, to: NodeId): Effect.Effect<void> {
  const order: RangeChange = { _tag: "Transfer", to }
  return plane.client.changeRange(range, order, { deadlineMs: 2000 }).pipe(Effect.ignore)
}
