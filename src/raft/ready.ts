import type { LogIndex, ReplicaId, Term } from "../types.ts"
import type { Entry, HardState, Message } from "./message.ts"

/**
 * A read whose leadership was confirmed: serve it from a state that has applied `index` or more
 * (Raft thesis 6.4).
 */
export interface ConfirmedRead {
  /** What `readIndex` was given. */
  readonly context: number
  readonly index: LogIndex
  /** Confirmed by the lease alone: ask `leaseHolds` with new readings before the answer leaves. */
  readonly byLease: boolean
}

/** A snapshot that the core wants installed in place of its log. */
export interface SnapshotToInstall {
  readonly index: LogIndex
  readonly term: Term
}

/**
 * What the caller must do now. Several may be under way: the caller may take the next before the
 * writes of the last are durable, as long as writes become durable in the order in which they were
 * taken. Each field states its ordering rule.
 */
export interface Ready {
  /** Write with `entries`, in the same batch, before anything in `messagesAfterPersist` leaves. */
  readonly hardState: HardState | undefined
  /**
   * Append in order; the first index truncates what was stored at it and above. Once durable, call
   * `persisted` with index and term of the last one; a later write stands for those before it.
   */
  readonly entries: ReadonlyArray<Entry>
  /**
   * Install behind a barrier, once everything returned up to and including this `ready` is
   * durable (the term of the snapshot must not be news to the hard state after a crash); let
   * storage begin after it, then call `snapshotInstalled`. Nothing is applied from the log
   * meanwhile, and nothing appended.
   */
  readonly snapshot: SnapshotToInstall | undefined
  /**
   * Send at once, before or while the writes happen: a leader's appends, heartbeats, pre-votes
   * (Raft thesis 10.2.1).
   */
  readonly messages: ReadonlyArray<Message>
  /**
   * Send only once everything returned up to and including this `ready` is durable: votes, requests
   * for votes, acknowledgements. One addressed to the replica itself is handed back through `step`
   * instead.
   */
  readonly messagesAfterPersist: ReadonlyArray<Message>
  /**
   * Committed and durable here: apply in order, then call `applied`, in steps if need be. Never
   * returned twice; the next come when all of these are applied.
   */
  readonly committed: ReadonlyArray<Entry>
  /**
   * Serve each once its index is applied. Those of a leader come once each. Those that it confirmed for another replica may come there twice,
   * or never: ask again after a while.
   */
  readonly reads: ReadonlyArray<ConfirmedRead>
  /** Reads that this replica can no longer confirm, because it lost leadership: refuse them. */
  readonly readsLost: ReadonlyArray<number>
  /**
   * Followers whose next entry is no longer in the log: send each the range's snapshot, then call
   * `snapshotSent`, whatever came of it.
   */
  readonly snapshotsWanted: ReadonlyArray<ReplicaId>
  /**
   * True when this leader's group is joint and may go on: propose the membership that leaves it (`leftJoint`). Said again every heartbeat
   * until that is done, by this leader or a later one.
   */
  readonly leaveJointDue: boolean
  /**
   * False when there is nothing to write, or only `commit` changed, which need not be synced and
   * comes seldom: it rides with other writes, else once an election timeout.
   */
  readonly mustSync: boolean
}
