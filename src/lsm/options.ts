import type { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { compareBytes } from "../lib/bytes.ts"
import type { CompactionOptions } from "./maintenance/compaction.ts"
import type { FilterRule } from "./maintenance/filter.ts"
import { deepestLevel } from "./manifest/version.ts"
import { minArenaBytes } from "./memtable/memtable.ts"
import { type CompressionName, compressions } from "./table/compression.ts"
import type { Tree } from "./trees.ts"

/** Which kind of compression a table gets, by where it lies. */
export interface LevelCompression {
  readonly level0: CompressionName
  readonly middle: CompressionName
  /** The deepest level, where nearly all data ends. */
  readonly bottom: CompressionName
}

/** How tables of the keys of [lower, upper) are written. */
export interface KeyPolicy {
  readonly lower: Uint8Array
  readonly upper: Uint8Array | undefined
  readonly compression: LevelCompression
  /** 0 = no filter. */
  readonly bloomBitsPerKey: number
}

/** A damaged table: what it holds of `interval` is out of reach until the interval is replaced. */
export interface CorruptionReport {
  readonly interval: { readonly lower: Uint8Array; readonly upper: Uint8Array }
  readonly path: string
  readonly offset: number
  readonly message: string
  readonly error: StorageCorruption
}

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
  /** Where they are little against what lies under them; `level0Trigger` if not given. */
  readonly lazyLevel0Runs?: number
  /** Runs of level 0 from which on writers are slowed. */
  readonly slowLevel0Runs?: number
  readonly maxLevel0Runs?: number
  readonly baseBytes?: number
  readonly levelRatioMax?: number
  readonly compactionBytes?: number
  /** A delete above the deepest level is taken down after this time. */
  readonly tombstoneAgeSeconds?: number
  readonly tableBytes?: number
  readonly blockBytes?: number
  readonly indexPageBytes?: number
  /** Of keys without a policy of their own. */
  readonly bloomBitsPerKey?: number
  /** Of keys without a policy of their own. */
  readonly compression?: LevelCompression
  /** Disjoint and in order. */
  readonly policies?: ReadonlyArray<KeyPolicy>
  /** What compactions may drop, asked for when one is handed out. */
  readonly filters?: () => ReadonlyArray<FilterRule>
  /** Keys begin with the byte of a tree. Without trees any byte may stand there. */
  readonly trees?: ReadonlyArray<Tree>
  /** Ids of trees of which the engine opens without a table whose file is missing: it counts as damaged. */
  readonly expendable?: ReadonlyArray<number>
  readonly blockCacheBytes?: number
  readonly keyCacheBytes?: number
  readonly rowCacheBytes?: number
  /** A manifest larger than this, and than twice its first edit, is replaced by a new one. */
  readonly manifestBytes?: number
  /** How fast tables are read again in search of damage; 0 = not. */
  readonly scrubBytesPerSecond?: number
  /** Called once for each damaged piece of a table, when it is found. Must not call the engine. */
  readonly onCorruption?: (report: CorruptionReport) => void
}

/** How the tables of a job are written; plain data that crosses threads. */
export interface WriteSettings {
  /** About the size at which a table ends and the next begins. */
  readonly tableBytes: number
  readonly blockBytes: number
  readonly indexPageBytes: number
  readonly policies: ReadonlyArray<KeyPolicy>
  readonly compression: LevelCompression
  readonly bloomBitsPerKey: number
}

export interface EngineSettings extends CompactionOptions {
  readonly arenaBytes: number
  readonly readyArenas: number
  readonly maxSealedMemtables: number
  readonly slowLevel0Runs: number
  /** Sorted runs that a point read may look into, whatever was written. */
  readonly maxRuns: number
  readonly blockCacheBytes: number
  readonly keyCacheBytes: number
  readonly rowCacheBytes: number
  readonly manifestBytes: number
  readonly writing: WriteSettings
  readonly filters: () => ReadonlyArray<FilterRule>
  readonly trees: ReadonlyArray<Tree>
  readonly expendable: ReadonlyArray<number>
  readonly scrubBytesPerSecond: number
  readonly onCorruption: (report: CorruptionReport) => void
}

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

/**
 * What a node runs with. The memtable has RocksDB's default size: it takes in many overwrites of a
 * key before one of them is written to a table, so that flush and compaction leave the processor to
 * the rest.
 */
export const defaultEngineOptions: EngineOptions = {
  memtableBytes: 64 * mebibyte,
  blockCacheBytes: 64 * mebibyte,
  // Of the sizes tried, those that write least for what a read may have to look into: README.md.
  level0Trigger: 4,
  lazyLevel0Runs: 7,
  slowLevel0Runs: 9,
  maxLevel0Runs: 11,
}

/** Fresh data is rewritten soon; what lies deepest is rewritten seldom and is most of all data. */
export const defaultCompression: LevelCompression = {
  level0: "none",
  middle: "lz4",
  bottom: "zstd",
}

export function engineSettings(options: EngineOptions): EngineSettings {
  const memtableBytes = options.memtableBytes
  const maxSealedMemtables = options.maxSealedMemtables ?? 3
  const maxLevel0Runs = options.maxLevel0Runs ?? 8
  const level0Trigger = options.level0Trigger ?? Math.min(4, maxLevel0Runs)
  const settings: EngineSettings = {
    memtableBytes,
    arenaBytes: wholeWords(
      options.arenaBytes ?? memtableBytes + Math.max(minArenaBytes, memtableBytes / 2),
    ),
    // The active memtable's arena, and those that can be sealed while it fills.
    readyArenas: options.readyArenas ?? (memtableBytes >= mebibyte ? 3 : 1),
    maxSealedMemtables,
    level0Trigger,
    lazyLevel0Runs: options.lazyLevel0Runs ?? level0Trigger,
    slowLevel0Runs: options.slowLevel0Runs ?? Math.min(6, maxLevel0Runs),
    maxLevel0Runs,
    maxRuns: 1 + maxSealedMemtables + maxLevel0Runs + deepestLevel,
    baseBytes: options.baseBytes ?? 4 * memtableBytes,
    levelRatioMax: options.levelRatioMax ?? 8,
    compactionBytes: options.compactionBytes ?? memtableBytes,
    tombstoneAgeSeconds: options.tombstoneAgeSeconds ?? 86_400,
    blockCacheBytes: options.blockCacheBytes ?? 4 * memtableBytes,
    keyCacheBytes: options.keyCacheBytes ?? 0,
    rowCacheBytes: options.rowCacheBytes ?? 0,
    manifestBytes: options.manifestBytes ?? Math.max(16 * kibibyte, memtableBytes / 16),
    writing: {
      tableBytes: options.tableBytes ?? memtableBytes / 2,
      blockBytes: options.blockBytes ?? 4 * kibibyte,
      indexPageBytes: options.indexPageBytes ?? 64 * kibibyte,
      policies: options.policies ?? [],
      compression: options.compression ?? defaultCompression,
      bloomBitsPerKey: options.bloomBitsPerKey ?? 10,
    },
    filters: options.filters ?? (() => []),
    trees: options.trees ?? [],
    expendable: options.expendable ?? [],
    scrubBytesPerSecond: options.scrubBytesPerSecond ?? 0,
    onCorruption: options.onCorruption ?? (() => {}),
  }
  check(settings)
  return settings
}

/** An arena is a sequence of words of four bytes. */
function wholeWords(bytes: number): number {
  return 4 * Math.ceil(bytes / 4)
}

function check(settings: EngineSettings): void {
  const { level0Trigger, maxLevel0Runs, slowLevel0Runs, maxSealedMemtables, writing } = settings
  assert(settings.memtableBytes > 0 && writing.tableBytes > 0, "sizes are above 0")
  assert(maxSealedMemtables >= 1, "a memtable can be sealed")
  // Else a full level 0 would wait for a compaction that never comes.
  assert(level0Trigger >= 1 && level0Trigger <= maxLevel0Runs, "level 0 is compacted when full")
  const { lazyLevel0Runs } = settings
  assert(lazyLevel0Runs >= level0Trigger, "level 0 waits no shorter where it is little")
  assert(lazyLevel0Runs <= maxLevel0Runs, "level 0 is compacted when full, however little it is")
  assert(slowLevel0Runs <= maxLevel0Runs, "writers are slowed before they are stopped")
  assert(settings.baseBytes > 0 && settings.levelRatioMax > 1, "levels grow downwards")
  const { policies } = writing
  for (let i = 0; i < policies.length; i++) {
    const { lower, upper } = policies[i] as KeyPolicy
    const next = policies[i + 1]
    assert(upper === undefined || compareBytes(lower, upper) < 0, "a policy is of some keys")
    const isApart =
      next === undefined || (upper !== undefined && compareBytes(upper, next.lower) <= 0)
    assert(isApart, "policies are disjoint and in order")
  }
}

/** The policy of a key, and the bounds within which it holds. */
export function policyAt(
  writing: WriteSettings,
  key: Uint8Array,
): {
  compression: LevelCompression
  bloomBitsPerKey: number
  start: Uint8Array | undefined
  end: Uint8Array | undefined
} {
  let start: Uint8Array | undefined
  for (const { lower, upper, compression, bloomBitsPerKey } of writing.policies) {
    if (compareBytes(key, lower) < 0) return { ...defaultsOf(writing), start, end: lower }
    if (upper === undefined || compareBytes(key, upper) < 0) {
      return { compression, bloomBitsPerKey, start: lower, end: upper }
    }
    start = upper
  }
  return { ...defaultsOf(writing), start, end: undefined }
}

function defaultsOf({ compression, bloomBitsPerKey }: WriteSettings) {
  return { compression, bloomBitsPerKey }
}

/** The kind of compression (compression.ts) that a level asks for. */
export function compressionAt(compression: LevelCompression, level: number): number {
  if (level === 0) return compressions[compression.level0]
  return compressions[level === deepestLevel ? compression.bottom : compression.middle]
}

/**
 * Whether a table that was written with `compression` may lie on `level` as it is. A piece of it
 * may reach over a policy's bound only if the policies changed since; the first one decides.
 */
export function fitsLevel(
  writing: WriteSettings,
  fragment: { readonly lower: Uint8Array; readonly compression: number },
  level: number,
): boolean {
  return (
    compressionAt(policyAt(writing, fragment.lower).compression, level) === fragment.compression
  )
}
