import type { LogIndex, Term } from "../types.ts"
import type { Entry } from "./message.ts"

/**
 * The part of the log that has been handed to stable storage, as the core reads it; `server/`
 * implements it over the journal. Synchronous: the tail is in memory, older entries come from the
 * journal file through the page cache.
 *
 * An entry that the core has returned in `ready().entries` must be readable here once `persisted`
 * is called for it, and may be readable before. Returning entries from index i truncates whatever
 * was stored at i and above.
 */
export interface LogStorage {
  /** Index of the oldest entry kept; `lastIndex + 1` when none is. */
  readonly firstIndex: LogIndex
  /** Index of the newest entry stored; `firstIndex - 1` when none is. */
  readonly lastIndex: LogIndex
  /** Term at `index`, for firstIndex - 1 <= index <= lastIndex; `undefined` outside. */
  term(index: LogIndex): Term | undefined
  /**
   * Entries from `from` up to, not including, `to`; at least one, then as many as fit `maxBytes` of
   * data. Requires firstIndex <= from < to <= lastIndex + 1. None from a missing entry on.
   */
  entries(from: LogIndex, to: LogIndex, maxBytes: number): ReadonlyArray<Entry>
  /**
   * The oldest entry from `from` on of which stored bytes are lost, though its term is known: it can be neither sent nor applied until it is back.
   */
  firstMissing?(from: LogIndex): LogIndex | undefined
  /**
   * The end of a log that this replica may have acknowledged and lost in damage: until its log reaches it, it does not campaign, votes only for
   * logs that do, and learns what is committed from appends alone.
   */
  readonly voteFloor?: { readonly index: LogIndex; readonly term: Term } | undefined
}
