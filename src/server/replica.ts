import type { StorageCorruption } from "../disk/disk.ts"
import type { JournalGroup } from "../journal/group.ts"
import { assert } from "../lib/assert.ts"
import { entryKinds } from "../raft/message.ts"
import type { RaftNode } from "../raft/raftNode.ts"
import type {
  LogIndex,
  MonotonicMs,
  NodeId,
  RangeId,
  ReplicaId,
  Term,
  Version,
  WallMs,
} from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { encodeEntryData, entryCount, entryHeaderBytes, entryLastVersion } from "./entryData.ts"
import type { GetRequest, ScanRequest } from "./requests.ts"
import { LogAge } from "./retention.ts"
import type { StoreSettings } from "./settings.ts"
import { nextBase, versionLimit, versionOfWall } from "./versionClock.ts"

/** A mutation that waits: for its turn to be proposed, then for its entry to be applied. */
export interface Waiter {
  readonly token: number
  readonly deadlineMs: MonotonicMs
  readonly command: Uint8Array
}

/** The waiters of one entry, in command order; `undefined` where the answer was given early. */
interface WaitingEntry {
  readonly term: Term
  readonly waiters: Array<Waiter | undefined>
}

/** Reads confirmed by one heartbeat round. */
export interface ReadBatch {
  readonly requests: ReadonlyArray<TimedRead>
  /** Known once leadership is confirmed. */
  index: LogIndex | undefined
}

export interface TimedRead {
  readonly request: GetRequest | ScanRequest
  readonly deadlineMs: MonotonicMs
}

/** Why the waiters of a replica get no result. */
export type GivenUp = "notLeader" | "unknown"

/**
 * One replica of a range on this node: its consensus, its state machine, its log in the journal, and the requests that wait on them.
 *
 * Waiters are keyed by (term, index, place in the entry): an entry applied at an index under another term is not the one proposed.
 */
export class Replica {
  readonly range: RangeId
  readonly raft: RaftNode
  readonly log: JournalGroup
  machine: RangeMachine
  readonly age: LogAge
  /** Applied index of the newest state key that is flushed. */
  flushedIndex: LogIndex
  /** True when its state changed since the active memtable began. */
  dirty = true
  /** Entries up to it are committed and durable here; those above the machine's applied index wait to be applied. */
  applyLimit: LogIndex
  /** True from the moment a snapshot is to be installed until it is. */
  installing = false

  /** Why no entry can be applied: stored bytes that the next one must read are damaged. The replica lags until they are repaired. */
  damage: StorageCorruption | undefined

  private readonly settings: StoreSettings
  private readonly nodeOfReplica: ReadonlyMap<ReplicaId, NodeId>
  private queued: Array<Waiter> = []
  private readonly proposed = new Map<LogIndex, WaitingEntry>()
  private proposedCount = 0
  private queuedReads: Array<TimedRead> = []
  private readonly reads = new Map<number, ReadBatch>()
  private readCount = 0
  private nextReadContext = 1
  private ledTerm: Term = 0
  /** The version of the last command in the log, committed or not, while this replica leads. */
  private lastVersion: Version = 0

  constructor(options: {
    raft: RaftNode
    log: JournalGroup
    machine: RangeMachine
    settings: StoreSettings
    flushedIndex: LogIndex
  }) {
    this.raft = options.raft
    this.log = options.log
    this.machine = options.machine
    this.settings = options.settings
    this.range = options.machine.descriptor.id
    this.flushedIndex = options.flushedIndex
    this.applyLimit = options.machine.appliedIndex
    this.age = new LogAge(options.settings.retentionMs)
    this.nodeOfReplica = new Map(
      options.machine.descriptor.replicas.map((place) => [place.replica, place.node]),
    )
  }

  get isLeader(): boolean {
    return this.raft.role === "leader"
  }

  nodeOf(replica: ReplicaId): NodeId | undefined {
    return this.nodeOfReplica.get(replica)
  }

  get leaderNode(): NodeId | undefined {
    return this.raft.leader === undefined ? undefined : this.nodeOf(this.raft.leader)
  }

  /** Requests under way. */
  get waiting(): number {
    return this.queued.length + this.proposedCount + this.queuedReads.length + this.readCount
  }

  get hasProposals(): boolean {
    return this.queued.length > 0
  }

  /** The range's time as this replica knows it: range time, or the stamping clock of a leader if that is larger. */
  rangeTime(wallMs: WallMs): Version {
    return this.isLeader
      ? Math.max(this.machine.rangeTime, versionOfWall(wallMs))
      : this.machine.rangeTime
  }

  /** Bytes of the commands that wait to be proposed. */
  queuedBytes = 0

  queueMutation(waiter: Waiter): void {
    this.queued.push(waiter)
    this.queuedBytes += waiter.command.length
  }

  queueRead(read: TimedRead): void {
    this.queuedReads.push(read)
  }

  /**
   * True when leadership was gained or lost since the last call. Call after the log has taken in what `ready` gave out: a new leader
   * looks there for the last version stamped.
   */
  noticeRole(): boolean {
    const ledTerm = this.isLeader ? this.raft.term : 0
    if (ledTerm === this.ledTerm) return false
    this.ledTerm = ledTerm
    if (ledTerm !== 0) this.lastVersion = this.lastVersionInLog()
    return true
  }

  private lastVersionInLog(): Version {
    for (let index = this.log.lastIndex; index > this.machine.appliedIndex; index--) {
      const [entry] = this.log.entries(index, index + 1, 1)
      if (entry !== undefined && entry.data.length > 0) return entryLastVersion(entry.data)
    }
    return this.machine.rangeTime
  }

  /**
   * Proposes what is queued, as many commands to an entry as fit. Returns the waiters that found no room, for the caller to
   * refuse.
   */
  propose(wallMs: WallMs): ReadonlyArray<Waiter> {
    assert(this.isLeader && this.ledTerm === this.raft.term, "only a noticed leader proposes")
    const waiters = this.queued
    this.queued = []
    this.queuedBytes = 0
    let start = 0
    while (start < waiters.length) {
      const end = this.endOfEntry(waiters, start)
      const slice = waiters.slice(start, end)
      const base = nextBase(wallMs, this.lastVersion)
      if (base + slice.length >= versionLimit) return waiters.slice(start)
      const data = encodeEntryData(
        base,
        slice.map((waiter) => waiter.command),
      )
      const index = this.raft.propose(data)
      if (typeof index !== "number") return waiters.slice(start)
      this.lastVersion = base + slice.length - 1
      this.proposed.set(index, { term: this.raft.term, waiters: slice })
      this.proposedCount += slice.length
      start = end
    }
    return []
  }

  private endOfEntry(waiters: ReadonlyArray<Waiter>, start: number): number {
    let bytes = entryHeaderBytes
    let end = start
    while (end < waiters.length && end - start < this.settings.commandsPerEntry) {
      bytes += (waiters[end] as Waiter).command.length
      if (end > start && bytes > this.settings.entryBytes) break
      end++
    }
    return end
  }

  /** Asks the core to confirm leadership for the queued reads, as one batch. */
  requestReads(): void {
    if (this.queuedReads.length === 0) return
    const context = this.nextReadContext++
    const accepted = this.raft.readIndex(context)
    assert(accepted, "a leader takes reads")
    this.reads.set(context, { requests: this.queuedReads, index: undefined })
    this.readCount += this.queuedReads.length
    this.queuedReads = []
  }

  confirmReads(context: number, index: LogIndex): void {
    const batch = this.reads.get(context)
    if (batch !== undefined) batch.index = index
  }

  /** Takes the batches that may be served from the present state. */
  takeServable(): ReadonlyArray<ReadBatch> {
    if (this.reads.size === 0) return []
    const served: Array<ReadBatch> = []
    for (const [context, batch] of this.reads) {
      if (batch.index === undefined || batch.index > this.machine.appliedIndex) continue
      this.reads.delete(context)
      this.readCount -= batch.requests.length
      served.push(batch)
    }
    return served
  }

  /** Takes a batch that can no longer be confirmed. */
  takeLost(context: number): ReadonlyArray<TimedRead> {
    const batch = this.reads.get(context)
    if (batch === undefined) return []
    this.reads.delete(context)
    this.readCount -= batch.requests.length
    return batch.requests
  }

  /**
   * Applies one entry and hands each waiter of it to `answer` with its place in the entry, or to `giveUp` when another
   * leader's entry took its index.
   */
  applyEntry(
    entry: { index: LogIndex; term: Term; kind: number; data: Uint8Array },
    answer: (waiter: Waiter, place: number) => void,
    giveUp: (waiter: Waiter, why: GivenUp) => void,
  ): void {
    const known = entry.kind === entryKinds.empty || entry.kind === entryKinds.commands
    assert(known, () => `an entry of kind ${entry.kind}`)
    this.machine.apply(entry)
    this.dirty = true
    const waiting = this.proposed.get(entry.index)
    if (waiting === undefined) return
    this.proposed.delete(entry.index)
    this.proposedCount -= waiting.waiters.length
    const mine = waiting.term === entry.term
    if (mine) {
      assert(entryCount(entry.data) === waiting.waiters.length, "an entry answers its waiters")
    }
    for (let place = 0; place < waiting.waiters.length; place++) {
      const waiter = waiting.waiters[place]
      if (waiter === undefined) continue
      if (mine) answer(waiter, place)
      else giveUp(waiter, "notLeader")
    }
  }

  /** Gives up everything that only a leader can finish. */
  dropLeadership(
    giveUp: (waiter: Waiter, why: GivenUp) => void,
    refuse: (read: TimedRead) => void,
  ): void {
    for (const waiter of this.queued) giveUp(waiter, "notLeader")
    this.queued = []
    this.queuedBytes = 0
    for (const entry of this.proposed.values()) {
      for (const waiter of entry.waiters) if (waiter !== undefined) giveUp(waiter, "unknown")
    }
    this.proposed.clear()
    this.proposedCount = 0
    for (const read of this.queuedReads) refuse(read)
    this.queuedReads = []
  }

  /** Hands out everything whose deadline has passed. */
  expire(
    nowMs: MonotonicMs,
    giveUp: (waiter: Waiter, why: GivenUp) => void,
    refuse: (read: TimedRead) => void,
  ): void {
    for (const entry of this.proposed.values()) {
      for (let place = 0; place < entry.waiters.length; place++) {
        const waiter = entry.waiters[place]
        if (waiter === undefined || waiter.deadlineMs > nowMs) continue
        entry.waiters[place] = undefined
        giveUp(waiter, "unknown")
      }
    }
    for (const [context, batch] of this.reads) {
      if (batch.requests.every((read) => read.deadlineMs > nowMs)) continue
      const kept = batch.requests.filter((read) => read.deadlineMs > nowMs)
      for (const read of batch.requests) if (read.deadlineMs <= nowMs) refuse(read)
      this.readCount -= batch.requests.length - kept.length
      if (kept.length === 0) this.reads.delete(context)
      else this.reads.set(context, { requests: kept, index: batch.index })
    }
  }

  /** Puts the machine of an installed snapshot in place of the old one. */
  replaceMachine(machine: RangeMachine): void {
    assert(machine.appliedIndex > this.machine.appliedIndex, "a snapshot moves forward")
    assert(machine.replica === this.machine.replica, "a snapshot keeps the replica's id")
    this.machine = machine
    this.applyLimit = machine.appliedIndex
    this.flushedIndex = machine.appliedIndex
    this.dirty = true
  }
}
