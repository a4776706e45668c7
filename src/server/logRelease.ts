import type { LogIndex, MonotonicMs } from "../types.ts"
import type { Replica } from "./replica.ts"
import { releasableIndexes } from "./retention.ts"
import type { StoreSettings } from "./settings.ts"
import type { SnapshotExchange } from "./snapshotExchange.ts"
import type { Storage } from "./storage.ts"

/** What of the logs nobody needs any more goes: neither this node after a crash, nor, within a budget, a slow follower. */
export function releaseLogs(
  replicas: ReadonlyArray<Replica>,
  host: {
    readonly storage: Storage
    readonly settings: StoreSettings
    readonly exchange: SnapshotExchange
  },
  nowMs: MonotonicMs,
): void {
  const { storage, exchange } = host
  for (const replica of replicas) replica.age.mark(nowMs, replica.log.lastIndex)
  // Nothing that is flushed is held any more: there is nothing to reckon.
  if (!replicas.some(({ flushedIndex, log }) => flushedIndex >= log.firstIndex)) {
    return storage.journal.maintain()
  }
  const logs = replicas.map((replica) => {
    return {
      flushedIndex: replica.flushedIndex,
      lastIndex: replica.log.lastIndex,
      sizeBytes: replica.log.sizeBytes,
      bytesAbove: (index: LogIndex) => replica.log.sizeBytesAbove(index),
      slowestMatch: replica.isLeader ? slowestMatch(replica, exchange) : undefined,
      agedIndex: replica.age.agedIndex(nowMs),
    }
  })
  // A full disk keeps nothing for those who lag: they get a snapshot.
  const kept = { retentionBytes: 0, retentionMs: 0, retainedEntries: 0 }
  const settings = storage.isFull ? { ...host.settings, ...kept } : host.settings
  const released = releasableIndexes(logs, settings)
  for (let i = 0; i < replicas.length; i++) {
    const { log } = replicas[i] as Replica
    const index = released[i] as LogIndex
    if (index >= log.firstIndex) log.release(index)
  }
  storage.journal.maintain()
}

/**
 * Above which index the log is kept for followers. One whose next entry has gone already gets a snapshot whatever is kept: for it, the log counts from that
 * snapshot's index on, once there is one.
 */
function slowestMatch(replica: Replica, exchange: SnapshotExchange): LogIndex {
  const { log } = replica
  let least = log.lastIndex
  for (const peer of replica.raft.progress()) {
    const sent = exchange.indexFor(replica.range, peer.replica)
    const isLost = peer.match + 1 < log.firstIndex
    const needs = isLost ? (sent ?? log.lastIndex) : Math.max(peer.match, sent ?? 0)
    if (needs < least) least = needs
  }
  return least
}
