import type { Lsn } from "../types.ts"
import type { GroupKey, LoggedHardState } from "./group.ts"

/**
 * Sizes and limits of a journal. Only `segmentBytes` shows in files, and each file states its own.
 */
export interface JournalOptions {
  readonly segmentBytes: number
  /** Bytes of entries kept in memory, over all groups. */
  readonly tailCacheBytes: number
  /** Above this many segments, live entries are copied out of the oldest; 8. */
  readonly rewriteThresholdSegments?: number
  /** Bytes that one call of `maintain` copies at most, to within one entry; 1 MiB. */
  readonly rewriteSliceBytes?: number
}

export const defaultJournalOptions: Required<JournalOptions> = {
  segmentBytes: 64 * 1024 * 1024,
  tailCacheBytes: 64 * 1024 * 1024,
  rewriteThresholdSegments: 8,
  rewriteSliceBytes: 1024 * 1024,
}

/** One write: `bytes` at `offset` of the file, then fdatasync if `sync`, then `durable`. */
export interface JournalWrite {
  readonly path: string
  readonly offset: number
  /** Valid until `durable` is called. */
  readonly bytes: Uint8Array
  /** What `durableLsn` reaches with this write, if it is synced. */
  readonly endLsn: Lsn
  readonly sync: boolean
}

export interface RecoveredGroup {
  readonly key: GroupKey
  readonly hardState: LoggedHardState
  readonly firstIndex: number
  readonly lastIndex: number
}
