import type { Interval } from "../manifest/version.ts"
import type { SealedMemtable } from "../memtable/memtables.ts"

/** Replaces all keys of `intervals` by those of a spill (spill.ts), in one manifest edit. */
export interface ReplaceInterval {
  /** Disjoint and in order; what is added lies inside them. */
  readonly intervals: ReadonlyArray<Interval>
  /** `undefined`: the intervals become empty. */
  readonly spillPath?: string | undefined
  /**
   * `crc32` of the whole spill, to be checked, so that damage to it is not copied under new
   * checksums.
   */
  readonly spillChecksum?: number | undefined
}

/** Replaces all keys of `intervals` by those of finished tables, in one manifest edit. */
export interface IngestTables {
  /** Disjoint and in order; each table lies inside one of them. */
  readonly intervals: ReadonlyArray<Interval>
  /** On the same file system; disjoint, in order of their keys, with sequence 0 throughout. */
  readonly paths: ReadonlyArray<string>
}

/** What maintenance needs of the engine around it: the memtables and the sequence. */
export interface MaintenanceHost {
  /** Of the last write. */
  readonly sequence: number
  /** Bytes of keys and values put since the engine was opened. */
  readonly userBytes?: number
  /** The next sequence, taken. */
  takeSequence(): number
  /** The memtable to flush next. */
  oldestSealed(): SealedMemtable | undefined
  /** The memtable of a generation, the oldest, is in tables that count. */
  flushed(generation: number): void
}
