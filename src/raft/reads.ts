import { assert } from "../lib/assert.ts"
import type { LogIndex } from "../types.ts"
import type { ConfirmedRead } from "./ready.ts"

interface ReadBatch {
  readonly round: number
  readonly index: LogIndex
  readonly contexts: ReadonlyArray<number>
}

/**
 * The leader's linearizable reads (Raft thesis 6.4): a read waits for a heartbeat round that begins
 * after it was registered, and that a quorum echoes; its index is the commit index when that round
 * began. All reads that wait when a round begins share it. The number of reads is limited by who
 * registers them.
 */
export class ReadQueue {
  private waiting: Array<number> = []
  private readonly batches: Array<ReadBatch> = []

  register(context: number): void {
    this.waiting.push(context)
  }

  /** True when reads wait for a round to begin. */
  get hasWaiting(): boolean {
    return this.waiting.length > 0
  }

  /** A round begins, with this commit index, for all reads registered so far. */
  begin(round: number, index: LogIndex): void {
    if (this.waiting.length === 0) return
    const before = this.batches.at(-1)
    assert(before === undefined || before.round < round, "rounds begin in order")
    this.batches.push({ round, index, contexts: this.waiting })
    this.waiting = []
  }

  /** A quorum has echoed `round`: the reads of it and of earlier ones go to `confirmed`. */
  confirm(round: number, confirmed: Array<ConfirmedRead>): void {
    while (this.batches.length > 0 && (this.batches[0] as ReadBatch).round <= round) {
      const { contexts, index } = this.batches.shift() as ReadBatch
      for (const context of contexts) confirmed.push({ context, index })
    }
  }

  /** Leadership is lost: all reads not confirmed go to `lost`, in the order they came. */
  abandon(lost: Array<number>): void {
    for (const batch of this.batches) lost.push(...batch.contexts)
    lost.push(...this.waiting)
    this.batches.length = 0
    this.waiting = []
  }
}
