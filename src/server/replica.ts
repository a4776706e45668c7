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
  ReplicaPlace,
  Term,
  Version,
  WallMs,
} from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import type { Asleep } from "./beats.ts"
import { encodeEntryData, entryCount, entryHeaderBytes, entryLastVersion } from "./entryData.ts"
import { RangeLoad } from "./load/rangeLoad.ts"
import { decodeMergeStep, encodeMergeStep, type MergeStep } from "./merge/entries.ts"
import { PendingReads, type TimedRead } from "./pendingReads.ts"
import { decodeMembersChange, encodeTick } from "./rangeEntries.ts"
import { LogAge } from "./retention.ts"
import type { StoreSettings } from "./settings.ts"
import type { ClockReading } from "./storeLoop.ts"
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

/** More than any group has replicas, over many changes. */
const knownNodesMax = 256
/** Of the log that is looked through at a start, read at a time. */
const lookBytes = 256 * 1024

/** Why the waiters of a replica get no result; `late` = their deadline passed before they were proposed. */
export type GivenUp = "notLeader" | "unknown" | "late"

/**
 * One replica of a range on this node: its consensus, its state machine, its log in the journal, and the requests that wait on them.
 *
 * Waiters are keyed by (term, index, place in the entry): an entry applied at an index under another term is not the one proposed.
 */
export class Replica {
  readonly range: RangeId
  raft: RaftNode
  readonly log: JournalGroup
  machine: RangeMachine
  readonly age: LogAge
  /** Applied index of the newest state key that is flushed. */
  flushedIndex: LogIndex
  /** True when its state changed since the active memtable began. */
  dirty = true
  /** Entries up to it are committed and durable here; those above the machine's applied index wait to be applied. */
  applyLimit: LogIndex
  /** When another replica of the group was last heard. */
  heardAtMs: MonotonicMs = 0
  /** When it asked the others last whether they still know it. */
  askedAtMs: MonotonicMs = 0
  /** Set while it sleeps: it is not ticked, not visited, and never changes (beats.ts). */
  asleep: Asleep | undefined
  /** Ticks since somebody wanted something of it. */
  quietTicks = 0
  /** True from the moment a snapshot is to be installed until it is. */
  installing = false

  /** Why no entry can be applied: stored bytes that the next one must read are damaged. The replica lags until they are repaired. */
  damage: StorageCorruption | undefined

  /** Nodes that have said that another range has taken this one in there. */
  readonly takenOn = new Set<NodeId>()
  /** Why no entry can be applied: the next takes in a range that damage has taken from this node. Others of its group are to replace it. */
  lacksSource = false

  /** A read here, or one for a snapshot, has met damage while this replica led: the lead is to go to another one (handover.ts). */
  metDamage = false
  /** When it handed over the lead for that the last time. */
  handedOverAtMs: MonotonicMs | undefined

  /** Why nothing is served or led here: it holds other data than most replicas of its range (comparison.ts). */
  differs: string | undefined

  readonly reads: PendingReads
  /** What is asked of this replica. */
  readonly load: RangeLoad
  /** Reads that may be served and wait for their turn (servableReads.ts). */
  servableReads = 0
  private readonly settings: StoreSettings
  /** Where the replicas of the range live, as far as descriptors, entries and messages have told. An id is never used again, so it never moves. */
  private readonly nodes = new Map<ReplicaId, NodeId>()
  private queued: Array<Waiter> = []
  private readonly proposed = new Map<LogIndex, WaitingEntry>()
  private proposedCount = 0
  private ledTerm: Term = 0
  /** The version of the last command in the log, committed or not, while this replica leads. */
  private lastVersion: Version = 0
  /** Index of the tick proposed last in this term; one that is not applied yet is under way. */
  private tickIndex: LogIndex = 0
  /** Index of the step of a merge that was proposed last in this term, or that the log had at the start. */
  mergeIndex: LogIndex = 0
  /** That step prepares the range to be taken in by another. */
  private preparesIndex: LogIndex = 0
  /** Reads that came while the range is prepared for that: they wait for the outcome. */
  private held: Array<TimedRead> = []

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
    this.load = new RangeLoad(this.range)
    this.flushedIndex = options.flushedIndex
    this.applyLimit = options.machine.appliedIndex
    this.age = new LogAge(options.settings.retentionMs)
    this.reads = new PendingReads(options.settings)
    this.learnPlaces(options.machine.descriptor.replicas)
  }

  /** It has no state yet: a snapshot or a split is to bring it. */
  get isEmpty(): boolean {
    return this.machine.appliedIndex === 0
  }

  get isLeader(): boolean {
    return this.raft.role === "leader"
  }

  nodeOf(replica: ReplicaId): NodeId | undefined {
    return this.nodes.get(replica)
  }

  /** True unless the replica is known to live on another node. */
  learnNode(replica: ReplicaId, node: NodeId): boolean {
    const known = this.nodes.get(replica)
    if (known !== undefined) return known === node
    if (this.nodes.size >= knownNodesMax) this.forgetNodes()
    this.nodes.set(replica, node)
    return true
  }

  knownNodes(): Iterable<readonly [ReplicaId, NodeId]> {
    return this.nodes
  }

  private forgetNodes(): void {
    this.nodes.clear()
    this.learnPlaces(this.machine.descriptor.replicas)
  }

  learnPlaces(places: ReadonlyArray<ReplicaPlace>): void {
    for (const { replica, node } of places) this.learnNode(replica, node)
  }

  /** Members that the log has and the state has not yet: they are in force already. And whether it is to be prepared for a merge. */
  learnFromLog(): void {
    const end = this.log.lastIndex + 1
    for (let from = this.machine.appliedIndex + 1; from < end; ) {
      const entries = this.log.entries(from, end, lookBytes)
      for (const { index, kind, data } of entries) {
        if (kind === entryKinds.members) this.learnPlaces(decodeMembersChange(data).replicas)
        if (kind === entryKinds.merge) this.noteMerge(index, decodeMergeStep(data))
      }
      // One that is missing is passed over.
      from += Math.max(1, entries.length)
    }
  }

  get leaderNode(): NodeId | undefined {
    return this.raft.leader === undefined ? undefined : this.nodeOf(this.raft.leader)
  }

  /** Requests under way. */
  get waiting(): number {
    return this.queued.length + this.proposedCount + this.reads.count + this.held.length
  }

  get hasProposals(): boolean {
    return this.queued.length > 0 && !this.isHeld
  }

  // ---- While another range is about to take this one in

  /** No command is proposed: it would come after the range was prepared, and do nothing. */
  get isHeld(): boolean {
    if (this.machine.isPrepared) return true
    const { preparesIndex } = this
    return preparesIndex > this.machine.appliedIndex && preparesIndex <= this.raft.lastIndex
  }

  /**
   * The state of this leader may lack entries that bind it: those of an earlier term, members, or a step of a merge. Members stay during a merge, and none begins while
   * they change, so whoever proposes either must know of both.
   */
  get isUnsettled(): boolean {
    const { raft, machine, mergeIndex } = this
    const { appliedIndex, appliedTerm } = machine
    // The core is asked rather than the log, whose entry damage may have made unreadable since.
    return (
      appliedTerm !== raft.term || raft.membershipIndex > appliedIndex || mergeIndex > appliedIndex
    )
  }

  hold(read: TimedRead): void {
    this.held.push(read)
  }

  takeHeld(): ReadonlyArray<TimedRead> {
    const { held } = this
    this.held = []
    return held
  }

  private noteMerge(index: LogIndex, { _tag }: MergeStep): void {
    this.mergeIndex = index
    if (_tag === "Prepare") this.preparesIndex = index
  }

  /** Proposes a step of a merge, stamped above `above` too; `undefined` when the core takes none. */
  proposeMerge(wallMs: WallMs, step: MergeStep, above: Version = 0): LogIndex | undefined {
    if (above > this.lastStamp) this.lastVersion = above
    const { merge } = entryKinds
    const index = this.proposeEntry(
      wallMs,
      (base) => encodeMergeStep(base, step),
      (data) => this.raft.propose(data, merge),
    )
    if (typeof index !== "number") return undefined
    this.noteMerge(index, step)
    return index
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

  /**
   * True when leadership was gained or lost since the last call. Call after the log has taken in what `ready` gave out: a new leader
   * looks there for the last version stamped.
   */
  noticeRole(): boolean {
    const ledTerm = this.isLeader ? this.raft.term : 0
    if (ledTerm === this.ledTerm) return false
    this.ledTerm = ledTerm
    this.tickIndex = 0
    this.mergeIndex = 0
    if (ledTerm !== 0) this.lastVersion = this.lastVersionInLog()
    return true
  }

  /** What the next stamp must lie above; no stamp does while damage hides an entry that has one. */
  private get lastStamp(): Version {
    if (this.lastVersion === versionLimit) this.lastVersion = this.lastVersionInLog()
    return this.lastVersion
  }

  private lastVersionInLog(): Version {
    for (let index = this.log.lastIndex; index > this.machine.appliedIndex; index--) {
      const [entry] = this.log.entries(index, index + 1, 1)
      if (entry === undefined) return versionLimit
      const version = entryLastVersion(entry)
      if (version !== undefined) return version
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
      const base = nextBase(wallMs, this.lastStamp)
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

  /**
   * Proposes an entry that holds no commands: `make` gives its data, for the stamp that it is given, and `propose` hands it to the core. The answer is the
   * core's.
   */
  proposeEntry<A>(
    wallMs: WallMs,
    make: (base: Version) => Uint8Array,
    propose: (data: Uint8Array) => LogIndex | A,
  ): LogIndex | A | "overloaded" {
    assert(this.isLeader && this.ledTerm === this.raft.term, "only a noticed leader proposes")
    const base = nextBase(wallMs, this.lastStamp)
    if (base >= versionLimit) return "overloaded"
    const index = propose(make(base))
    if (typeof index === "number") this.lastVersion = base
    return index
  }

  /** True once the loop has taken note that this replica leads its present term. */
  get leadsNoticed(): boolean {
    return this.isLeader && this.ledTerm === this.raft.term
  }

  /** Proposes an entry that moves range time to the leader's clock, so that what has expired by it is gone; nothing while one is under way. */
  proposeTick(wallMs: WallMs): void {
    if (!this.isLeader || this.ledTerm !== this.raft.term || this.isHeld) return
    if (this.tickIndex > this.machine.appliedIndex) return
    const base = nextBase(wallMs, this.lastStamp)
    if (base >= versionLimit) return
    const index = this.raft.propose(encodeTick(base), entryKinds.tick)
    if (typeof index !== "number") return
    this.lastVersion = base
    this.tickIndex = index
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

  /** Asks for a read index for the reads that wait for one: a leader itself, a follower its leader. */
  askForReads(clock: ClockReading): void {
    if (this.reads.count > 0) this.reads.ask(clock, this.readIndex)
  }

  private readonly readIndex = (context: number): boolean => this.raft.readIndex(context)

  /**
   * Applies one entry and hands each waiter of it to `answer` with its place in the entry, or to `giveUp` when another
   * leader's entry took its index.
   */
  applyEntry(
    entry: { index: LogIndex; term: Term; kind: number; data: Uint8Array },
    answer: (waiter: Waiter, place: number) => void,
    giveUp: (waiter: Waiter, why: GivenUp) => void,
    source?: RangeMachine,
  ): void {
    this.machine.apply(entry, source)
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
    this.reads.dropLeadership(refuse)
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
    if (this.queued.some((waiter) => waiter.deadlineMs <= nowMs)) this.expireQueued(nowMs, giveUp)
    this.reads.expire(nowMs, refuse)
    if (this.held.length === 0) return
    for (const read of this.held) if (read.deadlineMs <= nowMs) refuse(read)
    this.held = this.held.filter((read) => read.deadlineMs > nowMs)
  }

  /** Another range has taken this one in: hands out all that waits, none of which has had an effect. */
  dropAll(moved: (token: number) => void): void {
    for (const { token } of this.queued) moved(token)
    for (const { waiters } of this.proposed.values()) {
      for (const waiter of waiters) if (waiter !== undefined) moved(waiter.token)
    }
    for (const { request } of this.takeHeld()) moved(request.token)
    this.reads.clear(({ request }) => moved(request.token))
    this.queued = []
    this.queuedBytes = 0
    this.proposed.clear()
    this.proposedCount = 0
  }

  private expireQueued(nowMs: MonotonicMs, giveUp: (waiter: Waiter, why: GivenUp) => void): void {
    const waiters = this.queued
    this.queued = []
    this.queuedBytes = 0
    for (const waiter of waiters) {
      if (waiter.deadlineMs <= nowMs) giveUp(waiter, "late")
      else this.queueMutation(waiter)
    }
  }

  /** An empty replica becomes the child of a split, under a core of its own. */
  begin(machine: RangeMachine, raft: RaftNode): void {
    assert(this.isEmpty, () => `range ${this.range} has no state`)
    this.raft = raft
    this.replaceMachine(machine)
  }

  /** The log has more again than its core knew: a core over all of it takes the place of that one, as after a restart. */
  restart(raft: RaftNode): void {
    assert(!this.isLeader, () => `range ${this.range} is not led from here`)
    this.raft = raft
    this.applyLimit = this.machine.appliedIndex
    this.learnFromLog()
  }

  /** Puts the machine of an installed snapshot, or of a split, in place of the old one. */
  replaceMachine(machine: RangeMachine): void {
    assert(machine.appliedIndex > this.machine.appliedIndex, "a snapshot moves forward")
    assert(machine.replica === this.machine.replica, "a snapshot keeps the replica's id")
    this.machine = machine
    this.applyLimit = machine.appliedIndex
    this.differs = undefined
    this.lacksSource = false
    this.flushedIndex = machine.appliedIndex
    this.dirty = true
    this.learnPlaces(machine.descriptor.replicas)
  }
}
