import { afterEach, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Overloaded } from "../../src/Errors.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { EmbeddedStore } from "../../src/server/EmbeddedStore.ts"
import type { JobWorker } from "../../src/server/JobWorker.ts"
import type { Lane } from "../../src/server/storeJobs.ts"
import { keyOf } from "./localDriver.ts"

const folders: Array<string> = []
afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true, force: true })
})

/** So small that flushes and compactions run all the time. */
const settings = {
  journal: { segmentBytes: 256 * 1024, tailCacheBytes: 0 },
  engine: { memtableBytes: 128 * 1024, blockBytes: 512, manifestBytes: 4096 },
  space: { reserveBytes: 64 * 1024, lowFreeBytes: 0 },
}

/** Open descriptors of this process on files in `folder`, threads included; none where the system does not tell. */
function descriptorsIn(folder: string): ReadonlyArray<string> {
  if (!existsSync("/proc/self/fd")) return []
  return readdirSync("/proc/self/fd").flatMap((name) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${name}`)
      return path.startsWith(folder) ? [path] : []
    } catch {
      return []
    }
  })
}

class Load {
  readonly root: string
  store: EmbeddedStore
  readonly expected = new Map<string, string>()
  private readonly prng: Prng
  private written = 0

  constructor(root: string, seed: number) {
    this.root = root
    this.prng = new Prng(seed)
    this.store = EmbeddedStore.open({ root, settings })
  }

  async write(batches: number): Promise<void> {
    for (let i = 0; i < batches; i++) {
      const batch = new WriteBatch()
      for (let put = 0; put < 4; put++) {
        const key = `k${this.prng.int(0, 3000)}`
        if (this.prng.chance(0.1)) {
          batch.delete(keyOf(key))
          this.expected.delete(key)
        } else {
          const value = `${++this.written}`.padEnd(this.prng.int(10, 600), "v")
          batch.put(keyOf(key), utf8(value))
          this.expected.set(key, value)
        }
      }
      await this.apply(batch)
    }
  }

  private async apply(batch: WriteBatch): Promise<void> {
    for (;;) {
      try {
        if (!this.store.write(batch)) await this.store.room()
        return
      } catch (error) {
        if (!(error instanceof Overloaded)) throw error
        await this.store.room()
      }
    }
  }

  check(): void {
    for (let i = 0; i <= 3000; i++) {
      const value = this.store.get(keyOf(`k${i}`))
      expect(value && text(value), `k${i}`).toBe(this.expected.get(`k${i}`) as string)
    }
  }

  /** Nothing but what the engine's newest version names, and all of that. */
  expectOnlyLive(): void {
    const tables = readdirSync(join(this.root, "engine")).filter((name) => name.endsWith(".table"))
    expect(tables.length).toBe(
      this.store.stats().engine.tablesPerLevel.reduce((sum, count) => sum + count, 0),
    )
  }
}

type Workers = Record<Lane, Pick<JobWorker, "isIdle" | "kill"> & { readonly deaths: number }>

/** On a slow machine most kills cost a whole job: more of them would leave nothing to be flushed. */
const killsMax = 40

/** Ends threads that have a job, at any moment of it. */
class Killer {
  readonly kills = { engine: 0, journal: 0 }
  private stopped = false
  private readonly done: Promise<void>

  constructor(store: EmbeddedStore, prng: Prng) {
    const { workers } = store as unknown as {
      workers: Record<Lane, JobWorker & { deaths: number }>
    }
    this.done = this.run(workers, prng)
  }

  private async run(workers: Workers, prng: Prng) {
    while (!this.stopped) {
      await Bun.sleep(prng.logUniform(0.5, 60))
      const lane = prng.chance(0.8) ? "engine" : "journal"
      const worker = workers[lane]
      // A thread that never ends a job would be given up.
      if (worker.isIdle || worker.deaths >= 4 || this.kills[lane] >= killsMax) continue
      worker.kill()
      this.kills[lane]++
    }
  }

  async stop(): Promise<void> {
    this.stopped = true
    await this.done
  }
}

/** How long that takes is the machine's affair; the test's deadline is its limit. */
function hasSeenEnough(load: Load, killer: Killer): boolean {
  const { flushedBytes, compactedBytes } = load.store.stats().engine.written
  return killer.kills.engine >= killsMax && flushedBytes > 500_000 && compactedBytes > 0
}

const seed = Number(process.env.KVORUM_SEED ?? Math.floor(performance.timeOrigin % 2 ** 31))

const title =
  "worker threads that are ended again and again in the middle of their jobs are replaced, and nothing is lost"

test(title, async () => {
  const root = mkdtempSync(join(tmpdir(), "kvorum-kill-"))
  folders.push(root)
  const load = new Load(root, seed)
  const killer = new Killer(load.store, new Prng(seed))
  try {
    while (!hasSeenEnough(load, killer)) await load.write(20)
    await killer.stop()
    await load.store.compacted()
    load.check()
    load.expectOnlyLive()
    await load.store.close()
    // What a dead thread had open is closed; one that it had no time to note may stay.
    expect(descriptorsIn(root).length).toBeLessThanOrEqual(2)
    load.store = EmbeddedStore.open({ root, settings })
    load.check()
    load.expectOnlyLive()
    await load.store.close()
  } catch (error) {
    throw new Error(`KVORUM_SEED=${seed}: ${(error as Error).message}`, { cause: error })
  }
  const { engine, journal } = killer.kills
  console.log(
    `workerKill: seed ${seed}, ${engine} engine threads and ${journal} journal threads ended`,
  )
}, 120_000)
