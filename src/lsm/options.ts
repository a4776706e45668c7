import { assert } from "../lib/assert.ts"
import type { CompactionOptions } from "./compaction.ts"
import { minArenaBytes } from "./memtable.ts"
import type { TableWriterOptions } from "./tableWriter.ts"
import { deepestLevel } from "./version.ts"

/** Sorted runs that a point read may look into, whatever was written. */
export const maxRuns = 8

/**
 * All sizes have defaults that follow `memtableBytes`, so that a tiny memtable makes a tiny engine.
 */
export interface EngineOptions {
  /** Above this a memtable should be sealed. */
  readonly memtableBytes: number
  /**
   * An arena's size at first: the memtable and the largest batch should fit. A larger batch makes
   * it grow by copying.
   */
  readonly arenaBytes?: number
  /** Arenas made by `open`, so that the first seals need not wait for zeroed memory. */
  readonly readyArenas?: number
  readonly maxSealedMemtables?: number
  readonly level0Trigger?: number
  readonly maxLevel0Runs?: number
  readonly level1Bytes?: number
  readonly compactionBytes?: number
  readonly tableBytes?: number
  readonly blockBytes?: number
  readonly bloomBitsPerKey?: number
  readonly blockCacheBytes?: number
  /** A manifest larger than this, and than twice its first edit, is replaced by a new one. */
  readonly manifestBytes?: number
}

export interface EngineSettings extends CompactionOptions {
  readonly arenaBytes: number
  readonly readyArenas: number
  readonly maxSealedMemtables: number
  readonly tableBytes: number
  readonly blockCacheBytes: number
  readonly manifestBytes: number
  readonly writer: TableWriterOptions
}

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

/**
 * What a node runs with. The memtable has RocksDB's default size: it takes in many overwrites of a key before one of them is written to a table, so
 * that flush and compaction leave the processor to the rest.
 */
export const defaultEngineOptions: EngineOptions = {
  memtableBytes: 64 * mebibyte,
  blockCacheBytes: 64 * mebibyte,
}

export function engineSettings(options: EngineOptions): EngineSettings {
  const memtableBytes = options.memtableBytes
  const settings: EngineSettings = {
    memtableBytes,
    arenaBytes: options.arenaBytes ?? memtableBytes + Math.max(minArenaBytes, memtableBytes / 2),
    // The active memtable's arena, and those that can be sealed while it fills.
    readyArenas: options.readyArenas ?? (memtableBytes >= mebibyte ? 3 : 1),
    maxSealedMemtables: options.maxSealedMemtables ?? 2,
    level0Trigger: options.level0Trigger ?? 2,
    maxLevel0Runs: options.maxLevel0Runs ?? 3,
    level1Bytes: options.level1Bytes ?? 4 * memtableBytes,
    compactionBytes: options.compactionBytes ?? 4 * memtableBytes,
    tableBytes: options.tableBytes ?? memtableBytes / 2,
    blockCacheBytes: options.blockCacheBytes ?? 4 * memtableBytes,
    manifestBytes: options.manifestBytes ?? Math.max(16 * kibibyte, memtableBytes / 16),
    writer: {
      blockBytes: options.blockBytes ?? 4 * kibibyte,
      bloomBitsPerKey: options.bloomBitsPerKey ?? 10,
    },
  }
  const { maxSealedMemtables, maxLevel0Runs, level0Trigger } = settings
  assert(settings.memtableBytes > 0 && settings.tableBytes > 0, "sizes are above 0")
  assert(maxSealedMemtables >= 1, "a memtable can be sealed")
  // Else a full level 0 would wait for a compaction that never comes.
  assert(level0Trigger >= 1 && level0Trigger <= maxLevel0Runs, "level 0 is compacted when full")
  const runs = 1 + maxSealedMemtables + maxLevel0Runs + deepestLevel
  assert(runs <= maxRuns, () => `${runs} sorted runs, at most ${maxRuns}`)
  return settings
}
