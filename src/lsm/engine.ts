/**
 * The storage engine of a node: a log-structured merge tree (O'Neil et al., 1996; leveldb's names,
 * RocksDB's features). Writes go to a memtable in memory; full memtables become immutable sorted
 * files (tables); background jobs merge tables so that a read looks into few of them. One engine
 * holds everything that a node stores, in a few trees: the first byte of a key says which one it is
 * of (trees.ts).
 *
 * The engine has *no log*. What is in memtables is lost with the process, by design: the journal
 * holds it, and replays it from what the tables prove to hold. A table never holds part of a batch,
 * because a batch goes into one memtable in one turn of the event loop.
 *
 * Everything here is synchronous and without a clock, a thread or chance: long work is handed out
 * as jobs, plain data, and its results are handed in. What writes and reads need is in this file;
 * versions, jobs, the manifest and damage are in maintenance.ts.
 *
 * 1. `put`, `delete`, `deleteRange` and `write` (a batch, batch.ts) write to the active memtable
 *    (memtable.ts), each operation stamped with the next sequence.
 * 2. The caller asks `canWrite` before a batch, and `needsSeal`; `seal` makes the active memtable
 *    immutable, under a generation that counts up, and opens a new one (memtables.ts). What else must be exactly
 *    as old as this memtable is put in just before. `pressure` says how near the limits are.
 * 3. `nextJob` hands out one job at a time: flush the oldest sealed memtable to a run of level 0,
 *    merge a slice of a level into the next or move it there (compaction.ts), ingest a snapshot or
 *    finished tables, make a checkpoint, read tables in search of damage. A worker thread carries
 *    it out with `runJob`: it writes tables, syncs them, syncs the folder.
 * 4. `complete` turns the result into one manifest edit (manifest.ts), which the worker appends and
 *    syncs: `runManifestWrite`. This is the moment at which the job counts.
 * 5. `installed` swaps the version (version.ts), frees what no reader holds, and lists files for
 *    removal (`obsoleteFiles`).
 * 6. A `get` looks into the active memtable, the sealed ones, the row cache, the runs of level 0
 *    and then one run of each level, newest first, and ends at the first thing that speaks of its
 *    key: a put, a delete, or a range tombstone of that source. Filters spare it most tables.
 * 7. An iterator (iterator.ts) merges the same sources (merge.ts), either way, and passes over what
 *    tombstones cover (rangeTombstone.ts). It holds the memtables and the version with which it
 *    began (snapshot.ts), as a snapshot does.
 *
 * No versions of a key in tables: a table holds one entry per key, its newest, also while snapshots
 * are open. A snapshot keeps what it read from: memtables keep versions of a key that it can see,
 * and files stay for as long as a version that is held names them. So no compaction need know of
 * any snapshot, and none can drop or renumber what one needs; the price is the disk space of whole
 * files while it lives.
 *
 * Invariants
 * - A read looks into at most `maxRuns` sorted runs (options.ts): the memtables, the runs of level
 *   0 up to their limit, one run for each deeper level. A flush waits for room in level 0, a seal
 *   for a flush, and a writer (`canWrite`) for a seal.
 * - Of two entries of a key the one in the newer source has the higher sequence, and a tombstone
 *   has a higher one than all that it covers. No sequence that a table holds is used again.
 * - A batch is in one memtable, whole: no reader sees part of it, because nothing reads in between,
 *   and no crash leaves part of it, because a memtable is flushed by one edit.
 * - Tables are durable before the edit that names them; an edit is durable before anything that it
 *   makes superfluous is removed.
 * - Generations are flushed in order: what a crash leaves is everything up to `flushedThrough`, and
 *   nothing after it.
 * - A file number is never used twice. A file goes when neither the version nor a reader holds it;
 *   `open` removes what no edit names, so that the files on disk are those that are live.
 * - Damage is thrown as `StorageCorruption`, from reads and jobs alike, and never read as "not
 *   found": the fragment in which it was met is out of bounds for reads and jobs from then on
 *   (`quarantined`), until its interval is replaced. A newer source's answer still counts.
 * - The row cache holds only what a `get` of now would find in tables: a write of a key drops its
 *   row, what changes an interval drops all. (What a compaction filter drops may be read from it a
 *   little longer, as it may from a table that no compaction has come to yet.)
 *
 * Letting go of damaged tables (`letGoJob`) is for a tree whose reader knows older values from newer ones, and gets from elsewhere what it lacks: what the tables
 * alone held is gone, and what they hid comes to light.
 *
 * Replacing an interval (a snapshot ingested behind a barrier, a replica removed): one edit cuts
 * [lower, upper) out of all fragments of tables and adds the new tables on the deepest level, where
 * nothing can lie under them. Memtables must hold no key of the interval that was put before; what
 * is put later lies over the new tables as usual.
 *
 * Left out, and why. Parallel jobs: one keeps up with what two cores can write. Merge operators:
 * commands read what they change. Column families: trees share memtables and manifest, so that a
 * batch across them is one write. Tombstones in the row cache and prefix filters: no caller asks
 * for keys that way. Reclaiming what was cut out of a table before a compaction comes by.
 *
 * Further sources: Bayer and McCreight, 1972 (memtableIndex.ts); Bloom, 1970, and Putze, Sanders and
 * Singler, 2007 (filters); RocksDB's "DeleteRange: A New Native RocksDB Operation", 2018, and
 * Pebble's notes on range deletions (tombstones cut up, and clipped by their file's bounds);
 * RocksDB's dynamic level sizes (compaction.ts); Yang et al., "FIFO queues are all you need", 2023
 * (blockCache.ts).
 */
import type { Disk } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import type { WriteBatch } from "./batch.ts"
import { BatchCursor, batchKinds } from "./batch.ts"
import { Caches } from "./cache/caches.ts"
import type { RowCache } from "./cache/rowCache.ts"
import type { EngineJob, EngineJobResult } from "./maintenance/jobs.ts"
import type { IngestTables, MaintenanceHost, ReplaceInterval } from "./maintenance/maintenance.ts"
import { changesAnswers, Maintenance } from "./maintenance/maintenance.ts"
import type { TableSet } from "./maintenance/tableSet.ts"
import type { ManifestWrite } from "./manifest/manifest.ts"
import { type OpenedManifest, openManifest } from "./manifest/recovery.ts"
import type { Interval, Run, Version } from "./manifest/version.ts"
import { findFragment } from "./manifest/version.ts"
import { Memtables } from "./memtable/memtables.ts"
import { coveringSequence } from "./memtable/rangeTombstone.ts"
import type { CorruptionReport, EngineOptions, EngineSettings } from "./options.ts"
import { defaultEngineOptions, engineSettings } from "./options.ts"
import type { Pressure } from "./pressure.ts"
import { pressureOf } from "./pressure.ts"
import type { IteratorOptions } from "./read/iterator.ts"
import { EngineIterator } from "./read/iterator.ts"
import { IteratorHost } from "./read/iteratorHost.ts"
import type { EngineSnapshot } from "./snapshot.ts"
import { type ReadView, Views } from "./snapshot.ts"
import type { EngineStats } from "./stats.ts"
import { engineStats } from "./stats.ts"
import { BlockCursor } from "./table/block.ts"
import { keyHash } from "./table/bloom.ts"
import { kinds } from "./table/format.ts"
import { TreeSet } from "./trees.ts"

export type {
  EngineIterator,
  EngineOptions,
  EngineSnapshot,
  IngestTables,
  Pressure,
  ReplaceInterval,
}
export { defaultEngineOptions }

export class Engine {
  private readonly settings: EngineSettings
  private readonly trees: TreeSet
  private readonly caches: Caches
  private readonly rows: RowCache
  private readonly maintenance: Maintenance
  private readonly tables: TableSet
  private readonly scratch = new BlockCursor()
  private readonly views = new Views((view) => this.dropView(view))
  private readonly iteratorHost: IteratorHost
  private readonly memtables: Memtables
  private sequence: number
  /** Keys and values written since `open`. */
  private userBytes = 0
  /** The edit under way changes what tables answer. */
  private replacesRows = false

  /**
   * Reads the manifest, repairs what a crash left (a torn last edit, orphans), and makes it
   * durable. Throws `StorageCorruption` where bytes are damaged or a live table is missing (of an expendable tree it is in quarantine then),
   * `NewerFormat` and `OlderFormat` where another version wrote, `TreesDiffer` where other trees
   * were declared; then nothing is changed.
   */
  static open(
    disk: Disk,
    directory: string,
    options: EngineOptions = defaultEngineOptions,
  ): Engine {
    const settings = engineSettings(options)
    const manifest = openManifest(disk, directory, settings)
    return new this(disk, directory, settings, manifest)
  }

  protected constructor(
    disk: Disk,
    directory: string,
    settings: EngineSettings,
    { state, end, missing }: OpenedManifest,
  ) {
    this.settings = settings
    this.trees = new TreeSet(settings.trees ?? [])
    const { blockCacheBytes, keyCacheBytes, rowCacheBytes } = settings
    this.caches = new Caches({
      blockBytes: blockCacheBytes,
      keyBytes: keyCacheBytes,
      rowBytes: rowCacheBytes,
    })
    this.rows = this.caches.row
    this.sequence = state.lastSequence
    this.memtables = new Memtables(settings, state.flushedThrough + 1)
    const { caches } = this
    const host = this.maintenanceHost()
    this.maintenance = new Maintenance({
      ...{ disk, directory, settings, state, end, missing, caches, host },
    })
    this.tables = this.maintenance.tables
    const readFailed = (error: unknown) => this.readFailed(error)
    this.iteratorHost = new IteratorHost(this.tables.of, readFailed)
  }

  /** What maintenance may know and do of this engine. */
  private maintenanceHost(): MaintenanceHost {
    const engine = this
    return {
      get sequence() {
        return engine.sequence
      },
      get userBytes() {
        return engine.userBytes
      },
      takeSequence: () => ++this.sequence,
      oldestSealed: () => this.memtables.oldestSealed(this.sequence),
      flushed: (generation) => this.memtables.flushed(generation),
    }
  }

  private get version(): Version {
    return this.maintenance.version
  }

  /** Closes files. Memtables are lost; no job may be running. */
  close(): void {
    this.maintenance.close()
  }

  // ---- Writes

  put(key: Uint8Array, value: Uint8Array): void {
    this.putParts(key, value, emptyBytes)
  }

  /** Puts `key` with the value `head ‖ tail`. All bytes are copied. */
  putParts(key: Uint8Array, head: Uint8Array, tail: Uint8Array): void {
    assert(this.trees.holds(key, 0), () => `a key of tree ${key[0]}, which is not declared`)
    if (!this.rows.isOff) this.rows.invalidate(key)
    this.userBytes += key.length + head.length + tail.length
    const { active } = this.memtables
    active.write(key, kinds.put, ++this.sequence, head, tail, this.views.pinnedSequence)
  }

  delete(key: Uint8Array): void {
    assert(this.trees.holds(key, 0), () => `a key of tree ${key[0]}, which is not declared`)
    if (!this.rows.isOff) this.rows.invalidate(key)
    this.userBytes += key.length
    const { active } = this.memtables
    const { pinnedSequence } = this.views
    active.write(key, kinds.delete, ++this.sequence, emptyBytes, emptyBytes, pinnedSequence)
  }

  /** Deletes all keys of [lower, upper), by one entry. An empty interval is nothing to do. */
  deleteRange(lower: Uint8Array, upper: Uint8Array): void {
    if (compareBytes(lower, upper) >= 0) return
    assert(this.trees.holdsInterval(lower, upper), "an interval lies in one declared tree")
    if (!this.rows.isOff) this.rows.clear()
    this.userBytes += lower.length + upper.length
    const { pinnedSequence } = this.views
    this.memtables.active.deleteRange(lower, upper, ++this.sequence, pinnedSequence)
  }

  /**
   * Applies a batch as one step, whole, into one memtable; returns the sequence of its last
   * operation. Ask `canWrite` and `needsSeal` for all of it before.
   */
  write(batch: WriteBatch): number {
    const bytes = batch.bytes()
    const cursor = new BatchCursor(bytes)
    const { rows, trees } = this
    const { pinnedSequence } = this.views
    const { active } = this.memtables
    while (cursor.next()) {
      const { kind, keyOffset, keyLength, valueOffset, valueLength } = cursor
      if (kind === batchKinds.deleteRange) {
        const end = valueOffset + valueLength
        this.deleteRange(bytes.slice(keyOffset, valueOffset), bytes.slice(valueOffset, end))
        continue
      }
      assert(trees.holds(bytes, keyOffset), () => `tree ${bytes[keyOffset]} is not declared`)
      if (!rows.isOff) rows.invalidate(bytes.subarray(keyOffset, valueOffset))
      this.userBytes += keyLength + valueLength
      const sequence = ++this.sequence
      active.writeFrom(bytes, keyOffset, keyLength, valueLength, kind, sequence, pinnedSequence)
    }
    return this.sequence
  }

  /**
   * Throws what `write` would throw in the middle, for a key of a tree that is not declared, and changes nothing: for a caller that logs a batch before it
   * writes it.
   */
  check(batch: WriteBatch): void {
    const { trees } = this
    if (trees.takesAny) return
    const bytes = batch.bytes()
    const cursor = new BatchCursor(bytes)
    while (cursor.next()) {
      const { kind, keyOffset, valueOffset, valueLength } = cursor
      if (kind !== batchKinds.deleteRange) {
        assert(trees.holds(bytes, keyOffset), () => `tree ${bytes[keyOffset]} is not declared`)
        continue
      }
      const lower = bytes.subarray(keyOffset, valueOffset)
      const upper = bytes.subarray(valueOffset, valueOffset + valueLength)
      assert(trees.holdsInterval(lower, upper), "an interval lies in one declared tree")
    }
  }

  /** Bytes of the active memtable. */
  get memtableUsedBytes(): number {
    return this.memtables.active.usedBytes
  }

  /**
   * Whether a batch of `bytes` (keys, values, and `entryOverheadBytes` for each) may be put now,
   * after a `seal` if `needsSeal`. False is backpressure: the active memtable is full and no more
   * can be sealed before a flush is installed.
   */
  canWrite(bytes: number): boolean {
    return !this.memtables.isOver(bytes) || this.canSeal
  }

  /** Whether the active memtable should be sealed before a batch of `bytes`. */
  needsSeal(bytes: number): boolean {
    return this.memtables.isOver(bytes) && this.canSeal
  }

  /** Whether `seal` may be called. */
  get canSeal(): boolean {
    return this.memtables.canSeal
  }

  /** Writers that slow down in time are never stopped. */
  get pressure(): Pressure {
    return pressureOf({
      settings: this.settings,
      level0Runs: this.version.level0.length,
      usedBytes: this.memtables.active.usedBytes,
      canSeal: this.canSeal,
    })
  }

  /**
   * Ends the active memtable; returns the generation with which all that was put so far will be
   * flushed. An empty memtable is not sealed, and the generation before it is returned.
   */
  seal(): number {
    return this.memtables.seal()
  }

  /** The largest generation whose flush is in the manifest; all before it are too. */
  get flushedThrough(): number {
    return this.maintenance.flushedThrough
  }

  /** True when everything that was put is in tables. */
  get memtablesEmpty(): boolean {
    return this.memtables.areEmpty
  }

  // ---- Reads

  /**
   * The value of `key`, now or at a snapshot. It is never changed or reused by the engine, so it
   * may be kept; it must not be written to, because it may be a view of a cached block. (From a
   * memtable it is a copy: arenas are reused.) Throws `StorageCorruption` where what would answer
   * is damaged. `skip`: without so many bytes at its beginning.
   */
  get(key: Uint8Array, snapshot?: EngineSnapshot, skip = 0): Uint8Array | undefined {
    const view = snapshot as ReadView | undefined
    assert(view === undefined || !view.isReleased, "a snapshot is read before it is released")
    const memtables = view === undefined ? this.memtables.list : view.memtables
    const sequence = view === undefined ? this.sequence : view.sequence
    for (let i = 0; i < memtables.length; i++) {
      const memtable = memtables[i]
      const node = memtable.count === 0 ? 0 : memtable.find(key, sequence)
      if (memtable.tombstones !== undefined) {
        const covering = memtable.tombstones.sequenceAt(key, sequence)
        const isCovered = node === 0 ? covering > 0 : memtable.sequenceOf(node) < covering
        if (isCovered) return undefined
      }
      if (node === 0) continue
      return memtable.kindOf(node) === kinds.put ? memtable.copyValue(node, skip) : undefined
    }
    const { runs } = view === undefined ? this.version : view.version
    const { maxRuns } = this.settings
    assert(memtables.length + runs.length <= maxRuns, "a read looks into few runs")
    if (runs.length === 0) return undefined
    const hash = keyHash(key, 0, key.length)
    const { rows } = this
    const takesRow = view === undefined && !rows.isOff
    if (takesRow) {
      const row = rows.get(key, hash)
      if (row !== undefined) return skip === 0 ? row : row.subarray(skip)
    }
    if (!this.findInTables(runs, key, hash)) return undefined
    const { valueBytes, valueOffset, valueLength } = this.scratch
    if (takesRow) rows.set(key, hash, valueBytes, valueOffset, valueLength)
    return valueBytes.subarray(valueOffset + skip, valueOffset + valueLength)
  }

  /** Puts `scratch` on the put of `key`; false when tables hold none, or a delete over it. */
  private findInTables(runs: ReadonlyArray<Run>, key: Uint8Array, hash: number): boolean {
    const cursor = this.scratch
    try {
      for (let i = 0; i < runs.length; i++) {
        const fragment = findFragment(runs[i], key)
        if (fragment === undefined) continue
        const table = this.tables.of(fragment)
        const isFound = table.find(key, hash, cursor)
        if (fragment.tombstones > 0) {
          const covering = coveringSequence(table.tombstones, key)
          if (isFound ? cursor.sequence < covering : covering > 0) return false
        }
        if (isFound) return cursor.kind === kinds.put
      }
    } catch (error) {
      this.readFailed(error)
      throw error
    }
    return false
  }

  /** Damage that a read met is kept away from all that come after it. */
  private readFailed(error: unknown): void {
    if (error instanceof StorageCorruption) this.maintenance.corruptionMet(error)
  }

  snapshot(): EngineSnapshot {
    return this.view()
  }

  /** Unpositioned at first: it reads nothing before it moves. */
  iterator(options: IteratorOptions = {}): EngineIterator {
    const given = options.snapshot as ReadView | undefined
    assert(given === undefined || !given.isReleased, "a snapshot is read before it is released")
    const view = given ?? this.view()
    const own = given === undefined ? view : undefined
    return new EngineIterator(options, view, own, this.iteratorHost)
  }

  private view(): ReadView {
    const { version } = this
    version.holders++
    return this.views.add(this.sequence, this.memtables.hold(), version)
  }

  private dropView(view: ReadView): void {
    for (const memtable of view.memtables) this.memtables.drop(memtable)
    this.tables.drop(view.version)
  }

  /** About what lies in an interval, memtables included; cheap, and right in order of size. */
  approximateSize(interval: Interval): { bytes: number; entries: number } {
    const inTables = this.maintenance.approximateSize(interval)
    const inMemory = this.memtables.approximateSize(interval)
    return {
      bytes: inTables.bytes + inMemory.bytes,
      entries: inTables.entries + inMemory.entries,
    }
  }

  /**
   * A key inside the interval, not at its lower end, that leaves about half of its bytes on either
   * side: by tables, or by memtables while those hold more of it. `undefined`: there is none.
   */
  splitKey(interval: Interval): Uint8Array | undefined {
    const { bytes } = this.maintenance.approximateSize(interval)
    return this.memtables.middleKey(interval, bytes) ?? this.maintenance.splitKey(interval)
  }

  // ---- Jobs

  /**
   * The next piece of long work, for `runJob`; `undefined` while one is under way or when there is
   * none. `nowMs` is the time since 1970.
   */
  nextJob(nowMs: number): EngineJob | undefined {
    return this.maintenance.nextJob(nowMs)
  }

  /** The job that replaces intervals: see `Maintenance.replaceInterval`. */
  replaceInterval(request: ReplaceInterval): EngineJob {
    return this.maintenance.replaceInterval(request)
  }

  /** The job that takes finished tables in: see `Maintenance.ingestTables`. */
  ingestTables(request: IngestTables): EngineJob {
    return this.maintenance.ingestTables(request)
  }

  /** The job that lets go of damaged tables: see `Maintenance.letGoJob`. */
  letGoJob(paths: ReadonlyArray<string>): EngineJob {
    return this.maintenance.letGoJob(paths)
  }

  /**
   * The job that writes a copy to open or keep: see `Maintenance.checkpointJob`. The copy holds what is in tables now, everything up to `flushedThrough`:
   * seal and flush first what else is to be in it.
   */
  checkpointJob(target: string): EngineJob {
    return this.maintenance.checkpointJob(target)
  }

  /** Gives up a job that threw: see `Maintenance.abandon`. */
  abandon(job: EngineJob): void {
    this.maintenance.abandon(job)
  }

  /** Gives up a job that met damage: see `Maintenance.corrupted`. */
  corrupted(job: EngineJob, error: StorageCorruption): boolean {
    return this.maintenance.corrupted(job, error)
  }

  /**
   * The manifest edit that makes a job's result count. Next: `runManifestWrite`, then `installed`.
   */
  complete(job: EngineJob, result: EngineJobResult): ManifestWrite {
    this.replacesRows = changesAnswers(job)
    return this.maintenance.complete(job, result)
  }

  /** The edit is durable: swaps the version and lets go of what it replaced. */
  installed(write: ManifestWrite): void {
    this.maintenance.installed(write)
    if (this.replacesRows) this.rows.clear()
    this.replacesRows = false
  }

  /**
   * Files that nothing needs any more, each listed once: remove them (`removeFiles`). `open`
   * removes those that were not.
   */
  obsoleteFiles(): ReadonlyArray<string> {
    return this.maintenance.obsoleteFiles()
  }

  // ---- For operators and tests

  /** What damage has put out of reach. */
  quarantined(): ReadonlyArray<CorruptionReport> {
    return this.maintenance.quarantined()
  }

  stats(): EngineStats {
    const { version, memtables, caches, views, maintenance, tables, settings } = this
    return engineStats({
      version,
      memtables: memtables.list,
      caches,
      openReaders: views.count,
      trees: settings.trees ?? [],
      written: maintenance.written,
      quarantinedTables: maintenance.quarantined().length,
      residentBytes: tables.residentBytes(),
    })
  }

  /** Paths of the tables of the present version. */
  liveFiles(): ReadonlyArray<string> {
    return this.maintenance.liveFiles()
  }

  /** `liveFiles`, and those that readers still hold. */
  heldFiles(): ReadonlyArray<string> {
    return this.maintenance.heldFiles()
  }

  /**
   * Reads all live tables from the disk and checks every byte; throws `StorageCorruption`. Returns
   * the blocks read.
   */
  verify(): number {
    return this.maintenance.verify()
  }
}
