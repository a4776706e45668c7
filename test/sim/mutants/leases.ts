import { Lease } from "../../../src/raft/lease.ts"
import type { HeartbeatResponse, TimeoutNow } from "../../../src/raft/message.ts"
import { RaftNode } from "../../../src/raft/raftNode.ts"
import { RequestQueue } from "../../../src/server/requestQueue.ts"
import type { Reply } from "../../../src/server/requests.ts"
import { type Mutant, withMethod } from "./mutant.ts"

class NoSilence extends RaftNode {
  protected override get inVoteSilence(): boolean {
    return false
  }
}

export const leaseWithoutSilence: Mutant = {
  name: "O",
  title: "leases without the silence of voters that they rest on (pitfall 19)",
  parts: { RaftNode: NoSilence },
}

class NoStartSilence extends RaftNode {
  constructor(options: ConstructorParameters<typeof RaftNode>[0]) {
    super({ ...options, startSilence: false })
  }
}

export const voteAfterRestart: Mutant = {
  name: "L",
  title: "a voter that has just restarted votes at once, under a lease (pitfall 19)",
  parts: { RaftNode: NoStartSilence },
  shows: ({ settings }) => settings.leaseMs > 0,
}

interface OpenLease {
  marks: Array<{ round: number; monotonicMs: number; wallMs: number }>
  granted: { round: number; monotonicMs: number; wallMs: number } | undefined
}

/** The reading of the clocks in the turn in which the echo came in. */
class FromArrival extends RaftNode {
  protected override stepHeartbeatResponse(response: HeartbeatResponse): void {
    const { lease, observedMonotonicMs, observedWallMs } = this as unknown as {
      lease: OpenLease
      observedMonotonicMs: number
      observedWallMs: number
    }
    const before = lease.granted
    super.stepHeartbeatResponse(response)
    if (lease.granted === before || lease.granted === undefined) return
    lease.granted = {
      ...lease.granted,
      monotonicMs: observedMonotonicMs,
      wallMs: observedWallMs,
    }
  }
}

export const leaseFromArrival: Mutant = {
  name: "P",
  title:
    "a lease counts from the arrival of the echo, not from the sending of its round (pitfall 19)",
  parts: { RaftNode: FromArrival },
  shows: ({ settings }) => settings.leaseMs > 0,
}

export const leaseByOneClock: Mutant = {
  name: "Q",
  title: "a lease trusts the monotonic clock alone, also after the machine has slept (pitfall 19)",
  plant: withMethod<OpenLease & { leaseMs: number }, [number, number], boolean>(
    Lease,
    "holds",
    () =>
      function (monotonicMs) {
        return this.granted !== undefined && monotonicMs - this.granted.monotonicMs < this.leaseMs
      },
  ),
}

class KeepsLease extends RaftNode {
  protected override giveUpLease(): void {}
}

export const transferKeepsLease: Mutant = {
  name: "R",
  title: "a leader that has sent TimeoutNow keeps its lease (pitfall 20)",
  parts: { RaftNode: KeepsLease },
}

class ObeysAll extends RaftNode {
  protected override obeysTimeoutNow(message: TimeoutNow): boolean {
    return this.role === "follower" && message.from !== this.id
  }
}

export const lateTimeoutNow: Mutant = {
  name: "S",
  title: "a TimeoutNow of an earlier term is obeyed (pitfall 20)",
  parts: { RaftNode: ObeysAll },
  shows: ({ settings, churn, network }) =>
    settings.leaseMs > 0 && churn.rate > 0 && network.duplicateRate > 0,
}

class NeverOverdue extends RaftNode {
  protected override transferIsOverdue(): boolean {
    return false
  }
}

export const transferForEver: Mutant = {
  name: "T",
  title: "a transfer whose target does not take over never ends (pitfall 21)",
  parts: { RaftNode: NeverOverdue },
  stalls: true,
}

interface Held {
  held: Array<{ readonly read: unknown; readonly reply: Reply }>
  replies: Array<Reply>
}

/** Either alone is harmless: the look before the answer leaves is there for a reading that has grown old. */
class OldReading extends RaftNode {
  private reading: readonly [number, number] | undefined

  override observeClocks(monotonicMs: number, wallMs: number): void {
    const before = this.reading
    this.reading = [monotonicMs, wallMs]
    if (before !== undefined) super.observeClocks(...before)
    else super.observeClocks(monotonicMs, wallMs)
  }
}

export const leaseByOldReading: Mutant = {
  name: "U",
  title:
    "a lease is judged by the clocks of the turn before, and not again when the answer leaves (pitfall 19)",
  parts: { RaftNode: OldReading },
  plant: withMethod<Held & { takeReplies: () => unknown }, [unknown], unknown>(
    RequestQueue,
    "release",
    () =>
      function () {
        for (const { reply } of this.held) this.replies.push(reply)
        this.held = []
        return this.takeReplies()
      },
  ),
}
