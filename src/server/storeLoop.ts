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
 * Left out so far: hibernation and coalesced heartbeats, leases, the guard against a leader whose clock is far ahead of its peers',
 * a limit on what a follower holds that it could not apply yet, reads at followers beyond `local`, splits and merges, comparing replicas.
 */
import { type Disk, StorageCorruption } from "../disk/disk.ts"
import type { JournalWrite } from "../journal/journal.ts"
import { assert } from "../lib/assert.ts"
import type { Prng } from "../lib/prng.ts"
import type { Message } from "../raft/message.ts"
import type { RaftNode } from "../raft/raftNode.ts"
import type { LogIndex, MonotonicMs, NodeId, RangeDescriptor, RangeId, WallMs } from "../types.ts"
import { JournalGate } from "./journalGate.ts"
import { openReplicas } from "./openReplicas.ts"
import type { PeerMessage } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import { RequestQueue } from "./requestQueue.ts"
import type { RangeReport, Reply, Request } from "./requests.ts"
import { releasableIndexes } from "./retention.ts"
import { type StoreSettings, settingsProblem } from "./settings.ts"
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
  /** Carry out in order, after all those of the same lane given out before; then call `jobDone` for each. */
  readonly jobs: ReadonlyArray<StoreJob>
  /** Damage to stored bytes, each said once: lines for the operator. */
  readonly reports: ReadonlyArray<string>
  /** Proposals wait for so long: call `turn` again then; 0 = none do. */
  readonly waitMs: number
  /** There is work left: call `turn` again without waiting. */
  readonly more: boolean
}

/** Deadlines are looked at every so many ticks. */
const expiryTicks = 4

export class StoreLoop {
  readonly node: NodeId
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  /** Of every range of the cluster, as this node last heard. */
  readonly descriptors: ReadonlyMap<RangeId, RangeDescriptor>
  /** The reading that the turn under way was given. */
  clock: ClockReading
  /** Messages that were dropped because the inbox was full, or because they named a replica that is not here. */
  droppedMessages = 0
  private readonly sorted: ReadonlyArray<Replica>
  private readonly queue: RequestQueue
  private readonly gate: JournalGate
  private readonly exchange: SnapshotExchange
  private lastTickMs: MonotonicMs
  private ticks = 0
  private turns = 0
  /** Nothing is proposed before. */
  private proposeAtMs: MonotonicMs = 0
  /** Place of the replica that may propose first, so that none starves behind a busy one while proposals are held back. */
  private proposeFrom = 0
  private inbox: Array<{ from: NodeId; message: PeerMessage }> = []
  private sends: Array<{ to: NodeId; message: PeerMessage }> = []

  private constructor(options: StoreLoopOptions, storage: Storage) {
    this.node = options.node
    this.settings = options.settings
    this.storage = storage
    this.clock = options.clock
    this.lastTickMs = options.clock.monotonicMs
    this.sorted = openReplicas(options, storage)
    this.replicas = new Map(this.sorted.map((replica) => [replica.range, replica]))
    const held = this.sorted.map((replica) => replica.machine.descriptor)
    this.descriptors = new Map([...options.descriptors, ...held].map((known) => [known.id, known]))
    this.queue = new RequestQueue(this)
    const send = (to: NodeId, message: PeerMessage) => void this.sends.push({ to, message })
    this.gate = new JournalGate(storage.journal, {
      send,
      deliver: (replica, message) => this.deliver(replica, message),
    })
    this.exchange = new (options.parts?.SnapshotExchange ?? SnapshotExchange)({
      storage,
      settings: options.settings,
      replicas: this.replicas,
      send,
      sendAfterPersist: (replica, message) => {
        const to = replica.nodeOf(message.to)
        if (to !== undefined) this.gate.holdSend(to, message)
      },
    })
  }

  /** Recovers the node's state from its directory. Throws `StorageCorruption` or `DiskError`. */
  static open(options: StoreLoopOptions): StoreLoop {
    const problem = settingsProblem(options.settings)
    assert(problem === undefined, () => `settings: ${problem}`)
    return new StoreLoop(options, Storage.open(options.disk, options.settings, options.parts))
  }

  /** A message from a peer. Byte strings in it are kept: the caller must not reuse their buffers. */
  receive(from: NodeId, message: PeerMessage): void {
    if (this.inbox.length >= this.settings.inboxMessages) this.droppedMessages++
    else this.inbox.push({ from, message })
  }

  /** A request from a door; its answer comes out of a later turn, exactly once. */
  request(request: Request): void {
    this.queue.push(request)
  }

  /** The write of an earlier output is durable. */
  journalDurable(write: JournalWrite): void {
    this.gate.durable(write)
  }

  /** A job was carried out: of its lane the oldest that is not done yet. `job` is the very object that was given out. */
  jobDone(job: StoreJob, result: StoreJobResult): void {
    this.storage.jobDone(job, result)
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
    this.turns++
    this.drainInbox()
    this.tickIfDue()
    this.exchange.advance(clock.monotonicMs)
    this.collect()
    this.exchange.dropUnwanted()
    this.queue.admit()
    const count = this.sorted.length
    for (let i = 0, first = this.proposeFrom; i < count; i++) {
      const place = (first + i) % count
      const replica = this.sorted[place] as Replica
      if (!replica.isLeader) continue
      replica.requestReads()
      // What comes while a write is under way could not be durable before the next: it gathers, and leaves as fewer entries.
      // While the engine is behind, proposals wait a little each, so that none has to wait long.
      if (this.gate.isWriting || !replica.hasProposals) continue
      if (clock.monotonicMs < this.proposeAtMs) continue
      const bytes = replica.queuedBytes
      this.queue.propose(replica)
      const delayMs = this.storage.delayMs(clock.monotonicMs, bytes)
      this.proposeAtMs = clock.monotonicMs + delayMs
      if (delayMs > 0) this.proposeFrom = (place + 1) % count
    }
    this.collect()
    let more = this.applyCommitted()
    for (const replica of this.sorted) this.queue.takeConfirmed(replica)
    if (this.queue.serveReads()) more = true
    const journal = this.gate.cut()
    if (this.storage.wantsSeal(this.sorted)) this.storage.seal(this.sorted)
    const jobs = this.storage.takeJobs(clock.monotonicMs, clock.wallMs)
    more ||= this.sorted.some((replica) => replica.raft.hasReady())
    const { sends } = this
    this.sends = []
    const reports = this.storage.takeReports()
    const waitMs = Math.max(0, this.proposeAtMs - clock.monotonicMs)
    return { journal, sends, replies: this.queue.takeReplies(), jobs, reports, waitMs, more }
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
    // A disk that stands still must not hold up groups that others could lead.
    const isStalled = this.gate.stalledTicks * this.settings.tickMs > this.settings.stallMs
    for (const replica of this.sorted) {
      if (isStalled || this.shouldYield(replica)) replica.raft.stepDown()
      else replica.raft.tick(nowMs)
    }
    this.exchange.tick(nowMs)
    if (this.ticks % expiryTicks === 0) {
      for (const replica of this.sorted) this.queue.expire(replica)
    }
    if (this.ticks % this.settings.retentionTicks === 0) this.releaseLogs()
    this.gate.ticked()
  }

  /** A replica that cannot apply leads nothing, where another one could. */
  private shouldYield(replica: Replica): boolean {
    return replica.damage !== undefined && replica.machine.descriptor.replicas.length > 1
  }

  /** Whether all that the entry reads is there; else the replica lags, and the damage is reported once. */
  private isReadable(replica: Replica, entry: { readonly data: Uint8Array }): boolean {
    try {
      replica.machine.probe(entry.data)
      replica.damage = undefined
      return true
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      if (replica.damage?.message !== error.message) this.storage.report(error)
      replica.damage = error
      return false
    }
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
    // A full disk keeps nothing for those who lag: they get a snapshot.
    const kept = { retentionBytes: 0, retentionMs: 0, retainedEntries: 0 }
    const settings = this.storage.isFull ? { ...this.settings, ...kept } : this.settings
    const released = releasableIndexes(logs, settings)
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
      if (replica.noticeRole() && !replica.isLeader) this.queue.loseLeadership(replica)
    }
  }

  private collectFrom(replica: Replica): void {
    const ready = replica.raft.ready()
    // The journal writes a mere commit index along with other records, and not for its own sake.
    if (ready.hardState !== undefined) replica.log.setHardState(ready.hardState)
    const last = ready.entries[ready.entries.length - 1]
    if (last !== undefined) {
      replica.log.append(ready.entries)
      this.gate.tellPersisted(replica, last.index, last.term)
    }
    for (const message of ready.messages) this.deliver(replica, message)
    for (const message of ready.messagesAfterPersist) this.gate.hold(replica, message)
    const committed = ready.committed[ready.committed.length - 1]
    if (committed !== undefined) replica.applyLimit = committed.index
    for (const read of ready.reads) replica.confirmReads(read.context, read.index)
    for (const context of ready.readsLost) this.queue.loseReads(replica, context)
    if (ready.snapshot !== undefined) this.exchange.wanted(replica, ready.snapshot)
    for (const to of ready.snapshotsWanted) {
      this.exchange.start(replica, to, this.clock.monotonicMs)
    }
  }

  /** A raft message leaves; one to the replica itself is stepped. */
  private deliver(replica: Replica, message: Message): void {
    if (message.to === replica.machine.replica) {
      return replica.raft.step(message, this.clock.monotonicMs)
    }
    const to = replica.nodeOf(message.to)
    if (to === undefined) return
    this.sends.push({ to, message: { _tag: "Raft", range: replica.range, message } })
  }

  /** Applies within the turn's budget. True when more is left that could be applied now. */
  private applyCommitted(): boolean {
    const { engine } = this.storage
    let budget = this.settings.applyBytesPerTurn
    for (let i = 0; i < this.sorted.length; i++) {
      // Another range is first in each turn, so that none starves behind a busy one.
      const replica = this.sorted[(i + this.turns) % this.sorted.length] as Replica
      entries: while (replica.machine.appliedIndex < replica.applyLimit && !replica.installing) {
        if (budget <= 0) return true
        const from = replica.machine.appliedIndex + 1
        for (const entry of replica.log.entries(from, replica.applyLimit + 1, budget)) {
          // Without room for it the rest waits for a flush, whose end calls for a turn.
          if (!engine.canWrite(entry.data.length)) return false
          if (engine.needsSeal(entry.data.length)) this.storage.seal(this.sorted)
          if (!this.isReadable(replica, entry)) {
            // The others' turn; this one is looked at again in the next.
            budget -= 1
            break entries
          }
          this.queue.applyEntry(replica, entry)
          replica.raft.applied(entry.index)
          budget -= entry.data.length + 64
        }
      }
    }
    return false
  }
}

function slowestMatch(replica: Replica): LogIndex {
  let least = replica.log.lastIndex
  for (const peer of replica.raft.progress()) if (peer.match < least) least = peer.match
  return least
}
