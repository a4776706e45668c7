import { assert } from "../lib/assert.ts"
import type { LogIndex, MonotonicMs, Version } from "../types.ts"
import type { GetRequest, ScanRequest } from "./requests.ts"
import type { ClockReading } from "./storeLoop.ts"

/** A read on its way. What changes of it while it waits lies in the object itself, so that waiting makes no other. */
export interface TimedRead {
  readonly request: GetRequest | ScanRequest
  readonly deadlineMs: MonotonicMs
  /** Not served before the range's time has reached it: what its session has seen, or an expiry that it met. */
  floor: Version
  /** The stamping clock when it was first tried; 0 before. It decides which expiries the read may still wait for. */
  triedAt: Version
  /** Its index was given under a lease, which must still hold when the answer leaves. */
  byLease: boolean
  /** The first question to the leader about the expiry that it waits for; 0 before. An answer to an earlier one says nothing about this read. */
  question: number
}

export function timedRead(request: GetRequest | ScanRequest, nowMs: MonotonicMs): TimedRead {
  const deadlineMs = nowMs + request.deadlineMs
  // A read index taken after the read came covers all that its session can have seen.
  const floor = request.level === "linearizable" ? 0 : request.atLeast
  return { request, deadlineMs, floor, triedAt: 0, byLease: false, question: 0 }
}

/** True of a read that a follower may not take. */
export function needsLeader({ level, anyReplica }: GetRequest | ScanRequest): boolean {
  return level === "linearizable" && !anyReplica
}

/** What a replica has come to. */
export interface ReadProgress {
  readonly clock: ClockReading
  readonly appliedIndex: LogIndex
  /** Of the state, not of a clock. */
  readonly rangeTime: Version
}

/** Reads that share one question for a read index. */
interface ReadBatch {
  reads: ReadonlyArray<TimedRead>
  /** Questions that may still be answered, the oldest first. */
  readonly contexts: Array<number>
  askedMs: MonotonicMs
  /** Known once leadership is confirmed. */
  index: LogIndex | undefined
  /** When the question left that was answered. */
  sentAt: ClockReading
  byLease: boolean
}

interface Question {
  readonly batch: ReadBatch
  readonly sentAt: ClockReading
}

/** Questions of a replica that wait for an answer; beyond, reads gather for the next. */
const batchesMax = 64
/** Copies of one question; of more, the oldest is forgotten. */
const copiesMax = 8

/**
 * The reads of one replica that cannot be served yet, whatever they wait for:
 *
 * 1. *queued*: for a question to be asked. All that are queued share it, as one read index (Raft thesis 6.4).
 * 2. *asked*: for the answer, then for the index to be applied here. A follower's question or its answer may be lost, so it is asked again after
 *    a while, of whoever leads then; any answer will do, since each index was taken after the reads came.
 * 3. *early*: for the range's time to reach an expiry, or for the leader to say that its clock has not (ticks.ts).
 *
 * A session's floor is met by a state of that time, or by any state that holds what was committed after the read came: so one that nothing has reached
 * here yet asks for an index like a linearizable read.
 *
 * Freshness, for bounded reads, counts from this replica's own clock when it SENT the question that was answered, and is known once that index is
 * applied: the state then holds all that was committed at that moment. Counted from the answer's arrival it would be too young by a delay that nobody
 * knows. A machine that sleeps may stop its monotonic clock: so the age is the larger of what both clocks show, and unknown once they have moved apart.
 *
 * How many reads wait is limited by the caller; each leaves at its deadline at the latest.
 */
export class PendingReads {
  private queued: Array<TimedRead> = []
  private batches: Array<ReadBatch> = []
  private readonly questions = new Map<number, Question>()
  private askedCount = 0
  private early: Array<TimedRead> = []
  private tickQuestion = 0
  private tickAskedMs: MonotonicMs = 0
  private nextContext = 1
  private readonly retryMs: number
  private readonly clockSlipMs: number
  /** All that was committed by then is in the state. */
  private freshAt: ClockReading | undefined

  constructor(options: { readonly readRetryMs: number; readonly clockSlipMs: number }) {
    this.retryMs = options.readRetryMs
    this.clockSlipMs = options.clockSlipMs
  }

  /** How old the state is at most, in milliseconds; infinite when nobody knows. */
  ageMs({ monotonicMs, wallMs }: ClockReading): number {
    if (this.freshAt === undefined) return Number.POSITIVE_INFINITY
    const ageMs = monotonicMs - this.freshAt.monotonicMs
    const wallAgeMs = wallMs - this.freshAt.wallMs
    const isSlipped = Math.abs(wallAgeMs - ageMs) >= this.clockSlipMs
    return isSlipped ? Number.POSITIVE_INFINITY : Math.max(ageMs, wallAgeMs)
  }

  get count(): number {
    return this.queued.length + this.askedCount + this.early.length
  }

  /** True when a read of any level but `linearizable` may be served at once. */
  isServable(read: TimedRead, { clock, rangeTime }: ReadProgress): boolean {
    const { level } = read.request
    if (level === "linearizable" || read.floor > rangeTime) return false
    return level === "local" || this.isFresh(read, clock)
  }

  /** Whether a bounded read may still be served at this moment. */
  isFresh(read: TimedRead, clock: ClockReading): boolean {
    return this.ageMs(clock) <= read.request.maxStalenessMs
  }

  add(read: TimedRead): void {
    read.byLease = false
    this.queued.push(read)
  }

  /** True while reads wait for the range's time. */
  get hasEarly(): boolean {
    return this.early.length > 0
  }

  /** The read needs no index any more, but the range's time must reach this first. */
  addEarly(read: TimedRead, floor: Version): void {
    read.floor = floor
    read.question = 0
    this.early.push(read)
  }

  /** Asks about the latest expiry that reads wait for: at once where one of them has not been asked for, else after a while. */
  askForTick(nowMs: MonotonicMs, ask: (question: number, expiry: Version) => void): void {
    const isNew = this.early.some(({ question }) => question === 0)
    if (!isNew && nowMs - this.tickAskedMs < this.retryMs) return
    this.tickQuestion++
    this.tickAskedMs = nowMs
    let expiry: Version = 0
    for (const read of this.early) {
      if (read.question === 0) read.question = this.tickQuestion
      if (read.floor > expiry) expiry = read.floor
    }
    ask(this.tickQuestion, expiry)
  }

  /** When this question was answered the leader's clock had not passed `clock`: what expires later is there for the reads that had come by then. */
  tickRefused(question: number, clock: Version): void {
    for (const read of this.early) {
      if (read.question === 0 || read.question > question || read.floor <= clock) continue
      read.triedAt = Math.max(1, Math.min(read.triedAt, clock))
      read.floor = 0
    }
  }

  /** Asks for what is queued, and again for what nobody answered. `readIndex` is false when there is nobody to ask. */
  ask(clock: ClockReading, readIndex: (context: number) => boolean): void {
    const nowMs = clock.monotonicMs
    if (this.queued.length > 0 && this.questions.size < batchesMax) {
      const reads = this.queued
      const common = { askedMs: nowMs, index: undefined, sentAt: clock, byLease: false }
      const batch: ReadBatch = { reads, contexts: [], ...common }
      if (this.askFor(batch, clock, readIndex)) {
        this.batches.push(batch)
        this.askedCount += reads.length
        this.queued = []
      }
    }
    for (const batch of this.batches) {
      if (batch.index !== undefined || nowMs - batch.askedMs < this.retryMs) continue
      this.askFor(batch, clock, readIndex)
      batch.askedMs = nowMs
    }
  }

  private askFor(
    batch: ReadBatch,
    sentAt: ClockReading,
    readIndex: (context: number) => boolean,
  ): boolean {
    const context = this.nextContext
    if (!readIndex(context)) return false
    this.nextContext++
    this.questions.set(context, { batch, sentAt })
    batch.contexts.push(context)
    if (batch.contexts.length > copiesMax) this.questions.delete(batch.contexts.shift() as number)
    return true
  }

  /** A question was answered. */
  confirmed(context: number, index: LogIndex, byLease: boolean): void {
    const question = this.questions.get(context)
    if (question === undefined) return
    const { batch, sentAt } = question
    this.forget(batch)
    batch.index = index
    batch.sentAt = sentAt
    batch.byLease = byLease
  }

  private forget(batch: ReadBatch): void {
    for (const context of batch.contexts) this.questions.delete(context)
    batch.contexts.length = 0
  }

  /** A leader that is one no more will not answer this question: hands out the reads that it alone could have served. */
  lost(context: number, refuse: (read: TimedRead) => void): void {
    const question = this.questions.get(context)
    if (question === undefined) return
    const { batch } = question
    this.forget(batch)
    this.batches = this.batches.filter((each) => each !== batch)
    this.askedCount -= batch.reads.length
    this.queueAnew(batch.reads, refuse)
  }

  /** The replica no longer leads. Reads whose index is known stay: leadership was confirmed for them. */
  dropLeadership(refuse: (read: TimedRead) => void): void {
    const { queued, early } = this
    this.queued = []
    this.queueAnew(queued, refuse)
    // The time that they wait for was to come by an entry of this leader's.
    this.early = early.filter((read) => !needsLeader(read.request))
    if (this.early.length < early.length) {
      for (const read of early) if (needsLeader(read.request)) refuse(read)
    }
  }

  private queueAnew(reads: ReadonlyArray<TimedRead>, refuse: (read: TimedRead) => void): void {
    for (const read of reads) {
      if (needsLeader(read.request)) refuse(read)
      else this.queued.push(read)
    }
  }

  /** Hands out the reads that the present state may serve. */
  take(progress: ReadProgress, serve: (read: TimedRead) => void): void {
    if (this.early.length > 0) this.takeEarly(progress, serve)
    if (this.batches.length === 0) return
    let kept = 0
    const { batches } = this
    for (const batch of batches) {
      if (batch.index === undefined || batch.index > progress.appliedIndex) {
        batches[kept++] = batch
        continue
      }
      this.askedCount -= batch.reads.length
      this.freshen(batch.sentAt)
      for (const read of batch.reads) {
        read.byLease = batch.byLease
        read.floor = 0
        this.takeOne(read, progress, serve)
      }
    }
    batches.length = kept
  }

  private freshen(sentAt: ClockReading): void {
    const { freshAt } = this
    if (freshAt === undefined || sentAt.monotonicMs >= freshAt.monotonicMs) this.freshAt = sentAt
  }

  private takeEarly(progress: ReadProgress, serve: (read: TimedRead) => void): void {
    const { early } = this
    this.early = []
    for (const read of early) this.takeOne(read, progress, serve)
  }

  private takeOne(read: TimedRead, progress: ReadProgress, serve: (read: TimedRead) => void): void {
    if (read.floor > progress.rangeTime) this.early.push(read)
    else if (read.request.level !== "bounded" || this.isFresh(read, progress.clock)) serve(read)
    else this.queued.push(read)
  }

  /** Hands out every read whose deadline has passed. */
  expire(nowMs: MonotonicMs, refuse: (read: TimedRead) => void): void {
    if (this.count === 0) return
    this.queued = livingOf(this.queued, nowMs, refuse)
    this.early = livingOf(this.early, nowMs, refuse)
    let kept = 0
    for (const batch of this.batches) {
      const living = livingOf(batch.reads, nowMs, refuse)
      this.askedCount -= batch.reads.length - living.length
      batch.reads = living
      if (living.length === 0) this.forget(batch)
      else this.batches[kept++] = batch
    }
    this.batches.length = kept
    assert(this.askedCount >= 0, "reads were counted twice")
  }

  /** The replica goes away: hands out everything. */
  clear(refuse: (read: TimedRead) => void): void {
    this.expire(Number.POSITIVE_INFINITY, refuse)
  }
}

/** The very array when none of it has passed its deadline. */
function livingOf<A extends ReadonlyArray<TimedRead>>(
  reads: A,
  nowMs: MonotonicMs,
  refuse: (read: TimedRead) => void,
): A {
  if (reads.every((read) => read.deadlineMs > nowMs)) return reads
  for (const read of reads) if (read.deadlineMs <= nowMs) refuse(read)
  return reads.filter((read) => read.deadlineMs > nowMs) as ReadonlyArray<TimedRead> as A
}
