import { Effect } from "effect"
import type { KvorumError } from "../Errors.ts"
import {
  type BalancedNode,
  type BalancedRange,
  type BalanceOptions,
  balanceDefaults,
  planBalance,
  type Step,
} from "../topology/balance.ts"
import { weightsOf } from "../topology/weights.ts"
import { invalid } from "./Meta.ts"
import { membersOf, type Plane, rangesOf } from "./Plane.ts"
import { measuresOf } from "./Reports.ts"
import { reshape } from "./Reshape.ts"
import { votersOf } from "./reshaping.ts"

/** Replicas that are copied at a time: each costs its source and its target a stream of the range's data. */
const atOnce = 2

/**
 * Moves replicas and leaders until every node carries about its share, by bytes, requests and number of ranges (topology/weights.ts), and every range is spread over as many failure domains as there are (topology/balance.ts).
 * With `dryRun` it says what it would begin with, and does nothing. Nodes that do not answer are given nothing, and so are those that are drained or removed. A plan at a time:
 * given again after a crash anywhere, it goes on from what there is then.
 */
export const rebalance = Effect.fnUntraced(function* (plane: Plane, dryRun: boolean) {
  let moved = 0
  let transferred = 0
  for (;;) {
    const steps = yield* nextSteps(plane, balanceDefaults)
    if (dryRun) return { moved, transferred, steps }
    if (steps.length === 0) return { moved, transferred, steps }
    const before = moved + transferred
    // Of this plan; what it leaves to do the next one knows.
    const total = before + steps.length
    plane.report?.({ done: before, total, doneBytes: 0, totalBytes: 0 })
    const done = yield* carryOutAll(plane, steps, (count) =>
      plane.report?.({ done: before + count, total, doneBytes: 0, totalBytes: 0 }),
    )
    moved += done.moved
    transferred += done.transferred
    if (done.moved + done.transferred > 0) continue
    const [{ range }] = steps as [Step]
    return yield* invalid(
      `range ${range} could not be changed as planned: a node of it may be down; what was moved before stays`,
    )
  }
})

const carryOutAll = Effect.fnUntraced(function* (
  plane: Plane,
  steps: ReadonlyArray<Step>,
  told: (count: number) => void = () => {},
) {
  let moved = 0
  let transferred = 0
  yield* Effect.forEach(
    steps,
    Effect.fnUntraced(function* (step: Step) {
      const isDone = yield* carryOut(plane, step)
      if (!isDone) return
      if (step._tag === "Move") moved++
      else transferred++
      told(moved + transferred)
    }),
    { concurrency: atOnce, discard: true },
  )
  return { moved, transferred }
})

/** Looks whether nodes are out of balance, and where `isDue` takes one step after another, each by a plan of its own time, as long as `goesOn`. True when they are. */
export const evenOut = Effect.fnUntraced(function* (
  plane: Plane,
  {
    options,
    isDue,
    goesOn,
  }: {
    readonly options: BalanceOptions
    readonly isDue: boolean
    readonly goesOn: () => boolean
  },
) {
  for (let isFirst = true; ; isFirst = false) {
    const steps = yield* nextSteps(plane, options)
    if (steps.length === 0 || !isDue) return !isFirst || steps.length > 0
    let done = 0
    for (const step of steps) {
      if (!goesOn()) return true
      const { _tag, range, from, to } = step
      const what = _tag === "Move" ? "moves" : "is handed over"
      yield* Effect.logInfo(
        `range ${range} ${what} from n${from} to n${to}: nodes carry unequal shares`,
      )
      if (yield* carryOut(plane, step)) done++
    }
    if (done === 0) return true
  }
})

const nextSteps = Effect.fnUntraced(function* (plane: Plane, options: BalanceOptions) {
  const records = new Map((yield* plane.meta.read).directory.nodes.map((each) => [each.id, each]))
  const members = yield* membersOf(plane)
  const up = members.filter(({ isUp }) => isUp).map(({ node }) => node)
  const weightOf = weightsOf(yield* measuresOf(plane.client, up))
  const nodes = members.map(({ node, host, isUp, isLeaving }): BalancedNode => {
    const { zone = "", rack = "", capacity = 1 } = records.get(node) ?? {}
    return { node, zone, rack, host, capacity, takes: isUp && !isLeaving }
  })
  const ranges = (yield* rangesOf(plane)).map(({ descriptor, leader }): BalancedRange => {
    return {
      id: descriptor.id,
      replicas: votersOf(descriptor),
      leader,
      weight: weightOf(descriptor.id),
    }
  })
  return planBalance(nodes, ranges, options)
})

/** False where the range was another by then: the next plan sees it. */
function carryOut(plane: Plane, step: Step): Effect.Effect<boolean> {
  const { range, from, to } = step
  const done: Effect.Effect<unknown, KvorumError> =
    step._tag === "Lead"
      ? plane.client.changeRange(range, { _tag: "Transfer", to }, { deadlineMs: 5000 })
      : reshape(plane, range, (voters) =>
          voters.includes(from) && !voters.includes(to)
            ? [...voters.filter((node) => node !== from), to]
            : voters,
        )
  return Effect.match(done, { onSuccess: () => true, onFailure: () => false })
}
