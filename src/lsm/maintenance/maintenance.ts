import type { Disk, StorageCorruption } from "../../disk/disk.ts"
import { assert } from "../../lib/assert.ts"
import type { Caches } from "../cache/caches.ts"
import type {
  ManifestCounters,
  ManifestEnd,
  ManifestState,
  ManifestWrite,
  WrittenBytes,
} from "../manifest/manifest.ts"
import { appendEdit, newManifest } from "../manifest/manifest.ts"
import type { Edit, Fragment, Interval } from "../manifest/version.ts"
import { areDisjoint, overlapping, takesPart, Version } from "../manifest/version.ts"
import type { CorruptionReport, EngineSettings } from "../options.ts"
import { fitsLevel } from "../options.ts"
import { approximateSize, splitKey } from "../sizes.ts"
import { manifestPath, tablePath } from "../table/format.ts"
import type { CompactionPlan } from "./compaction.ts"
import { planCompaction } from "./compaction.ts"
import { editOf } from "./edits.ts"
import type { EngineJob, EngineJobResult } from "./jobs.ts"
import type { IngestTables, MaintenanceHost, ReplaceInterval } from "./maintenanceHost.ts"
import { assertPlan, oldestDeletes } from "./planChecks.ts"
import { ScrubPlan } from "./scrubPlan.ts"
import { TableSet } from "./tableSet.ts"

export type { IngestTables, MaintenanceHost, ReplaceInterval }

interface PendingEdit {
  readonly job: EngineJob
  readonly write: ManifestWrite
  readonly edit: Edit
  readonly version: Version
  readonly end: ManifestEnd
  readonly written: WrittenBytes
}

/** 2020-01-01T00:00:00Z. */
const start2020Ms = 1_577_836_800_000
const noBytes = new Uint8Array(0)

/** Whether tables answer otherwise once the job's edit is in force. */
export function changesAnswers({ _tag }: EngineJob): boolean {
  return _tag === "Ingest" || _tag === "IngestTables" || _tag === "LetGo"
}

/**
 * Versions, jobs, manifest edits and files of an engine. The engine around it has the memtables and
 * the reads; this class hands out one job at a time, turns its result into an edit of the manifest,
 * and swaps the version when the edit is durable.
 */
export class Maintenance {
  readonly tables: TableSet
  private readonly directory: string
  private readonly settings: EngineSettings
  private readonly host: MaintenanceHost
  private readonly trees: ManifestState["trees"]
  private readonly scrubs: ScrubPlan
  private current: Version
  private end: ManifestEnd
  private nextFileNumber: number
  private installedGeneration: number
  private running: EngineJob | undefined
  private pending: PendingEdit | undefined
  private jobs = 0
  private nowSeconds = 0
  /** Of each level, where its last slice ended. */
  private readonly cursors = new Map<number, Uint8Array>()
  /** The last plan found nothing to merge: the next finds the same until one of these changes. */
  private planless: { version: Version; nowSeconds: number; damaged: number } | undefined
  private flushedAndMerged: WrittenBytes
  private readonly userBytesBefore: number

  constructor(options: {
    disk: Disk
    directory: string
    settings: EngineSettings
    state: ManifestState
    end: ManifestEnd
    caches: Caches
    host: MaintenanceHost
    /** Tables without a file. */
    missing: ReadonlyArray<StorageCorruption>
  }) {
    const { disk, directory, settings, state, end, caches, host } = options
    this.directory = directory
    this.settings = settings
    this.host = host
    this.trees = state.trees
    const onDamage = (error: StorageCorruption) => void this.corruptionMet(error)
    this.tables = new TableSet({ disk, directory, caches, onDamage })
    this.scrubs = new ScrubPlan(settings.scrubBytesPerSecond)
    this.current = Version.of(state.fragments)
    this.tables.hold(this.current)
    this.end = end
    this.nextFileNumber = state.nextFileNumber
    for (const error of options.missing) this.corruptionMet(error)
    this.installedGeneration = state.flushedThrough
    this.flushedAndMerged = state.written
    this.userBytesBefore = state.written.userBytes
  }

  /** What tables hold now. */
  get version(): Version {
    return this.current
  }

  /** The largest generation whose flush is in the manifest; all before it are too. */
  get flushedThrough(): number {
    return this.installedGeneration
  }

  /** Since the engine was made. */
  get written(): WrittenBytes {
    const userBytes = this.userBytesBefore + (this.host.userBytes ?? 0)
    return { ...this.flushedAndMerged, userBytes }
  }

  /** Closes files; no job may be running. */
  close(): void {
    this.tables.close()
  }

  // ---- Jobs

  /**
   * The next piece of long work, for `runJob`; `undefined` while one is under way or when there is
   * none. Flushes go first, because writers wait for them; reading tables again comes last.
   * `nowMs`: the wall clock, since 1970; it only tells how old deletes are and how fast to scrub.
   */
  nextJob(nowMs: number): EngineJob | undefined {
    if (this.running !== undefined) return undefined
    this.nowSeconds = Math.max(0, Math.floor((nowMs - start2020Ms) / 1000))
    this.running = this.flushJob() ?? this.compactJob() ?? this.scrubJob(nowMs)
    return this.running
  }

  /**
   * The job that replaces intervals; it is in force once `installed` was called for it. Requires
   * that no job is under way and that no memtable holds a key of the intervals: the caller has
   * sealed, waited until `flushedThrough` reached that generation, and put no key of them since.
   * Damaged tables under the intervals are let go of.
   */
  replaceInterval(request: ReplaceInterval): EngineJob {
    this.checkIntervals(request.intervals)
    const { intervals, spillPath, spillChecksum } = request
    const sequence = this.host.takeSequence()
    const base = this.jobBase()
    this.running = { _tag: "Ingest", ...base, intervals, spillPath, spillChecksum, sequence }
    return this.running
  }

  /** The same with finished tables; the same is required. */
  ingestTables(request: IngestTables): EngineJob {
    this.checkIntervals(request.intervals)
    const { intervals, paths } = request
    const sequence = this.host.takeSequence()
    this.running = { _tag: "IngestTables", ...this.jobBase(), intervals, paths, sequence }
    return this.running
  }

  /**
   * The job that lets go of damaged tables, whole, with all that they alone hold. Older values and keys that were deleted come to light where a damaged table
   * hid them: it is for a tree whose reader can tell. Memtables are none of its matter. Requires that no job is under way.
   */
  letGoJob(paths: ReadonlyArray<string>): EngineJob {
    assert(this.running === undefined, "one job is under way at a time")
    const files = paths
      .map((path) => this.tables.numberOf(path))
      .filter((file) => file !== undefined)
      .filter((file) => this.tables.quarantine.has(file))
    this.running = { _tag: "LetGo", ...this.jobBase(), files }
    return this.running
  }

  /**
   * The job that makes `target` an engine of its own (checkpoint.ts) with what tables hold now. Who
   * wants all that was put flushes first. Requires that no job is under way.
   */
  checkpointJob(target: string): EngineJob {
    assert(this.running === undefined, "one job is under way at a time")
    const { fragments } = this.current
    const state: ManifestState = { ...this.counters(), trees: this.trees, fragments }
    this.running = { _tag: "Checkpoint", ...this.jobBase(), target, state }
    return this.running
  }

  private checkIntervals(intervals: ReadonlyArray<Interval>): void {
    assert(this.running === undefined, "one job is under way at a time")
    assert(intervals.length > 0, "an interval is named")
    assert(areDisjoint(intervals), "intervals are disjoint and in order")
  }

  private jobBase() {
    const { directory, nextFileNumber: firstFileNumber, nowSeconds: createdSeconds } = this
    const { writing } = this.settings
    const treesApart = this.trees.length > 0
    return { id: ++this.jobs, directory, firstFileNumber, createdSeconds, writing, treesApart }
  }

  private flushJob(): EngineJob | undefined {
    const oldest = this.host.oldestSealed()
    if (oldest === undefined) return undefined
    if (this.version.level0.length >= this.settings.maxLevel0Runs) return undefined
    const { generation, arena, tombstones } = oldest
    assert(generation === this.installedGeneration + 1, "generations are flushed in order")
    return { _tag: "Flush", ...this.jobBase(), generation, arena, tombstones }
  }

  private compactJob(): EngineJob | undefined {
    const { version, nowSeconds, planless } = this
    const isKnown = planless?.version === version && planless.nowSeconds === nowSeconds
    if (isKnown && planless.damaged === this.tables.quarantine.count) return undefined
    const plan = this.plan()
    if (plan === undefined) {
      this.planless = { version, nowSeconds, damaged: this.tables.quarantine.count }
      return undefined
    }
    const { inputLevels, outputLevel, lower, upper, dropDeletes, only, move, reason } = plan
    assertPlan(version, plan)
    if (reason === "size") this.cursors.set(inputLevels[0] as number, upper)
    const base = this.jobBase()
    const slice = { inputLevels, outputLevel, lower, upper }
    if (move) return { _tag: "Move", ...base, ...slice }
    const runs = inputLevels
      .flatMap((level) => version.runsOf(level))
      .filter((run) => takesPart(run, only))
      .map((run) => overlapping(run, slice))
      .filter((run) => run.length > 0)
    const createdSeconds = oldestDeletes(runs, base.createdSeconds)
    const filters = this.settings.filters()
    return { _tag: "Compact", ...base, createdSeconds, ...slice, runs, only, dropDeletes, filters }
  }

  /** Measuring a table may meet damage; then what was planned may touch it, so plan again. */
  private plan(): CompactionPlan | undefined {
    const { version, settings: options, cursors, nowSeconds, tables } = this
    const { measure, quarantine } = tables
    const fits = (fragment: Fragment, level: number) => fitsLevel(options.writing, fragment, level)
    for (;;) {
      const known = quarantine.count
      const quarantined = quarantine.slices(version)
      const input = { version, options, cursors, nowSeconds, measure, quarantined, fits }
      const plan = planCompaction(input)
      if (quarantine.count === known) return plan
    }
  }

  private scrubJob(nowMs: number): EngineJob | undefined {
    const isDamaged = (file: number) => this.tables.quarantine.has(file)
    const part = this.scrubs.next(this.version, nowMs, isDamaged)
    return part === undefined ? undefined : { _tag: "Scrub", ...this.jobBase(), ...part }
  }

  /**
   * Gives up a job that threw (a full disk, a cancelled worker): `nextJob` will hand it out again,
   * what was asked for by name must be asked for again. What it wrote is listed for removal. Only
   * before `complete`: a manifest write is repeated until it succeeds.
   */
  abandon(job: EngineJob): void {
    assert(this.running?.id === job.id && this.pending === undefined, "a running job is given up")
    this.running = undefined
    this.nextFileNumber = this.tables.abandonFrom(job.firstFileNumber)
  }

  /**
   * Gives up a job that threw `StorageCorruption`. False when the damage is not in a table of this
   * engine but in what was to be ingested.
   */
  corrupted(job: EngineJob, error: StorageCorruption): boolean {
    this.abandon(job)
    return this.corruptionMet(error)
  }

  /**
   * The manifest edit that makes a job's result count. Next: `runManifestWrite`, then `installed`.
   */
  complete(job: EngineJob, result: EngineJobResult): ManifestWrite {
    assert(this.running?.id === job.id && result.id === job.id, "the running job is completed")
    assert(this.pending === undefined, "one edit is under way")
    if (job._tag === "Checkpoint" || job._tag === "Scrub")
      return this.completeUnchanged(job, result)
    const edit = editOf(job, result.tables, this.version, this.tables.measure)
    const version = this.version.after(edit)
    assert(version.level0.length <= this.settings.maxLevel0Runs, "level 0 has room")
    this.nextFileNumber += result.tables.length
    const written = this.writtenBy(job, result)
    const { directory, end, trees } = this
    const isLarge = end.offset > Math.max(this.settings.manifestBytes, 2 * end.stateBytes)
    const fileNumber = isLarge ? this.nextFileNumber++ : 0
    const flushedThrough = job._tag === "Flush" ? job.generation : this.installedGeneration
    const counters: ManifestCounters = { ...this.counters(), flushedThrough, written }
    const { id } = job
    const next = isLarge
      ? newManifest({
          id,
          directory,
          fileNumber,
          state: { ...counters, trees, fragments: version.fragments },
        })
      : appendEdit({ id, directory, end, counters, edit })
    this.pending = { job, write: next.write, edit, end: next.end, version, written }
    return next.write
  }

  /** A job that leaves tables and manifest as they are. */
  private completeUnchanged(job: EngineJob, result: EngineJobResult): ManifestWrite {
    if (job._tag === "Scrub") this.scrubs.done(job.table.fileNumber, result.nextBlock)
    const { directory, end, version, flushedAndMerged: written } = this
    const { id } = job
    const path = manifestPath(directory, end.fileNumber)
    const write = { id, directory, path, current: undefined, offset: end.offset, bytes: noBytes }
    const edit: Edit = { removedFiles: [], added: [] }
    this.pending = { job, write, edit, end, version, written }
    return write
  }

  private counters(): ManifestCounters {
    const { installedGeneration: flushedThrough, nextFileNumber, written } = this
    return { flushedThrough, lastSequence: this.host.sequence, nextFileNumber, written }
  }

  private writtenBy(job: EngineJob, { tables }: EngineJobResult): WrittenBytes {
    let bytes = 0
    for (const table of tables) bytes += table.sizeBytes
    const { written } = this
    switch (job._tag) {
      case "Flush":
        return { ...written, flushedBytes: written.flushedBytes + bytes }
      case "Compact":
        return { ...written, compactedBytes: written.compactedBytes + bytes }
      default:
        return { ...written, ingestedBytes: written.ingestedBytes + bytes }
    }
  }

  /**
   * The edit is durable: swaps the version and lets go of what it replaced. True when keys may have
   * other values now.
   */
  installed(write: ManifestWrite): boolean {
    const pending = this.pending
    assert(pending !== undefined && pending.write.id === write.id, "the pending edit is installed")
    this.pending = undefined
    this.running = undefined
    const { job, edit, version, end, written } = pending
    if (version !== this.current) {
      this.tables.replace({ before: this.current, after: version, edit })
      this.current = version
    }
    if (end.fileNumber !== this.end.fileNumber) this.tables.manifestReplaced(this.end)
    this.end = end
    this.flushedAndMerged = written
    if (job._tag === "Flush") {
      this.installedGeneration = job.generation
      this.host.flushed(job.generation)
    }
    return changesAnswers(job)
  }

  /**
   * Files that nothing needs any more, each listed once: remove them (`removeFiles`). `open`
   * removes those that were not.
   */
  obsoleteFiles(): ReadonlyArray<string> {
    return this.tables.takeObsolete()
  }

  // ---- Damage

  /** Whether a table is known to be damaged. */
  get hasQuarantine(): boolean {
    return !this.tables.quarantine.isEmpty
  }

  /**
   * Bytes of a table are not what was written: all that it holds goes into quarantine
   * (quarantine.ts), and `onCorruption` is told of each piece of it, once. False when it is no table
   * of this engine.
   */
  corruptionMet(error: StorageCorruption): boolean {
    const fileNumber = this.tables.numberOf(error.path)
    if (fileNumber === undefined) return false
    const { quarantine } = this.tables
    if (!quarantine.add(fileNumber, error)) return true
    for (const fragment of this.version.fragments) {
      if (fragment.fileNumber !== fileNumber) continue
      this.settings.onCorruption(quarantine.reportOf(fragment))
    }
    return true
  }

  /** Throws `StorageCorruption` when tables cannot say what lies in the interval. */
  checkReadable(lower: Uint8Array, upper: Uint8Array | undefined): void {
    this.tables.quarantine.checkInterval(this.version, { lower, upper })
  }

  /** What cannot be read, in order of keys. */
  quarantined(): ReadonlyArray<CorruptionReport> {
    return this.tables.quarantine.reports(this.version)
  }

  // ---- For operators and tests

  /** About what tables hold of an interval, older values of a key included. */
  approximateSize(interval: Interval): { bytes: number; entries: number } {
    return approximateSize(this.version, this.tables, interval)
  }

  /** A key strictly inside of the interval, with about half of its bytes before it. */
  splitKey(interval: Interval): Uint8Array | undefined {
    return splitKey(this.version, this.tables, interval)
  }

  /** Paths of the tables of the present version. */
  liveFiles(): ReadonlyArray<string> {
    return [...this.version.files()].map((file) => tablePath(this.directory, file)).sort()
  }

  /** Paths of all tables that must be there: the live ones, and those that a reader keeps. */
  heldFiles(): ReadonlyArray<string> {
    return this.tables.heldFiles()
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
}
