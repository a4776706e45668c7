import { Context, Effect, FiberSet, Layer, Option, Queue, Semaphore } from "effect"
import { Client } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { metaRange } from "../server/bootstrap.ts"
import { type AdminOrder, type AdminReply, Control } from "../server/StoreService.ts"
import type { Refusal } from "../wire/answers.ts"
import { isolateTag } from "./Isolating.ts"
import { keepDirectory } from "./Keeping.ts"
import { isLong, LongOrders, orderIdOf, showOrder } from "./LongOrders.ts"
import { mergeRanges } from "./Merging.ts"
import { invalid, Meta } from "./Meta.ts"
import { createNamespace, deleteNamespace, listNamespaces } from "./Namespaces.ts"
import { drainNode, joinNode, removeNode, replaceNode } from "./Nodes.ts"
import { nodesShown } from "./NodesShown.ts"
import { type Plane, pause } from "./Plane.ts"
import { addReplica, moveReplica, removeReplica, splitByOrder, transferRange } from "./Ranges.ts"
import { rebalance } from "./Rebalancing.ts"
import { removeStrayReplicas, replaceOddReplicas } from "./Replacing.ts"
import { nodeReport } from "./Reports.ts"
import { stepRing } from "./RingKeeping.ts"
import { ringShown } from "./ringShown.ts"
import { type TendingPolicy, tend, tendingDefaults } from "./Tending.ts"
import { type Order, parseOrder } from "./verbs.ts"

/**
 * The control plane: who is in the cluster, which namespaces there are, where ranges lie, and the procedures that change it.
 *
 * It has no state and no leader of its own. What is known is in the meta group, an ordinary range (range 0, namespace `system`), as
 * ordinary keys (server/directory.ts), read and written over the ordinary client; what ranges are is in their own logs. Every node runs the same thing:
 *
 * 1. Every second, and when a node unknown here calls, it reads the directory (Keeping.ts) and hands it to its node, which then knows new peers, moved
 *    ranges and namespaces, refuses nodes that were removed, and keeps a copy on disk.
 * 2. It reports the ranges that it leads where the directory is behind. The leader of the meta group writes what a cluster begins with.
 * 3. An order comes through the native door of any node (wire/native.ts, kind 7), and that node carries it out, as a procedure: a loop that looks how
 *    far things are and does the next step, until there is none.
 *
 * Invariants:
 * - Procedures keep nothing in memory that they need: after a crash anywhere the same order, given to any node, goes on.
 * - Two procedures at once cannot undo each other: records change by condition, ranges by the version that was looked at, and the members of one range by one
 *   order at a time (OneAtATime.ts).
 * - An id of a node, namespace, range or replica is given out once; one that a crash made useless is lost.
 * - Data does not depend on any of this: with the meta group out of reach reads and writes go on, and only orders wait.
 *
 * What needs no order, such as cuts of ranges that have grown, is in Tending.ts.
 *
 * Orders that copy data outlive those who carry them out (LongOrders.ts); any other one whose deadline passes says how far it came, and is given again.
 */
const everyMs = 1000
/** While there is no ring yet, with which founding ends: somebody waits. */
const foundingMs = 100
/** A round that takes longer waits for a meta group that is out of reach. */
const roundMs = 10_000
const ordersMax = 64
const enterMs = 5000
/** Replicas that differ from their peers, or lie on nodes that were removed, are looked for so often, and seen to for so long in one go. */
const replaceEveryMs = 2000
const replacingMs = 600_000
const ringEveryMs = 1000

export const layer = (options: {
  /** `host:port` of native doors, besides those that the node knows already. */
  readonly contacts: ReadonlyArray<string>
  /** What the cluster sees to by itself; "none" = nothing but orders moves, cuts or merges ranges. Default: Tending.ts. */
  readonly tending?: TendingPolicy | "none" | undefined
}) => Layer.effectDiscard(make(options))

const make = Effect.fnUntraced(function* (options: Parameters<typeof layer>[0]) {
  const { contacts, tending = tendingDefaults } = options
  const control = yield* Control
  const { self, founders, directory } = control
  const known = [...founders, ...directory().nodes].map((node) => node.client)
  const endpoints = [...new Set([...contacts, ...known, self.client])]
  const context = yield* Layer.build(Client.layer({ endpoints, internal: true }))
  const client = Context.get(context, Client)
  const meta = new Meta(client)
  const mutex = yield* Semaphore.make(1)
  // One round after another, so that the directory never goes back.
  const refresh = mutex.withPermits(1)(keepDirectory(control, meta))
  const plane: Plane = { client, meta, control, refresh }
  yield* sayThatItRuns(plane)
  const wanted = yield* Queue.sliding<void>(1)
  control.whenUnknown(() => void Queue.offerUnsafe(wanted, undefined))
  yield* Effect.timeoutOption(refresh, roundMs).pipe(
    Effect.catch((error) => Effect.logDebug(`the directory was not read: ${error.message}`)),
    Effect.andThen(
      Effect.suspend(() => {
        const isFounding = directory().ring === undefined
        return Effect.timeoutOption(Queue.take(wanted), isFounding ? foundingMs : everyMs)
      }),
    ),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("the directory is no longer kept", cause)),
    Effect.forkScoped,
  )
  yield* Effect.timeoutOption(replaceOddReplicas(plane), replacingMs).pipe(
    Effect.catch((error) => Effect.logWarning(`a replica was not replaced: ${error.message}`)),
    Effect.delay(replaceEveryMs),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("odd replicas are no longer replaced", cause)),
    Effect.forkScoped,
  )
  yield* Effect.timeoutOption(removeStrayReplicas(plane), replacingMs).pipe(
    Effect.catch((error) => Effect.logWarning(`a stray replica was not removed: ${error.message}`)),
    Effect.delay(replaceEveryMs),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("stray replicas are no longer removed", cause)),
    Effect.forkScoped,
  )
  yield* Effect.timeoutOption(keepRing(plane), replacingMs).pipe(
    Effect.catch((error) => Effect.logDebug(`the ring was not looked at: ${error.message}`)),
    Effect.delay(ringEveryMs),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("the ring is no longer kept", cause)),
    Effect.forkScoped,
  )
  if (tending !== "none") {
    yield* tend(plane, tending).pipe(
      Effect.tapCause((cause) => Effect.logError("the cluster no longer tends itself", cause)),
      Effect.forkScoped,
    )
  }
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  const longOrders = new LongOrders(
    plane,
    (reporting, verb, args) => {
      const order = parseOrder(verb, args)
      return typeof order === "string" ? invalid(order) : procedure(reporting, order)
    },
    run,
  )
  yield* longOrders.takeOver().pipe(
    Effect.tapCause((cause) => Effect.logError("long orders are no longer taken over", cause)),
    Effect.forkScoped,
  )
  let underWay = 0
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      control.appoint((order, reply) => {
        if (underWay >= ordersMax) {
          const what = "the node's table of procedures under way"
          return reply({ _tag: "Refused", refusal: { _tag: "Overloaded", what } })
        }
        underWay++
        run(
          Effect.map(carryOut(plane, longOrders, order), (answer) => {
            underWay--
            reply(answer)
          }),
        )
      }),
    ),
    () => Effect.sync(() => control.appoint(undefined)),
  )
})

/** One that was let in is given nothing until it has said that it runs, and counts as started once it has, if the meta group is there to hear it. */
const sayThatItRuns = ({ control, refresh }: Plane) => {
  const own = () => control.directory().nodes.find(({ id }) => id === control.self.id)
  const said = Effect.gen(function* () {
    while (own()?.state === "joining") {
      yield* Effect.ignore(refresh)
      yield* pause
    }
  })
  return Effect.timeoutOption(said, enterMs)
}

/** By the leader of the meta group: as many steps as are due, one after the other. */
const keepRing = Effect.fnUntraced(function* (plane: Plane) {
  while (plane.control.led().some(({ id }) => id === metaRange)) {
    if (!(yield* stepRing(plane))) return
  }
})

/** Never fails: what goes wrong is the answer. */
function carryOut(
  plane: Plane,
  longOrders: LongOrders,
  { verb, args, deadlineMs }: AdminOrder,
): Effect.Effect<AdminReply> {
  const order = parseOrder(verb, args)
  if (typeof order === "string") {
    return Effect.succeed({
      _tag: "Refused",
      refusal: { _tag: "InvalidRequest", message: order },
    })
  }
  const isKept = isLong(order)
  const again = isKept
    ? "it goes on by itself"
    : "the same order, given again, goes on from where it stopped"
  const work = isKept ? longOrders.run(orderIdOf(args), verb, args) : procedure(plane, order)
  return work.pipe(
    Effect.timeoutOption(deadlineMs),
    Effect.map((result): AdminReply => {
      if (Option.isSome(result)) return { _tag: "Done", result: result.value }
      const message = `${verb} took longer than ${deadlineMs} ms: ${again}`
      return { _tag: "Refused", refusal: { _tag: "Unfinished", message } }
    }),
    Effect.catch((error: KvorumError) => {
      const message = isKept
        ? `${verb} stopped: ${error.message}`
        : `${verb} stopped: ${error.message}; ${again}`
      return Effect.succeed<AdminReply>({ _tag: "Refused", refusal: refusalOf(error, message) })
    }),
    Effect.catchCause((cause) =>
      Effect.as(Effect.logError(`${verb} failed`, cause), {
        _tag: "Refused",
        refusal: { _tag: "Unfinished", message: `${verb} failed: see the log of the node` },
      } satisfies AdminReply),
    ),
  )
}

function procedure(plane: Plane, order: Order): Effect.Effect<unknown, KvorumError> {
  switch (order._tag) {
    case "NamespaceCreate":
      return createNamespace(plane, order.namespace)
    case "NamespaceList":
      return listNamespaces(plane)
    case "NamespaceDelete":
      return deleteNamespace(plane, order.name)
    case "RangeSplit":
      return splitByOrder(plane, order.range, order.at)
    case "RangeIsolate":
      return isolateTag(plane, order.namespace, order.prefix)
    case "RangeMerge":
      return mergeRanges(plane, ...order.ranges)
    case "RangeMove":
      return moveReplica(plane, order)
    case "AddReplica":
      return addReplica(plane, order.range, order.on)
    case "RemoveReplica":
      return removeReplica(plane, order.range, order.on)
    case "Transfer":
      return transferRange(plane, order.range, order.to)
    case "NodeJoin":
      return joinNode(plane, order.node)
    case "Rebalance":
      return rebalance(plane, order.dryRun)
    case "NodeDrain":
      return drainNode(plane, order.node)
    case "NodeRemove":
      return removeNode(plane, order.node)
    case "NodeReplace":
      return replaceNode(plane, order.node)
    case "OrderShow":
      return showOrder(plane, order.order)
    case "Refresh":
      return Effect.as(plane.refresh, {})
    case "NodeList":
      return nodesShown(plane)
    case "NodeReport":
      return Effect.sync(() => nodeReport(plane.control))
    case "RingShow":
      return Effect.map(plane.meta.read, ({ directory }) => ringShown(directory))
    case "RingReport":
      return Effect.sync(() => plane.control.ringReport())
    case "NamespaceForget":
      return Effect.map(plane.refresh, () => ({ done: plane.control.forget(order.id) }))
    default:
      return order satisfies never
  }
}

/** Refusals that say "nothing was done" are passed on only where that is so of the whole procedure: a wrong order, or a node that has no room for one. */
function refusalOf(error: KvorumError, message: string): Refusal {
  switch (error._tag) {
    case "InvalidRequest":
      return { _tag: "InvalidRequest", message: error.message }
    case "NamespaceNotFound":
      return { _tag: "NamespaceNotFound", namespace: error.namespace }
    case "Overloaded":
      return { _tag: "Overloaded", what: error.what }
    default:
      return { _tag: "Unfinished", message }
  }
}
