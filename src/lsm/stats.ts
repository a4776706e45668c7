import type { Caches } from "./cache/caches.ts"
import type { WrittenBytes } from "./manifest/manifest.ts"
import type { Fragment, Version } from "./manifest/version.ts"
import { deepestLevel } from "./manifest/version.ts"
import type { Memtable } from "./memtable/memtable.ts"
import type { Tree } from "./trees.ts"

/** What some fragments hold. Figures of a table that was cut are shared out by bytes. */
export interface ContentStats {
  readonly tables: number
  readonly bytes: number
  readonly entries: number
  readonly deletes: number
  readonly tombstones: number
}

export interface CacheStats {
  readonly sizeBytes: number
  readonly hits: number
  readonly misses: number
}

export interface EngineStats {
  /** Of all memtables. */
  readonly memtableBytes: number
  readonly sealedMemtables: number
  readonly level0Runs: number
  /** Sorted runs that a point read looks into at most. */
  readonly runs: number
  readonly tablesPerLevel: ReadonlyArray<number>
  readonly bytesPerLevel: ReadonlyArray<number>
  /** By level, from 0 on. */
  readonly levels: ReadonlyArray<ContentStats>
  /** Of each declared tree. */
  readonly trees: ReadonlyArray<Tree & ContentStats>
  /** Since the engine was made. */
  readonly written: WrittenBytes
  /** Bytes flushed and compacted for each byte that users put; 0 before anything was put. */
  readonly writeAmplification: number
  readonly openReaders: number
  readonly quarantinedTables: number
  /** Filters and page indexes of open tables. */
  readonly residentBytes: number
  readonly blockCache: CacheStats
  readonly keyCache: CacheStats
  readonly rowCache: CacheStats
  readonly blockCacheBytes: number
  readonly blockCacheHits: number
  readonly blockCacheMisses: number
}

export function engineStats(options: {
  version: Version
  memtables: ReadonlyArray<Memtable>
  caches: Caches
  openReaders: number
  trees: ReadonlyArray<Tree>
  written: WrittenBytes
  quarantinedTables: number
  residentBytes: number
}): EngineStats {
  const { version, memtables, caches, openReaders, written } = options
  const { quarantinedTables, residentBytes } = options
  const levels = levelStats(version)
  const { block, key, row } = caches
  const { userBytes, flushedBytes, compactedBytes } = written
  return {
    memtableBytes: memtables.reduce((sum, memtable) => sum + memtable.usedBytes, 0),
    sealedMemtables: memtables.length - 1,
    level0Runs: version.level0.length,
    runs: memtables.length + version.runs.length,
    tablesPerLevel: levels.map(({ tables }) => tables),
    bytesPerLevel: levels.map(({ bytes }) => bytes),
    levels,
    trees: options.trees.map((tree) => ({ ...tree, ...treeStats(version, tree) })),
    written,
    writeAmplification: userBytes === 0 ? 0 : (flushedBytes + compactedBytes) / userBytes,
    openReaders,
    quarantinedTables,
    residentBytes,
    blockCache: { sizeBytes: block.sizeBytes, hits: block.hits, misses: block.misses },
    keyCache: { sizeBytes: key.sizeBytes, hits: key.hits, misses: key.misses },
    rowCache: { sizeBytes: row.sizeBytes, hits: row.hits, misses: row.misses },
    blockCacheBytes: block.sizeBytes,
    blockCacheHits: block.hits,
    blockCacheMisses: block.misses,
  }
}

/** By level, from 0 to the deepest. */
export function levelStats(version: Version): ReadonlyArray<ContentStats> {
  const levels: Array<ContentStats> = []
  for (let level = 0; level <= deepestLevel; level++) {
    levels.push(contentOf(version.runsOf(level).flat()))
  }
  return levels
}

/** Tables never span two trees. */
function treeStats(version: Version, { id }: Tree): ContentStats {
  return contentOf(version.fragments.filter(({ lower }) => lower[0] === id))
}

function contentOf(fragments: ReadonlyArray<Fragment>): ContentStats {
  const files = new Set<number>()
  let bytes = 0
  let entries = 0
  let deletes = 0
  let tombstones = 0
  for (const fragment of fragments) {
    const share = fragment.liveBytes / fragment.sizeBytes
    files.add(fragment.fileNumber)
    bytes += fragment.liveBytes
    entries += share * fragment.entries
    deletes += share * fragment.deletes
    tombstones += share * fragment.tombstones
  }
  return {
    tables: files.size,
    bytes,
    entries: Math.round(entries),
    deletes: Math.round(deletes),
    tombstones: Math.round(tombstones),
  }
}
