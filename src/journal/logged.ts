import { assert } from "../lib/assert.ts"
import type { LogIndex, RangeId, ReplicaId, Term } from "../types.ts"

export interface GroupKey {
  readonly range: RangeId
  readonly replica: ReplicaId
}

/** Order of groups wherever one shows: by range, then replica. */
export function compareKeys(left: GroupKey, right: GroupKey): number {
  return left.range - right.range || left.replica - right.replica
}

/** One position of a log. `data` must never change after it was appended. */
export interface LoggedEntry {
  readonly index: LogIndex
  readonly term: Term
  readonly kind: number
  readonly data: Uint8Array
}

export interface LoggedHardState {
  readonly term: Term
  /** Replica voted for in `term`; 0 = none. */
  readonly vote: ReplicaId
  /** May be older than what was set before a crash. */
  readonly commit: LogIndex
}

/** What is stored as u64 has to come back as it was. */
export function assertWhole(...values: ReadonlyArray<number>): void {
  for (const value of values) {
    assert(Number.isSafeInteger(value) && value >= 0, () => `${value} is a whole number`)
  }
}
