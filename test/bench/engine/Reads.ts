import type { EmbeddedStore } from "../../../src/server/EmbeddedStore.ts"
import type { Figures, Task } from "./Protocol.ts"
import { allKeys, openStore, treePrefix } from "./StoreUnderTest.ts"
import { Draws, Keys, keyBytes, ZipfianDraws } from "./workload.ts"

/** The clock is read once in so many operations. */
const stride = 256

/** Runs `operation` for some seconds; operations a second. `operation` says how many it has done. */
function rate(seconds: number, operation: () => number): number {
  const startedMs = performance.now()
  const endMs = startedMs + seconds * 1000
  let done = 0
  let nowMs = startedMs
  while (nowMs < endMs) {
    for (let i = 0; i < stride; i++) done += operation()
    nowMs = performance.now()
  }
  return done / ((nowMs - startedMs) / 1000)
}

/** The store as the fill left it: what was in the journal goes to tables first. */
async function reopened(task: Task): Promise<EmbeddedStore> {
  const store = openStore(task)
  await store.compacted()
  return store
}

export async function readRandom(task: Task): Promise<Figures> {
  const store = await reopened(task)
  const draws = new Draws(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  let asked = 0
  let found = 0
  const readrandom = rate(task.seconds, () => {
    asked++
    if (store.get(keys.of(draws.below(task.keys))) !== undefined) found++
    return 1
  })
  await store.close()
  return { readrandom, foundShare: found / asked }
}

/** db_bench makes the key a byte longer: inside of the range of keys, and never there. */
export async function readMissing(task: Task): Promise<Figures> {
  const store = await reopened(task)
  const draws = new Draws(task.seed)
  const keys = new Keys({ prefix: treePrefix, sizeBytes: keyBytes + 1 })
  const readmissing = rate(task.seconds, () => {
    if (store.get(keys.of(draws.below(task.keys))) !== undefined) throw new Error("a missing key")
    return 1
  })
  await store.close()
  return { readmissing }
}

/** A new iterator for each seek, as db_bench makes one. */
export async function seekRandom(task: Task): Promise<Figures> {
  const store = await reopened(task)
  const draws = new Draws(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  let touched = 0
  const seekrandom = rate(task.seconds, () => {
    const iterator = store.iterator(allKeys)
    if (iterator.seek(keys.of(draws.below(task.keys)))) {
      touched += iterator.pair.keyLength + iterator.pair.valueLength
    }
    iterator.close()
    return 1
  })
  await store.close()
  return { seekrandom, touched }
}

/** From the first pair to the last, again and again; only lengths are looked at, as db_bench does. */
export async function readSequential(task: Task): Promise<Figures> {
  const store = await reopened(task)
  const iterator = store.iterator(allKeys)
  let touched = 0
  const readseq = rate(task.seconds, () => {
    if (!iterator.next() && !iterator.seekFirst()) throw new Error("an empty store")
    touched += iterator.pair.keyLength + iterator.pair.valueLength
    return 1
  })
  iterator.close()
  await store.close()
  return { readseq, touched }
}

/** Point reads of one kind, for the table of what each cache buys. */
export async function cachedReads(task: Task): Promise<Figures> {
  const store = await reopened(task)
  const keys = new Keys({ prefix: treePrefix })
  const drawn = drawnNumbers(task)
  let at = 0
  const read = () => {
    at = (at + 1) % drawn.length
    store.get(keys.of(drawn[at] as number))
    return 1
  }
  // Warm first: what a cache buys shows once it is full.
  rate(task.seconds / 2, read)
  if (task.draws === "scanned") scan(store)
  const reads = rate(task.draws === "scanned" ? Math.min(1, task.seconds) : task.seconds, read)
  const { blockCache, keyCache, rowCache } = store.stats().engine
  await store.close()
  return {
    reads,
    blockHitShare: hitShare(blockCache),
    keyHitShare: hitShare(keyCache),
    rowHitShare: hitShare(rowCache),
  }
}

/** Drawn beforehand, because a zipfian number takes longer than a read that a cache answers. */
function drawnNumbers({ keys: count, seed, draws }: Task): Uint32Array {
  const uniform = new Draws(seed)
  const zipfian = new ZipfianDraws({ seed, count })
  const next = () => (draws === "uniform" ? uniform.below(count) : zipfian.next())
  return Uint32Array.from({ length: 2 ** 21 }, next)
}

function scan(store: EmbeddedStore): void {
  const iterator = store.iterator(allKeys)
  while (iterator.next()) {
    // Every pair once.
  }
  iterator.close()
}

function hitShare({ hits, misses }: { hits: number; misses: number }): number {
  return hits + misses === 0 ? 0 : hits / (hits + misses)
}
