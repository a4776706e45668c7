import { expect } from "bun:test"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import type { JournalWrite } from "../../src/journal/journal.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { type Freshness, plainRead, type Reply, type Request } from "../../src/server/requests.ts"
import type { StoreSettings } from "../../src/server/settings.ts"
import { attemptStoreJob, type Lane, laneOf, type StoreJob } from "../../src/server/storeJobs.ts"
import { StoreLoop, type StoreParts } from "../../src/server/storeLoop.ts"
import { versionOfWall } from "../../src/server/versionClock.ts"
import type { Consistency } from "../../src/types.ts"
import { commandStatuses, operations } from "../../src/wire/command.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { command } from "./commands.ts"

const lanes: ReadonlyArray<Lane> = ["engine", "journal"]
const wallOriginMs = 1_700_000_000_000

export type Mutation = { readonly put: string; readonly ttlMs?: number } | "delete"

/**
 * A store loop over a simulated disk, a turn at a time: jobs and the journal's writes are carried out when the test says so, as workers do it, so that
 * anything may happen between two of them.
 */
export class LoopNode {
  readonly disk: SimulatedDisk
  readonly loop: StoreLoop
  readonly id: number
  nowMs: number
  replies: Array<Reply> = []
  eventualReplies: Array<EventualReply> = []
  /** Lines about damage. */
  readonly reports: Array<string> = []
  sends: Array<{ to: number; message: PeerMessage }> = []
  /** Jobs that found the disk full, by what they were. */
  readonly refused = new Map<string, number>()
  journalWrite: JournalWrite | undefined
  /** What happens after a turn and before its replies leave: the node may be paused there. */
  betweenTurnAndRelease: () => void = () => {}
  /** By how much its wall clock has moved apart from the monotonic one. */
  wallAheadMs: number
  /** The spill that found no space last. */
  refusedSpill: string | undefined
  private readonly jobs: Record<Lane, Array<StoreJob>> = { engine: [], journal: [] }
  /** Sequences of mutations, by their token. */
  private readonly unanswered = new Map<number, number>()
  private token = 0

  constructor(options: {
    disk: SimulatedDisk
    settings: StoreSettings
    nowMs?: number
    wallAheadMs?: number
    id?: number
    nodes?: ReadonlyArray<number>
    bootstrap?: boolean
    parts?: StoreParts
  }) {
    this.disk = options.disk
    this.id = options.id ?? 1
    this.nowMs = options.nowMs ?? 1000
    this.wallAheadMs = options.wallAheadMs ?? 0
    this.loop = StoreLoop.open({
      node: this.id,
      disk: options.disk,
      // Another one at every start, as in life.
      prng: new Prng(this.id * 1_000_003 + this.nowMs),
      eventualPrng: new Prng(this.id * 1_000_033 + this.nowMs),
      settings: options.settings,
      descriptors: bootstrapDescriptors(options.nodes ?? [1], 1),
      bootstrap: options.bootstrap ?? true,
      parts: options.parts ?? {},
      clock: this.clock,
    })
  }

  /** Hands a request to the loop as it is; returns its token. */
  request(make: (token: number) => Request): number {
    const token = ++this.token
    this.loop.request(make(token))
    return token
  }

  private get clock() {
    return { monotonicMs: this.nowMs, wallMs: wallOriginMs + this.nowMs + this.wallAheadMs }
  }

  get isFull(): boolean {
    return this.loop.storage.isFull
  }

  get isLeader(): boolean {
    return this.loop.replicas.get(1)?.isLeader ?? false
  }

  turn(ms: number): void {
    this.nowMs += ms
    const output = this.loop.turn(this.clock)
    this.betweenTurnAndRelease()
    for (const reply of [...output.replies, ...this.loop.release(this.clock)]) {
      this.replies.push(reply)
      this.unanswered.delete(reply.token)
    }
    this.eventualReplies.push(...output.eventualReplies)
    this.sends.push(...output.sends)
    this.reports.push(...output.reports)
    if (output.journal !== undefined) this.journalWrite = output.journal
    for (const job of output.jobs) this.jobs[laneOf(job)].push(job)
  }

  /** Carries out the oldest job of a lane; throws what stops a node. */
  runJob(lane: Lane): void {
    const job = this.jobs[lane].shift()
    if (job === undefined) return
    const result = attemptStoreJob(this.disk, job)
    if (result._tag === "Failed") {
      const name = job._tag === "Engine" ? job.job._tag : job._tag
      this.refused.set(name, (this.refused.get(name) ?? 0) + 1)
      this.expectGivenBack(job)
      if (job._tag === "Spill") this.refusedSpill = job.path
    }
    this.loop.jobDone(job, result)
  }

  /** What a job began, and could not end, takes space that is needed. */
  private expectGivenBack(job: StoreJob): void {
    if (job._tag === "Segment") expect(this.disk.exists(`${job.job.path}.new`)).toBe(false)
    if (job._tag === "Reserve") expect(this.disk.exists(job.path)).toBe(false)
  }

  /** Turns until no job is under way. */
  rest(): void {
    for (let idle = 0; idle < 3; idle++) {
      this.turn(1)
      for (const lane of lanes) {
        while (this.jobs[lane].length > 0) {
          this.runJob(lane)
          idle = 0
        }
      }
      this.finishWrite()
    }
  }

  /** Writes and syncs what the journal wants written; throws what stops a node. */
  finishWrite(): void {
    const write = this.journalWrite
    if (write === undefined) return
    this.journalWrite = undefined
    const file = this.disk.open(write.path)
    try {
      file.write(write.bytes, write.offset)
      if (write.sync) file.sync()
    } finally {
      file.close()
    }
    this.loop.journalDurable(write)
  }

  /** Everything at once, for so long. */
  pass(ms: number): void {
    for (let end = this.nowMs + ms; this.nowMs < end; ) {
      this.turn(10)
      for (let i = 0; i < 4; i++) for (const lane of lanes) this.runJob(lane)
      this.finishWrite()
    }
  }

  /** A random part of what is under way. */
  someWork(prng: Prng): void {
    for (const lane of lanes) if (prng.chance(0.7)) this.runJob(lane)
    if (prng.chance(0.8)) this.finishWrite()
  }

  mutate(key: string, mutation: Mutation, deadlineMs = 3000): number {
    const expiresAt = versionOfWall(this.clock.wallMs) + 60_000_000
    const sequence = this.nowMs * 1000 + this.token
    const ackedBelow = Math.min(sequence, ...this.unanswered.values())
    const fields = { sequence, ackedBelow, expiresAt }
    const bytes =
      mutation === "delete"
        ? command(key, { ...fields, operation: operations.delete })
        : command(key, { ...fields, text: mutation.put, ttl: (mutation.ttlMs ?? 0) * 1000 })
    const token = this.ask({ _tag: "Mutate", command: bytes }, deadlineMs)
    this.unanswered.set(token, sequence)
    return token
  }

  read(
    key: string,
    options: Partial<Freshness> & { readonly level?: Consistency; deadlineMs?: number } = {},
  ): number {
    const { level = "linearizable", deadlineMs = 3000, ...freshness } = options
    const position = hashPosition(1, utf8(key))
    const wanted = { ...plainRead, ...freshness, level, position }
    return this.ask({ _tag: "Get", boundsVersion: 1, ...wanted }, deadlineMs)
  }

  /** Cuts range 1 in two at the position of a key. */
  split(key: string, child: number): number {
    const token = ++this.token
    const at = hashPosition(1, utf8(key))
    const place = { range: 1, deadlineMs: 3000, token, boundsVersion: 1 }
    this.loop.request({ _tag: "Split", ...place, at, child })
    return token
  }

  private ask(
    request:
      | Pick<Extract<Request, { _tag: "Mutate" }>, "_tag" | "command">
      | Omit<Extract<Request, { _tag: "Get" }>, "token" | "range" | "deadlineMs">,
    deadlineMs: number,
  ): number {
    const token = ++this.token
    this.loop.request({ ...request, range: 1, deadlineMs, token })
    return token
  }

  /** Passes time until a request is answered. */
  answer(token: number): Reply {
    for (let i = 0; i < 1000; i++) {
      const reply = this.replies.find((each) => each.token === token)
      if (reply !== undefined) return reply
      this.pass(10)
    }
    throw new Error("a request was not answered in ten seconds")
  }

  untilLeader(): void {
    for (let i = 0; i < 500 && !this.isLeader; i++) this.pass(10)
    if (!this.isLeader) throw new Error("no leader in five seconds")
  }
}

/** What a reply came to, in a word. */
export function outcomeOf(reply: Reply): string {
  if (reply._tag === "Refused") return reply.refusal._tag
  if (reply._tag !== "Mutated") return reply._tag
  const { done, absent } = commandStatuses
  const isDone = reply.status === done || reply.status === absent
  return isDone ? "Mutated" : `status ${reply.status}`
}
