import { Effect } from "effect"
import type { EventualNamespaceRecord } from "../server/directory.ts"
import { firstEventualNamespace } from "../server/directory.ts"
import { invalid, namespaceKey } from "./Meta.ts"
import { membersOf, type Plane, pause, refreshAll, stayingNodes } from "./Plane.ts"
import { type NewEventualNamespace, verbs } from "./verbs.ts"

const copiesDefault = 3
const forgetWaitMs = 2000

/** Makes an eventual namespace: a record is all that there is to it, since its slots lie on the ring that all eventual namespaces share. */
export const createEventual = Effect.fnUntraced(function* (
  plane: Plane,
  asked: NewEventualNamespace,
) {
  const { name, conflict, write, read } = asked
  const { length } = yield* stayingNodes(plane)
  const replicas = asked.replicas ?? Math.min(copiesDefault, length)
  if (replicas > length) {
    return yield* invalid(`${replicas} replicas need as many nodes: the cluster has ${length}`)
  }
  for (;;) {
    const { directory } = yield* plane.meta.read
    const known = directory.namespaces.find((namespace) => namespace.name === name)
    if (known?.state === "dropping") {
      return yield* invalid(`namespace "${name}" is being deleted: finish that first`)
    }
    if (known !== undefined) {
      yield* refreshAll(plane)
      return yield* invalid(`namespace "${name}" exists already`)
    }
    const number = yield* plane.meta.nextId("eventual")
    const record: EventualNamespaceRecord = {
      ...{ id: firstEventualNamespace + number, name, mode: "eventual", partitioning: "hash" },
      ...{ ranges: 0, replicas, conflict, write, read, state: "ready" },
    }
    if (!(yield* plane.meta.create(namespaceKey(name), JSON.stringify(record)))) continue
    yield* refreshAll(plane)
    const { id, mode, partitioning } = record
    return { id, name, mode, partitioning, replicas, conflict, write, read, ranges: [] }
  }
})

/** Returns when every member has forgotten all of it for good. */
export const forgetEverywhere = Effect.fnUntraced(function* (
  plane: Plane,
  { id, name }: EventualNamespaceRecord,
) {
  const done = new Set<number>()
  for (;;) {
    const left = (yield* membersOf(plane)).filter(({ node }) => !done.has(node))
    if (left.length === 0) return
    const down = left.filter(({ isUp }) => !isUp).map(({ node }) => `n${node}`)
    for (const { node } of left) {
      const options = { node, deadlineMs: forgetWaitMs }
      const answer = yield* Effect.option(
        plane.client.admin(verbs.namespaceForget, { id }, options),
      )
      if (answer._tag === "Some" && (answer.value as { done?: unknown }).done === true) {
        done.add(node)
      }
    }
    if (down.length > 0 && left.every(({ node, isUp }) => !isUp || done.has(node))) {
      const who = down.join(", ")
      return yield* invalid(
        `${who} is down and still holds data of namespace "${name}": start it, or remove it, and give the order again`,
      )
    }
    yield* pause
  }
})
