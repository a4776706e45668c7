import { Effect } from "effect"
import type { ClientShape } from "../client/Client.ts"
import type { KvorumError } from "../Errors.ts"
import { tilingOf } from "../server/directory.ts"
import type { ControlShape } from "../server/StoreService.ts"
import type { NodeId, RangeDescriptor, RangeId } from "../types.ts"
import { invalid, type Meta } from "./Meta.ts"
import type { Candidate } from "./placement.ts"
import { verbs } from "./verbs.ts"

/** What every procedure works with. */
export interface Plane {
  readonly client: ClientShape
  readonly meta: Meta
  readonly control: ControlShape
  /** Reads the directory into this node now. */
  readonly refresh: Effect.Effect<void, KvorumError>
  /** Takes note of how far a procedure is, for those who wait for it. */
  readonly report?: (progress: Progress) => void
}

/** How far a procedure is: replicas that it moves, and about their bytes. */
export interface Progress {
  readonly done: number
  readonly total: number
  readonly doneBytes: number
  readonly totalBytes: number
}

export interface LedRange {
  readonly descriptor: RangeDescriptor
  readonly leader: NodeId | undefined
}

/** Between two looks at something that is on its way. */
export const pause = Effect.sleep(50)

/** Every range as the nodes that are up see it now, in order of start. */
export function rangesOf({ client }: Plane): Effect.Effect<ReadonlyArray<LedRange>, KvorumError> {
  return Effect.map(client.ranges(), (reports) => {
    const leaders = new Map<RangeId, NodeId | undefined>()
    for (const { descriptor, leader } of reports) {
      leaders.set(descriptor.id, leaders.get(descriptor.id) ?? leader)
    }
    return tilingOf(reports.map(({ descriptor }) => descriptor)).map((descriptor) => ({
      descriptor,
      leader: leaders.get(descriptor.id),
    }))
  })
}

/** One of them by id. Refused when no node that is up knows it. */
export const rangeOf = Effect.fnUntraced(function* (plane: Plane, id: RangeId) {
  const ranges = yield* rangesOf(plane)
  const found = ranges.find(({ descriptor }) => descriptor.id === id)
  if (found === undefined) return yield* invalid(`there is no range ${id}`)
  return found
})

/** A node that was not removed, and whether it answers now. */
export interface Member extends Candidate {
  readonly isUp: boolean
  /** It is to be given nothing: it is being drained, or removed. */
  readonly isLeaving: boolean
}

export const membersOf = Effect.fnUntraced(function* ({ client, meta }: Plane) {
  const [{ directory }, status] = yield* Effect.all([meta.read, client.status()], {
    concurrency: 2,
  })
  const answering = new Set(status.nodes.map(({ id }) => id))
  return directory.nodes
    .filter(({ state }) => state !== "removed")
    .map(({ id, host, zone = "", rack = "", state }): Member => {
      const isLeaving = state === "draining" || state === "leaving"
      const isUp = state !== "joining" && answering.has(id)
      return { node: id, host, zone, rack, isUp, isLeaving }
    })
})

/** Members that stay. */
export function stayingNodes(plane: Plane): Effect.Effect<ReadonlyArray<Member>, KvorumError> {
  return Effect.map(membersOf(plane), (members) => members.filter(({ isLeaving }) => !isLeaving))
}

/** Of these, who answers now: those that may take a replica. */
export function liveNodes(plane: Plane): Effect.Effect<ReadonlyArray<Candidate>, KvorumError> {
  return Effect.map(stayingNodes(plane), (members) => members.filter(({ isUp }) => isUp))
}

/** Has every node that is up read the directory; one that does not answer learns it by itself soon after it comes back. */
export const refreshAll = Effect.fnUntraced(function* (plane: Plane) {
  yield* plane.refresh
  const { self, directory } = plane.control
  const others = directory().nodes.filter(({ id, state }) => id !== self.id && state !== "removed")
  yield* Effect.forEach(
    others,
    ({ id }) =>
      Effect.ignore(plane.client.admin(verbs.refresh, {}, { node: id, deadlineMs: refreshWaitMs })),
    { concurrency: "unbounded", discard: true },
  )
})

const refreshWaitMs = 2000
