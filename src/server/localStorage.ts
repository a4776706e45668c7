/**
 * Journal and engine as one store that is used on its own, without consensus: every batch of writes is an entry of one group in the journal, and is put
 * into the memtable at once.
 *
 * Flow:
 *  1. `cut` lays out a batch as the journal's next bytes; the driver writes them to the file (into the page cache) and calls `apply`.
 *  2. The driver syncs when it likes, or when a caller waits for it, and tells so with `synced`. What was applied but not synced is lost with the power,
 *     the newest first, and with nothing less: what is left is always a prefix of the batches, in their order.
 *  3. A full memtable is sealed with the *state key* in it: the index of the newest batch that it or an older one holds. When its flush is in force the
 *     journal's entries up to that index are released, and segments without any are removed.
 *  4. `open` reads the state key of what is flushed, and applies the journal's entries above it. If the journal ends below it (a power loss took what was
 *     never synced, but a flush had made it durable), the log begins anew there.
 *
 * Invariants:
 * - Data and state key of a memtable speak of the same index, because sealing writes the key and swaps the memtable in one synchronous step.
 * - An entry is released only when a flushed state key covers it.
 * - A segment of the journal is left only when all in it is synced.
 */
import { type Disk, StorageCorruption } from "../disk/disk.ts"
import type { DirectBatch } from "../journal/direct.ts"
import type { JournalGroup } from "../journal/group.ts"
import { Journal, type JournalOptions, type JournalWrite } from "../journal/journal.ts"
import { isJournal } from "../journal/segments.ts"
import { assert } from "../lib/assert.ts"
import { loadU64, storeU64 } from "../lib/littleEndian.ts"
import { WriteBatch } from "../lsm/batch.ts"
import { Engine, type EngineOptions } from "../lsm/engine.ts"
import type { LogIndex, Lsn, MonotonicMs, WallMs } from "../types.ts"
import { FileJobs, type FileSettings } from "./fileJobs.ts"
import { attemptStoreJob, runStoreJob, type StoreJob, type StoreJobResult } from "./storeJobs.ts"
import { fullnessOf } from "./writeRate.ts"

export interface LocalSettings extends FileSettings {
  readonly journal: JournalOptions
  readonly engine: EngineOptions
}

/** The tree of the state key; callers' keys begin with another byte. Stored: do not change. */
export const localStateTree = { id: 0, name: "local-state" } as const
const stateKey = Uint8Array.of(localStateTree.id, 1)
/** The group in the journal. Stored: do not change. */
const localGroup = { range: 0xffff_ffff, replica: 1 } as const
const localTerm = 1
/** Entries released in one go, so that a flush of half a million small batches holds nobody. */
const releaseSlice = 4096
/** What may be written after `open` without a wait. */
const firstWriteBytes = 128 * 1024

interface Seal {
  readonly generation: number
  readonly index: LogIndex
  readonly bytes: number
}

export class LocalStorage {
  readonly journal: Journal
  readonly engine: Engine
  private readonly group: JournalGroup
  private readonly files: FileJobs
  private readonly memtableBytes: number
  private readonly stages: number
  private readonly onFlushed: (bytes: number, othersWait: boolean) => void
  private seals: Array<Seal> = []
  /** Entries up to it are in tables. */
  private flushedIndex: LogIndex

  /** Recovers both. Throws `StorageCorruption`, `DiskError`, and what the engine refuses. */
  static open(
    disk: Disk,
    settings: LocalSettings,
    wallMs: WallMs,
    onFlushed: (bytes: number, othersWait: boolean) => void = () => {},
  ): LocalStorage {
    if (disk.exists("engine/CURRENT") && !isJournal(disk, "journal")) {
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: "the journal of the engine beside it",
        actual: "no journal",
      })
    }
    const { journal } = Journal.recover(disk, "journal", settings.journal)
    // There is nobody to get from what is lost.
    const [damage] = journal.takeDamages()
    if (damage !== undefined) throw damage
    const { trees } = settings.engine
    const options = trees === undefined ? {} : { trees: [localStateTree, ...trees] }
    const engine = Engine.open(disk, "engine", { ...settings.engine, ...options })
    const storage = new LocalStorage({ disk, journal, engine, settings, onFlushed })
    storage.begin(disk, wallMs)
    storage.replay(disk, wallMs)
    storage.prepareFirstWrite(disk)
    return storage
  }

  private constructor(options: {
    disk: Disk
    journal: Journal
    engine: Engine
    settings: LocalSettings
    onFlushed: (bytes: number, othersWait: boolean) => void
  }) {
    this.journal = options.journal
    this.engine = options.engine
    this.group = options.journal.group(localGroup)
    this.memtableBytes = options.settings.engine.memtableBytes
    this.stages = 1 + (options.settings.engine.maxSealedMemtables ?? 3)
    this.onFlushed = options.onFlushed
    const state = options.engine.get(stateKey)
    this.flushedIndex = state === undefined ? 0 : loadU64(state, 0)
    this.files = new FileJobs({ ...options, installed: () => this.noteFlushed() })
  }

  /** Index of the newest batch applied. */
  get appliedIndex(): LogIndex {
    return this.group.lastIndex
  }

  // ---- Opening

  private begin(disk: Disk, wallMs: WallMs): void {
    const { group, flushedIndex } = this
    if (group.hardState.term === 0) group.setHardState({ term: localTerm, vote: 0, commit: 0 })
    if (group.lastIndex < flushedIndex) group.resetTo(flushedIndex, localTerm)
    if (group.firstIndex > flushedIndex + 1) {
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: `the batch after ${flushedIndex}, which is the last one flushed`,
        actual: `a log that begins with ${group.firstIndex}`,
      })
    }
    this.writeNow(disk, wallMs)
  }

  /** Writes and syncs what the journal has gathered. */
  private writeNow(disk: Disk, wallMs: WallMs): void {
    while (this.journal.wantsWrite) {
      const write = this.journal.cut()
      if (write === undefined) this.runJobs(disk, wallMs)
      else {
        const file = disk.open(write.path)
        file.write(write.bytes, write.offset)
        file.sync()
        file.close()
        this.journal.durable(write)
      }
    }
  }

  private replay(disk: Disk, wallMs: WallMs): void {
    const { engine, group } = this
    const from = Math.max(group.firstIndex, this.flushedIndex + 1)
    if (from > group.lastIndex) return
    let appliedIndex = from - 1
    group.forEachData(from, (data, index) => {
      const bytes = memtableBytesOf(data.length)
      while (!engine.canWrite(bytes)) this.runJobs(disk, wallMs)
      if (engine.needsSeal(bytes)) this.sealAt(appliedIndex)
      engine.write(WriteBatch.decode(data))
      appliedIndex = index
    })
    // So that the next start need not replay the same again.
    if (engine.canSeal) this.sealAt(appliedIndex)
  }

  /** Whoever has just opened the store was not told to wait: where the journal's segment is nearly full, the next one is made now. */
  private prepareFirstWrite(disk: Disk): void {
    const { journal } = this
    if (journal.hasRoom(firstWriteBytes) || journal.isNextSegmentReady) return
    for (const job of journal.segmentsToPrepare()) {
      // On a full disk it is asked for again later: reads need none.
      const result = attemptStoreJob(disk, { _tag: "Segment", job })
      if (result._tag === "Failed") journal.segmentFailed(job)
      else journal.segmentReady(job)
    }
  }

  /** Carries out jobs at once: there is no driver yet. */
  private runJobs(disk: Disk, wallMs: WallMs): void {
    const jobs = this.files.takeJobs(0, wallMs)
    assert(jobs.length > 0, "there is a job that makes room")
    for (const job of jobs) this.files.jobDone(job, runStoreJob(disk, job))
  }

  // ---- Writing

  /** Whether a batch of so many bytes may be cut and applied now. */
  hasRoom(batchBytes: number): boolean {
    return this.hasMemtableRoom(batchBytes) && this.journal.hasRoom(batchBytes)
  }

  hasMemtableRoom(batchBytes: number): boolean {
    return this.engine.canWrite(memtableBytesOf(batchBytes))
  }

  /** The batch as the next bytes of the journal, to be written at once; then `apply` it. Requires `hasRoom`. */
  cut(data: Uint8Array): DirectBatch {
    const direct = this.journal.cutDirect(this.group, data)
    assert(direct !== undefined, "there is room for the batch")
    return direct
  }

  /** The batch that was cut last has been written. */
  apply(batch: WriteBatch): void {
    const { engine } = this
    if (engine.needsSeal(memtableBytesOf(batch.sizeBytes))) this.sealAt(this.group.lastIndex - 1)
    engine.write(batch)
  }

  /** Everything that the journal was given below `lsn` is durable. */
  synced(lsn: Lsn): void {
    this.journal.synced(lsn)
  }

  /** Goes on to the journal's next segment, if it is ready and all is synced. */
  openSegment(batchBytes: number): JournalWrite | undefined {
    return this.journal.openSegment(batchBytes)
  }

  /** Seals what is in memory, so that it will be flushed. False when no more can be sealed now. */
  seal(): boolean {
    if (this.engine.memtablesEmpty) return true
    if (!this.engine.canSeal) return false
    this.sealAt(this.group.lastIndex)
    return true
  }

  private sealAt(index: LogIndex): void {
    const bytes = this.engine.memtableUsedBytes
    if (bytes === 0) return
    const state = new Uint8Array(8)
    storeU64(state, 0, index)
    this.engine.put(stateKey, state)
    this.seals.push({ generation: this.engine.seal(), index, bytes })
  }

  /** The newest generation that was sealed: once it is flushed, all that was written before its seal is in tables. */
  get sealedThrough(): number {
    return this.seals[this.seals.length - 1]?.generation ?? this.engine.flushedThrough
  }

  /** How full the stages are that a write goes through, from 0 to 1, where writers must stop. */
  get fullness(): number {
    const { engine, seals, stages, memtableBytes } = this
    return fullnessOf({
      sealed: seals.length,
      activeBytes: engine.memtableUsedBytes,
      memtableBytes,
      memtables: stages,
      pressure: engine.pressure.state,
    })
  }

  // ---- Jobs

  get isFull(): boolean {
    return this.files.isFull
  }

  get isQuiet(): boolean {
    return this.files.isQuiet && this.seals.length === 0
  }

  /** Starts what work on files is due; returns the jobs to carry out, in order in each lane. */
  takeJobs(nowMs: MonotonicMs, wallMs: WallMs): ReadonlyArray<StoreJob> {
    this.releaseSome()
    return this.files.takeJobs(nowMs, wallMs)
  }

  jobDone(job: StoreJob, result: StoreJobResult): void {
    this.files.jobDone(job, result)
  }

  /** Has the engine write a checkpoint of what is in tables when its turn comes. */
  checkpoint(directory: string, done: () => void): void {
    this.files.want(() => this.engine.checkpointJob(directory), done)
  }

  /** Whether a batch is refused while the disk is full: one that only deletes is not. */
  takesNot(batch: WriteBatch): boolean {
    let puts = 0
    const count = () => void puts++
    WriteBatch.visit(batch.bytes(), { put: count, delete: () => {}, deleteRange: () => {} })
    return puts > 0
  }

  /** Whether entries wait to be released. */
  get hasReleases(): boolean {
    return this.group.firstIndex <= this.flushedIndex
  }

  private releaseSome(): void {
    if (!this.hasReleases) return
    this.group.release(Math.min(this.flushedIndex, this.group.firstIndex + releaseSlice - 1))
  }

  private noteFlushed(): void {
    while (this.seals.length > 0) {
      const [seal] = this.seals as [Seal]
      if (seal.generation > this.engine.flushedThrough) return
      this.seals.shift()
      if (seal.index > this.flushedIndex) this.flushedIndex = seal.index
      this.onFlushed(seal.bytes, this.seals.length > 0)
    }
  }

  /** Closes all files. No job may be running. */
  close(): void {
    this.engine.close()
    this.journal.close()
  }
}

/** What a batch of so many bytes takes in a memtable, at most about: an entry's head there is larger than in a batch. */
function memtableBytesOf(batchBytes: number): number {
  return batchBytes + (batchBytes >>> 1) + 128
}
