import { mkdirSync } from "node:fs"
import { DirectoryLock } from "../disk/DirectoryLock.ts"
import { DiskError } from "../disk/disk.ts"
import { FileDisk } from "../disk/FileDisk.ts"
import { DiskFull, Overloaded } from "../Errors.ts"
import { defaultJournalOptions, Journal } from "../journal/journal.ts"
import type { WriteBatch } from "../lsm/batch.ts"
import { defaultEngineOptions, type EngineIterator, type EngineSnapshot } from "../lsm/engine.ts"
import type { IteratorOptions } from "../lsm/read/iterator.ts"
import type { EngineStats } from "../lsm/stats.ts"
import { JobWorker } from "./JobWorker.ts"
import { JournalFile } from "./JournalFile.ts"
import { type LocalSettings, LocalStorage } from "./localStorage.ts"
import { debtOf, PaceController } from "./pace.ts"
import { laneOf, type StoreJob, type StoreJobResult } from "./storeJobs.ts"
import { WriteRate } from "./writeRate.ts"

const kibibyte = 1024
const mebibyte = 1024 * kibibyte

export interface EmbeddedStoreOptions {
  /** The data directory; made if there is none. Holds `LOCK`, `journal/`, `engine/` and `reserve`. */
  readonly root: string
  readonly settings?: Partial<LocalSettings>
}

export const defaultLocalSettings: LocalSettings = {
  journal: { ...defaultJournalOptions, tailCacheBytes: 0 },
  engine: defaultEngineOptions,
  space: { reserveBytes: 64 * mebibyte, lowFreeBytes: 16 * mebibyte },
  journalScrub: { bytesPerSecond: 0, sliceBytes: mebibyte },
}

export interface EmbeddedStats {
  readonly engine: EngineStats
  readonly journal: {
    readonly segments: number
    readonly bytes: number
    readonly unsyncedBytes: number
  }
  /** From 0 to 1, where writers must stop; above 0.4 they are slowed. */
  readonly fullness: number
  /** `Infinity` while writers are free. */
  readonly writeBytesPerSecond: number
  readonly isDiskFull: boolean
}

/** The caller of `write` is told to let the event loop turn after so many bytes: what worker threads have done is heard only there. */
const yieldBytes = 64 * kibibyte
/** So often while writers are slowed, so that waits are short. */
const slowYieldBytes = 16 * kibibyte
const tickMs = 250

/**
 * The storage engine on its own, on real files: `localStorage.ts` and what drives it. Reads and writes are synchronous calls in the caller's thread; flushes
 * and compactions run in a worker thread, preparation of journal segments in another.
 *
 * A write is in the page cache when `write` returns, and durable when a later sync is: `writeSync` waits for one, `writeDurable` shares one
 * with all that wait. After a failed write or sync of the journal every call is refused with that error: what the kernel did with the pages is
 * unknown, so nothing is tried again (Rebello et al., ATC 2020).
 */
export class EmbeddedStore {
  readonly disk: FileDisk
  private readonly lock: DirectoryLock
  private readonly storage: LocalStorage
  private readonly file: JournalFile
  private readonly workers: Readonly<Record<"engine" | "journal", JobWorker>>
  private readonly rate = new WriteRate(32 * mebibyte)
  private readonly pace = new PaceController({
    limitMs: 5,
    leastBytesPerSecond: 32 * mebibyte,
    mostBytesPerSecond: 1024 * mebibyte,
  })
  private readonly timer: ReturnType<typeof setInterval>
  private pumping = false
  /** Called when a job was done: there may be room. */
  private wakers: Array<() => void> = []
  private bytesSinceRoom = 0
  private untilRoom = yieldBytes
  private failure: Error | undefined
  private closed = false

  /** Recovers the store in `root`. Throws `StorageCorruption`, `DiskError`, `DirectoryInUse` and what the engine refuses. */
  static open(options: EmbeddedStoreOptions): EmbeddedStore {
    mkdirSync(options.root, { recursive: true, mode: 0o700 })
    const lock = DirectoryLock.acquire(options.root)
    try {
      return new EmbeddedStore(options, lock)
    } catch (error) {
      lock.release()
      throw error
    }
  }

  private constructor(options: EmbeddedStoreOptions, lock: DirectoryLock) {
    this.lock = lock
    this.disk = new FileDisk(options.root)
    const settings = { ...defaultLocalSettings, ...options.settings }
    this.storage = LocalStorage.open(this.disk, settings, Date.now(), (bytes, othersWait) =>
      this.rate.flushed(performance.now(), bytes, othersWait),
    )
    this.file = new JournalFile({
      journal: this.storage.journal,
      absolutePath: (path) => this.disk.absolutePath(path),
      onSynced: () => this.wake(),
      onFailure: (error) => this.fail(error),
    })
    const worker = () =>
      new JobWorker({
        root: options.root,
        onResult: (job, result) => this.jobDone(job, result),
        onFatal: (error) => this.fail(error),
      })
    this.workers = { engine: worker(), journal: worker() }
    this.timer = setInterval(() => this.tick(), tickMs)
    this.timer.unref()
    this.pump()
  }

  // ---- Writes

  /**
   * Applies the batch; it is in the page cache when this returns. False: `await room()` before the next one. A caller that goes on all the same gets
   * `Overloaded` when there is truly no room, and `DiskFull` while the disk is full.
   */
  write(batch: WriteBatch): boolean {
    this.put(batch)
    return this.bytesSinceRoom < this.untilRoom
  }

  /** Applies the batch and waits for its sync in this thread. */
  writeSync(batch: WriteBatch): boolean {
    this.put(batch)
    this.file.syncNow()
    return this.bytesSinceRoom < this.untilRoom
  }

  /** Applies the batch, which must not be changed until this resolves: then it is durable. All that wait share one sync. */
  async writeDurable(batch: WriteBatch): Promise<void> {
    if (this.bytesSinceRoom >= this.untilRoom) await this.room(batch.sizeBytes)
    // Others that waited for the same room may have taken it.
    while (!this.storage.hasRoom(batch.sizeBytes)) await this.room(batch.sizeBytes)
    this.put(batch, true)
    return this.file.durable()
  }

  private put(batch: WriteBatch, waitsForSync = false): void {
    const { storage } = this
    this.refuseIfEnded()
    // What cannot be applied must not come into the journal, where every start would meet it again.
    storage.engine.check(batch)
    if (storage.isFull && storage.takesNot(batch)) throw new DiskFull({ where: this.disk.root })
    const { sizeBytes } = batch
    if (!storage.hasMemtableRoom(sizeBytes)) throw new Overloaded({ what: "the memtable" })
    if (!storage.journal.hasRoom(sizeBytes)) this.openSegment(sizeBytes)
    const direct = storage.cut(batch.bytes())
    if (waitsForSync) this.file.gather(direct)
    else this.file.write(direct)
    try {
      storage.apply(batch)
    } catch (error) {
      // Memory holds a part of it, the journal all.
      this.fail(error as Error)
      throw error
    }
    this.bytesSinceRoom += direct.lengthBytes
  }

  private refuseIfEnded(): void {
    if (this.failure !== undefined || this.closed) throw this.failure ?? new Error("closed")
  }

  /** Goes on to the next journal segment; throws `Overloaded` when it is not ready. */
  private openSegment(batchBytes: number): void {
    const { storage } = this
    if (storage.journal.isNextSegmentReady) this.file.syncNow()
    const write = storage.openSegment(batchBytes)
    if (write === undefined) {
      this.pump()
      throw new Overloaded({ what: "the journal's segment" })
    }
    this.file.writeRecords(write)
  }

  /**
   * Resolves when the next batch, of at most `batchBytes`, may be written: at once after a turn of the event loop, or after the wait that keeps writes
   * at the rate of flushes. Throws `DiskFull` while the disk is full.
   */
  async room(batchBytes = yieldBytes): Promise<void> {
    const bytes = this.bytesSinceRoom
    this.bytesSinceRoom = 0
    await new Promise<void>((resolve) => setImmediate(resolve))
    const waitMs = this.rate.delayMs(performance.now(), bytes, this.storage.fullness)
    this.untilRoom =
      this.rate.bytesPerSecond === Number.POSITIVE_INFINITY ? yieldBytes : slowYieldBytes
    if (waitMs >= 1) await new Promise<void>((resolve) => setTimeout(resolve, waitMs))
    for (;;) {
      this.refuseIfEnded()
      if (this.hasRoom(batchBytes)) return
      if (this.storage.isFull) throw new DiskFull({ where: this.disk.root })
      await new Promise<void>((resolve) => this.wakers.push(resolve))
    }
  }

  private hasRoom(batchBytes: number): boolean {
    const { storage } = this
    if (storage.hasMemtableRoom(batchBytes + yieldBytes)) {
      if (storage.journal.hasRoom(batchBytes + yieldBytes)) return true
      if (storage.journal.isNextSegmentReady) {
        // Everything in the segment has to be synced before it is left; better not in a caller's write.
        if (storage.journal.durableLsn >= storage.journal.appendedLsn) {
          const write = storage.openSegment(batchBytes + yieldBytes)
          if (write !== undefined) {
            this.file.writeRecords(write)
            return true
          }
        }
        this.file.syncSoon()
      }
    }
    this.pump()
    return false
  }

  // ---- Reads

  get(key: Uint8Array, snapshot?: EngineSnapshot): Uint8Array | undefined {
    return this.storage.engine.get(key, snapshot)
  }

  iterator(range: IteratorOptions): EngineIterator {
    return this.storage.engine.iterator(range)
  }

  snapshot(): EngineSnapshot {
    return this.storage.engine.snapshot()
  }

  // ---- Jobs

  /** Resolves when everything written so far is in tables, no flush or compaction is left to do, and what they replaced is removed. */
  compacted(): Promise<void> {
    const { storage } = this
    return this.until(() => storage.seal() && storage.engine.memtablesEmpty && storage.isQuiet)
  }

  /** Resolves when `isDone`, which is asked after each job and tick; rejects when the store fails or is closed. */
  private async until(isDone: () => boolean): Promise<void> {
    for (;;) {
      this.refuseIfEnded()
      // What is due begins before it is asked whether all is done, and what the question has made due as well.
      this.pump()
      if (isDone()) return
      this.pump()
      await new Promise<void>((resolve) => this.wakers.push(resolve))
    }
  }

  /**
   * Writes a store of its own to `directory`, a path inside the root that does not exist yet: all tables as hard links, and an empty journal. What was
   * written before the call is in it, and perhaps some of what is written meanwhile.
   */
  async checkpoint(directory: string): Promise<void> {
    const { disk, storage } = this
    if (disk.exists(directory)) throw new DiskError({ reason: "exists", path: directory })
    await this.until(() => storage.seal())
    const { sealedThrough } = storage
    await this.until(() => storage.engine.flushedThrough >= sealedThrough)
    disk.makeDirectory(directory)
    disk.syncDirectory(directory.slice(0, Math.max(0, directory.lastIndexOf("/"))))
    let isWritten = false
    storage.checkpoint(`${directory}/engine`, () => {
      isWritten = true
    })
    await this.until(() => isWritten)
    Journal.recover(this.disk, `${directory}/journal`, {
      segmentBytes: mebibyte,
      tailCacheBytes: 0,
    }).journal.close()
    this.disk.syncDirectory(directory)
  }

  private jobDone(job: StoreJob, result: StoreJobResult): void {
    if (this.closed || this.failure !== undefined) return
    this.guard(() => this.storage.jobDone(job, result))
    this.pump()
    this.wake()
  }

  /** Gives the worker threads what is due, and writes the records that let segments go. */
  private pump(): void {
    if (this.closed || this.failure !== undefined) return
    this.guard(() => {
      const { storage } = this
      for (const job of storage.takeJobs(performance.now(), Date.now()))
        this.workers[laneOf(job)].post(job)
      if (!this.file.hasPending) {
        const write = storage.journal.cut()
        if (write !== undefined) this.file.writeRecords(write)
      }
      if (storage.hasReleases) this.pumpSoon()
    })
  }

  /** Entries are released a slice a turn. */
  private pumpSoon(): void {
    if (this.pumping) return
    this.pumping = true
    setImmediate(() => {
      this.pumping = false
      this.pump()
    })
  }

  private tick(): void {
    const sorted = this.file.takeLatenciesMs().sort((left, right) => left - right)
    const latencyMs = sorted[Math.floor(sorted.length * 0.99)]
    const debt = debtOf(this.storage.fullness)
    this.workers.engine.setPace(this.pace.step({ latencyMs, debt }))
    this.pump()
    this.wake()
  }

  private wake(): void {
    if (this.wakers.length === 0) return
    const wakers = this.wakers
    this.wakers = []
    for (const waker of wakers) waker()
  }

  private guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.fail(error as Error)
    }
  }

  private fail(error: Error): void {
    if (this.failure !== undefined) return
    this.failure = error
    this.file.stop(error)
    this.wake()
  }

  stats(): EmbeddedStats {
    const { engine, journal, fullness, isFull } = this.storage
    const { count, bytes } = journal.heldSegments
    return {
      engine: engine.stats(),
      journal: { segments: count, bytes, unsyncedBytes: journal.appendedLsn - journal.durableLsn },
      fullness,
      writeBytesPerSecond: this.rate.bytesPerSecond,
      isDiskFull: isFull,
    }
  }

  /** For tests: ends the worker threads as a failure would. */
  killWorkers(): void {
    for (const worker of Object.values(this.workers)) worker.kill()
  }

  /** Syncs what was written, ends the threads and closes all files. What is not flushed is replayed by the next `open`. */
  async close(): Promise<void> {
    if (this.closed) return
    clearInterval(this.timer)
    if (this.failure === undefined) {
      this.guard(() => {
        this.file.syncNow()
        const seal = this.storage.journal.sealIfIdle()
        if (seal !== undefined) this.file.writeRecords(seal)
      })
    }
    this.closed = true
    await Promise.all(Object.values(this.workers).map((worker) => worker.stop()))
    this.file.close()
    this.storage.close()
    this.wake()
    this.lock.release()
    if (this.failure !== undefined) throw this.failure
  }
}
