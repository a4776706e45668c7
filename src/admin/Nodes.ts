import { Effect } from "effect"
import { directoryAsJson, type NodeRecord } from "../server/directory.ts"
import type { NodeId, RangeDescriptor } from "../types.ts"
import { invalid, nodeKey, type Snapshot } from "./Meta.ts"
import { liveNodes, type Plane, rangesOf, refreshAll } from "./Plane.ts"
import { type Candidate, loadsOf, placeVoters } from "./placement.ts"
import { reshape } from "./Reshape.ts"
import { leaveRing } from "./RingKeeping.ts"
import { votersOf } from "./reshaping.ts"
import { type NewNode, verbs } from "./verbs.ts"

/**
 * Lets a node in: it gets an id that was never used, and every node that is up knows it when this returns. The incarnation is what the node is known by,
 * so that one that asks twice, because the first answer was lost, is the same node.
 */
export const joinNode = Effect.fnUntraced(function* (plane: Plane, asking: NewNode) {
  const { directory } = yield* plane.meta.read
  const known = directory.nodes.find(({ incarnation }) => incarnation === asking.incarnation)
  if (known?.state === "removed") {
    return yield* invalid(
      `this data directory was n${known.id}, which was removed: join with an empty one`,
    )
  }
  if (known !== undefined) return yield* welcome(plane, known.id)
  const tenant = directory.nodes.find(
    ({ peer, state }) => state !== "removed" && peer === asking.peer,
  )
  if (tenant !== undefined) {
    return yield* invalid(
      `${asking.peer} is the address of n${tenant.id}, which has another data directory: start n${tenant.id} with that one, or remove it first (kvorum node remove n${tenant.id})`,
    )
  }
  const id = yield* plane.meta.nextId("node")
  const record: NodeRecord = { id, ...asking, state: "member" }
  yield* plane.meta.create(nodeKey(id), JSON.stringify(record))
  const first = firstOf(yield* plane.meta.read, asking.incarnation) ?? id
  if (first !== id) yield* plane.meta.remove(nodeKey(id))
  return yield* welcome(plane, first)
})

/** Of records of one incarnation, written by several nodes at once, the first stays: whoever writes a later one sees it after that. */
function firstOf({ directory, versions }: Snapshot, incarnation: string): NodeId | undefined {
  const twins = directory.nodes.filter((node) => node.incarnation === incarnation)
  const writtenAt = ({ id }: NodeRecord) => versions.get(nodeKey(id)) ?? 0
  return twins.sort((left, right) => writtenAt(left) - writtenAt(right))[0]?.id
}

const welcome = Effect.fnUntraced(function* (plane: Plane, node: NodeId) {
  yield* refreshAll(plane)
  const { control } = plane
  return { clusterId: control.clusterId, node, directory: directoryAsJson(control.directory()) }
})

/** Where the replicas of a range go when one node leaves: to another node if there is one that can take it, else one fewer. */
export function votersWithout(
  descriptor: RangeDescriptor,
  options: {
    readonly leaving: NodeId
    readonly candidates: ReadonlyArray<Candidate>
    readonly loads: ReadonlyMap<NodeId, number>
  },
): ReadonlyArray<NodeId> {
  const { leaving, candidates, loads } = options
  const voters = votersOf(descriptor)
  const keep = voters.filter((node) => node !== leaving)
  return placeVoters({ candidates, loads, keep, present: [], count: voters.length })
}

/**
 * Takes a node out for good: its record says `leaving`, so that it is given nothing new; its replicas move to other nodes, or go where there is none to take them, and its slots of
 * eventual namespaces, if it is up; then its record says `removed`, after which every
 * node refuses its incarnation and its process stops. Refused before anything happens when a range would be left without a replica. The result counts the
 * replicas that moved, and the ranges that have one fewer.
 */
export const removeNode = Effect.fnUntraced(function* (plane: Plane, leaving: NodeId) {
  const { directory } = yield* plane.meta.read
  const record = directory.nodes.find(({ id }) => id === leaving)
  if (record === undefined) return yield* invalid(`there is no node n${leaving}`)
  let moved = 0
  let fewer = 0
  let { state } = record
  const mark = Effect.fnUntraced(function* (next: "leaving" | "removed") {
    yield* plane.meta.changeNode(leaving, (present) =>
      present.state === "removed" || present.state === next
        ? undefined
        : { ...present, state: next },
    )
    state = next
    yield* refreshAll(plane)
  })
  for (;;) {
    const candidates = (yield* liveNodes(plane)).filter(({ node }) => node !== leaving)
    const descriptors = (yield* rangesOf(plane)).map(({ descriptor }) => descriptor)
    const loads = loadsOf(descriptors)
    const held = descriptors.filter(({ replicas }) => replicas.some(({ node }) => node === leaving))
    if (held.length === 0 && state !== "member") {
      if (state === "removed") break
      yield* leaveRing(plane, leaving)
      yield* mark("removed")
      // Another order may have brought a replica there before nodes knew that it leaves: once more.
      continue
    }
    const plans = held.map((descriptor) => {
      const wanted = votersWithout(descriptor, { leaving, candidates, loads })
      for (const node of wanted) loads.set(node, (loads.get(node) ?? 0) + 1)
      const heirs = wanted.filter((node) => !votersOf(descriptor).includes(node))
      const isFewer = wanted.length < votersOf(descriptor).length
      return { id: descriptor.id, wanted, heirs, isFewer }
    })
    const stuck = plans.find(({ wanted }) => wanted.length === 0)
    if (stuck !== undefined) {
      return yield* invalid(
        `n${leaving} has the only replica of range ${stuck.id}, and no other node is up to take it: start one first`,
      )
    }
    if (state === "member") {
      yield* mark("leaving")
      continue
    }
    for (const { id, heirs, isFewer } of plans) {
      yield* reshape(plane, id, (voters) => [
        ...voters.filter((node) => node !== leaving && !heirs.includes(node)),
        ...heirs,
      ])
      if (isFewer) fewer++
      else moved++
    }
  }
  yield* tellLeaving(plane, leaving)
  yield* refreshAll(plane)
  return { moved, fewer }
})

/** The one that was removed is no longer among those that are told; it reads it in the directory, and stops. */
function tellLeaving(plane: Plane, leaving: NodeId): Effect.Effect<void> {
  if (leaving === plane.control.self.id) return Effect.void
  return Effect.ignore(plane.client.admin(verbs.refresh, {}, { node: leaving, deadlineMs: 2000 }))
}
