import { assert } from "../lib/assert.ts"
import type { LogIndex, ReplicaId } from "../types.ts"
import type { ConfirmedRead } from "./ready.ts"

/** A read that another replica asks for. */
export interface RemoteRead {
  readonly from: ReplicaId
  readonly session: number
  readonly context: number
}

interface ReadBatch {
  readonly round: number
  readonly index: LogIndex
  readonly contexts: ReadonlyArray<number>
  readonly remote: ReadonlyArray<RemoteRead>
}

/** Each stands for all reads that a follower gathered in a turn. Those beyond are dropped, and asked for again. */
const maxRemoteReads = 1024

/**
 * The leader's linearizable reads (Raft thesis 6.4): a read waits for a heartbeat round that begins
 * after it was registered, and that a quorum echoes; its index is the commit index when that round
 * began. All reads that wait when a round begins share it. The number of reads of this replica is limited by who
 * registers them.
 */
export class ReadQueue {
  private waiting: Array<number> = []
  private waitingRemote: Array<RemoteRead> = []
  private remoteCount = 0
  private readonly batches: Array<ReadBatch> = []

  register(context: number): void {
    this.waiting.push(context)
  }

  /** False when there are too many. */
  registerRemote({ from, session, context }: RemoteRead): boolean {
    if (this.remoteCount === maxRemoteReads) return false
    this.remoteCount++
    this.waitingRemote.push({ from, session, context })
    return true
  }

  /** True when reads wait for a round to begin. */
  get hasWaiting(): boolean {
    return this.waiting.length > 0 || this.waitingRemote.length > 0
  }

  /** A round begins, with this commit index, for all reads registered so far. */
  begin(round: number, index: LogIndex): void {
    if (!this.hasWaiting) return
    const before = this.batches.at(-1)
    assert(before === undefined || before.round < round, "rounds begin in order")
    this.batches.push({ round, index, contexts: this.waiting, remote: this.waitingRemote })
    this.waiting = []
    this.waitingRemote = []
  }

  /**
   * A quorum has echoed `round`: the reads of it and of earlier ones go to `confirmed`, those of other replicas to `answer`.
   */
  confirm(
    round: number,
    confirmed: Array<ConfirmedRead>,
    answer: (read: RemoteRead, index: LogIndex) => void,
  ): void {
    while (this.batches.length > 0 && (this.batches[0] as ReadBatch).round <= round) {
      const { contexts, remote, index } = this.batches.shift() as ReadBatch
      for (const context of contexts) confirmed.push({ context, index, byLease: false })
      for (const read of remote) answer(read, index)
      this.remoteCount -= remote.length
    }
  }

  /** Leadership is lost: all reads not confirmed go to `lost`, in the order they came. Other replicas see that for themselves. */
  abandon(lost: Array<number>): void {
    for (const batch of this.batches) lost.push(...batch.contexts)
    lost.push(...this.waiting)
    this.batches.length = 0
    this.waiting = []
    this.waitingRemote = []
    this.remoteCount = 0
  }
}
