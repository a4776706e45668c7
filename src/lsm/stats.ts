import type { BlockCache } from "./blockCache.ts"
import { liveBytes } from "./compaction.ts"
import type { Memtable } from "./memtable.ts"
import type { Version } from "./version.ts"

export interface EngineStats {
  /** Of all memtables. */
  readonly memtableBytes: number
  readonly sealedMemtables: number
  readonly level0Runs: number
  /** Sorted runs that a point read looks into at most. */
  readonly runs: number
  readonly tablesPerLevel: ReadonlyArray<number>
  readonly bytesPerLevel: ReadonlyArray<number>
  readonly openReaders: number
  readonly blockCacheBytes: number
  readonly blockCacheHits: number
  readonly blockCacheMisses: number
}

export function engineStats(options: {
  version: Version
  memtables: ReadonlyArray<Memtable>
  cache: BlockCache
  openReaders: number
}): EngineStats {
  const { version, memtables, cache, openReaders } = options
  const levels = [0, 1, 2].map((level) => version.runsOf(level).flat())
  return {
    memtableBytes: memtables.reduce((sum, memtable) => sum + memtable.usedBytes, 0),
    sealedMemtables: memtables.length - 1,
    level0Runs: version.level0.length,
    runs: memtables.length + version.runs.length,
    tablesPerLevel: levels.map((level) => new Set(level.map(({ fileNumber }) => fileNumber)).size),
    bytesPerLevel: levels.map(liveBytes),
    openReaders,
    blockCacheBytes: cache.sizeBytes,
    blockCacheHits: cache.hits,
    blockCacheMisses: cache.misses,
  }
}
