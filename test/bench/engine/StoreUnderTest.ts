import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import type { WriteBatch } from "../../../src/lsm/batch.ts"
import { defaultLocalSettings, EmbeddedStore } from "../../../src/server/EmbeddedStore.ts"
import type { Task } from "./Protocol.ts"

const mebibyte = 2 ** 20

/** The byte in front of every key: its tree. RocksDB's keys have nothing like it, so that Kvorum's are a byte longer. */
export const treePrefix = Uint8Array.of(1)
/** All keys of the tree. */
export const allKeys = { lower: treePrefix, upper: Uint8Array.of(2) }

/**
 * As db_bench is set up: lz4 on every level, 10 bits of filter a key, a memtable of 64 MiB and 64 MiB of cache, all of it for blocks
 * unless the task asks for another division.
 */
export function openStore(task: Task): EmbeddedStore {
  const cacheBytes = (name: string, sizeBytes: number) => task.caches?.[name] ?? sizeBytes
  return EmbeddedStore.open({
    root: task.root,
    settings: {
      engine: {
        ...defaultLocalSettings.engine,
        trees: [{ id: 1, name: "bench" }],
        memtableBytes: 64 * mebibyte,
        bloomBitsPerKey: 10,
        compression: { level0: "lz4", middle: "lz4", bottom: "lz4" },
        blockCacheBytes: cacheBytes("block", 64 * mebibyte),
        keyCacheBytes: cacheBytes("key", 0),
        rowCacheBytes: cacheBytes("row", 0),
      },
    },
  })
}

/** Writes, and waits for room where the store asks for it, as one caller does. */
export async function write(store: EmbeddedStore, batch: WriteBatch): Promise<void> {
  if (!store.write(batch)) await store.room()
}

/** Bytes of the files whose name ends so; of all without. */
export function fileBytes(root: string, suffix = ""): number {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(suffix))
    .map((name) => statSync(join(root, name)))
    .filter((stat) => stat.isFile())
    .reduce((total, { size }) => total + size, 0)
}
