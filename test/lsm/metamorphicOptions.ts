import type { EngineOptions, KeyPolicy, LevelCompression } from "../../src/lsm/options.ts"
import { expiringTree, treeIds } from "./metamorphicTrace.ts"

/** One way to set up an engine. */
export interface OptionSet {
  readonly name: string
  readonly options: EngineOptions
  /** Compactions drop what readers hide. */
  readonly filtered?: boolean
}

const base: EngineOptions = { memtableBytes: 2000, blockBytes: 256, tableBytes: 1200 }

const none: LevelCompression = { level0: "none", middle: "none", bottom: "none" }

function policiesPerTree(bits: ReadonlyArray<number>): ReadonlyArray<KeyPolicy> {
  const kinds = ["snappy", "lz4", "zstd"] as const
  return treeIds.map((id, i) => ({
    lower: new Uint8Array([id]),
    upper: new Uint8Array([id + 1]),
    compression: { level0: kinds[i], middle: kinds[(i + 1) % 3], bottom: kinds[(i + 2) % 3] },
    bloomBitsPerKey: bits[i] as number,
  }))
}

function set(name: string, options: Partial<EngineOptions>, filtered = false): OptionSet {
  return { name, options: { ...base, ...options }, filtered }
}

/** Deep trees from little data. */
const deep: Partial<EngineOptions> = { baseBytes: 400, levelRatioMax: 2, compactionBytes: 600 }

const allCaches: Partial<EngineOptions> = {
  blockCacheBytes: 1 << 20,
  keyCacheBytes: 1 << 16,
  rowCacheBytes: 1 << 18,
}

export const optionSets: ReadonlyArray<OptionSet> = [
  set("as they come", {}),
  set("a large memtable", { memtableBytes: 1 << 20, tableBytes: 1 << 20 }),
  set("a tiny memtable", { memtableBytes: 200, tableBytes: 200 }),
  set("one key in a block", { blockBytes: 1 }),
  set("one key in a table", { tableBytes: 1, blockBytes: 1, manifestBytes: 1 << 20 }),
  set("one block in a table", { blockBytes: 1 << 20 }),
  set("an index page for each block", { blockBytes: 1, indexPageBytes: 1 }),
  set("small index pages", { blockBytes: 64, indexPageBytes: 100, tableBytes: 8000 }),
  set("no compression", { compression: none }),
  set("snappy", { compression: { level0: "snappy", middle: "snappy", bottom: "snappy" } }),
  set("lz4", { compression: { level0: "lz4", middle: "lz4", bottom: "lz4" } }),
  set("zstd", { compression: { level0: "zstd", middle: "zstd", bottom: "zstd" } }),
  set("compression as a stair", {
    ...deep,
    blockBytes: 1024,
    compression: { level0: "lz4", middle: "zstd", bottom: "none" },
  }),
  set("no filters", { bloomBitsPerKey: 0 }),
  set("filters of one bit", { bloomBitsPerKey: 1 }),
  set("filters of twenty bits", { bloomBitsPerKey: 20 }),
  set("no caches", { blockCacheBytes: 0, keyCacheBytes: 0, rowCacheBytes: 0 }),
  set("all caches", allCaches),
  set("tiny caches", { blockCacheBytes: 600, keyCacheBytes: 64, rowCacheBytes: 300 }),
  set("a row cache alone", { blockCacheBytes: 0, rowCacheBytes: 1 << 18 }),
  set("a key cache alone", { blockCacheBytes: 0, keyCacheBytes: 1 << 16 }),
  set("deep levels", deep),
  set("deep levels, small slices", { ...deep, compactionBytes: 1, tableBytes: 300 }),
  set("one level under level 0", { baseBytes: 1 << 30 }),
  set("every flush compacted", { level0Trigger: 1, maxLevel0Runs: 1, slowLevel0Runs: 1 }),
  set("many runs", {
    level0Trigger: 8,
    maxLevel0Runs: 12,
    slowLevel0Runs: 10,
    maxSealedMemtables: 6,
  }),
  set("one sealed memtable", { maxSealedMemtables: 1 }),
  set("a manifest for each edit", { manifestBytes: 1 }),
  set("old deletes taken down", { ...deep, tombstoneAgeSeconds: 20 }),
  set("a scrub all the time", { scrubBytesPerSecond: 1 << 20 }),
  set("what is hidden is dropped", {}, true),
  set("what is hidden is dropped, deep levels and all caches", { ...deep, ...allCaches }, true),
  set("a policy for each tree", { ...deep, policies: policiesPerTree([0, 10, 4]) }),
  set("a policy inside a tree", {
    policies: [
      {
        lower: new Uint8Array([expiringTree, 0x6b]),
        upper: new Uint8Array([expiringTree, 0x6c]),
        compression: { level0: "zstd", middle: "snappy", bottom: "lz4" },
        bloomBitsPerKey: 1,
      },
    ],
  }),
  set(
    "all at once",
    {
      ...deep,
      ...allCaches,
      blockBytes: 40,
      indexPageBytes: 60,
      policies: policiesPerTree([10, 0, 1]),
      tombstoneAgeSeconds: 20,
      scrubBytesPerSecond: 100_000,
      manifestBytes: 700,
    },
    true,
  ),
]
