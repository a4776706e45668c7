import { Effect } from "effect"
import type { KvorumError } from "../Errors.ts"
import { type Directory, ringAsJson, ringKey } from "../server/directory.ts"
import type { RingReport } from "../server/eventualHalf.ts"
import type { ControlShape } from "../server/StoreService.ts"
import { allocateTokens } from "../topology/allocator.ts"
import {
  memberOf,
  type RingMember,
  virtualNodesDefault,
  virtualNodesMax,
  withMember,
} from "../topology/member.ts"
import { Ring } from "../topology/ring.ts"
import { nextRing } from "../topology/ringChange.ts"
import { isRefusal, withDomains, withNewcomer, withParting } from "../topology/ringMembers.ts"
import type { NodeId, RingVersion, Slot } from "../types.ts"
import type { Meta, Snapshot } from "./Meta.ts"
import type { Plane } from "./Plane.ts"
import { membersOf, pause, refreshAll } from "./Plane.ts"
import { verbs } from "./verbs.ts"

/**
 * The ring, kept by whoever leads the meta group: it is there once the cluster is founded, has every node that is a member, and goes version by version to where its tokens place the
 * slots (topology/ringChange.ts). Each version is written by condition on the one before, so that two that both believe to lead make no two of one number; nothing is
 * remembered between two steps but what a node reports of itself.
 */

/** Copies spread over zones first, then racks, then hosts, as far as nodes name them. */
const strategy = "zone"
/** Slots that may be changing at a time. */
const slotsAtOnceMax = 4096
const reportWaitMs = 2000
/** A node that is to leave and was not heard of for so long is not waited for. */
const silenceMs = 10_000

/** Writes the first ring, of all nodes that are members by then, where there is none. */
export const foundRing = Effect.fnUntraced(function* (meta: Meta, { directory }: Snapshot) {
  if (directory.ring !== undefined) return
  let members: ReadonlyArray<RingMember> = []
  for (const { newcomer, virtualNodes } of newcomersOf(directory)) {
    const tokens = allocateTokens({ members, strategy, newcomer, virtualNodes })
    members = withMember(members, { ...newcomer, state: "member", tokens })
  }
  if (members.length === 0) return
  yield* meta.create(ringKey, ringAsJson(Ring.founded(members, strategy)))
})

function newcomersOf({ nodes }: Directory) {
  return nodes
    .filter(({ state }) => state === "member")
    .map(({ id, host, zone = "", rack = "", capacity = 1 }) => ({
      newcomer: { node: id, host, zone, rack },
      // One that carries more has more of the circle, as far as a ring may go.
      virtualNodes: Math.min(virtualNodesMax, virtualNodesDefault * capacity),
    }))
}

/** Makes the next version of the ring, if one is due. True when it did. */
export const stepRing = Effect.fnUntraced(function* (
  plane: Plane,
): Effect.fn.Return<boolean, KvorumError> {
  const { meta } = plane
  const { directory, versions } = yield* meta.read
  const ring = directory.ring?.ring
  if (ring === undefined) return false
  const isHurt = [...versions.keys()].some((key) => key.startsWith(lostPrefix))
  const next = withMembers(ring, directory) ?? (yield* withSteps(plane, ring, isHurt))
  if (next === undefined) return false
  const isWritten = yield* meta.set(ringKey, ringAsJson(next), versions.get(ringKey))
  if (isWritten) yield* refreshAll(plane)
  return isWritten
})

/** The version with one member more, or one that is gone. */
function withMembers(ring: Ring, directory: Directory): Ring | undefined {
  for (const { newcomer, virtualNodes } of newcomersOf(directory)) {
    const known = memberOf(ring.members, newcomer.node)
    if (known !== undefined) {
      const moved = known.state === "member" ? withDomains(ring, newcomer) : undefined
      if (moved !== undefined) return moved
      continue
    }
    const next = withNewcomer(ring, newcomer, virtualNodes)
    if (!isRefusal(next)) return next
  }
  for (const { id, state } of directory.nodes) {
    if (state !== "removed") continue
    const next = withParting(ring, id, "gone")
    if (!isRefusal(next)) return next
  }
  return undefined
}

/**
 * Has a node hand its slots over, and returns when it has none, keeps nothing for others and knows that it may take no more. One that does not answer for a while, or the last one, is
 * left to be `gone` when its record says that it was removed; one that only starts again has data that nobody else may have.
 */
export const leaveRing = Effect.fnUntraced(function* (plane: Plane, leaving: NodeId) {
  const { meta, control } = plane
  for (;;) {
    const { directory, versions } = yield* meta.read
    const ring = directory.ring?.ring
    const member = ring === undefined ? undefined : memberOf(ring.members, leaving)
    if (ring === undefined || member?.state === "gone") return
    const isUp = (yield* membersOf(plane)).some(({ node, isUp }) => node === leaving && isUp)
    if (!isUp && control.silentMs(leaving) >= silenceMs) return
    if (member === undefined) {
      const report = isUp ? yield* reportOf(plane, leaving) : undefined
      if (report !== undefined && report.confirmed >= ring.version && report.owed === 0) return
    } else if (member.state === "member") {
      const next = withParting(ring, leaving, "leaving")
      if (isRefusal(next)) return
      yield* meta.set(ringKey, ringAsJson(next), versions.get(ringKey))
    }
    yield* pause
  }
})

const lostPrefix = "ring-lost/"

/**
 * Has the directory know that this node has lost data of slots, or that it has no more to say of it: whoever keeps a ring at rest asks nobody for reports else.
 */
export const tellLost = Effect.fnUntraced(function* (
  control: ControlShape,
  meta: Meta,
  { versions }: Snapshot,
) {
  const key = `${lostPrefix}${control.self.id}`
  const { lost } = control.ringReport()
  if ((lost !== undefined) === versions.has(key)) return
  yield* lost === undefined ? meta.remove(key) : meta.create(key, "lost")
})

/** The version with all steps that are due. `isHurt`: somebody has lost data of slots. */
const withSteps = Effect.fnUntraced(function* (
  plane: Plane,
  ring: Ring,
  isHurt: boolean,
): Effect.fn.Return<Ring | undefined, KvorumError> {
  const goal = ring.goal()
  const isAtRest = ring.changes().length === 0
  if (isAtRest && !isHurt) {
    const none = { confirmedBy: () => 0, isFilled: () => false }
    // Nobody need be asked where nothing moves and nothing is to.
    const first = nextRing(ring, { goal, reports: none, slotsAtOnceMax })
    if (first === undefined) return undefined
  }
  const reports = yield* reportsOf(plane, ring)
  return nextRing(ring, { goal, reports, slotsAtOnceMax })
})

/** What a node says of itself, if it answers. */
function reportOf(plane: Plane, node: NodeId): Effect.Effect<RingReport | undefined> {
  const options = { node, deadlineMs: reportWaitMs }
  return Effect.match(plane.client.admin(verbs.ringReport, {}, options), {
    onSuccess: (report) => report as RingReport,
    onFailure: () => undefined,
  })
}

const reportsOf = Effect.fnUntraced(function* (plane: Plane, ring: Ring) {
  const byNode = new Map<NodeId, RingReport>()
  yield* Effect.forEach(
    ring.members.filter(({ state }) => state !== "gone"),
    ({ node }) =>
      Effect.map(reportOf(plane, node), (report) => {
        if (report !== undefined) byNode.set(node, report)
      }),
    { concurrency: "unbounded", discard: true },
  )
  const filled = new Set<string>()
  for (const [node, report] of byNode) {
    for (const { slot, since } of report.filled) filled.add(`${node} ${slot} ${since}`)
  }
  return {
    lost: [...byNode.values()].flatMap(({ lost }) => (lost === undefined ? [] : [lost])),
    confirmedBy: (node: NodeId): RingVersion => byNode.get(node)?.confirmed ?? 0,
    isFilled: (slot: Slot, node: NodeId, since: RingVersion) =>
      filled.has(`${node} ${slot} ${since}`),
  }
})
