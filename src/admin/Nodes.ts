import { Effect } from "effect"
import { directoryAsJson, type NodeRecord, type NodeState } from "../server/directory.ts"
import type { NodeId, RangeDescriptor, RangeId } from "../types.ts"
import { invalid, nodeKey, type Snapshot } from "./Meta.ts"
import { liveNodes, membersOf, type Plane, rangesOf, refreshAll, stayingNodes } from "./Plane.ts"
import { type Candidate, isCrowded, loadsOf, placeVoters } from "./placement.ts"
import { measuresOf } from "./Reports.ts"
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
  const record: NodeRecord = { id, ...asking, state: "joining" }
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

/** What becomes of a range when a node is to hold nothing of it. */
interface Departure {
  readonly id: RangeId
  readonly wanted: ReadonlyArray<NodeId>
  readonly heirs: ReadonlyArray<NodeId>
  /** There is no other node to take the replica: it goes, and the range has one fewer. */
  readonly isFewer: boolean
  /** Its replicas are in fewer zones, racks or hosts afterwards: nobody who would keep them apart could take it. */
  readonly isCrowded: boolean
}

/** Of each range that the node holds a replica of. Refused where it has the only one, and nobody could take it. `heir`: who takes all that it does not hold already. */
const departuresFrom = Effect.fnUntraced(function* (plane: Plane, leaving: NodeId, heir?: NodeId) {
  const members = yield* membersOf(plane)
  const candidates = members
    .filter(({ isUp, isLeaving }) => isUp && !isLeaving)
    .filter(({ node }) => node !== leaving)
  const descriptors = (yield* rangesOf(plane)).map(({ descriptor }) => descriptor)
  const loads = loadsOf(descriptors)
  const held = descriptors.filter(({ replicas }) => replicas.some(({ node }) => node === leaving))
  const departures = held.map((descriptor): Departure => {
    const inherits = heir !== undefined && !votersOf(descriptor).includes(heir)
    const wanted = inherits
      ? [...votersOf(descriptor).filter((node) => node !== leaving), heir]
      : votersWithout(descriptor, { leaving, candidates, loads })
    for (const node of wanted) loads.set(node, (loads.get(node) ?? 0) + 1)
    const heirs = wanted.filter((node) => !votersOf(descriptor).includes(node))
    const isFewer = wanted.length < votersOf(descriptor).length
    const crowds = !isFewer && isCrowded(members, votersOf(descriptor), wanted)
    return { id: descriptor.id, wanted, heirs, isFewer, isCrowded: crowds }
  })
  const stuck = departures.find(({ wanted }) => wanted.length === 0)
  if (stuck === undefined) return departures
  return yield* invalid(
    `n${leaving} has the only replica of range ${stuck.id}, and no other node is up to take it: start one first`,
  )
})

/** Counts the replicas that leave a node, for those who wait for it. */
class Departing {
  private readonly plane: Plane
  private done = 0
  private doneBytes = 0
  private bytesOf: (range: RangeId) => number = () => 0

  constructor(plane: Plane) {
    this.plane = plane
  }

  /** How large they are. */
  readonly measure = Effect.fnUntraced(function* (this: Departing) {
    if (this.plane.report === undefined) return
    const nodes = yield* liveNodes(this.plane)
    const measures = yield* measuresOf(
      this.plane.client,
      nodes.map(({ node }) => node),
    )
    this.bytesOf = (range) => measures.get(range)?.bytes ?? 0
  })

  left(departures: ReadonlyArray<Departure>): void {
    const bytes = departures.reduce((sum, { id }) => sum + this.bytesOf(id), 0)
    const total = this.done + departures.length
    const { done, doneBytes } = this
    this.plane.report?.({ done, total, doneBytes, totalBytes: doneBytes + bytes })
  }

  gone({ id }: Departure): void {
    this.done++
    this.doneBytes += this.bytesOf(id)
  }
}

/** Of how many ranges the replicas are in fewer failure domains than they were. */
function flagged(crowded: number): { readonly crowded?: number } {
  return crowded === 0 ? {} : { crowded }
}

function depart(plane: Plane, leaving: NodeId, { id, heirs }: Departure) {
  return reshape(plane, id, (voters) => [
    ...voters.filter((node) => node !== leaving && !heirs.includes(node)),
    ...heirs,
  ])
}

const recordOf = Effect.fnUntraced(function* (plane: Plane, node: NodeId) {
  const { directory } = yield* plane.meta.read
  const record = directory.nodes.find(({ id }) => id === node)
  return record ?? (yield* invalid(`there is no node n${node}`))
})

/** Has every node know that this one is to go on in another state; a record that is further already stays. */
const mark = Effect.fnUntraced(function* (plane: Plane, node: NodeId, next: NodeState) {
  yield* plane.meta.changeNode(node, (present) =>
    order.indexOf(present.state) >= order.indexOf(next) ? undefined : { ...present, state: next },
  )
  yield* refreshAll(plane)
})

const order: ReadonlyArray<NodeState> = ["joining", "member", "draining", "leaving", "removed"]

/**
 * Has a node hold nothing, and stay: its record says `draining`, so that it is given nothing new; its replicas move to other nodes, and its slots of eventual namespaces. Refused where a
 * range would have a replica fewer: that is for a removal. Given again it goes on from where it is, and takes what has come meanwhile.
 */
export const drainNode = Effect.fnUntraced(function* (plane: Plane, node: NodeId) {
  let { state } = yield* recordOf(plane, node)
  if (state === "removed") return yield* invalid(`n${node} was removed from the cluster`)
  if (state === "leaving") return yield* invalid(`n${node} is being removed`)
  let moved = 0
  let crowded = 0
  const departing = new Departing(plane)
  yield* departing.measure()
  for (;;) {
    const departures = yield* departuresFrom(plane, node)
    const fewer = departures.find(({ isFewer }) => isFewer)
    if (fewer !== undefined) {
      return yield* invalid(
        `n${node} holds a replica of range ${fewer.id} that no other node is up to take: let one join first; a removal (kvorum node remove n${node}) would leave the range with fewer`,
      )
    }
    if (state === "member" || state === "joining") {
      yield* mark(plane, node, "draining")
      state = "draining"
      continue
    }
    if (departures.length === 0) break
    for (const [i, departure] of departures.entries()) {
      departing.left(departures.slice(i))
      yield* depart(plane, node, departure)
      departing.gone(departure)
      moved++
      if (departure.isCrowded) crowded++
    }
  }
  yield* leaveRing(plane, node)
  return { moved, ...flagged(crowded) }
})

/**
 * Takes a node out for good: its record says `leaving`, so that it is given nothing new; its replicas move to other nodes, or go where there is none to take them, and its slots of
 * eventual namespaces, if it is up; then its record says `removed`, after which every
 * node refuses its incarnation and its process stops. Refused before anything happens when a range would be left without a replica. The result counts the
 * replicas that moved, and the ranges that have one fewer.
 */
export const removeNode = (plane: Plane, leaving: NodeId) => leave(plane, leaving, undefined)

const leave = Effect.fnUntraced(function* (
  plane: Plane,
  leaving: NodeId,
  heir: NodeId | undefined,
) {
  let { state } = yield* recordOf(plane, leaving)
  let moved = 0
  let fewer = 0
  let crowded = 0
  const departing = new Departing(plane)
  yield* departing.measure()
  for (;;) {
    const departures = yield* departuresFrom(plane, leaving, heir)
    if (departures.length === 0 && (state === "leaving" || state === "removed")) {
      if (state === "removed") break
      yield* leaveRing(plane, leaving)
      yield* mark(plane, leaving, "removed")
      state = "removed"
      // Another order may have brought a replica there before nodes knew that it leaves: once more.
      continue
    }
    if (state !== "leaving" && state !== "removed") {
      yield* mark(plane, leaving, "leaving")
      state = "leaving"
      continue
    }
    for (const [i, departure] of departures.entries()) {
      departing.left(departures.slice(i))
      yield* depart(plane, leaving, departure)
      departing.gone(departure)
      if (departure.isFewer) fewer++
      else moved++
      if (departure.isCrowded) crowded++
    }
  }
  yield* tellLeaving(plane, leaving)
  yield* refreshAll(plane)
  return { moved, fewer, ...flagged(crowded) }
})

/**
 * Puts another node in the place of one: the member that holds fewest replicas takes all that the other one holds and it does not, and its slots go by the ring as they do at a removal;
 * then the other one is removed. Refused unless every range keeps as many copies as it has. The other one may be down for good.
 */
export const replaceNode = Effect.fnUntraced(function* (plane: Plane, leaving: NodeId) {
  const { state } = yield* recordOf(plane, leaving)
  const descriptors = (yield* rangesOf(plane)).map(({ descriptor }) => descriptor)
  const loads = loadsOf(descriptors)
  const live = yield* liveNodes(plane)
  const [heir] = live
    .filter(({ node }) => node !== leaving)
    .sort(
      (one, other) =>
        (loads.get(one.node) ?? 0) - (loads.get(other.node) ?? 0) || other.node - one.node,
    )
  if (heir === undefined)
    return yield* invalid(`no other node is up to take the place of n${leaving}`)
  if (state !== "leaving" && state !== "removed") {
    const staying = yield* stayingNodes(plane)
    const others = staying.filter(({ node }) => node !== leaving).length
    const short = descriptors.find(
      (range) => votersOf(range).includes(leaving) && votersOf(range).length > others,
    )
    const departures = yield* departuresFrom(plane, leaving, heir.node)
    const fewer = short?.id ?? departures.find(({ isFewer }) => isFewer)?.id
    if (fewer !== undefined) {
      return yield* invalid(
        `range ${fewer} has a replica on n${leaving}, and no other node that is up could take it: let a new node join first`,
      )
    }
  }
  const { fewer: _, ...done } = yield* leave(plane, leaving, heir.node)
  return { ...done, by: heir.node }
})

/** The one that was removed is no longer among those that are told; it reads it in the directory, and stops. */
function tellLeaving(plane: Plane, leaving: NodeId): Effect.Effect<void> {
  if (leaving === plane.control.self.id) return Effect.void
  return Effect.ignore(plane.client.admin(verbs.refresh, {}, { node: leaving, deadlineMs: 2000 }))
}
