import type { Disk } from "../disk/disk.ts"
import type { Journal } from "../journal/journal.ts"
import { assert } from "../lib/assert.ts"
import type { Engine } from "../lsm/engine.ts"
import type { EngineJob } from "../lsm/maintenance/jobs.ts"
import type { MonotonicMs, WallMs } from "../types.ts"
import { DiskSpace, reservePath, type SpaceSettings } from "./diskSpace.ts"
import { EngineLane } from "./engineLane.ts"
import { JournalScrubber, type JournalScrubSettings, type ScrubFinding } from "./journalScrubber.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"

export interface FileSettings {
  readonly space: SpaceSettings
  readonly journalScrub: JournalScrubSettings
}

/** A segment that found no space is tried again after this long. */
const segmentRetryMs = 500

/**
 * All work on the files of a journal and an engine that live side by side: what is due is given out as jobs, and what they bring is taken in. Pure; whoever
 * drives it carries the jobs out, each lane in order (storeJobs.ts).
 */
export class FileJobs {
  private readonly journal: Journal
  private readonly settings: FileSettings
  private readonly issued = new Map<StoreJob, (result: StoreJobResult) => void>()
  private jobs: Array<StoreJob> = []
  private readonly lane: EngineLane
  private readonly space: DiskSpace
  private readonly scrubber: JournalScrubber
  private readonly freeBytes: () => number | undefined
  private lacksSegment = false
  private segmentRetryMs = 0

  constructor(options: {
    readonly disk: Disk
    readonly journal: Journal
    readonly engine: Engine
    readonly settings: FileSettings
    /** An edit of the engine's manifest is in force. */
    readonly installed: () => void
  }) {
    const { disk, journal, engine, settings, installed } = options
    this.journal = journal
    this.settings = settings
    this.freeBytes = () => disk.freeBytes()
    this.space = new DiskSpace(settings.space, holdsReserve(disk, settings.space.reserveBytes))
    this.lane = new EngineLane(engine, {
      issue: (job, done) => this.issue(job, done),
      installed,
      noSpace: () => this.space.failed(),
    })
    this.scrubber = new JournalScrubber(journal, settings.journalScrub)
  }

  /** No job is under way or wanted but the reading again of what was written long ago. */
  get isQuiet(): boolean {
    return this.lane.isQuiet
  }

  /** Damage in closed journal segments that was found since the last call. */
  takeFindings(): ReadonlyArray<ScrubFinding> {
    return this.scrubber.takeFindings()
  }

  /** Has the engine's job that `make` makes carried out when it is its turn; `done` is called when its edit is in force. */
  want(make: () => EngineJob, done: () => void): void {
    this.lane.want(make, done)
  }

  /** Gives out a job; `done` is called when it is carried out. */
  issue(job: StoreJob, done: (result: StoreJobResult) => void = () => {}): void {
    this.jobs.push(job)
    this.issued.set(job, done)
  }

  /** A job given out earlier was carried out, or failed in a way that does not stop the node. */
  jobDone(job: StoreJob, result: StoreJobResult): void {
    const done = this.issued.get(job)
    assert(done !== undefined, "a job that is done was given out")
    this.issued.delete(job)
    done(result)
  }

  /** Whether puts are refused because the disk is full. */
  get isFull(): boolean {
    return this.space.state === "full"
  }

  /**
   * True once after a segment found no space: what is in memory should be flushed, so that old segments can go and leave theirs.
   */
  takeSealWish(): boolean {
    const wish = this.lacksSegment
    this.lacksSegment = false
    return wish
  }

  /** Starts what work on files is due; returns the jobs to carry out, in order in each lane. */
  takeJobs(nowMs: MonotonicMs, wallMs: WallMs): ReadonlyArray<StoreJob> {
    if (nowMs >= this.segmentRetryMs) this.prepareSegments(nowMs)
    const obsolete = this.journal.segmentsToDelete()
    if (obsolete.length > 0) this.issue({ _tag: "RemoveSegments", paths: obsolete })
    this.watchSpace(nowMs)
    const slice = this.scrubber.next(nowMs)
    if (slice !== undefined) this.issue(slice, (result) => this.scrubber.done(slice, result))
    this.lane.start(nowMs, wallMs)
    if (this.jobs.length === 0) return []
    const jobs = this.jobs
    this.jobs = []
    return jobs
  }

  private prepareSegments(nowMs: MonotonicMs): void {
    for (const job of this.journal.segmentsToPrepare()) {
      this.issue({ _tag: "Segment", job }, (result) => {
        if (result._tag !== "Failed") return this.journal.segmentReady(job)
        this.space.failed()
        this.journal.segmentFailed(job)
        this.lacksSegment = true
        this.segmentRetryMs = nowMs + segmentRetryMs
      })
    }
  }

  private watchSpace(nowMs: MonotonicMs): void {
    if (!this.space.isDue(nowMs)) return
    const step = this.space.step(nowMs, this.freeBytes())
    if (step === "releaseReserve") {
      this.issue({ _tag: "Remove", paths: [reservePath] }, () => this.space.reserveReleased())
    } else if (step === "makeReserve") {
      const sizeBytes = this.settings.space.reserveBytes
      this.issue({ _tag: "Reserve", path: reservePath, sizeBytes }, (result) =>
        this.space.reserveMade(result._tag === "Done"),
      )
    }
  }
}

/** Whether the reserve is there, whole: one that a crash left unfinished is removed. */
function holdsReserve(disk: Disk, sizeBytes: number): boolean {
  if (!disk.exists(reservePath)) return false
  const file = disk.open(reservePath)
  const isWhole = file.sizeBytes >= sizeBytes
  file.close()
  if (!isWhole) disk.remove(reservePath)
  return isWhole
}
