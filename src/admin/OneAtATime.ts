import { Clock, Effect } from "effect"
import { type KvorumError, Overloaded } from "../Errors.ts"
import { text } from "../lib/bytes.ts"
import type { RangeId } from "../types.ts"
import { type Plane, pause } from "./Plane.ts"

/** Who changes a range's members now; the key is struck out when that is done. */
interface Holder {
  readonly node: number
  /** Tells apart what one node does at once. */
  readonly order: string
  readonly untilMs: number
}

const keyOf = (range: RangeId) => `changing/${range}`
/** A holder that has crashed stands in the way for so long. */
const holdMs = 10_000
const renewMs = 3000

function holderOf(value: string): Holder | undefined {
  try {
    const { node, order, untilMs } = JSON.parse(value)
    return typeof untilMs === "number" ? { node, order, untilMs } : undefined
  } catch {
    return undefined
  }
}

/**
 * Changes of one range's members are carried out one after another, whatever nodes their orders were given to: two that want different things would make and
 * take away replicas by turns. Which of them goes first is written down in the meta group, and the other waits for as long as its order may take.
 *
 * It keeps order, and nothing rests on it: clocks decide when a holder that no longer renews is passed over, and a second one that comes too early finds every
 * step of the first refused or done, because ranges change by the version that was looked at (Reshape.ts).
 */
export const oneAtATime = <A, E>(
  plane: Plane,
  range: RangeId,
  procedure: Effect.Effect<A, E>,
): Effect.Effect<A, E | KvorumError> =>
  Effect.flatMap(acquire(plane, range), (order) =>
    Effect.raceFirst(procedure, keepRenewing(plane, range, order)).pipe(
      Effect.ensuring(Effect.ignore(release(plane, range, order))),
    ),
  )

const read = Effect.fnUntraced(function* ({ client }: Plane, range: RangeId, deadlineMs = 5000) {
  const found = yield* client.get("system", keyOf(range), { deadlineMs })
  return found.found
    ? { holder: holderOf(text(found.value)), version: found.version }
    : { holder: undefined, version: undefined }
})

const acquire = Effect.fnUntraced(function* (plane: Plane, range: RangeId) {
  // Also other than those of this node's life before, which may still be written down.
  const order = crypto.randomUUID()
  for (;;) {
    const { holder, version } = yield* read(plane, range)
    const nowMs = yield* Clock.currentTimeMillis
    const isFree = holder === undefined || nowMs >= holder.untilMs
    if (isFree && (yield* write(plane, range, { order, version }))) return order
    yield* pause
  }
})

const write = Effect.fnUntraced(function* (
  plane: Plane,
  range: RangeId,
  options: { readonly order: string; readonly version: number | undefined },
) {
  const nowMs = yield* Clock.currentTimeMillis
  const { order, version } = options
  const holder: Holder = { node: plane.control.self.id, order, untilMs: nowMs + holdMs }
  return yield* plane.meta.set(keyOf(range), JSON.stringify(holder), version)
})

/** Ends only by failing: when another one has taken the place, which takes a holder that could not renew for long. */
const keepRenewing = Effect.fnUntraced(function* (plane: Plane, range: RangeId, order: string) {
  for (;;) {
    yield* Effect.sleep(renewMs)
    const { holder, version } = yield* read(plane, range)
    if (holder?.order !== order) {
      return yield* new Overloaded({ what: `the queue for range ${range}` })
    }
    yield* write(plane, range, { order, version })
  }
})

/** A node that stops does not wait for it for long: what is not struck out ends by itself. */
const release = Effect.fnUntraced(function* (plane: Plane, range: RangeId, order: string) {
  const deadlineMs = 1000
  const { holder } = yield* read(plane, range, deadlineMs)
  if (holder?.order === order) yield* plane.client.delete("system", keyOf(range), { deadlineMs })
})
