import type { MonotonicMs, RangeId, ReplicaId } from "../types.ts"
import type { Replica } from "./replica.ts"
import type { SnapshotSender } from "./snapshotSender.ts"

interface Parked {
  readonly sender: SnapshotSender
  readonly untilMs: MonotonicMs
}

/** Each keeps files and memory of the engine alive. */
const parkedMax = 4

/** Snapshots that were broken off, each with what the engine holds for it, to be gone on with for a bounded time. */
export class ParkedSnapshots {
  private parked: ReadonlyArray<Parked> = []
  private readonly keepMs: number

  constructor(keepMs: number) {
    this.keepMs = keepMs
  }

  add(sender: SnapshotSender, nowMs: MonotonicMs): void {
    const parked = [...this.parked, { sender, untilMs: nowMs + this.keepMs }]
    for (const { sender: oldest } of parked.slice(0, -parkedMax)) oldest.close()
    this.parked = parked.slice(-parkedMax)
  }

  find(range: RangeId, to: ReplicaId): SnapshotSender | undefined {
    return this.parked.find(({ sender }) => sender.range === range && sender.to === to)?.sender
  }

  /** One for this follower that is still of use: its index is in the log, and the range's bounds are what they were. */
  take(replica: Replica, to: ReplicaId): SnapshotSender | undefined {
    const sender = this.find(replica.range, to)
    if (sender === undefined) return undefined
    this.parked = this.parked.filter((each) => each.sender !== sender)
    const isInLog = sender.index + 1 >= replica.log.firstIndex
    const { boundsVersion } = replica.machine.descriptor
    if (isInLog && sender.boundsVersion === boundsVersion) return sender
    sender.close()
    return undefined
  }

  tick(nowMs: MonotonicMs): void {
    this.closeWhere(({ untilMs }) => untilMs <= nowMs)
  }

  /** The range goes away. */
  drop(range: RangeId): void {
    this.closeWhere(({ sender }) => sender.range === range)
  }

  private closeWhere(isOver: (parked: Parked) => boolean): void {
    if (!this.parked.some(isOver)) return
    for (const each of this.parked) if (isOver(each)) each.sender.close()
    this.parked = this.parked.filter((each) => !isOver(each))
  }
}
