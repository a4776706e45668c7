import type { JournalGroup } from "../../../src/journal/group.ts"
import { entryKinds } from "../../../src/raft/message.ts"
import type { RangeMachine } from "../../../src/server/apply.ts"
import { firstIndex, firstTerm, ReplicaOpener } from "../../../src/server/openReplicas.ts"
import { Replica } from "../../../src/server/replica.ts"
import { ReplicaSet } from "../../../src/server/replicaSet.ts"
import { SessionTable } from "../../../src/server/sessions.ts"
import { type Mutant, together, withMethod } from "./mutant.ts"

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

interface OpenReplica {
  readonly proposed: Map<number, { term: number }>
  proposedCount: number
}

type Apply = Parameters<Replica["applyEntry"]>
type Drop = Parameters<Replica["dropLeadership"]>

export const waitersByIndex: Mutant = {
  name: "AQ",
  title:
    "who waits is answered by whatever entry is applied at its index, whoever led then (pitfall 10)",
  plant: together(
    withMethod<OpenReplica, Apply, void>(
      Replica,
      "applyEntry",
      (applyEntry) =>
        function (entry, answer, giveUp) {
          const waiting = this.proposed.get(entry.index)
          const isAnother = waiting !== undefined && waiting.term !== entry.term
          if (isAnother && entry.kind === entryKinds.commands) waiting.term = entry.term
          applyEntry.call(this, entry, answer, giveUp)
        },
    ),
    withMethod<OpenReplica, Drop, void>(
      Replica,
      "dropLeadership",
      (dropLeadership) =>
        function (giveUp, refuse) {
          const kept = [...this.proposed]
          const count = this.proposedCount
          this.proposed.clear()
          dropLeadership.call(this, giveUp, refuse)
          for (const [index, waiting] of kept) this.proposed.set(index, waiting)
          this.proposedCount = count
        },
    ),
  ),
}
