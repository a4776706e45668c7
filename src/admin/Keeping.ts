import { Effect } from "effect"
import type { KvorumError } from "../Errors.ts"
import { bootstrapDescriptors, defaultNamespace, metaRange } from "../server/bootstrap.ts"
import { covers } from "../server/descriptors.ts"
import {
  type EventualNamespaceRecord,
  firstEventualNamespace,
  type NamespaceRecord,
} from "../server/directory.ts"
import type { ControlShape } from "../server/StoreService.ts"
import type { RangeDescriptor } from "../types.ts"
import type { Snapshot } from "./Meta.ts"
import { type Counter, type Meta, namespaceKey, nodeKey, rangeKey, rangeValue } from "./Meta.ts"
import { foundRing, tellLost } from "./RingKeeping.ts"

/**
 * One round of what a node does for the directory all the time: learn it, and write what it alone knows. Everything is written by condition and only
 * where it is missing or old, so that a round may end anywhere and be repeated by anyone.
 */
export const keepDirectory = Effect.fnUntraced(function* (control: ControlShape, meta: Meta) {
  const snapshot = yield* meta.read
  control.learn(snapshot.directory)
  const led = control.led()
  if (led.some(({ id }) => id === metaRange)) {
    yield* found(control, meta, snapshot)
    if (snapshot.directory.founded) yield* foundRing(meta, snapshot)
  }
  yield* correctOwnRecord(control, meta, snapshot)
  if (!snapshot.directory.founded) return
  yield* tellLost(control, meta, snapshot)
  const { directory, versions } = snapshot
  const news = control.news(directory.ranges)
  yield* Effect.forEach(
    news,
    (descriptor) => {
      const key = rangeKey(descriptor.id)
      return meta.set(key, rangeValue(descriptor), versions.get(key))
    },
    { concurrency: reportsAtOnce, discard: true },
  )
  yield* strikeOutMerged(meta, snapshot, led)
})

/** What a range led here has taken in is no more. Its record was never believed after that: the taker's is of a later version. */
function strikeOutMerged(
  meta: Meta,
  { directory }: Snapshot,
  led: ReadonlyArray<RangeDescriptor>,
): Effect.Effect<unknown, KvorumError> {
  const gone = directory.ranges.filter((known) =>
    led.some((taker) => {
      const { id, boundsVersion } = taker
      return id !== known.id && boundsVersion > known.boundsVersion && covers(taker, known)
    }),
  )
  return Effect.forEach(gone, ({ id }) => meta.remove(rangeKey(id)), { discard: true })
}

/** Each has a key of its own, and one entry of the log takes many: one after another, a thousand new ranges would take a sync each, and their maker waits. */
const reportsAtOnce = 64

/**
 * What a cluster begins with, written by the leader of the meta group. A founder's record needs its incarnation, which is known once it was met; counters
 * come last, and their presence says that `default` was there, so that it does not come back when somebody has deleted it.
 */
const found = Effect.fnUntraced(function* (
  control: ControlShape,
  meta: Meta,
  { directory }: Snapshot,
) {
  for (const founder of control.founders) {
    const incarnation = control.incarnationOf(founder.id)
    if (incarnation === undefined) continue
    if (directory.nodes.some(({ id }) => id === founder.id)) continue
    const record = { ...founder, incarnation, state: "member" }
    yield* meta.create(nodeKey(founder.id), JSON.stringify(record))
  }
  if (directory.founded || control.founders.length === 0) return
  const nodes = control.founders.map(({ id }) => id)
  const ranges = bootstrapDescriptors(nodes)
  const own = ranges.filter(({ namespace }) => namespace === defaultNamespace)
  const record: NamespaceRecord = {
    id: defaultNamespace,
    name: "default",
    mode: "strong",
    partitioning: "hash",
    ranges: own.length,
    replicas: own[0]?.replicas.length ?? 1,
    state: "ready",
  }
  yield* meta.create(namespaceKey(record.name), JSON.stringify(record))
  const eventual: EventualNamespaceRecord = {
    ...{ id: firstEventualNamespace + 1, name: "eventual", mode: "eventual" },
    ...{ partitioning: "hash", ranges: 0, replicas: Math.min(3, nodes.length) },
    ...{ conflict: "siblings", write: "quorum", read: "quorum", state: "ready" },
  }
  yield* meta.create(namespaceKey(eventual.name), JSON.stringify(eventual))
  for (const descriptor of ranges) {
    yield* meta.create(rangeKey(descriptor.id), rangeValue(descriptor))
  }
  const lastNode = Math.max(...nodes)
  const counters: ReadonlyArray<readonly [Counter, number]> = [
    ["node", lastNode],
    ["namespace", defaultNamespace],
    ["eventual", 1],
    ["replica", lastNode],
    ["range", Math.max(...ranges.map(({ id }) => id))],
  ]
  for (const [counter, last] of counters) yield* meta.create(`counter/${counter}`, `${last}`)
})

/** A node may come back at other addresses. */
function correctOwnRecord(
  { self }: ControlShape,
  meta: Meta,
  { directory, versions }: Snapshot,
): Effect.Effect<unknown, KvorumError> {
  const record = directory.nodes.find(({ id }) => id === self.id)
  if (record === undefined || record.incarnation !== self.incarnation) return Effect.void
  if (record.state === "removed") return Effect.void
  const { peer, client, host, zone, rack, capacity } = self
  const domains = {
    ...(zone === undefined ? {} : { zone }),
    ...(rack === undefined ? {} : { rack }),
    ...(capacity === undefined ? {} : { capacity }),
  }
  // Whoever writes this runs.
  const state = record.state === "joining" ? "member" : record.state
  const corrected = { ...record, peer, client, host, ...domains, state }
  if (JSON.stringify(corrected) === JSON.stringify(record)) return Effect.void
  const key = nodeKey(self.id)
  return meta.set(key, JSON.stringify(corrected), versions.get(key))
}
