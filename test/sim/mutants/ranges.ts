import type { JournalGroup } from "../../../src/journal/group.ts"
import type { RangeMachine } from "../../../src/server/apply.ts"
import { Identity } from "../../../src/server/Identity.ts"
import { firstIndex, firstTerm, ReplicaOpener } from "../../../src/server/openReplicas.ts"
import type { Gone } from "../../../src/server/peerMessage.ts"
import { RangeLife } from "../../../src/server/rangeLife.ts"
import type { Replica } from "../../../src/server/replica.ts"
import { ReplicaSet } from "../../../src/server/replicaSet.ts"
import { SessionTable } from "../../../src/server/sessions.ts"
import type { NodeId } from "../../../src/types.ts"
import { type Mutant, withMethod } from "./mutant.ts"

class LostAtSplit extends SessionTable {
  override copyTo(): void {}
}

export const sessionsLostAtSplit: Mutant = {
  name: "AL",
  title: "the right half of a split begins without sessions (pitfall 32)",
  parts: { SessionTable: LostAtSplit },
}

class LostInSnapshots extends SessionTable {
  override all(): ReturnType<SessionTable["all"]> {
    return []
  }
}

export const sessionsLostInSnapshot: Mutant = {
  name: "AM",
  title: "a snapshot lacks the session table (pitfall 32)",
  parts: { SessionTable: LostInSnapshots },
}

class NoResults extends SessionTable {
  override find(): undefined {
    return undefined
  }

  override record(...options: Parameters<SessionTable["record"]>): void {
    if (super.find(options[0], options[1]) === undefined) super.record(...options)
  }
}

export const retryAppliedAgain: Mutant = {
  name: "AN",
  title: "a retry is applied again (pitfall 32)",
  parts: { SessionTable: NoResults },
}

class ResetsChild extends ReplicaOpener {
  protected override fitLog(log: JournalGroup, machine: RangeMachine): void {
    if (machine.appliedIndex === firstIndex) log.resetTo(firstIndex, firstTerm)
    else super.fitLog(log, machine)
  }
}

export const replayedSplitResets: Mutant = {
  name: "AO",
  title: "a replayed split resets a child that has a log already (pitfall 38)",
  parts: { ReplicaOpener: ResetsChild },
}

export const graveOpened: Mutant = {
  name: "AP",
  title: "a replica that was removed is made again by a late message",
  plant: withMethod<ReplicaSet, [number, number], boolean>(
    ReplicaSet,
    "isBuried",
    () => () => false,
  ),
}

export const emptiedVotesAgain: Mutant = {
  name: "BB",
  title: "a node that comes back with an empty disk is taken for its former self (pitfall 28)",
  plant: withMethod<Identity, [number, string], string | undefined>(
    Identity,
    "problemOfPeer",
    () => () => undefined,
  ),
}

interface Going {
  readonly host: { readonly set: ReplicaSet }
  condemn(replica: Replica, proof: Gone): void
}

export const lateGone: Mutant = {
  name: "BC",
  title: "a word that an earlier replica was removed, come late, removes the one that is there now",
  plant: withMethod<Going, [NodeId, Gone], void>(
    RangeLife,
    "gone",
    () =>
      function (_from, message) {
        const replica = this.host.set.byRange.get(message.range)
        if (replica === undefined) return
        replica.raft.stepDown()
        this.condemn(replica, message)
      },
  ),
}

export const firstTermForAnyone: Mutant = {
  name: "BH",
  title:
    "whoever leads a range when it splits leads the child's first term, also who did not propose the split",
  plant: withMethod<RangeLife, [Replica], boolean>(
    RangeLife,
    "hasProposed",
    () =>
      ({ isLeader }) =>
        isLeader,
  ),
}
