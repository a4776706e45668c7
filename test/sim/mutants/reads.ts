import type { ReadIndexRequest } from "../../../src/raft/message.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import {
  PendingReads,
  type ReadProgress,
  type TimedRead,
} from "../../../src/server/pendingReads.ts"
import type { Replica } from "../../../src/server/replica.ts"
import { RequestQueue } from "../../../src/server/requestQueue.ts"
import { type Mutant, withMethod } from "./mutant.ts"

class NeverAsks extends RaftNode {
  override readIndex(context: number): boolean {
    if (this.role !== "leader") return super.readIndex(context)
    this.confirmedReads.push({ context, index: this.commitIndex, byLease: false })
    return true
  }
}

export const readNotConfirmed: Mutant = {
  name: "AD",
  title: "a leader reads without asking whether it still leads (pitfall 18)",
  parts: { RaftNode: NeverAsks },
}

/** The round that confirms a read may have begun before it came. */
class OldRound extends RaftNode {
  private confirmedRound = 0

  override readIndex(context: number): boolean {
    const { round } = this.followers.find(({ replica }) => replica !== this.id) ?? { round: 0 }
    if (this.role === "leader" && this.hasCommittedInTerm && round > this.confirmedRound) {
      this.confirmedRound = round
      this.confirmedReads.push({ context, index: this.commitIndex, byLease: false })
      return true
    }
    return super.readIndex(context)
  }

  protected override leadershipLost(): void {
    super.leadershipLost()
    this.confirmedRound = 0
  }
}

export const readByOldRound: Mutant = {
  name: "AE",
  title: "a read is confirmed by a round that was echoed before it came (pitfall 18)",
  parts: { RaftNode: OldRound },
}

class ReadsTooSoon extends RaftNode {
  protected override get hasCommittedInTerm(): boolean {
    return this.role === "leader"
  }
}

export const readBeforeOwnCommit: Mutant = {
  name: "AF",
  title: "a new leader reads before an entry of its own term is committed (pitfall 17)",
  parts: { RaftNode: ReadsTooSoon },
}

class AnswersAtOnce extends RaftNode {
  protected override stepReadIndexRequest(request: ReadIndexRequest): void {
    if (this.role !== "leader" || !this.hasCommittedInTerm) return
    const { from: to, session, context } = request
    const { id: from, term, commitIndex: index } = this
    this.messages.push({ _tag: "ReadIndexResponse", from, to, term, session, context, index })
  }
}

export const followerReadNotConfirmed: Mutant = {
  name: "AG",
  title: "a leader gives followers read indexes without a round (pitfall 18)",
  parts: { RaftNode: AnswersAtOnce },
  shows: ({ workload }) => workload.anyReplicaShare > 0,
}

interface Batches {
  batches: Array<{ index: number | undefined; sentAt: ReadProgress["clock"] }>
}

export const freshFromArrival: Mutant = {
  name: "AH",
  title: "freshness counts from the arrival of the answer, not from the sending of the question",
  plant: withMethod<Batches, [ReadProgress, (read: TimedRead) => void], void>(
    PendingReads,
    "take",
    (take) =>
      function (progress, serve) {
        for (const batch of this.batches) batch.sentAt = progress.clock
        take.call(this, progress, serve)
      },
  ),
}

export const readBeforeApplied: Mutant = {
  name: "AI",
  title: "a confirmed read does not wait until its index is applied",
  plant: withMethod<PendingReads, [ReadProgress, (read: TimedRead) => void], void>(
    PendingReads,
    "take",
    (take) =>
      function (progress, serve) {
        take.call(this, { ...progress, appliedIndex: Number.MAX_SAFE_INTEGER }, serve)
      },
  ),
}

export const floorIgnored: Mutant = {
  name: "AJ",
  title: "a read does not wait for what its session has seen",
  plant: withMethod<PendingReads, [TimedRead, ReadProgress], boolean>(
    PendingReads,
    "isServable",
    (isServable) =>
      function (read, progress) {
        return isServable.call(this, { ...read, floor: 0 }, progress)
      },
  ),
}

export const readWithoutBounds: Mutant = {
  name: "AK",
  title: "a read is served without a look at the bounds, which a split has changed (pitfall 37)",
  shows: ({ churn }) => churn.rate > 0,
  plant: withMethod<RequestQueue, [Replica, TimedRead], number>(
    RequestQueue,
    "serve",
    (serve) =>
      function (replica, read) {
        const { boundsVersion } = replica.machine.descriptor
        const request = { ...read.request, boundsVersion }
        return serve.call(this, replica, { ...read, request })
      },
  ),
}

/** A read that is hidden by its node's clock in place of asking for a tick. */
export const expiryByLocalClock: Mutant = {
  name: "BA",
  title: "a linearizable read hides what has expired by its node's own clock (pitfall 33)",
  plant: withMethod<RequestQueue, [Replica, TimedRead], number>(
    RequestQueue,
    "serve",
    (serve) =>
      function (replica, read) {
        const request = { ...read.request, level: "local" as const }
        return serve.call(this, replica, { ...read, request })
      },
  ),
}
