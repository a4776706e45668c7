import { Clock, Deferred, Effect } from "effect"
import { InvalidRequest, type KvorumError, Overloaded } from "../Errors.ts"
import { text } from "../lib/bytes.ts"
import { metaRange } from "../server/bootstrap.ts"
import type { Plane, Progress } from "./Plane.ts"
import type { Order } from "./verbs.ts"

/**
 * Orders that copy data and may take hours outlive whoever carries them out, and whoever gave them. Each is written down in the meta group first:
 *
 *     order/ID   {"verb","args","state","node","run","untilMs","progress","result","error"}
 *
 * The node that was asked carries it out, and says while it does, every few seconds, how far it is and that it is still there. When it has said nothing for a while, the leader of
 * the meta group takes the order over, and begins the procedure again, which goes on from what there is. What came of it stays to be read for some minutes.
 *
 * As with every procedure nothing rests on there being one runner only: one that was taken over and goes on finds every step refused or done.
 */
export interface LongOrder {
  readonly verb: string
  readonly args: unknown
  readonly state: "running" | "done" | "failed"
  readonly node: number
  /** Tells apart what one node does at different times. */
  readonly run: string
  /** Wall clock: until then it counts as being carried out; of one that has ended: it may be forgotten after that. */
  readonly untilMs: number
  readonly progress: Progress | undefined
  readonly result?: unknown
  readonly error?: { readonly invalid: boolean; readonly message: string }
}

const prefix = "order/"
const keyOf = (id: string) => `${prefix}${id}`
const idPattern = /^[0-9a-zA-Z-]{8,64}$/

const leaseMs = 8000
const sayMs = 1000
/** A leader of the meta group gives a runner so much more than it asked for: their clocks may differ. */
const graceMs = 2000
const keptMs = 600_000
const takeOverEveryMs = 2000
/** Orders under way, and some that have ended and make room; more are refused. */
const longOrdersMax = 64

const longOrders: ReadonlyArray<Order["_tag"]> = [
  "NodeDrain",
  "NodeRemove",
  "NodeReplace",
  "Rebalance",
  "RangeMove",
]

export function isLong(order: Order): boolean {
  return longOrders.includes(order._tag) && !(order._tag === "Rebalance" && order.dryRun)
}

/** The id that the one who asks has given it; any other is made here. */
export function orderIdOf(args: unknown): string {
  const given = (args as { readonly order?: unknown } | null | undefined)?.order
  return typeof given === "string" && idPattern.test(given) ? given : crypto.randomUUID()
}

/** How the control plane carries an order out. */
export type CarryOut = (
  plane: Plane,
  verb: string,
  args: unknown,
) => Effect.Effect<unknown, KvorumError>

const readOrder = Effect.fnUntraced(function* ({ client }: Plane, id: string) {
  const found = yield* client.get("system", keyOf(id), { deadlineMs: 5000 })
  if (!found.found) return undefined
  return { order: JSON.parse(text(found.value)) as LongOrder, version: found.version }
})

/** What has become of an order. */
export const showOrder = Effect.fnUntraced(function* (plane: Plane, id: string) {
  const found = yield* readOrder(plane, id)
  if (found === undefined) {
    return yield* new InvalidRequest({ detail: `there is no order ${id}, or it ended long ago` })
  }
  return found.order
})

/** Orders that this node carries out. */
export class LongOrders {
  private readonly plane: Plane
  private readonly carryOut: CarryOut
  /** Begins a fiber that ends with the node. */
  private readonly fork: (work: Effect.Effect<void>) => void

  constructor(plane: Plane, carryOut: CarryOut, fork: (work: Effect.Effect<void>) => void) {
    this.plane = plane
    this.carryOut = carryOut
    this.fork = fork
  }

  /** Writes the order down and waits for its end, which it does not depend on: it goes on when nobody waits any more. One that is there already is waited for. */
  readonly run = Effect.fnUntraced(function* (
    this: LongOrders,
    id: string,
    verb: string,
    args: unknown,
  ): Effect.fn.Return<unknown, KvorumError> {
    const { plane } = this
    if ((yield* this.keys()).length >= longOrdersMax) yield* this.forgetEnded()
    if ((yield* this.keys()).length >= longOrdersMax) {
      return yield* new Overloaded({ what: "the list of long orders" })
    }
    const order = yield* this.newRun({ verb, args })
    if (!(yield* plane.meta.create(keyOf(id), JSON.stringify(order)))) {
      return yield* this.awaitEnd(id)
    }
    return yield* Deferred.await(this.begin(id, order))
  })

  private keys(): Effect.Effect<ReadonlyArray<string>, KvorumError> {
    return Effect.map(this.plane.meta.read, ({ versions }) =>
      [...versions.keys()].filter((key) => key.startsWith(prefix)),
    )
  }

  private readonly forgetEnded = Effect.fnUntraced(function* (this: LongOrders) {
    for (const key of yield* this.keys()) {
      const found = yield* readOrder(this.plane, key.slice(prefix.length))
      if (found !== undefined && found.order.state !== "running") yield* this.plane.meta.remove(key)
    }
  })

  private newRun({ verb, args }: Pick<LongOrder, "verb" | "args">) {
    return Effect.map(Clock.currentTimeMillis, (nowMs): LongOrder => {
      const { id: node } = this.plane.control.self
      const run = crypto.randomUUID()
      const lease = { node, run, untilMs: nowMs + leaseMs }
      return { verb, args, state: "running", ...lease, progress: undefined }
    })
  }

  private readonly awaitEnd = Effect.fnUntraced(function* (this: LongOrders, id: string) {
    for (;;) {
      const { state, result, error } = yield* showOrder(this.plane, id)
      if (state === "done") return result
      if (state === "failed") {
        const detail = error?.message ?? "it failed"
        return yield* new InvalidRequest({ detail })
      }
      yield* Effect.sleep(sayMs)
    }
  })

  /** What it ends with goes to whoever waits here, and into the record. */
  private begin(id: string, order: LongOrder): Deferred.Deferred<unknown, KvorumError> {
    const ended = Deferred.makeUnsafe<unknown, KvorumError>()
    let progress: Progress | undefined
    const plane: Plane = {
      ...this.plane,
      report: (present) => {
        progress = present
      },
    }
    const work = Effect.raceFirst(
      Effect.suspend(() => this.carryOut(plane, order.verb, order.args)),
      this.keep(id, order, () => progress),
    )
    const whole = Effect.matchEffect(work, {
      onSuccess: (result) =>
        Effect.andThen(
          this.close(id, order, { state: "done", result }),
          Deferred.succeed(ended, result),
        ),
      onFailure: (error) =>
        Effect.andThen(
          this.close(id, order, {
            state: "failed",
            error: { invalid: error._tag === "InvalidRequest", message: error.message },
          }),
          Deferred.fail(ended, error),
        ),
    })
    this.fork(
      Effect.catchCause(Effect.asVoid(whole), (cause) =>
        Effect.logError(`${order.verb} stopped`, cause),
      ),
    )
    return ended
  }

  /** Says that it goes on, and how far it is; ends only by failing, when another one has taken over. The meta group may be out of reach for a while. */
  private readonly keep = Effect.fnUntraced(function* (
    this: LongOrders,
    id: string,
    order: LongOrder,
    progress: () => Progress | undefined,
  ): Effect.fn.Return<never, KvorumError> {
    let said: Progress | undefined
    let saidMs = yield* Clock.currentTimeMillis
    for (;;) {
      yield* Effect.sleep(sayMs)
      const nowMs = yield* Clock.currentTimeMillis
      const present = progress()
      if (present === said && nowMs - saidMs < leaseMs / 3) continue
      const isMine = yield* this.write(id, {
        ...order,
        untilMs: nowMs + leaseMs,
        progress: present,
      }).pipe(Effect.catch(() => Effect.succeed(undefined)))
      if (isMine === false) {
        return yield* new Overloaded({ what: `the order ${id}, which another node took over,` })
      }
      if (isMine === undefined) continue
      said = present
      saidMs = nowMs
    }
  })

  /** False when the order is another's by now. */
  private readonly write = Effect.fnUntraced(function* (
    this: LongOrders,
    id: string,
    order: LongOrder,
  ) {
    const found = yield* readOrder(this.plane, id)
    if (found?.order.run !== order.run || found.order.state !== "running") return false
    yield* this.plane.meta.set(keyOf(id), JSON.stringify(order), found.version)
    return true
  })

  private close(
    id: string,
    order: LongOrder,
    end: Pick<LongOrder, "state" | "result" | "error">,
  ): Effect.Effect<void> {
    return Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
      this.write(id, { ...order, ...end, untilMs: nowMs + keptMs }),
    ).pipe(
      // Nobody hears of the end else, and the order would be carried out once more, which finds nothing to do.
      Effect.retry({ times: 5 }),
      Effect.ignore,
    )
  }

  /** Never ends: by the leader of the meta group, takes over what nobody carries out any more, and forgets what ended long ago. */
  readonly takeOver = Effect.fnUntraced(function* (this: LongOrders) {
    for (;;) {
      yield* Effect.sleep(takeOverEveryMs)
      if (!this.plane.control.led().some(({ id }) => id === metaRange)) continue
      yield* Effect.catch(this.look(), ({ message }) =>
        Effect.logDebug(`long orders were not looked at: ${message}`),
      )
    }
  })

  private readonly look = Effect.fnUntraced(function* (this: LongOrders) {
    const { meta } = this.plane
    const nowMs = yield* Clock.currentTimeMillis
    for (const key of yield* this.keys()) {
      const id = key.slice(prefix.length)
      const found = yield* readOrder(this.plane, id)
      if (found === undefined || nowMs < found.order.untilMs + graceMs) continue
      if (found.order.state !== "running") {
        yield* meta.remove(key)
        continue
      }
      const order = yield* this.newRun(found.order)
      if (!(yield* meta.set(key, JSON.stringify(order), found.version))) continue
      yield* Effect.logInfo(
        `${order.verb}: n${found.order.node}, which carried it out, is silent: n${order.node} goes on with it`,
      )
      this.begin(id, order)
    }
  })
}
