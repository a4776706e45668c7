import type { Replica } from "./replica.ts"

/**
 * The limit on what a replica holds that is committed and that it could not apply: its log grows as long as it takes entries, and none of it can be released.
 * It lags so while its engine has no room, or while the next entry reads damaged bytes. Beyond the limit its core takes no new entries and says so with each
 * echo, and the leader holds them back. Where that leaves no quorum to commit, what the leader takes ends at `maxUncommittedBytes`, and clients are told
 * `Overloaded`. One that stays full until its next entry has left the leader's log gets a snapshot.
 *
 * Looked at once a tick: what comes between two, and what was under way already, is held beyond the limit.
 */
export function limitUnapplied(replicas: ReadonlyArray<Replica>, maxBytes: number): void {
  for (const replica of replicas) replica.raft.isFull = isBeyond(replica, maxBytes)
}

function isBeyond({ raft, log, machine }: Replica, maxBytes: number): boolean {
  // Entries are counted one by one: only where so much could be there at all.
  if (raft.commitIndex <= machine.appliedIndex || log.sizeBytes <= maxBytes) return false
  return log.sizeBytesAbove(machine.appliedIndex) - log.sizeBytesAbove(raft.commitIndex) > maxBytes
}
