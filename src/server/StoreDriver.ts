import type { OpenJournal } from "../disk/DataDirectory.ts"
import { DiskError } from "../disk/disk.ts"
import { RequestLatencies } from "../dynamo/node/latencies.ts"
import type { EventualReply, EventualRequest } from "../dynamo/node/requests.ts"
import type { JournalWrite } from "../journal/journal.ts"
import type { NodeId } from "../types.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Reply, Request } from "./requests.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"
import type { ClockReading, StoreLoop, StoreOutput } from "./storeLoop.ts"

/** Where the driver sends what the loop gives out. */
export interface DriverPorts {
  readonly readClock: () => ClockReading
  readonly send: (node: NodeId, message: PeerMessage) => void
  /** All sends of a turn have been given. */
  readonly flush: () => void
  /** To the thread of its lane. */
  readonly toWorker: (job: StoreJob) => void
  /** A line for the operator: damage was found, and the node goes on without what is damaged. */
  readonly report: (line: string) => void
  /** The node cannot go on: a failed write or sync, a broken invariant. Called once. */
  readonly fail: (error: unknown) => void
}

interface EventualWaiting {
  readonly reply: (reply: EventualReply) => void
  readonly kind: "read" | "write"
  readonly fromMs: number
}

/**
 * Carries out what the store loop decides, on real files, sockets and threads. Inputs of one round of the event loop share a turn: `wake` asks for a turn
 * at the end of the round.
 *
 * The journal's write goes to the page cache at once and is made durable by one asynchronous fdatasync; meanwhile turns go on. A failed sync is
 * final: what the kernel did with the pages is unknown, so the node stops (Rebello et al., ATC 2020).
 */
export class StoreDriver {
  readonly loop: StoreLoop
  private readonly ports: DriverPorts
  private readonly openJournal: (path: string) => OpenJournal
  private readonly replyTo = new Map<number, (reply: Reply) => void>()
  private readonly eventualReplyTo = new Map<number, EventualWaiting>()
  /** Of requests to eventual namespaces. */
  readonly requestLatencies = new RequestLatencies()
  private nextToken = 1
  private scheduled = false
  private stopped = false
  private journalFile: { readonly path: string; readonly file: OpenJournal } | undefined
  private syncing = false
  private timed = false
  private latencies: Array<number> = []
  /** The request whose latency is measured, one at a time; 0 = none. */
  private measuredToken = 0
  private measuredFromMs = 0

  constructor(options: {
    loop: StoreLoop
    ports: DriverPorts
    /** Opens a segment by its path on the loop's disk. */
    openJournal: (path: string) => OpenJournal
  }) {
    this.loop = options.loop
    this.ports = options.ports
    this.openJournal = options.openJournal
  }

  /** A turn at the end of this round of the event loop. */
  wake(): void {
    if (this.scheduled || this.stopped) return
    this.scheduled = true
    setImmediate(this.run)
  }

  private wakeIn(ms: number): void {
    if (this.timed || this.stopped) return
    this.timed = true
    setTimeout(() => {
      this.timed = false
      this.wake()
    }, ms)
  }

  /** p99 of the turns and syncs since the last call, in milliseconds; `undefined` when there were none. */
  takeLatencyMs(): number | undefined {
    const sorted = this.latencies.sort((left, right) => left - right)
    this.latencies = []
    return sorted[Math.floor(sorted.length * 0.99)]
  }

  private took(beganMs: number): void {
    if (this.latencies.length < 4096) this.latencies.push(performance.now() - beganMs)
  }

  receive(from: NodeId, message: PeerMessage): void {
    this.loop.receive(from, message)
    this.wake()
  }

  request(request: Request, reply: (reply: Reply) => void): void {
    const token = this.nextToken++
    if (this.measuredToken === 0) {
      this.measuredToken = token
      this.measuredFromMs = performance.now()
    }
    this.replyTo.set(token, reply)
    this.loop.request({ ...request, token })
    this.wake()
  }

  /** The same of an eventual namespace. */
  requestEventual(request: EventualRequest, reply: (reply: EventualReply) => void): void {
    const token = this.nextToken++
    const kind = request._tag === "EventualWrite" ? "write" : "read"
    this.eventualReplyTo.set(token, { reply, kind, fromMs: performance.now() })
    this.loop.requestEventual({ ...request, token })
    this.wake()
  }

  unreachable(node: NodeId): void {
    this.loop.unreachable(node)
    this.wake()
  }

  /** What a worker answered. */
  jobDone(job: StoreJob, result: StoreJobResult): void {
    if (this.stopped) return
    this.guard(() => this.loop.jobDone(job, result))
    this.wake()
  }

  /** A worker can't go on. */
  workerFailed(error: Error): void {
    this.fail(error)
  }

  /** No turn happens after this. */
  stop(): void {
    this.stopped = true
    if (!this.syncing) this.closeJournal()
  }

  private readonly run = (): void => {
    this.scheduled = false
    if (this.stopped) return
    const beganMs = performance.now()
    this.guard(() => this.carryOut(this.loop.turn(this.ports.readClock())))
    this.took(beganMs)
  }

  private carryOut(output: StoreOutput): void {
    // The disk first: a send may give the processor to whoever it wakes.
    if (output.journal !== undefined) this.write(output.journal)
    for (const { to, message } of output.sends) this.ports.send(to, message)
    this.ports.flush()
    this.answer(output.replies)
    if (output.eventualReplies.length > 0) this.answerEventual(output.eventualReplies)
    this.answer(this.loop.release(this.ports.readClock()))
    for (const job of output.jobs) this.ports.toWorker(job)
    for (const line of output.reports) this.ports.report(line)
    if (output.more) this.wake()
    else if (output.waitMs > 0) this.wakeIn(output.waitMs)
  }

  private answer(replies: ReadonlyArray<Reply>): void {
    for (const reply of replies) {
      const answer = this.replyTo.get(reply.token)
      this.replyTo.delete(reply.token)
      answer?.(reply)
      if (reply.token !== this.measuredToken) continue
      this.measuredToken = 0
      this.loop.noticeLatency(performance.now() - this.measuredFromMs)
    }
  }

  private answerEventual(replies: ReadonlyArray<EventualReply>): void {
    const nowMs = performance.now()
    const [first] = replies
    const measured = first === undefined ? undefined : this.eventualReplyTo.get(first.token)
    if (measured !== undefined) this.loop.noticeLatency(nowMs - measured.fromMs)
    for (const reply of replies) {
      const waiting = this.eventualReplyTo.get(reply.token)
      if (waiting === undefined) continue
      this.eventualReplyTo.delete(reply.token)
      if ("receipt" in reply) {
        this.requestLatencies.add(waiting.kind, reply.receipt.asked, nowMs - waiting.fromMs)
      }
      waiting.reply(reply)
    }
  }

  private write(write: JournalWrite): void {
    const file = this.fileOf(write.path)
    const { bytes, offset } = write
    let done = 0
    while (done < bytes.length) {
      const count = file.write(bytes, done, bytes.length - done, offset + done)
      // It would be so for ever.
      if (count === 0) throw new DiskError({ reason: "io", path: write.path })
      done += count
    }
    if (!write.sync) {
      setImmediate(() => this.written(write))
      return
    }
    this.syncing = true
    const beganMs = performance.now()
    file.sync((error) => {
      this.syncing = false
      this.took(beganMs)
      if (this.stopped) return this.closeJournal()
      if (error !== null)
        return this.fail(new DiskError({ reason: "io", path: write.path, cause: error }))
      this.written(write)
    })
  }

  private written(write: JournalWrite): void {
    if (this.stopped) return
    this.guard(() => this.loop.journalDurable(write))
    this.wake()
  }

  private fileOf(path: string): OpenJournal {
    if (this.journalFile?.path === path) return this.journalFile.file
    this.closeJournal()
    const file = this.openJournal(path)
    this.journalFile = { path, file }
    return file
  }

  /** At most once a descriptor: its number may be another file's by the next time. */
  private closeJournal(): void {
    const { journalFile } = this
    this.journalFile = undefined
    journalFile?.file.close()
  }

  private guard(work: () => void): void {
    try {
      work()
    } catch (error) {
      this.fail(error)
    }
  }

  private fail(error: unknown): void {
    if (this.stopped) return
    this.stopped = true
    this.ports.fail(error)
  }
}
