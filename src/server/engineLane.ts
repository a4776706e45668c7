import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import type { Engine } from "../lsm/engine.ts"
import type { EngineJob, ManifestWrite } from "../lsm/maintenance/jobs.ts"
import type { JobFailure, StoreJob, StoreJobResult } from "./storeJobs.ts"

/** What the lane asks of its store. */
export interface LaneHost {
  issue(job: StoreJob, done: (result: StoreJobResult) => void): void
  /** An edit is in force: memtables may be flushed, tables gone. */
  installed(): void
  /** A job met a full disk. */
  noSpace(): void
}

/** A job that somebody asked for, rather than the engine itself. */
interface Wanted {
  readonly make: () => EngineJob
  readonly done: () => void
}

/** After a full disk or an abandoned job the lane rests this long. */
const restMs = 250

/**
 * The engine's jobs on their way: one at a time, from its start over its manifest edit to the removal of what the edit made superfluous. A job that found no
 * space or was abandoned is given back to the engine, which hands it out again later; one that met damage makes the engine put the interval aside. An
 * edit that found no space is written again, the same bytes at the same place: nothing was synced, so nothing is unknown.
 */
export class EngineLane {
  private readonly engine: Engine
  private readonly host: LaneHost
  private wanted: Array<Wanted> = []
  private busy = false
  private isScrubbing = false
  /** Removals given out and not done. */
  private removals = 0
  /** The edit that could not be written for want of space. */
  private edit: { readonly write: ManifestWrite; readonly done: () => void } | undefined
  private nowMs = 0
  private restUntilMs = 0

  constructor(engine: Engine, host: LaneHost) {
    this.engine = engine
    this.host = host
  }

  /**
   * No job is under way, kept or wanted, but perhaps one that only reads what was written long ago. Removals are jobs: files that were replaced are gone.
   */
  get isQuiet(): boolean {
    const isRunning = this.busy && !this.isScrubbing
    const isResting = this.nowMs < this.restUntilMs
    const isIdle = !isRunning && !isResting && this.removals === 0
    return isIdle && this.edit === undefined && this.wanted.length === 0
  }

  /** Has the job that `make` makes carried out when it is its turn; `done` is called when its edit is in force. */
  want(make: () => EngineJob, done: () => void): void {
    this.wanted.push({ make, done })
  }

  /** Begins a job if none is under way and there is one. `wallMs` tells the engine how old its deletes are. */
  start(nowMs: number, wallMs: number): void {
    this.nowMs = nowMs
    if (nowMs < this.restUntilMs) return
    const { edit } = this
    if (edit !== undefined) {
      this.edit = undefined
      return this.writeEdit(edit.write, edit.done)
    }
    if (this.busy) return
    const wanted = this.wanted.shift()
    if (wanted !== undefined) return this.run(wanted.make(), wanted)
    const job = this.engine.nextJob(wallMs)
    if (job !== undefined) this.run(job, undefined)
  }

  private run(job: EngineJob, wanted: Wanted | undefined): void {
    this.busy = true
    this.isScrubbing = (job._tag as string) === "Scrub"
    this.host.issue({ _tag: "Engine", job }, (result) => {
      if (result._tag === "Failed") return this.failed(job, wanted, result.failure)
      assert(result._tag === "Engine", "an engine job has an engine result")
      const write = this.engine.complete(job, result.result)
      if (write === undefined) return this.finished(wanted?.done)
      this.writeEdit(write, () => {
        this.engine.installed(write)
        this.finished(wanted?.done)
      })
    })
  }

  private writeEdit(write: ManifestWrite, done: () => void): void {
    this.host.issue({ _tag: "Manifest", write }, (result) => {
      if (result._tag !== "Failed") return done()
      const { failure } = result
      assert(failure._tag !== "Corrupt", "an edit reads nothing")
      this.edit = { write, done }
      this.rest(failure)
    })
  }

  private finished(done: (() => void) | undefined): void {
    this.busy = false
    this.removeObsolete()
    this.host.installed()
    done?.()
  }

  private failed(job: EngineJob, wanted: Wanted | undefined, failure: JobFailure): void {
    this.busy = false
    if (failure._tag === "Corrupt") {
      const error = new StorageCorruption(failure)
      // What came from outside, or was asked for by name, cannot be put aside.
      if (wanted !== undefined) throw error
      this.engine.corrupted(job, error)
    } else {
      this.engine.abandon(job)
      if (wanted !== undefined) this.wanted.unshift(wanted)
      this.rest(failure)
    }
    this.removeObsolete()
  }

  private rest(failure: JobFailure): void {
    this.restUntilMs = this.nowMs + restMs
    if (failure._tag === "NoSpace") this.host.noSpace()
  }

  private removeObsolete(): void {
    const paths = this.engine.obsoleteFiles()
    if (paths.length === 0) return
    this.removals++
    this.host.issue({ _tag: "Remove", paths }, () => void this.removals--)
  }
}
