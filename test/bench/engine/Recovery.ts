import { heapStats } from "bun:jsc"
import { FileDisk } from "../../../src/disk/FileDisk.ts"
import { examine } from "../../../src/doctor/examination.ts"
import { WriteBatch } from "../../../src/lsm/batch.ts"
import type { Figures, Task } from "./Protocol.ts"
import { fileBytes, openStore, treePrefix } from "./StoreUnderTest.ts"
import { Draws, Keys, Values } from "./workload.ts"

/** Writes until as many puts as there are keys are done, says so, and goes on until it is killed. */
export async function fillUntilKilled(task: Task): Promise<never> {
  const store = openStore(task)
  const draws = new Draws(task.seed)
  const values = new Values(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  const batch = new WriteBatch(256)
  for (let i = 0; ; i++) {
    batch.clear()
    // In order at first, so that each key is there once; then anywhere.
    batch.put(keys.of(i < task.keys ? i : draws.below(task.keys)), values.next())
    if (!store.write(batch)) await store.room()
    if (i === task.keys) console.log("filled")
  }
}

/** How long the next process takes to open what was left. */
export async function reopen(task: Task): Promise<Figures> {
  const tablesMb = fileBytes(task.root, ".table") / 2 ** 20
  const journalMb = journalBytes(task.root) / 2 ** 20
  const startedMs = performance.now()
  const store = openStore(task)
  const openSeconds = (performance.now() - startedMs) / 1000
  const replayedMb = store.stats().engine.memtableBytes / 2 ** 20
  await store.close()
  const allowedSeconds = 2 + journalMb / 50
  return { openSeconds, allowedSeconds, tablesMb, journalMb, replayedMb }
}

/** Bytes of whole batches in the journal's segments. */
function journalBytes(root: string): number {
  const identity = { fileName: "IDENTITY", read: () => ({ words: "" }) }
  const steps = examine({ disk: new FileDisk(root), directory: root, identity, only: "journal" })
  for (;;) {
    const step = steps.next()
    if (!step.done) continue
    const segments = step.value.journal?.segments ?? []
    return segments.reduce((total, { contentBytes }) => total + contentBytes, 0)
  }
}

/** Fills in order, which compaction need not write again, to have many keys soon. */
export async function fillInOrder(task: Task): Promise<Figures> {
  const store = openStore(task)
  const values = new Values(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  const batch = new WriteBatch(4096)
  const startedMs = performance.now()
  for (let i = 0; i < task.keys; ) {
    batch.clear()
    for (let j = 0; j < 16 && i < task.keys; j++, i++) batch.put(keys.of(i), values.next())
    if (!store.write(batch)) await store.room()
  }
  await store.compacted()
  const fillSeconds = (performance.now() - startedMs) / 1000
  await store.close()
  return { fillSeconds }
}

/** Memory of a process that reads at random from a store with many keys, every table open. */
export async function memory(task: Task): Promise<Figures> {
  const store = openStore(task)
  const draws = new Draws(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  const endMs = performance.now() + task.seconds * 1000
  let heapMb = 0
  let rssMb = 0
  while (performance.now() < endMs) {
    for (let i = 0; i < 10_000; i++) store.get(keys.of(draws.below(task.keys)))
    const { heapSize, extraMemorySize } = heapStats()
    // What lies outside of the heap, buffers above all, counts as the process's memory.
    heapMb = Math.max(heapMb, (heapSize - extraMemorySize) / 2 ** 20)
    rssMb = Math.max(rssMb, process.memoryUsage.rss() / 2 ** 20)
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { residentBytes, tablesPerLevel, blockCache } = store.stats().engine
  const tablesMb = fileBytes(task.root, ".table") / 2 ** 20
  await store.close()
  return {
    rssMb,
    heapMb,
    indexAndFilterMb: residentBytes / 2 ** 20,
    blockCacheMb: blockCache.sizeBytes / 2 ** 20,
    tables: tablesPerLevel.reduce((total, tables) => total + tables, 0),
    tablesMb,
  }
}
