/**
 * The storage engine of a node: a log-structured merge tree (O'Neil et al., 1996; leveldb's names).
 * Writes go to a memtable in memory; full memtables become immutable sorted files (tables);
 * background jobs merge tables so that a read looks into few of them. One engine holds everything
 * that a node stores; the caller's keys begin with a byte that says which tree they are of.
 *
 * The engine has *no log*. What is in memtables is lost with the process, by design: the journal
 * holds it, and replays it from what the tables prove to hold. A table never holds part of a batch,
 * because a batch goes into one memtable in one turn of the event loop.
 *
 * 1. `put` and `delete` write to the active memtable (memtable.ts), stamped with the next sequence.
 * 2. The caller asks `canWrite` before a batch, and `needsSeal`; `seal` makes the active memtable
 *    immutable, under a generation that counts up, and opens a new one. What else must be exactly
 *    as old as this memtable is put in just before.
 * 3. `nextJob` hands out one job at a time: flush the oldest sealed memtable to a run of level 0,
 *    ingest a snapshot, or merge a slice of a level into the next (compaction.ts). A worker thread
 *    carries it out with `runJob`: it writes tables, syncs them, syncs the folder.
 * 4. `complete` turns the result into one manifest edit (manifest.ts), which the worker appends and
 *    syncs: `runManifestWrite`. This is the moment at which the job counts.
 * 5. `installed` swaps the version (version.ts), frees what no reader holds, and lists files for
 *    removal (`obsoleteFiles`).
 * 6. A read looks into the active memtable, the sealed ones, the runs of level 0, level 1, level 2,
 *    newest first, and ends at the first entry of its key, put or delete. Bloom filters spare it
 *    most tables. Iterators merge the same runs.
 *
 * Invariants
 * - A read looks into at most eight sorted runs: 1 active and 2 sealed memtables, 3 runs of level
 *   0, levels 1 and 2. A flush waits for room in level 0, a seal for a flush, and a writer
 *   (`canWrite`) for a seal.
 * - Of two entries of a key the one in the newer run has the higher sequence.
 * - Tables are durable before the edit that names them; an edit is durable before anything that it
 *   makes superfluous is removed.
 * - Generations are flushed in order: what a crash leaves is everything up to `flushedThrough`, and
 *   nothing after it.
 * - A file number is never used twice. A file goes when neither the version nor a reader holds it;
 *   `open` removes what no edit names, so that the files on disk are those that are live.
 * - Damage is thrown as `StorageCorruption`, from reads and jobs alike, and never read as "not
 *   found".
 *
 * Replacing an interval (a snapshot ingested behind a barrier, a replica removed): one edit cuts
 * [lower, upper) out of all fragments of tables and adds the new tables on level 2, where nothing
 * can lie under them. Memtables must hold no key of the interval that was put before; what is put
 * later lies over the new tables as usual.
 *
 * Left out for now, and why. Compression: a block says its kind, 0 is the only one. Versions of a
 * key in tables: snapshots keep whole files instead, which costs disk for as long as they live.
 * Moving a table down without rewriting it. Reclaiming what was cut out of a table before a
 * compaction comes by. Parallel jobs: one keeps up with what two cores can write. Caches of rows
 * and key places. Slabs for the block cache: each block is an own array.
 */
import type { Disk } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import { BlockCursor } from "./block.ts"
import { BlockCache } from "./blockCache.ts"
import { keyHash } from "./bloom.ts"
import { planCompaction } from "./compaction.ts"
import { editOf } from "./edits.ts"
import { kinds, tablePath } from "./format.ts"
import type { IteratorOptions } from "./iterator.ts"
import { EngineIterator } from "./iterator.ts"
import type { EngineJob, EngineJobResult } from "./jobs.ts"
import type { ManifestCounters, ManifestEnd, ManifestState, ManifestWrite } from "./manifest.ts"
import { appendEdit, newManifest } from "./manifest.ts"
import { ArenaPool, Memtable } from "./memtable.ts"
import type { EngineOptions, EngineSettings } from "./options.ts"
import { defaultEngineOptions, engineSettings, maxRuns } from "./options.ts"
import { openManifest } from "./recovery.ts"
import type { EngineSnapshot } from "./snapshot.ts"
import { ReadView } from "./snapshot.ts"
import type { EngineStats } from "./stats.ts"
import { engineStats } from "./stats.ts"
import { TableSet } from "./tableSet.ts"
import type { Interval } from "./version.ts"
import { applyEdit, areDisjoint, findFragment, Version } from "./version.ts"

export type { EngineIterator, EngineOptions, EngineSnapshot }
export { defaultEngineOptions }

/** Replaces all keys of `intervals` by those of a spill (spill.ts), in one manifest edit. */
export interface ReplaceInterval {
  /** Disjoint and in order; what is added lies inside them. */
  readonly intervals: ReadonlyArray<Interval>
  /** `undefined`: the intervals become empty. */
  readonly spillPath?: string | undefined
  /**
   * `crc32` of the whole spill, to be checked, so that damage to it is not copied under new
   * checksums.
   */
  readonly spillChecksum?: number | undefined
}

interface PendingEdit {
  readonly job: EngineJob
  readonly write: ManifestWrite
  readonly version: Version
  readonly end: ManifestEnd
}

export class Engine {
  private readonly directory: string
  private readonly settings: EngineSettings
  private readonly arenas: ArenaPool
  private readonly cache: BlockCache
  private readonly tables: TableSet
  private readonly scratch = new BlockCursor()
  /** Newest first; the first one is active. */
  private memtables: Array<Memtable>
  private version: Version
  private end: ManifestEnd
  private sequence: number
  private nextFileNumber: number
  private installedGeneration: number
  private readonly views = new Set<ReadView>()
  /** Versions up to it must be kept in the active memtable. */
  private pinnedSequence = -1
  private running: EngineJob | undefined
  private pending: PendingEdit | undefined
  private jobs = 0
  private level1From: Uint8Array | undefined

  /**
   * Reads the manifest, repairs what a crash left (a torn last edit, orphans), and makes it
   * durable. Throws `StorageCorruption` where bytes are damaged or a live table is missing,
   * `NewerFormat` where a later version wrote; then nothing is changed.
   */
  static open(
    disk: Disk,
    directory: string,
    options: EngineOptions = defaultEngineOptions,
  ): Engine {
    const settings = engineSettings(options)
    const { state, end } = openManifest(disk, directory)
    return new this(disk, directory, settings, state, end)
  }

  protected constructor(
    disk: Disk,
    directory: string,
    settings: EngineSettings,
    state: ManifestState,
    end: ManifestEnd,
  ) {
    this.directory = directory
    this.settings = settings
    this.arenas = new ArenaPool({
      arenaBytes: settings.arenaBytes,
      keepCount: settings.maxSealedMemtables + 1,
      readyCount: settings.readyArenas,
    })
    this.cache = new BlockCache(settings.blockCacheBytes)
    this.tables = new TableSet(disk, directory, this.cache)
    this.version = new Version(state.fragments)
    this.tables.hold(this.version)
    this.end = end
    this.sequence = state.lastSequence
    this.nextFileNumber = state.nextFileNumber
    this.installedGeneration = state.flushedThrough
    this.memtables = [new Memtable(this.arenas.take(), state.flushedThrough + 1)]
  }

  /** Closes files. Memtables are lost; no job may be running. */
  close(): void {
    this.tables.close()
  }

  // ---- Writes

  put(key: Uint8Array, value: Uint8Array): void {
    this.putParts(key, value, emptyBytes)
  }

  /** Puts `key` with the value `head ‖ tail`. All bytes are copied. */
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void {
    const active = this.memtables[0]
    active.write(key, kinds.put, ++this.sequence, head, tail, this.pinnedSequence)
  }

  delete(key: Uint8Array): void {
    const active = this.memtables[0]
    active.write(key, kinds.delete, ++this.sequence, emptyBytes, emptyBytes, this.pinnedSequence)
  }

  /** Bytes of the active memtable. */
  get memtableUsedBytes(): number {
    return this.memtables[0].usedBytes
  }

  /**
   * Whether a batch of `bytes` (keys, values, and `entryOverheadBytes` for each) may be put now,
   * after a `seal` if `needsSeal`. False is backpressure: the active memtable is full and no more
   * can be sealed before a flush is installed.
   */
  canWrite(bytes: number): boolean {
    return !this.isOver(bytes) || this.canSeal
  }

  /** Whether the active memtable should be sealed before a batch of `bytes`. */
  needsSeal(bytes: number): boolean {
    return this.isOver(bytes) && this.canSeal
  }

  /** Whether `seal` may be called. */
  get canSeal(): boolean {
    return this.memtables.length <= this.settings.maxSealedMemtables
  }

  /**
   * Ends the active memtable; returns the generation with which all that was put so far will be
   * flushed. An empty memtable is not sealed, and the generation before it is returned.
   */
  seal(): number {
    const { generation, isEmpty } = this.memtables[0]
    if (isEmpty) return generation - 1
    assert(this.canSeal, "a memtable is sealed only while there is room for it")
    this.memtables = [new Memtable(this.arenas.take(), generation + 1), ...this.memtables]
    return generation
  }

  /** The largest generation whose flush is in the manifest; all before it are too. */
  get flushedThrough(): number {
    return this.installedGeneration
  }

  /** True when everything that was put is in tables. */
  get memtablesEmpty(): boolean {
    return this.memtables.length === 1 && this.memtables[0].isEmpty
  }

  // ---- Reads

  /**
   * The value of `key`, now or at a snapshot. It is never changed or reused by the engine, so it
   * may be kept; it must not be written to, because it may be a view of a cached block. (From a
   * memtable it is a copy: arenas are reused.)
   */
  get(key: Uint8Array, snapshot?: EngineSnapshot): Uint8Array | undefined {
    const view = snapshot as ReadView | undefined
    assert(view === undefined || !view.isReleased, "a snapshot is read before it is released")
    const memtables = view === undefined ? this.memtables : view.memtables
    const sequence = view === undefined ? this.sequence : view.sequence
    for (let i = 0; i < memtables.length; i++) {
      const memtable = memtables[i]
      const node = memtable.find(key, sequence)
      if (node === 0) continue
      return memtable.kindOf(node) === kinds.put ? memtable.copyValue(node) : undefined
    }
    const { runs } = view === undefined ? this.version : view.version
    assert(memtables.length + runs.length <= maxRuns, "a read looks into few runs")
    if (runs.length === 0) return undefined
    const hash = keyHash(key, 0, key.length)
    const cursor = this.scratch
    for (let i = 0; i < runs.length; i++) {
      const fragment = findFragment(runs[i], key)
      if (fragment === undefined) continue
      const table = this.tables.of(fragment)
      if (!table.mayContain(hash) || !table.find(key, cursor)) continue
      if (cursor.kind !== kinds.put) return undefined
      const { valueBytes, valueOffset, valueLength } = cursor
      return valueBytes.subarray(valueOffset, valueOffset + valueLength)
    }
    return undefined
  }

  snapshot(): EngineSnapshot {
    return this.view()
  }

  iterator(range: IteratorOptions): EngineIterator {
    const given = range.snapshot as ReadView | undefined
    assert(given === undefined || !given.isReleased, "a snapshot is read before it is released")
    const view = given ?? this.view()
    const onClose = () => {
      if (given === undefined) view.release()
    }
    try {
      return new EngineIterator({ range, view, tableOf: this.tables.of, onClose })
    } catch (error) {
      // Its first read may meet damage, when nobody holds it yet who could close it.
      onClose()
      throw error
    }
  }

  private view(): ReadView {
    const view = new ReadView({
      sequence: this.sequence,
      memtables: this.memtables,
      version: this.version,
      onRelease: this.release,
    })
    for (const memtable of view.memtables) memtable.holders++
    this.version.holders++
    this.views.add(view)
    this.pinnedSequence = this.sequence
    return view
  }

  private readonly release = (view: ReadView): void => {
    this.views.delete(view)
    this.pinnedSequence = -1
    for (const other of this.views) {
      if (other.sequence > this.pinnedSequence) this.pinnedSequence = other.sequence
    }
    for (const memtable of view.memtables) this.dropMemtable(memtable)
    this.tables.drop(view.version)
  }

  private dropMemtable(memtable: Memtable): void {
    memtable.holders--
    if (memtable.holders === 0) this.arenas.give(memtable.arena)
  }

  // ---- Jobs

  /**
   * The next piece of long work, for `runJob`; `undefined` while one is under way or when there is
   * none.
   */
  nextJob(): EngineJob | undefined {
    if (this.running !== undefined) return undefined
    this.running = this.flushJob() ?? this.compactJob()
    return this.running
  }

  /**
   * The job that replaces intervals; it is in force once `installed` was called for it. Requires
   * that no job is under way and that no memtable holds a key of the intervals: the caller has
   * sealed, waited until `flushedThrough` reached that generation, and put no key of them since.
   */
  replaceInterval(request: ReplaceInterval): EngineJob {
    assert(this.running === undefined, "one job is under way at a time")
    assert(request.intervals.length > 0, "an interval is named")
    assert(areDisjoint(request.intervals), "intervals are disjoint and in order")
    const { intervals, spillPath, spillChecksum } = request
    const sequence = ++this.sequence
    const base = this.jobBase()
    this.running = { _tag: "Ingest", ...base, intervals, spillPath, spillChecksum, sequence }
    return this.running
  }

  private jobBase() {
    const { directory, nextFileNumber, settings } = this
    const { tableBytes, writer } = settings
    return { id: ++this.jobs, directory, firstFileNumber: nextFileNumber, tableBytes, writer }
  }

  private flushJob(): EngineJob | undefined {
    if (this.memtables.length === 1) return undefined
    if (this.version.level0.length >= this.settings.maxLevel0Runs) return undefined
    const { generation, arena } = this.memtables[this.memtables.length - 1]
    assert(generation === this.installedGeneration + 1, "generations are flushed in order")
    return { _tag: "Flush", ...this.jobBase(), generation, arena }
  }

  private compactJob(): EngineJob | undefined {
    const plan = planCompaction(this.version, this.settings, this.level1From, this.tables.measure)
    if (plan === undefined) return undefined
    const runs = plan.inputLevels.flatMap((level) => this.version.runsOf(level))
    if (plan.inputLevels[0] === 1) this.level1From = plan.upper
    return { _tag: "Compact", ...this.jobBase(), ...plan, runs }
  }

  /**
   * Gives up a job that threw (a full disk): `nextJob` will hand it out again, an ingest must be
   * asked for again. What it wrote is listed for removal.
   */
  abandon(job: EngineJob): void {
    assert(this.running?.id === job.id && this.pending === undefined, "a running job is given up")
    this.running = undefined
    this.nextFileNumber = this.tables.abandonFrom(job.firstFileNumber)
  }

  /**
   * The manifest edit that makes a job's result count. Next: `runManifestWrite`, then `installed`.
   */
  complete(job: EngineJob, result: EngineJobResult): ManifestWrite {
    assert(this.running?.id === job.id && result.id === job.id, "the running job is completed")
    assert(this.pending === undefined, "one edit is under way")
    const edit = editOf(job, result.tables, this.version, this.tables.measure)
    const fragments = applyEdit(this.version.fragments, edit)
    this.nextFileNumber += result.tables.length
    const { directory, end } = this
    const id = job.id
    const isLarge = end.offset > this.settings.manifestBytes
    const fileNumber = isLarge ? this.nextFileNumber++ : 0
    const counters: ManifestCounters = {
      flushedThrough: job._tag === "Flush" ? job.generation : this.installedGeneration,
      lastSequence: this.sequence,
      nextFileNumber: this.nextFileNumber,
    }
    const next = isLarge
      ? newManifest({ id, directory, fileNumber, state: { ...counters, fragments } })
      : appendEdit({ id, directory, end, counters, edit })
    const version = new Version(fragments)
    assert(version.level0.length <= this.settings.maxLevel0Runs, "level 0 has room")
    this.pending = { job, write: next.write, end: next.end, version }
    return next.write
  }

  /** The edit is durable: swaps the version and lets go of what it replaced. */
  installed(write: ManifestWrite): void {
    const pending = this.pending
    assert(pending !== undefined && pending.write.id === write.id, "the pending edit is installed")
    this.pending = undefined
    this.running = undefined
    const { job } = pending
    this.tables.hold(pending.version)
    this.tables.drop(this.version)
    this.version = pending.version
    if (pending.end.fileNumber !== this.end.fileNumber) this.tables.manifestReplaced(this.end)
    this.end = pending.end
    if (job._tag === "Flush") {
      this.installedGeneration = job.generation
      const flushed = this.memtables[this.memtables.length - 1]
      assert(flushed.generation === job.generation, "the oldest memtable was flushed")
      this.memtables = this.memtables.slice(0, -1)
      this.dropMemtable(flushed)
    }
  }

  /**
   * Files that nothing needs any more, each listed once: remove them (`removeFiles`). `open`
   * removes those that were not.
   */
  obsoleteFiles(): ReadonlyArray<string> {
    return this.tables.takeObsolete()
  }

  // ---- For operators and tests

  stats(): EngineStats {
    const { version, memtables, cache } = this
    return engineStats({ version, memtables, cache, openReaders: this.views.size })
  }

  /** Paths of the tables of the present version. */
  liveFiles(): ReadonlyArray<string> {
    return [...this.version.files()].map((file) => tablePath(this.directory, file)).sort()
  }

  /**
   * Reads all live tables from the disk and checks every byte; throws `StorageCorruption`. Returns
   * the blocks read.
   */
  verify(): number {
    let blocks = 0
    const seen = new Set<number>()
    for (const fragment of this.version.fragments) {
      if (seen.has(fragment.fileNumber)) continue
      seen.add(fragment.fileNumber)
      blocks += this.tables.of(fragment).verify()
    }
    return blocks
  }

  private isOver(bytes: number): boolean {
    const active = this.memtables[0]
    return !active.isEmpty && active.usedBytes + bytes > this.settings.memtableBytes
  }
}
