/**
 * The store loop: THE order in which a node works, for all of its groups (DESIGN section 3). Messages, requests and clock readings go in; writes, sends,
 * answers and jobs come out. It reads no clock and does no IO but the engine's synchronous reads, so that the simulator runs this very class.
 *
 * One turn:
 *  1. step every message of the inbox, then tick if a tick is due (a gap in the loop counts as one tick, after the inbox);
 *  2. collect what the cores want written, sent, applied;
 *  3. admit requests; leaders propose what was gathered, as few entries as possible, and ask for read confirmation once a group;
 *  4. collect again: a leader's appends leave in parallel with its own write (Raft thesis 10.2.1);
 *  5. apply what is committed and durable here, and answer; serve confirmed reads;
 *  6. unless a journal write is under way, cut ONE batch for all groups; whatever must wait for it leaves when it is durable;
 *  7. give out jobs: flush, compaction, segments, spills.
 * While one write runs, the next batch gathers.
 *
 * Invariants:
 * - nothing in `messagesAfterPersist` leaves before the journal batch that holds its cause is durable;
 * - an entry is applied only when this node's own journal has made it durable;
 * - a mutation is answered after it is applied, a read after its index is applied and leadership was confirmed after it came in.
 *
 * Left out so far: hibernation and coalesced heartbeats, leases, reads at followers beyond `local`, splits and merges, comparing replicas.
 */
import type { Disk } from "../disk/disk.ts"
import { StorageCorruption } from "../disk/disk.ts"
import type { JournalWrite } from "../journal/journal.ts"
import type { Prng } from "../lib/prng.ts"
import type { LogStorage } from "../raft/log.ts"
import type { Message } from "../raft/message.ts"
import { RaftNode } from "../raft/raftNode.ts"
import type {
  LogIndex,
  MonotonicMs,
  NodeId,
  RangeDescriptor,
  RangeId,
  Term,
  WallMs,
} from "../types.ts"
import { refusalOf } from "./admission.ts"
import type { RangeMachine } from "./apply.ts"
import type { PeerMessage } from "./peerMessage.ts"
import { receiptOf, serveRead } from "./reading.ts"
import { type GivenUp, Replica, type TimedRead, type Waiter } from "./replica.ts"
import type { RangeReport, Refusal, Reply, Request } from "./requests.ts"
import { releasableIndexes } from "./retention.ts"
import type { StoreSettings } from "./settings.ts"
import { SnapshotExchange } from "./snapshotExchange.ts"
import { Storage, type StorageParts } from "./storage.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"

/** A reading of the node's clocks, taken by the driver. */
export interface ClockReading {
  readonly monotonicMs: MonotonicMs
  readonly wallMs: WallMs
}

/** Classes that a simulator may replace, to plant a bug and see it found. */
export interface StoreParts extends StorageParts {
  readonly RaftNode?: typeof RaftNode
  readonly SnapshotExchange?: typeof SnapshotExchange
}

export interface StoreLoopOptions {
  readonly node: NodeId
  readonly disk: Disk
  readonly prng: Prng
  readonly settings: StoreSettings
  /** Of the whole cluster; an empty directory begins with the replicas that they place on this node. */
  readonly descriptors: ReadonlyArray<RangeDescriptor>
  readonly clock: ClockReading
  readonly parts?: StoreParts
}

export interface StoreOutput {
  /** Write at its offset, sync if it says so, then call `journalDurable`. */
  readonly journal: JournalWrite | undefined
  readonly sends: ReadonlyArray<{ readonly to: NodeId; readonly message: PeerMessage }>
  readonly replies: ReadonlyArray<Reply>
  /** Carry out in order, after all those given out before; then call `jobDone` for each. */
  readonly jobs: ReadonlyArray<StoreJob>
  /** There is work left: call `turn` again without waiting. */
  readonly more: boolean
}

/** What waits for a journal batch to be durable. */
interface Waiting {
  readonly messages: Array<{ replica: Replica; message: Message }>
  readonly persisted: Array<{ replica: Replica; index: LogIndex; term: Term }>
  readonly sends: Array<{ to: NodeId; message: PeerMessage }>
}

const emptyWaiting = (): Waiting => ({ messages: [], persisted: [], sends: [] })

/** Deadlines are looked at every so many ticks. */
const expiryTicks = 4

export class StoreLoop {
  readonly node: NodeId
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  /** Messages that were dropped because the inbox was full, or because they named a replica that is not here. */
  droppedMessages = 0
  private readonly sorted: ReadonlyArray<Replica>
  private readonly descriptors: ReadonlyMap<RangeId, RangeDescriptor>
  private readonly exchange: SnapshotExchange
  private clock: ClockReading
  private lastTickMs: MonotonicMs
  private ticks = 0
  private inbox: Array<{ from: NodeId; message: PeerMessage }> = []
  private requests: Array<Request> = []
  private sends: Array<{ to: NodeId; message: PeerMessage }> = []
  private replies: Array<Reply> = []
  private waiting = emptyWaiting()
  private inFlight: { readonly write: JournalWrite; readonly waiting: Waiting } | undefined
  /** A tick passed since the last cut. */
  private isIdleTick = false

  private constructor(options: StoreLoopOptions, storage: Storage) {
    this.node = options.node
    this.settings = options.settings
    this.storage = storage
    this.clock = options.clock
    this.lastTickMs = options.clock.monotonicMs
    const machines = machinesOf(options, storage)
    this.sorted = machines.map((machine) => openReplica(machine, options, storage))
    this.replicas = new Map(this.sorted.map((replica) => [replica.range, replica]))
    this.descriptors = new Map(
      [...options.descriptors, ...machines.map((machine) => machine.descriptor)].map(
        (descriptor) => [descriptor.id, descriptor],
      ),
    )
    const Exchange = options.parts?.SnapshotExchange ?? SnapshotExchange
    this.exchange = new Exchange({
      storage,
      settings: options.settings,
      replicas: this.replicas,
      send: (to, message) => this.sends.push({ to, message }),
      sendAfterPersist: (replica, message) => {
        const to = replica.nodeOf(message.to)
        if (to !== undefined) this.waiting.sends.push({ to, message })
      },
    })
  }

  /** Recovers the node's state from its directory. Throws `StorageCorruption` or `DiskError`. */
  static open(options: StoreLoopOptions): StoreLoop {
    return new StoreLoop(options, Storage.open(options.disk, options.settings, options.parts))
  }

  /** A message from a peer. Byte strings in it are kept: the caller must not reuse their buffers. */
  receive(from: NodeId, message: PeerMessage): void {
    if (this.inbox.length >= this.settings.inboxMessages) this.droppedMessages++
    else this.inbox.push({ from, message })
  }

  /** A request from a door; its answer comes out of a later turn, exactly once. */
  request(request: Request): void {
    this.requests.push(request)
  }

  /** The write of an earlier output is durable. */
  journalDurable(write: JournalWrite): void {
    this.storage.journal.durable(write)
    const inFlight = this.inFlight
    this.inFlight = undefined
    if (inFlight !== undefined) this.release(inFlight.waiting)
  }

  /** The oldest job that is not done yet was carried out. */
  jobDone(_job: StoreJob, result: StoreJobResult): void {
    this.storage.jobDone(result)
  }

  /** The transport lost its connection to a node, or dropped messages to it. */
  unreachable(node: NodeId): void {
    for (const replica of this.sorted) {
      for (const place of replica.machine.descriptor.replicas) {
        if (place.node === node) replica.raft.reportUnreachable(place.replica)
      }
    }
  }

  turn(clock: ClockReading): StoreOutput {
    this.clock = clock
    this.drainInbox()
    this.tickIfDue()
    this.exchange.advance(clock.monotonicMs)
    this.collect()
    this.exchange.dropUnwanted()
    this.admit()
    this.propose()
    this.collect()
    let more = this.applyCommitted()
    this.serveReads()
    const journal = this.cutJournal()
    if (this.storage.wantsSeal(this.sorted)) this.storage.seal(this.sorted)
    const jobs = this.storage.takeJobs()
    more ||= this.sorted.some((replica) => replica.raft.hasReady())
    const output = { journal, sends: this.sends, replies: this.replies, jobs, more }
    this.sends = []
    this.replies = []
    return output
  }

  /** Every range of the cluster that this node knows of, in order of position. */
  ranges(): ReadonlyArray<RangeReport> {
    return [...this.descriptors.values()].map((known) => {
      const replica = this.replicas.get(known.id)
      return {
        descriptor: replica?.machine.descriptor ?? known,
        leader: replica?.leaderNode,
        term: replica?.raft.term ?? 0,
        index: replica?.machine.appliedIndex ?? 0,
      }
    })
  }

  private drainInbox(): void {
    if (this.inbox.length === 0) return
    const inbox = this.inbox
    this.inbox = []
    for (const { from, message } of inbox) this.step(from, message)
  }

  private step(from: NodeId, message: PeerMessage): void {
    const replica = this.replicas.get(message.range)
    const envelope = message._tag === "Raft" ? message.message : message
    if (
      replica === undefined ||
      envelope.to !== replica.machine.replica ||
      replica.nodeOf(envelope.from) !== from
    ) {
      this.droppedMessages++
      return
    }
    const nowMs = this.clock.monotonicMs
    switch (message._tag) {
      case "Raft":
        return replica.raft.step(message.message, nowMs)
      case "SnapshotFrame":
        return this.exchange.receive(replica, message, from)
      case "SnapshotFrameAck":
        return this.exchange.acknowledged(replica, message, nowMs)
      default:
        return message satisfies never
    }
  }

  private tickIfDue(): void {
    const nowMs = this.clock.monotonicMs
    const elapsed = nowMs - this.lastTickMs
    if (elapsed < this.settings.tickMs) return
    // A late turn makes up for nothing: a node that was paused must not call elections for the time it slept.
    this.lastTickMs =
      elapsed < 2 * this.settings.tickMs ? this.lastTickMs + this.settings.tickMs : nowMs
    this.ticks++
    for (const replica of this.sorted) replica.raft.tick(nowMs)
    this.exchange.tick(nowMs)
    if (this.ticks % expiryTicks === 0) {
      for (const replica of this.sorted) {
        if (replica.waiting > 0)
          replica.expire(nowMs, this.giveUp(replica), this.refuseRead(replica))
      }
    }
    if (this.ticks % this.settings.retentionTicks === 0) this.releaseLogs()
    this.isIdleTick = true
  }

  private releaseLogs(): void {
    const nowMs = this.clock.monotonicMs
    const logs = this.sorted.map((replica) => {
      replica.age.mark(nowMs, replica.log.lastIndex)
      return {
        flushedIndex: replica.flushedIndex,
        lastIndex: replica.log.lastIndex,
        sizeBytes: replica.log.sizeBytes,
        bytesAbove: (index: LogIndex) => replica.log.sizeBytesAbove(index),
        slowestMatch: replica.isLeader ? slowestMatch(replica) : undefined,
        agedIndex: replica.age.agedIndex(nowMs),
      }
    })
    const released = releasableIndexes(logs, this.settings)
    for (let i = 0; i < this.sorted.length; i++) {
      const { log } = this.sorted[i] as Replica
      const index = released[i] as LogIndex
      if (index >= log.firstIndex) log.release(index)
    }
    this.storage.journal.maintain()
  }

  private collect(): void {
    for (const replica of this.sorted) {
      while (replica.raft.hasReady()) this.collectFrom(replica)
      if (replica.noticeRole() && !replica.isLeader) {
        replica.dropLeadership(this.giveUp(replica), this.refuseRead(replica))
      }
    }
  }

  private collectFrom(replica: Replica): void {
    const ready = replica.raft.ready()
    // The journal writes a mere commit index along with other records, and not for its own sake.
    if (ready.hardState !== undefined) replica.log.setHardState(ready.hardState)
    const last = ready.entries[ready.entries.length - 1]
    if (last !== undefined) {
      replica.log.append(ready.entries)
      this.waiting.persisted.push({ replica, index: last.index, term: last.term })
    }
    for (const message of ready.messages) this.sendRaft(replica, message)
    for (const message of ready.messagesAfterPersist) {
      this.waiting.messages.push({ replica, message })
    }
    const committed = ready.committed[ready.committed.length - 1]
    if (committed !== undefined) replica.applyLimit = committed.index
    for (const read of ready.reads) replica.confirmReads(read.context, read.index)
    for (const context of ready.readsLost) {
      for (const read of replica.takeLost(context)) this.refuseRead(replica)(read)
    }
    if (ready.snapshot !== undefined) this.exchange.wanted(replica, ready.snapshot)
    for (const to of ready.snapshotsWanted) {
      this.exchange.start(replica, to, this.clock.monotonicMs)
    }
  }

  private sendRaft(replica: Replica, message: Message): void {
    const to = replica.nodeOf(message.to)
    if (to !== undefined)
      this.sends.push({ to, message: { _tag: "Raft", range: replica.range, message } })
  }

  private admit(): void {
    if (this.requests.length === 0) return
    const requests = this.requests
    this.requests = []
    for (const request of requests) {
      const replica = this.replicas.get(request.range)
      const refusal = this.refusal(request, replica)
      if (refusal !== undefined) this.refuse(request.token, replica, refusal)
      else if (replica !== undefined) this.enqueue(request, replica)
    }
  }

  private refusal(request: Request, replica: Replica | undefined): Refusal | undefined {
    if (replica === undefined) {
      const known = this.descriptors.get(request.range)
      return { _tag: "RangeMoved", descriptors: known === undefined ? [] : [known] }
    }
    const refusal = refusalOf(request, replica.machine.descriptor)
    if (refusal !== undefined) return refusal
    if (request._tag !== "Mutate" && request.level === "local") return undefined
    if (!replica.isLeader) {
      return { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode }
    }
    return replica.waiting >= this.settings.requestsPerRange
      ? { _tag: "Overloaded", what: `range ${replica.range} has too many requests under way` }
      : undefined
  }

  private enqueue(request: Request, replica: Replica): void {
    const deadlineMs = this.clock.monotonicMs + request.deadlineMs
    if (request._tag === "Mutate") {
      const { token, command } = request
      replica.queueMutation({ token, deadlineMs, command })
    } else if (request.level === "local") {
      this.serve(replica, request)
    } else {
      replica.queueRead({ request, deadlineMs })
    }
  }

  private propose(): void {
    for (const replica of this.sorted) {
      if (!replica.isLeader) continue
      replica.requestReads()
      if (!replica.hasProposals) continue
      for (const waiter of replica.propose(this.clock.wallMs)) {
        this.refuse(waiter.token, replica, {
          _tag: "Overloaded",
          what: `range ${replica.range} has too much uncommitted data`,
        })
      }
    }
  }

  /** Applies within the turn's budget. True when more is left that could be applied now. */
  private applyCommitted(): boolean {
    let more = false
    const { engine } = this.storage
    for (const replica of this.sorted) {
      let budget = this.settings.applyBytesPerTurn
      while (replica.machine.appliedIndex < replica.applyLimit && !replica.installing) {
        if (budget <= 0) {
          more = true
          break
        }
        const from = replica.machine.appliedIndex + 1
        const entries = replica.log.entries(from, replica.applyLimit + 1, budget)
        for (const entry of entries) {
          // Without room for it the rest waits for a flush, whose end calls for a turn.
          if (!engine.canWrite(entry.data.length)) return false
          if (engine.needsSeal(entry.data.length)) this.storage.seal(this.sorted)
          this.applyEntry(replica, entry)
          budget -= entry.data.length + 64
        }
      }
    }
    return more
  }

  private applyEntry(
    replica: Replica,
    entry: { index: LogIndex; term: Term; kind: number; data: Uint8Array },
  ): void {
    const giveUp = this.giveUp(replica)
    replica.applyEntry(
      entry,
      (waiter, place) => {
        const { outcomes } = replica.machine
        this.replies.push({
          _tag: "Mutated",
          token: waiter.token,
          rangeTime: replica.rangeTime(this.clock.wallMs),
          status: outcomes.statuses[place] as (typeof outcomes.statuses)[number],
          version: outcomes.versions[place] as number,
          receipt: { ...this.receipt(replica), term: entry.term, index: entry.index },
        })
      },
      giveUp,
    )
    replica.raft.applied(entry.index)
  }

  private receipt(replica: Replica) {
    return receiptOf(this.readContext(replica), "linearizable")
  }

  private readContext(replica: Replica) {
    return {
      engine: this.storage.engine,
      node: this.node,
      replica,
      rangeTime: replica.rangeTime(this.clock.wallMs),
      settings: this.settings,
    }
  }

  private serveReads(): void {
    for (const replica of this.sorted) {
      for (const batch of replica.takeServable()) {
        for (const read of batch.requests) this.serve(replica, read.request)
      }
    }
  }

  private serve(replica: Replica, request: TimedRead["request"]): void {
    try {
      this.replies.push(serveRead(this.readContext(replica), request))
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.refuse(request.token, replica, { _tag: "StorageCorrupt", message: error.message })
    }
  }

  private giveUp(replica: Replica) {
    return (waiter: Waiter, why: GivenUp) =>
      this.refuse(
        waiter.token,
        replica,
        why === "unknown"
          ? { _tag: "OutcomeUnknown", range: replica.range }
          : { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode },
      )
  }

  private refuseRead(replica: Replica) {
    return (read: TimedRead) =>
      this.refuse(
        read.request.token,
        replica,
        replica.isLeader
          ? { _tag: "QuorumUnavailable", range: replica.range }
          : { _tag: "NotLeader", range: replica.range, leader: replica.leaderNode },
      )
  }

  private refuse(token: number, replica: Replica | undefined, refusal: Refusal): void {
    const rangeTime = replica?.rangeTime(this.clock.wallMs) ?? 0
    this.replies.push({ _tag: "Refused", token, rangeTime, refusal })
  }

  /** Cuts a batch of what was gathered, unless a write is under way; lets go what waits for nothing. */
  private cutJournal(): JournalWrite | undefined {
    const { journal } = this.storage
    if (journal.wantsWrite) {
      if (this.inFlight !== undefined) return undefined
      const write = journal.cut()
      // Without a write no segment is ready yet: all of it waits for a later turn.
      return write === undefined ? undefined : this.startWrite(write)
    }
    const waiting = this.waiting
    this.waiting = emptyWaiting()
    if (this.inFlight !== undefined) {
      // Nothing was gathered since: what waits, waits for the write under way.
      mergeWaiting(this.inFlight.waiting, waiting)
      return undefined
    }
    this.release(waiting)
    if (!this.isIdleTick) return undefined
    this.isIdleTick = false
    const seal = journal.sealIfIdle()
    return seal === undefined ? undefined : this.startWrite(seal)
  }

  private startWrite(write: JournalWrite): JournalWrite {
    this.inFlight = { write, waiting: this.waiting }
    this.waiting = emptyWaiting()
    this.isIdleTick = false
    return write
  }

  private release(waiting: Waiting): void {
    const nowMs = this.clock.monotonicMs
    for (const { replica, index, term } of waiting.persisted) replica.raft.persisted(index, term)
    for (const { replica, message } of waiting.messages) {
      if (message.to === replica.machine.replica) replica.raft.step(message, nowMs)
      else this.sendRaft(replica, message)
    }
    for (const send of waiting.sends) this.sends.push(send)
  }
}

function mergeWaiting(target: Waiting, source: Waiting): void {
  target.messages.push(...source.messages)
  target.persisted.push(...source.persisted)
  target.sends.push(...source.sends)
}

function slowestMatch(replica: Replica): LogIndex {
  let least = replica.log.lastIndex
  for (const peer of replica.raft.progress()) if (peer.match < least) least = peer.match
  return least
}

/** The replicas of an existing directory, or those that bootstrap places here; in order of range id. */
function machinesOf(options: StoreLoopOptions, storage: Storage): ReadonlyArray<RangeMachine> {
  const stored = storage.loadMachines()
  if (stored.length > 0) return stored
  const machines: Array<RangeMachine> = []
  for (const descriptor of options.descriptors) {
    const place = descriptor.replicas.find((candidate) => candidate.node === options.node)
    if (place === undefined) continue
    machines.push(
      storage.newMachine({
        descriptor,
        replica: place.replica,
        appliedIndex: 0,
        appliedTerm: 0,
        rangeTime: 0,
        chain: 0,
      }),
    )
  }
  return machines
}

function openReplica(machine: RangeMachine, options: StoreLoopOptions, storage: Storage): Replica {
  const { settings, clock } = options
  const { descriptor, replica, appliedIndex, appliedTerm } = machine
  const log = storage.journal.group({ range: descriptor.id, replica })
  // The engine wins: a log that ends below what it has applied, or differs there, begins there.
  if (log.lastIndex < appliedIndex || log.term(appliedIndex) !== appliedTerm) {
    const isCovered = log.firstIndex <= appliedIndex + 1
    if (!isCovered) {
      throw new StorageCorruption({
        path: "journal",
        offset: 0,
        expected: `entry ${appliedIndex + 1} of range ${descriptor.id}`,
        actual: `a log that begins at ${log.firstIndex}`,
      })
    }
    log.resetTo(appliedIndex, appliedTerm)
  }
  const stored = log.hardState
  const commit = Math.max(stored.commit, appliedIndex)
  // A snapshot of a later term can be in force before the journal holds that term. No vote was given in it: votes leave only
  // when they are durable.
  const isBehind = stored.term < appliedTerm
  const hardState = isBehind ? { term: appliedTerm, vote: 0, commit } : { ...stored, commit }
  if (isBehind) log.setHardState(hardState)
  const Node = options.parts?.RaftNode ?? RaftNode
  const raft = new Node({
    id: replica,
    voters: descriptor.replicas.map((place) => place.replica),
    // What comes back is what was appended: the kinds are those of raft/message.ts.
    storage: log as LogStorage,
    hardState,
    appliedIndex,
    prng: options.prng.fork(),
    nowMs: clock.monotonicMs,
    electionTicksMin: settings.electionTicksMin,
    electionTicksMax: settings.electionTicksMax,
    heartbeatTicks: settings.heartbeatTicks,
    voteSilenceMs: settings.voteSilenceMs,
    preVote: settings.preVote,
    checkQuorum: settings.checkQuorum,
    maxInflightAppends: settings.maxInflightAppends,
    maxAppendBytes: settings.maxAppendBytes,
    maxCommittedBytes: settings.maxCommittedBytes,
    maxUncommittedBytes: settings.maxUncommittedBytes,
  })
  return new Replica({ raft, log, machine, settings, flushedIndex: appliedIndex })
}
