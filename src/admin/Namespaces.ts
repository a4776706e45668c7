import { Effect } from "effect"
import { NamespaceNotFound } from "../Errors.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { StrongNamespace } from "../server/directory.ts"
import type { NamespaceId, NodeId } from "../types.ts"
import { cutsOf } from "./cuts.ts"
import { createEventual, forgetEverywhere } from "./EventualNamespaces.ts"
import { invalid, namespaceKey } from "./Meta.ts"
import {
  type LedRange,
  type Member,
  type Plane,
  pause,
  rangesOf,
  refreshAll,
  stayingNodes,
} from "./Plane.ts"
import { loadsOf, placeVoters } from "./placement.ts"
import { cutAtAll } from "./Ranges.ts"
import { reshape } from "./Reshape.ts"
import { nextStep, votersOf } from "./reshaping.ts"
import type { NewNamespace, NewStrongNamespace } from "./verbs.ts"

const replicasDefault = 3

/**
 * Makes a namespace: its record in state `making`, which takes the name and an id that is never used again; then its ranges are cut out of the one that
 * belongs to nobody, and get their voters; then it is `ready`. A call that finds the record in `making` goes on with it, as it was first asked for.
 *
 * How many voters that are goes by the members of the cluster, whether they are up or not: a range made while a node is down has no fewer for it afterwards. New
 * replicas are given to nodes that are up; one that is down keeps those that it has where too few others are up.
 */
export const createNamespace = Effect.fnUntraced(function* (plane: Plane, asked: NewNamespace) {
  if (asked.mode === "eventual") return yield* createEventual(plane, asked)
  const record = yield* claim(plane, asked)
  yield* cutAtAll(plane, cutsOf(record))
  const members = yield* stayingNodes(plane)
  const all = yield* rangesOf(plane)
  const loads = loadsOf(all.map(({ descriptor }) => descriptor))
  const own = rangesWithin(all, record.id)
  for (const { descriptor } of own) {
    const voters = votersOf(descriptor)
    for (const node of voters) loads.set(node, (loads.get(node) ?? 1) - 1)
    const wanted = votersAmong(members, { loads, voters, count: record.replicas })
    if (wanted.length < record.replicas) return yield* tooFew(members, record)
    for (const node of wanted) loads.set(node, (loads.get(node) ?? 0) + 1)
    // Nearly all lie well already, and reshaping looks at every range of the cluster.
    if (nextStep(descriptor, wanted)._tag !== "Done") {
      yield* reshape(plane, descriptor.id, () => wanted)
    }
  }
  yield* spreadLeaders(plane, record.id, members)
  yield* plane.meta.changeNamespace(record.name, (present) =>
    present.state === "making" ? { ...present, state: "ready" } : undefined,
  )
  yield* refreshAll(plane)
  const { id, name, mode, partitioning } = record
  return { id, name, mode, partitioning, ranges: own.map(({ descriptor }) => descriptor.id) }
})

function votersAmong(
  members: ReadonlyArray<Member>,
  options: {
    readonly loads: ReadonlyMap<NodeId, number>
    readonly voters: ReadonlyArray<NodeId>
    readonly count: number
  },
): ReadonlyArray<NodeId> {
  const { loads, voters, count } = options
  const common = { loads, present: voters, count }
  const up = members.filter(({ isUp }) => isUp)
  const keep = placeVoters({ ...common, candidates: up, keep: [] })
  const candidates = members.filter(({ node, isUp }) => isUp || voters.includes(node))
  return placeVoters({ ...common, candidates, keep })
}

function tooFew(members: ReadonlyArray<Member>, { name, replicas }: StrongNamespace) {
  const down = members.filter(({ isUp }) => !isUp).map(({ node }) => `n${node}`)
  return invalid(
    `the ${replicas} replicas of namespace "${name}" need as many nodes that are up, and ${down.join(", ")} is down: start it, and give the order again`,
  )
}

const claim = Effect.fnUntraced(function* (plane: Plane, asked: NewStrongNamespace) {
  const { name, partitioning, ranges } = asked
  const { length } = yield* stayingNodes(plane)
  const replicas = asked.replicas ?? Math.min(replicasDefault, length)
  if (replicas > length) {
    return yield* invalid(`${replicas} replicas need as many nodes: the cluster has ${length}`)
  }
  for (;;) {
    const { directory } = yield* plane.meta.read
    const known = directory.namespaces.find((namespace) => namespace.name === name)
    if (known?.state === "making" && known.mode === "strong") return known
    if (known?.state === "ready" || known?.state === "making") {
      // Whoever made it may have been cut off before all nodes knew.
      yield* refreshAll(plane)
      return yield* invalid(`namespace "${name}" exists already`)
    }
    if (known !== undefined) {
      return yield* invalid(`namespace "${name}" is being deleted: finish that first`)
    }
    const id = yield* plane.meta.nextId("namespace")
    const mode = "strong" as const
    const record: StrongNamespace = {
      ...{ id, name, mode, partitioning, ranges, replicas },
      state: "making",
    }
    if (yield* plane.meta.create(namespaceKey(name), JSON.stringify(record))) return record
  }
})

function rangesWithin(ranges: ReadonlyArray<LedRange>, namespace: NamespaceId) {
  return ranges.filter(({ descriptor }) => descriptor.namespace === namespace)
}

/** The ranges were cut out of one, so that one node leads them all: each goes to another voter in turn. Where that fails it stays. */
const spreadLeaders = Effect.fnUntraced(function* (
  plane: Plane,
  namespace: NamespaceId,
  members: ReadonlyArray<Member>,
) {
  const isUp = new Set(members.filter((member) => member.isUp).map(({ node }) => node))
  const own = rangesWithin(yield* rangesOf(plane), namespace)
  yield* Effect.forEach(
    own,
    ({ descriptor, leader }, i) => {
      const voters = votersOf(descriptor).filter((node) => isUp.has(node))
      const to = voters[i % voters.length]
      if (to === undefined || to === leader) return Effect.void
      const order = { _tag: "Transfer" as const, to }
      return Effect.ignore(plane.client.changeRange(descriptor.id, order, { deadlineMs: 2000 }))
    },
    { concurrency: 8, discard: true },
  )
})

export const listNamespaces = Effect.fnUntraced(function* (plane: Plane) {
  const { directory } = yield* plane.meta.read
  const ranges = yield* rangesOf(plane)
  const namespaces = directory.namespaces.map((namespace) => ({
    ...namespace,
    ranges: rangesWithin(ranges, namespace.id).length,
  }))
  return { namespaces }
})

/**
 * Deletes a namespace: `dropping` first, so that the doors of all nodes take nothing more for it; then its ranges are emptied by an entry in each of
 * their logs; then its record goes. The ranges stay, empty, and its id is not used again.
 */
export const deleteNamespace = Effect.fnUntraced(function* (plane: Plane, name: string) {
  const record = yield* plane.meta.changeNamespace(name, (present) =>
    present.state === "dropping" ? undefined : { ...present, state: "dropping" },
  )
  if (record === undefined) return yield* new NamespaceNotFound({ namespace: name })
  yield* refreshAll(plane)
  if (record.mode === "eventual") {
    yield* forgetEverywhere(plane, record)
    yield* plane.meta.remove(namespaceKey(name))
    yield* refreshAll(plane)
    return {}
  }
  const cleared = new Set<string>()
  for (;;) {
    const own = rangesWithin(yield* rangesOf(plane), record.id)
    const left = own
      .map(({ descriptor }) => descriptor)
      .filter(({ id, boundsVersion }) => !cleared.has(`${id} ${boundsVersion}`))
      .sort((one, other) => compareBytes(one.start, other.start))
    if (left.length === 0) break
    for (const { id, boundsVersion } of left) {
      // A range that was split meanwhile is found again, as its halves.
      yield* plane.client.changeRange(id, { _tag: "Clear", boundsVersion }).pipe(
        Effect.andThen(Effect.sync(() => void cleared.add(`${id} ${boundsVersion}`))),
        Effect.catchTag("RangeMoved", () => pause),
      )
    }
  }
  yield* plane.meta.remove(namespaceKey(name))
  return {}
})
