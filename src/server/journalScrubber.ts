import type { ClosedSegment, Journal } from "../journal/journal.ts"
import type { MonotonicMs } from "../types.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"

export interface JournalScrubSettings {
  /** 0 = closed segments are not read again. */
  readonly bytesPerSecond: number
  readonly sliceBytes: number
}

/** Damage that the scrubber found. */
export interface ScrubFinding {
  readonly path: string
  readonly offset: number
  readonly expected: string
  readonly actual: string
}

type VerifyJob = Extract<StoreJob, { _tag: "VerifySegment" }>

/**
 * Reads the closed segments of the journal a slice at a time, oldest first, at a set rate, so that damage is known before a restart or a lagging follower
 * needs the bytes. A damaged segment is reported once and passed over: what becomes of its entries is decided where they are read.
 */
export class JournalScrubber {
  private readonly journal: Journal
  private readonly settings: JournalScrubSettings
  private segment: ClosedSegment | undefined
  private lastNumber = 0
  private offset = 0
  private nextAtMs: MonotonicMs = 0
  private working = false
  private findings: Array<ScrubFinding> = []

  constructor(journal: Journal, settings: JournalScrubSettings) {
    this.journal = journal
    this.settings = settings
  }

  /** What was found since the last call. */
  takeFindings(): ReadonlyArray<ScrubFinding> {
    const { findings } = this
    if (findings.length > 0) this.findings = []
    return findings
  }

  /** The slice that is due. */
  next(nowMs: MonotonicMs): VerifyJob | undefined {
    const { bytesPerSecond, sliceBytes } = this.settings
    if (bytesPerSecond === 0 || this.working || nowMs < this.nextAtMs) return undefined
    const segment = this.journal.closedSegment(this.lastNumber)
    if (segment === undefined) return undefined
    if (segment.number !== this.segment?.number) this.offset = 0
    this.segment = segment
    this.working = true
    this.nextAtMs = nowMs + (sliceBytes / bytesPerSecond) * 1000
    const { path, baseLsn, nextPath, nextBaseLsn } = segment
    const place = { path, baseLsn, nextPath, nextBaseLsn }
    return {
      _tag: "VerifySegment",
      slice: { ...place, offset: this.offset, budgetBytes: sliceBytes },
    }
  }

  done(job: VerifyJob, result: StoreJobResult): void {
    this.working = false
    const { segment } = this
    if (segment?.path !== job.slice.path) return
    if (result._tag === "Failed" && result.failure._tag === "Corrupt") {
      this.findings.push(result.failure)
    } else if (result._tag === "Verified" && result.next !== undefined) {
      this.offset = result.next
      return
    } else if (result._tag === "Failed") return
    this.lastNumber = segment.number
    this.offset = 0
  }
}
