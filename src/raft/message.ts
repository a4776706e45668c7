import type { LogIndex, ReplicaId, Term } from "../types.ts"

/**
 * What an entry holds. The core reads `empty` and `members`; the others are the state machine's. Stored and sent: do not change these values.
 */
export const entryKinds = {
  empty: 0,
  commands: 1,
  members: 2,
  split: 3,
  tick: 4,
  clear: 5,
  merge: 6,
} as const
export type EntryKind = (typeof entryKinds)[keyof typeof entryKinds]

/** One position of the log. `data` belongs to whoever proposed it and is never changed. */
export interface Entry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: EntryKind
  readonly data: Uint8Array
}

/**
 * What a voter must never forget (Raft paper, Figure 2: persistent state), and a commit index that
 * it may.
 */
export interface HardState {
  readonly term: Term
  /** Candidate voted for in `term`; 0 = none. */
  readonly vote: ReplicaId
  /** Known committed; written without a sync of its own. */
  readonly commit: LogIndex
}

interface Envelope {
  readonly from: ReplicaId
  readonly to: ReplicaId
  /** The sender's term; of a pre-vote request, the term it would campaign in. */
  readonly term: Term
}

export interface VoteRequest extends Envelope {
  readonly _tag: "VoteRequest"
  readonly preVote: boolean
  /** The leader itself asked for this election, and counts on no voter's silence any more. */
  readonly transfer: boolean
  readonly lastIndex: LogIndex
  readonly lastTerm: Term
}

export interface VoteResponse extends Envelope {
  readonly _tag: "VoteResponse"
  readonly preVote: boolean
  readonly granted: boolean
}

export interface AppendRequest extends Envelope {
  readonly _tag: "AppendRequest"
  readonly previousIndex: LogIndex
  readonly previousTerm: Term
  readonly entries: ReadonlyArray<Entry>
  readonly commit: LogIndex
}

export interface AppendResponse extends Envelope {
  readonly _tag: "AppendResponse"
  readonly accepted: boolean
  /** Accepted: the last index known to match. Refused: the `previousIndex` that did not match. */
  readonly index: LogIndex
  /**
   * Refused: the largest index of the follower's log that may match, and its term, so that probing
   * skips whole terms.
   */
  readonly hintIndex: LogIndex
  readonly hintTerm: Term
}

export interface Heartbeat extends Envelope {
  readonly _tag: "Heartbeat"
  readonly commit: LogIndex
  /**
   * Count of heartbeat rounds of this leader in this term; a read waits for a quorum to echo a
   * round begun after it.
   */
  readonly round: number
}

export interface HeartbeatResponse extends Envelope {
  readonly _tag: "HeartbeatResponse"
  readonly round: number
  /** The sender takes no new entries until it has applied more of those that it holds. */
  readonly full: boolean
}

/**
 * The last word of a snapshot: its frames have arrived (they travel outside the core), now the core
 * decides whether it is still wanted.
 */
export interface SnapshotOffer extends Envelope {
  readonly _tag: "SnapshotOffer"
  readonly index: LogIndex
  /** Term of the entry at `index`. */
  readonly indexTerm: Term
}

/** The leader of this term hands over: whoever gets it campaigns at once (Raft thesis 3.10). */
export interface TimeoutNow extends Envelope {
  readonly _tag: "TimeoutNow"
}

/** A replica asks its leader for an index at which a read would be linearizable. */
export interface ReadIndexRequest extends Envelope {
  readonly _tag: "ReadIndexRequest"
  /** Drawn by the asker once in its life: an answer to an earlier life of it is told by this. */
  readonly session: number
  readonly context: number
}

export interface ReadIndexResponse extends Envelope {
  readonly _tag: "ReadIndexResponse"
  readonly session: number
  readonly context: number
  readonly index: LogIndex
}

export type Message =
  | VoteRequest
  | VoteResponse
  | AppendRequest
  | AppendResponse
  | Heartbeat
  | HeartbeatResponse
  | SnapshotOffer
  | TimeoutNow
  | ReadIndexRequest
  | ReadIndexResponse
