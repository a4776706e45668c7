import { WriteBatch } from "../../../src/lsm/batch.ts"
import type { EmbeddedStore } from "../../../src/server/EmbeddedStore.ts"
import { Latencies } from "./latencies.ts"
import type { Figures, Task } from "./Protocol.ts"
import { fileBytes, openStore, treePrefix } from "./StoreUnderTest.ts"
import { Draws, Keys, Values } from "./workload.ts"

/** Puts at random, one caller, one put a batch, a batch that is used again. */
async function fillRandom(
  store: EmbeddedStore,
  options: { seed: number; operations: number; keys: number },
) {
  const { seed, operations } = options
  const draws = new Draws(seed)
  const values = new Values(seed)
  const keys = new Keys({ prefix: treePrefix })
  const batch = new WriteBatch(256)
  const startedMs = performance.now()
  for (let i = 0; i < operations; i++) {
    batch.clear()
    batch.put(keys.of(draws.below(options.keys)), values.next())
    if (!store.write(batch)) await store.room()
  }
  return operations / ((performance.now() - startedMs) / 1000)
}

/** fillrandom and overwrite, then everything into tables. */
export async function fill(task: Task): Promise<Figures> {
  const store = openStore(task)
  const { keys, seed } = task
  const fillrandom = await fillRandom(store, { seed, operations: keys, keys })
  const overwrite = await fillRandom(store, { seed: seed + 1, operations: keys, keys })
  const startedMs = performance.now()
  await store.compacted()
  const compactedSeconds = (performance.now() - startedMs) / 1000
  const { writeAmplification } = store.stats().engine
  await store.close()
  return { fillrandom, overwrite, compactedSeconds, writeAmplification }
}

/** Write and space amplification as RocksDB reckons them: flushed and compacted over put by users; sizes of the files. */
export async function amplification(task: Task): Promise<Figures> {
  // Rates of another size than those of `fill`.
  const { fillrandom, overwrite, compactedSeconds, writeAmplification } = await fill(task)
  return {
    largeFillrandom: fillrandom as number,
    largeOverwrite: overwrite as number,
    compactedSeconds: compactedSeconds as number,
    writeAmplification: writeAmplification as number,
    tablesMb: fileBytes(task.root, ".table") / 2 ** 20,
    directoryMb: fileBytes(task.root) / 2 ** 20,
  }
}

/** Every put waits for its own sync, as db_bench's --sync=1 does. */
export async function fillSync(task: Task): Promise<Figures> {
  const store = openStore(task)
  const draws = new Draws(task.seed)
  const values = new Values(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  const batch = new WriteBatch(256)
  const startedMs = performance.now()
  for (let i = 0; i < task.keys; i++) {
    batch.clear()
    batch.put(keys.of(draws.below(task.keys)), values.next())
    if (!store.writeSync(batch)) await store.room()
  }
  const fillsync = task.keys / ((performance.now() - startedMs) / 1000)
  await store.close()
  return { fillsync }
}

/** So many callers, each of which waits until its put is durable before it makes the next. */
export async function fillSyncGathered(task: Task): Promise<Figures> {
  const callers = 64
  const store = openStore(task)
  const endMs = performance.now() + task.seconds * 1000
  const startedMs = performance.now()
  let done = 0
  const caller = async (number: number) => {
    const draws = new Draws(task.seed + number)
    const values = new Values(task.seed)
    const keys = new Keys({ prefix: treePrefix })
    const batch = new WriteBatch(256)
    while (performance.now() < endMs) {
      batch.clear()
      batch.put(keys.of(draws.below(task.keys)), values.next())
      await store.writeDurable(batch)
      done++
    }
  }
  await Promise.all(Array.from({ length: callers }, (_, number) => caller(number)))
  const fillsync64 = done / ((performance.now() - startedMs) / 1000)
  await store.close()
  return { fillsync64 }
}

/** How late timers come while the writer is busy: what everything else in the process waits. */
export class LoopLag {
  readonly lags = new Latencies()
  private stopped = false
  private dueMs = 0

  start(): void {
    const tick = () => {
      const nowMs = performance.now()
      this.lags.record(Math.max(0, nowMs - this.dueMs) * 1000)
      if (!this.stopped) arm()
    }
    const arm = () => {
      this.dueMs = performance.now() + 1
      setTimeout(tick, 1)
    }
    arm()
  }

  stop(): void {
    this.stopped = true
  }
}

/**
 * Puts as fast as they are taken, for a minute: how long a caller waits for one, from wanting it to having it, waits for room included. Waits in which
 * the event loop turns are the writer's share of it.
 */
export async function sustained(task: Task): Promise<Figures> {
  const store = openStore(task)
  const draws = new Draws(task.seed)
  const values = new Values(task.seed)
  const keys = new Keys({ prefix: treePrefix })
  const batch = new WriteBatch(256)
  const latencies = new Latencies()
  const lag = new LoopLag()
  lag.start()
  const startedMs = performance.now()
  const endMs = startedMs + task.seconds * 1000
  let lastMs = startedMs
  while (lastMs < endMs) {
    batch.clear()
    batch.put(keys.of(draws.below(task.keys)), values.next())
    if (!store.write(batch)) await store.room()
    const nowMs = performance.now()
    latencies.record((nowMs - lastMs) * 1000)
    lastMs = nowMs
  }
  const sustainedRate = latencies.count / ((lastMs - startedMs) / 1000)
  lag.stop()
  const { writeAmplification } = store.stats().engine
  await store.close()
  return {
    sustained: sustainedRate,
    p50Us: latencies.percentile(0.5),
    p999Us: latencies.percentile(0.999),
    p9999Us: latencies.percentile(0.9999),
    longestUs: latencies.maxUs,
    lagP999Us: lag.lags.percentile(0.999),
    lagLongestUs: lag.lags.maxUs,
    writeAmplification,
  }
}
