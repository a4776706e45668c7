import { Clock, Effect } from "effect"
import { toHex } from "../lib/bytes.ts"
import { metaRange } from "../server/bootstrap.ts"
import { containsPosition, rangeAsJson } from "../server/directory.ts"
import type { NodeId, Position, RangeDescriptor, RangeId } from "../types.ts"
import { middleCuts } from "./cuts.ts"
import { boundaryKey, invalid } from "./Meta.ts"
import { liveNodes, membersOf, type Plane, pause, rangeOf, rangesOf } from "./Plane.ts"
import { isCrowded } from "./placement.ts"
import { reshape, type Wish } from "./Reshape.ts"
import { votersOf } from "./reshaping.ts"

/** Orders about single ranges. */

/** The same by somebody's order: what is cut so is not merged again by itself. */
export const splitByOrder = Effect.fnUntraced(function* (
  plane: Plane,
  id: RangeId,
  at: Position | undefined,
) {
  // It may have been cut by itself since it was looked at.
  const { left, right, boundary } = yield* Effect.retry(splitRange(plane, id, at), {
    times: 3,
    while: ({ _tag }) => _tag === "RangeMoved",
  })
  yield* plane.meta.create(boundaryKey(boundary), "ordered")
  return { left, right }
})

/** Cuts a range in two: at a position, or about the middle of its data. Done already counts as done. */
export const splitRange = Effect.fnUntraced(function* (
  plane: Plane,
  id: RangeId,
  at: Position | undefined,
) {
  const ranges = yield* rangesOf(plane)
  const descriptor = ranges.find((range) => range.descriptor.id === id)?.descriptor
  if (descriptor === undefined) return yield* invalid(`there is no range ${id}`)
  if (id === metaRange)
    return yield* invalid("range 0 holds the cluster's own data: it stays whole")
  if (descriptor.namespace === undefined) {
    return yield* invalid(
      `range ${id} belongs to no namespace: it is cut when a namespace is created`,
    )
  }
  if (at !== undefined) {
    const right = ranges.find((range) => toHex(range.descriptor.start) === toHex(at))?.descriptor
    if (right !== undefined && toHex(descriptor.end) === toHex(at)) {
      return { left: id, right: right.id, boundary: at }
    }
    if (!containsPosition(descriptor, at) || toHex(at) === toHex(descriptor.start)) {
      return yield* invalid(`position ${toHex(at)} is not inside range ${id}`)
    }
  }
  const child = yield* plane.meta.nextId("range")
  const { boundsVersion } = descriptor
  const changed = yield* plane.client.changeRange(id, { _tag: "Split", boundsVersion, at, child })
  return { left: id, right: child, boundary: at ?? changed.descriptor.end }
})

/** Splits under way at a time while ranges are cut in bulk. */
const splitsAtOnce = 8

/**
 * Makes sure that a range begins at each of these positions. Every round halves: each range that holds some of them is cut at the middle one, so that the number of
 * rounds, each of which looks at all ranges once, grows with the logarithm of the number of cuts.
 */
export const cutAtAll = Effect.fnUntraced(function* (plane: Plane, cuts: ReadonlyArray<Position>) {
  for (;;) {
    const ranges = yield* rangesOf(plane)
    const { due, unknown } = middleCuts(
      ranges.map(({ descriptor }) => descriptor),
      cuts,
    )
    if (due.length === 0) {
      if (!unknown) return
      yield* pause
      continue
    }
    const first = yield* plane.meta.nextId("range", due.length)
    yield* Effect.forEach(
      due,
      ({ descriptor: { id, boundsVersion }, at }, i) =>
        plane.client
          .changeRange(id, { _tag: "Split", boundsVersion, at, child: first + i })
          .pipe(Effect.catchTag("RangeMoved", () => pause)),
      { concurrency: splitsAtOnce, discard: true },
    )
  }
})

/** A replica on a node that is down would count as a voter that never answers. */
const requireLive = Effect.fnUntraced(function* (plane: Plane, node: NodeId) {
  const beganMs = yield* Clock.currentTimeMillis
  const find = () => plane.control.directory().nodes.find(({ id }) => id === node)
  for (;;) {
    const live = yield* liveNodes(plane)
    if (live.some((candidate) => candidate.node === node)) return
    // One that was let in a moment ago has yet to say that it runs.
    const isLate = (yield* Clock.currentTimeMillis) - beganMs >= patienceMs
    if (find()?.state !== "joining" || isLate) break
    yield* pause
    yield* plane.refresh
  }
  const record = find()
  if (record === undefined) return yield* invalid(`there is no node n${node}`)
  if (record.state === "removed") return yield* invalid(`n${node} was removed from the cluster`)
  if (record.state === "draining") return yield* invalid(`n${node} is drained: it takes no replica`)
  if (record.state === "leaving") return yield* invalid(`n${node} is being removed`)
  if (record.state === "joining") {
    return yield* invalid(`n${node} was let in, and has not run since: start it first`)
  }
  return yield* invalid(`n${node} does not answer: start it first`)
})

/** An order that has been carried out already is no error, but a name that was never a node's is a slip. */
const requireKnown = Effect.fnUntraced(function* (plane: Plane, node: NodeId) {
  const { nodes } = plane.control.directory()
  if (!nodes.some(({ id }) => id === node)) return yield* invalid(`there is no node n${node}`)
})

function done(descriptor: RangeDescriptor) {
  return { descriptor: rangeAsJson(descriptor) }
}

/** Moves a replica from one node to another, with as many voters at every moment as before. */
export const moveReplica = Effect.fnUntraced(function* (
  plane: Plane,
  order: { readonly range: RangeId; readonly from: NodeId; readonly to: NodeId },
) {
  const { range, from, to } = order
  yield* requireLive(plane, to)
  yield* requireKnown(plane, from)
  const { descriptor } = yield* rangeOf(plane, range)
  const voters = votersOf(descriptor)
  if (from === to) return yield* invalid("from and to are the same node")
  const isUnderWay = voters.includes(to) && !voters.includes(from)
  if (!isUnderWay && voters.includes(to)) {
    return yield* invalid(`range ${range} has a replica on n${to} already: remove that on n${from}`)
  }
  if (!isUnderWay && !voters.includes(from)) {
    return yield* invalid(`range ${range} has no replica on n${from}: it has ${named(voters)}`)
  }
  const wish: Wish = (present) => [...present.filter((node) => node !== from && node !== to), to]
  const crowded = isCrowded(yield* membersOf(plane), voters, wish(voters)) ? { crowded: 1 } : {}
  return { ...done(yield* reshape(plane, range, wish)), ...crowded }
})

export const addReplica = Effect.fnUntraced(function* (plane: Plane, range: RangeId, on: NodeId) {
  yield* requireLive(plane, on)
  const wish: Wish = (voters) => (voters.includes(on) ? voters : [...voters, on])
  return done(yield* reshape(plane, range, wish))
})

/** Refused when none would be left, and by the range's leader when those left would have no majority that is up. */
export const removeReplica = Effect.fnUntraced(function* (
  plane: Plane,
  range: RangeId,
  on: NodeId,
) {
  yield* requireKnown(plane, on)
  const { descriptor } = yield* rangeOf(plane, range)
  const wish: Wish = (voters) => voters.filter((node) => node !== on)
  if (wish(votersOf(descriptor)).length === 0) {
    return yield* invalid(
      `n${on} has the only replica of range ${range}: add one elsewhere first, or move it`,
    )
  }
  return done(yield* reshape(plane, range, wish))
})

export const transferRange = Effect.fnUntraced(function* (
  plane: Plane,
  range: RangeId,
  to: NodeId,
) {
  const { descriptor } = yield* rangeOf(plane, range)
  if (!votersOf(descriptor).includes(to)) {
    return yield* invalid(
      `range ${range} has no voter on n${to}: it has ${named(votersOf(descriptor))}`,
    )
  }
  const changed = yield* handOver(plane, range, to)
  return done(changed.descriptor)
})

/** A voter that has just come, or whose node is busy, may not have been heard of for a moment: that is waited for a while, and then refused. */
const patienceMs = 5000

const handOver = Effect.fnUntraced(function* (plane: Plane, range: RangeId, to: NodeId) {
  const beganMs = yield* Clock.currentTimeMillis
  for (;;) {
    const ordered = plane.client.changeRange(range, { _tag: "Transfer", to })
    const changed = yield* Effect.catchTag(ordered, "InvalidRequest", (error) =>
      Effect.flatMap(Clock.currentTimeMillis, (nowMs) =>
        nowMs - beganMs < patienceMs ? Effect.as(pause, undefined) : Effect.fail(error),
      ),
    )
    if (changed !== undefined) return changed
  }
})

function named(nodes: ReadonlyArray<NodeId>): string {
  return nodes.map((node) => `n${node}`).join(", ")
}
