import { entryKinds, type Message } from "../raft/message.ts"
import type { MonotonicMs, NodeId } from "../types.ts"
import type { JournalGate } from "./journalGate.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { RangeChanges } from "./rangeChanges.ts"
import { decodeMembersChange } from "./rangeEntries.ts"
import type { Replica } from "./replica.ts"
import type { RequestQueue } from "./requestQueue.ts"
import type { SnapshotExchange } from "./snapshotExchange.ts"

/** Where what the cores hand out goes. */
export interface CollectHost {
  readonly gate: JournalGate
  readonly queue: RequestQueue
  readonly changes: RangeChanges
  readonly exchange: SnapshotExchange
  send(to: NodeId, message: PeerMessage): void
}

/** Takes from the cores what they want written, sent, applied, confirmed and installed, and hands each to where it belongs. */
export class Collector {
  private readonly host: CollectHost

  constructor(host: CollectHost) {
    this.host = host
  }

  /** Takes what one core has to hand out. */
  collectAll(replica: Replica, nowMs: MonotonicMs): void {
    while (replica.raft.hasReady()) this.collectFrom(replica, nowMs)
  }

  private collectFrom(replica: Replica, nowMs: MonotonicMs): void {
    const { gate, queue, changes, exchange } = this.host
    const ready = replica.raft.ready()
    // The journal writes a mere commit index along with other records, and not for its own sake.
    if (ready.hardState !== undefined) replica.log.setHardState(ready.hardState)
    const last = ready.entries[ready.entries.length - 1]
    if (last !== undefined) {
      replica.log.append(ready.entries)
      gate.tellPersisted(replica, last.index, last.term)
      for (const entry of ready.entries) {
        // Members are in force from here on, whether this replica leads or follows.
        if (entry.kind === entryKinds.members) {
          replica.learnPlaces(decodeMembersChange(entry.data).replicas)
        }
      }
    }
    for (const message of ready.messages) this.deliver(replica, message, nowMs)
    for (const message of ready.messagesAfterPersist) gate.hold(replica, message)
    const committed = ready.committed[ready.committed.length - 1]
    if (committed !== undefined) replica.applyLimit = committed.index
    for (const { context, index, byLease } of ready.reads) {
      replica.reads.confirmed(context, index, byLease)
    }
    for (const context of ready.readsLost) queue.loseReads(replica, context)
    if (ready.leaveJointDue) changes.leaveJoint(replica)
    if (ready.snapshot !== undefined) exchange.wanted(replica, ready.snapshot)
    for (const to of ready.snapshotsWanted) {
      exchange.start(replica, to, nowMs)
    }
  }

  /** A raft message leaves; one to the replica itself is stepped. */
  deliver(replica: Replica, message: Message, nowMs: MonotonicMs): void {
    if (message.to === replica.machine.replica) {
      return replica.raft.step(message, nowMs)
    }
    const to = replica.nodeOf(message.to)
    if (to === undefined) return
    this.host.send(to, { _tag: "Raft", range: replica.range, message })
  }
}
