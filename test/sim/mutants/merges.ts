import { RangeMachine } from "../../../src/server/apply.ts"
import type { MergeStep, SourceStep } from "../../../src/server/merge/entries.ts"
import { Merges } from "../../../src/server/merge/merges.ts"
import { MergingMachine } from "../../../src/server/merge/mergingMachine.ts"
import type { Absorbed, TargetState } from "../../../src/server/merge/state.ts"
import { Replica } from "../../../src/server/replica.ts"
import { ReplicaSet } from "../../../src/server/replicaSet.ts"
import { RequestQueue } from "../../../src/server/requestQueue.ts"
import { SessionTable } from "../../../src/server/sessions.ts"
import { Storage } from "../../../src/server/storage.ts"
import type { RangeDescriptor } from "../../../src/types.ts"
import type { Parameters } from "../parameters.ts"
import { type Mutant, withMethod } from "./mutant.ts"

/** They show only where ranges merge. */
const shows = ({ churn }: Parameters): boolean => churn.mergeRate > 0

interface Room {
  readonly host: { readonly awake: ReadonlyArray<Replica>; readonly stampMs: number }
}

export const resumesWithoutAbort: Mutant = {
  name: "BI",
  title:
    "the source of a merge goes on by itself when it has waited for long, without an abort (pitfall 39)",
  shows,
  plant: withMethod<Room, [], void>(
    Merges,
    "advanceAll",
    (original) =>
      function () {
        original.call(this)
        for (const replica of this.host.awake) {
          const { merge, descriptor } = replica.machine
          if (merge?._tag !== "Source" || !replica.leadsNoticed || replica.isUnsettled) continue
          if (replica.quietTicks < 3) continue
          const { boundsVersion, membersVersion } = descriptor
          const { target } = merge
          const versions = { boundsVersion, membersVersion }
          const step = { _tag: "Fence", target, merge: merge.merge, ...versions } as const
          replica.proposeMerge(this.host.stampMs, step)
        }
      },
  ),
}

export const readsAfterPrepare: Mutant = {
  name: "BJ",
  title: "the source of a merge serves reads after it was prepared (pitfall 39)",
  shows,
  plant: withMethod<RequestQueue, [Replica], boolean>(RequestQueue, "isClosed", () => () => false),
}

export const childOfOthers: Mutant = {
  name: "BK",
  title: "the right half of a split begins with a member less than the left one",
  plant: withMethod<RangeMachine, [RangeDescriptor], RangeMachine>(
    RangeMachine,
    "begin",
    (original) =>
      function (descriptor) {
        const replicas = descriptor.replicas.slice(0, -1)
        const isAlone = replicas.length === 0
        return original.call(this, isAlone ? descriptor : { ...descriptor, replicas })
      },
  ),
}

interface Attempt {
  readonly confirmed: ReadonlyMap<number, unknown>
}

export const confirmedByQuorum: Mutant = {
  name: "BL",
  title:
    "a merge is committed when a majority of the source has confirmed that it is prepared (pitfall 39)",
  shows,
  stalls: true,
  plant: withMethod<Merges, [Attempt, TargetState], boolean>(
    Merges,
    "isConfirmed",
    () =>
      ({ confirmed }, { source }) =>
        2 * confirmed.size > source.replicas.length,
  ),
}

export const stampedBelowSource: Mutant = {
  name: "BM",
  title: "a merge is stamped without regard to the versions of its source",
  shows,
  plant: withMethod<Replica, [number, MergeStep, number?], number | undefined>(
    Replica,
    "proposeMerge",
    (original) =>
      function (wallMs, step) {
        return original.call(this, wallMs, step, 0)
      },
  ),
}

class NotUnited extends SessionTable {
  override unite(): void {}
}

export const sessionsLostAtMerge: Mutant = {
  name: "BN",
  title: "a merge forgets the sessions of its source (pitfall 32)",
  shows,
  parts: { SessionTable: NotUnited },
}

export const sourceLogDropped: Mutant = {
  name: "BO",
  title: "the log of a merge's source goes before what it became is in tables",
  shows,
  plant: withMethod<Storage, [Absorbed, () => void], void>(
    Storage,
    "absorb",
    (original) =>
      function (absorbed, flushed) {
        original.call(this, absorbed, () => {})
        flushed()
      },
  ),
}

interface Sources {
  readonly host: { readonly replicas: ReadonlyMap<number, Replica> }
}

export const sourceTakenAsItIs: Mutant = {
  name: "BP",
  title: "a merge takes its source as it is on the node, applied to its preparation or not",
  shows,
  plant: withMethod<Sources, [Replica, never], unknown>(
    Merges,
    "sourceOf",
    (original) =>
      function (replica, entry) {
        const found = original.call(this, replica, entry)
        const { merge } = replica.machine
        if (found !== "waits" || merge?._tag !== "Target") return found
        return this.host.replicas.get(merge.source.id)?.machine ?? found
      },
  ),
}

export const buriedTooEarly: Mutant = {
  name: "BQ",
  title:
    "a replica of a range that others have taken in is buried where it is still to be taken in",
  shows,
  stalls: true,
  plant: withMethod<ReplicaSet, [never], boolean>(ReplicaSet, "isYetToTake", () => () => false),
}

interface Machine {
  descriptor: RangeDescriptor
  merge: { readonly _tag: string; readonly phase?: string } | undefined
}

export const fenceLeavesVersions: Mutant = {
  name: "BR",
  title: "a source that was fenced off can be prepared again by a late word of the same merge",
  shows,
  stalls: true,
  plant: withMethod<Machine, [SourceStep], boolean>(
    MergingMachine,
    "fence",
    (original) =>
      function (step) {
        const { descriptor } = this
        const isDone = original.call(this, step)
        this.descriptor = descriptor
        return isDone
      },
  ),
}

interface Asking {
  propose(replica: Replica, step: MergeStep): void
}

export const thawedUnasked: Mutant = {
  name: "BS",
  title: "the target of an aborted merge goes on before its source has learned of that",
  shows,
  stalls: true,
  plant: withMethod<Asking, [Replica, TargetState, string], void>(
    Merges,
    "ask",
    (original) =>
      function (replica, target, kind) {
        original.call(this, replica, target, kind)
        if (kind === "fence") this.propose(replica, { _tag: "Thaw", merge: target.merge })
      },
  ),
}

export const noTombstone: Mutant = {
  name: "BT",
  title:
    "a range that was taken in leaves no tombstone, so that a late message makes a replica of it",
  shows,
  plant: withMethod<Storage, [number, never], void>(Storage, "leaveTombstone", () => () => {}),
}

export const heldCommands: Mutant = {
  name: "BU",
  title: "commands that come after a source was prepared are applied to it",
  shows,
  plant: () => {
    const { prototype } = MergingMachine
    const original = Object.getOwnPropertyDescriptor(prototype, "isPrepared") as PropertyDescriptor
    Object.defineProperty(prototype, "isPrepared", { configurable: true, get: () => false })
    return () => Object.defineProperty(prototype, "isPrepared", original)
  },
}
