import { assert } from "../lib/assert.ts"
import type { LogIndex, ReplicaId } from "../types.ts"

/**
 * `probe`: the follower's log is not known, one append at a time, the next after an answer or a
 * heartbeat. `replicate`: it follows, appends are pipelined. `snapshot`: its next entry is gone
 * from the log, nothing is sent until the snapshot is through.
 */
export type ProgressState = "probe" | "replicate" | "snapshot"

/** What an outsider may see of a follower's progress. */
export interface ProgressReport {
  readonly replica: ReplicaId
  readonly match: LogIndex
  readonly next: LogIndex
  readonly state: ProgressState
  readonly recentActive: boolean
}

/**
 * The appends sent and not yet acknowledged: a ring of their last indexes and sizes, with a limit
 * on their count and on their bytes.
 */
export class Inflight {
  private readonly maxCount: number
  private readonly maxBytes: number
  private lastIndexes: Float64Array | undefined
  private sizes: Float64Array | undefined
  private start = 0
  private count = 0
  private sizeBytes = 0

  constructor(options: { readonly maxCount: number; readonly maxBytes: number }) {
    assert(options.maxCount >= 1, `a window of ${options.maxCount} appends`)
    this.maxCount = options.maxCount
    this.maxBytes = options.maxBytes
  }

  get isFull(): boolean {
    return this.count === this.maxCount || this.sizeBytes >= this.maxBytes
  }

  add(lastIndex: LogIndex, sizeBytes: number): void {
    assert(!this.isFull, "append sent through a full window")
    this.lastIndexes ??= new Float64Array(this.maxCount)
    this.sizes ??= new Float64Array(this.maxCount)
    const at = (this.start + this.count) % this.maxCount
    this.lastIndexes[at] = lastIndex
    this.sizes[at] = sizeBytes
    this.count++
    this.sizeBytes += sizeBytes
  }

  /** Forgets the appends that end at `index` or before. */
  freeTo(index: LogIndex): void {
    if (this.lastIndexes === undefined || this.sizes === undefined) return
    while (this.count > 0 && (this.lastIndexes[this.start] as number) <= index) {
      this.sizeBytes -= this.sizes[this.start] as number
      this.start = (this.start + 1) % this.maxCount
      this.count--
    }
  }

  clear(): void {
    this.start = 0
    this.count = 0
    this.sizeBytes = 0
  }
}

/**
 * What the leader knows of one member's log.
 *
 * Invariants: match < next; `match` never falls while one leader leads, unless the voter itself says that it lost entries; entries up to `match` are
 * durable at the voter. In `probe` and `snapshot` nothing is in flight.
 */
export class Progress {
  readonly replica: ReplicaId
  match: LogIndex = 0
  next: LogIndex
  state: ProgressState = "probe"
  /** In `probe`: an append is out, the next waits for an answer or a heartbeat. */
  probeSent = false
  /** It takes no new entries: none are sent until it says otherwise. */
  isFull = false
  /** Anything was heard of it, in this term, since quorum was last checked. */
  recentActive = false
  /** The same, of the time between the two checks before. */
  private activeBefore = false
  /** Largest heartbeat round that it echoed. */
  round = 0
  /** A heartbeat period has passed: its next echo shows whether appends were lost. */
  checkDue = false
  private matchAtCheck: LogIndex = 0
  private readonly inflight: Inflight

  constructor(options: {
    readonly replica: ReplicaId
    readonly next: LogIndex
    readonly maxInflightAppends: number
    readonly maxInflightBytes: number
  }) {
    this.replica = options.replica
    this.next = options.next
    this.inflight = new Inflight({
      maxCount: options.maxInflightAppends,
      maxBytes: options.maxInflightBytes,
    })
  }

  /** Heard in this election timeout or the one before. */
  get heardLately(): boolean {
    return this.recentActive || this.activeBefore
  }

  /** Quorum was checked. */
  rollActive(): void {
    this.activeBefore = this.recentActive
    this.recentActive = false
  }

  /** True when an append may be sent now. */
  get maySend(): boolean {
    if (this.state === "probe") return !this.probeSent
    return this.state === "replicate" && !this.inflight.isFull
  }

  /**
   * An append with entries up to `lastIndex` was sent, or an empty one if `lastIndex` is before
   * next.
   */
  sent(lastIndex: LogIndex, sizeBytes: number): void {
    if (this.state === "probe") {
      this.probeSent = true
      return
    }
    assert(this.state === "replicate", "append sent while a snapshot is under way")
    assert(lastIndex >= this.next, () => `append to ${lastIndex} sent, next is ${this.next}`)
    this.next = lastIndex + 1
    this.inflight.add(lastIndex, sizeBytes)
  }

  /** The follower stores everything up to `index` as the leader has it. True when that is news. */
  acknowledged(index: LogIndex): boolean {
    const advanced = index > this.match
    if (advanced) {
      this.match = index
      this.next = Math.max(this.next, index + 1)
    }
    if (this.state === "replicate") this.inflight.freeTo(index)
    return advanced
  }

  /**
   * The follower refused an append after `rejected`; it may agree up to `hint`. True when that was
   * about the append that is out now, and the next to try has changed; an old answer changes
   * nothing.
   */
  refused(rejected: LogIndex, hint: LogIndex): boolean {
    if (this.state === "replicate") {
      if (rejected <= this.match) return false
      this.becomeProbe()
      return true
    }
    if (this.state === "snapshot" || rejected !== this.next - 1) return false
    this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1)
    this.probeSent = false
    return true
  }

  becomeProbe(next = this.match + 1): void {
    assert(next > this.match, `probe from ${next} though ${this.match} matches`)
    this.state = "probe"
    this.next = next
    this.probeSent = false
    this.inflight.clear()
  }

  /** It has lost what it had above `lastIndex`. */
  lost(lastIndex: LogIndex): void {
    this.match = Math.min(this.match, lastIndex)
    if (this.state !== "snapshot") this.becomeProbe()
  }

  becomeReplicate(): void {
    this.state = "replicate"
    this.next = this.match + 1
    this.probeSent = false
    this.inflight.clear()
  }

  becomeSnapshot(): void {
    this.state = "snapshot"
    this.probeSent = false
    this.inflight.clear()
  }

  /**
   * A heartbeat was echoed. True when appends are out and none was acknowledged for a whole
   * heartbeat period, so that the last of them may be lost with nothing behind it to show the gap.
   */
  checkStalled(): boolean {
    this.checkDue = false
    const stalled =
      this.state === "replicate" && this.match < this.next - 1 && this.match === this.matchAtCheck
    this.matchAtCheck = this.match
    return stalled
  }

  report(): ProgressReport {
    const { replica, match, next, state, recentActive } = this
    return { replica, match, next, state, recentActive }
  }
}
