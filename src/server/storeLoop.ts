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
 * The replicas of a node come and go while it runs: by bootstrap, split, snapshot and burial (replicaSet.ts, rangeLife.ts); requests that change a range are
 * turned into entries in rangeChanges.ts. All groups share the turn, its batch and its budgets; whose turn it is to be first goes round.
 *
 * Invariants:
 * - nothing in `messagesAfterPersist` leaves before the journal batch that holds its cause is durable;
 * - an entry is applied only when this node's own journal has made it durable;
 * - a mutation is answered after it is applied, a read after its index is applied and leadership was confirmed after it came in.
 *
 * Groups that nobody wants anything of sleep (beats.ts): a turn visits those that are awake, and whatever concerns a sleeping one wakes it first.
 */
import type { EventualRequest } from "../dynamo/node/requests.ts"
import type { JournalWrite } from "../journal/journal.ts"
import { assert } from "../lib/assert.ts"
import { Prng } from "../lib/prng.ts"
import { Swim } from "../topology/swim/swim.ts"
import type {
  LogIndex,
  MonotonicMs,
  NodeId,
  Position,
  RangeDescriptor,
  RangeId,
  Term,
  WallMs,
} from "../types.ts"
import { Applier } from "./applier.ts"
import { Beats } from "./beats.ts"
import { ClockGuard, clockAheadMaxMs } from "./clockGuard.ts"
import { Collector } from "./collector.ts"
import { Comparison, type OddReplica } from "./comparison.ts"
import { EventualHalf } from "./eventualHalf.ts"
import { Handover } from "./handover.ts"
import { HoleFilling } from "./holeFilling.ts"
import { JournalGate } from "./journalGate.ts"
import { KnownRanges } from "./knownRanges.ts"
import { type RangeMeasure, RangeMeasures } from "./load/rangeMeasures.ts"
import { releaseLogs } from "./logRelease.ts"
import { Merges } from "./merge/merges.ts"
import type { PeerMessage } from "./peerMessage.ts"
import { RangeChanges } from "./rangeChanges.ts"
import { RangeLife } from "./rangeLife.ts"
import type { Replica } from "./replica.ts"
import { ReplicaSet } from "./replicaSet.ts"
import { RequestQueue } from "./requestQueue.ts"
import type { RangeReport, RangeRequest, Receipt, Refusal, Reply, Request } from "./requests.ts"
import { type StoreSettings, settingsProblem } from "./settings.ts"
import { SnapshotExchange } from "./snapshotExchange.ts"
import { Storage } from "./storage.ts"
import type { StoreJob, StoreJobResult } from "./storeJobs.ts"
import type { ClockReading, StoreLoopOptions, StoreOutput } from "./storeTypes.ts"
import { Ticks } from "./ticks.ts"
import { limitUnapplied } from "./unappliedLimit.ts"

export type { ClockReading, StoreLoopOptions, StoreOutput, StoreParts } from "./storeTypes.ts"

/** Deadlines are looked at every so many ticks. */
const expiryTicks = 4

export class StoreLoop {
  readonly node: NodeId
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  /** Of every range of the cluster, as this node last heard. */
  readonly descriptors: ReadonlyMap<RangeId, RangeDescriptor>
  /** The replicas that live here, and those on their way out. */
  readonly set: ReplicaSet
  /** The reading that the turn under way was given. */
  clock: ClockReading
  /** What stamps and ranges' times go by: the wall clock, or 0 while it runs far ahead of the peers' (clockGuard.ts). */
  stampMs: WallMs
  /** Messages that were dropped because the inbox was full, or because they named a replica that is not here. */
  droppedMessages = 0
  /** Leaderless replication, for eventual namespaces. */
  readonly eventual: EventualHalf
  /** Which nodes live. */
  readonly swim: Swim
  private readonly known: KnownRanges
  private readonly queue: RequestQueue
  private readonly gate: JournalGate
  private readonly exchange: SnapshotExchange
  private readonly life: RangeLife
  private readonly changes: RangeChanges
  private readonly merges: Merges
  private readonly applier: Applier
  private readonly collector: Collector
  private readonly comparison: Comparison
  private readonly clockGuard = new ClockGuard()
  private readonly holes: HoleFilling
  private readonly handover: Handover
  private readonly beats: Beats
  private readonly rangeTicks: Ticks
  private readonly measures: RangeMeasures
  private lastTickMs: MonotonicMs
  private ticks = 0
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
    this.stampMs = options.clock.wallMs
    this.lastTickMs = options.clock.monotonicMs
    const set = new ReplicaSet(options, storage)
    this.measures = new RangeMeasures(storage.engine)
    this.set = set
    this.replicas = set.byRange
    this.known = new KnownRanges(options.descriptors, set.byRange)
    this.descriptors = this.known.byId
    storage.expireIn(() => set.all.filter(({ isEmpty }) => !isEmpty).map(({ machine }) => machine))
    this.queue = new RequestQueue(this)
    const send = (to: NodeId, message: PeerMessage) => this.send(to, message)
    this.swim = new Swim({
      self: options.node,
      settings: options.settings.swim,
      // Its chance is its own, so that nothing else depends on who is pinged when.
      prng: new Prng(options.clock.wallMs + options.node),
      nowMs: options.clock.monotonicMs,
      send,
    })
    this.gate = new JournalGate(storage.journal, {
      send,
      deliver: (replica, message) => {
        this.collector.deliver(replica, message, this.clock.monotonicMs)
      },
      marked: (mark) => this.eventual.durable(mark),
    })
    this.exchange = new (options.parts?.SnapshotExchange ?? SnapshotExchange)({
      storage,
      settings: options.settings,
      replicas: this.replicas,
      get all() {
        return set.all
      },
      firstId: options.prng.int(1, 2 ** 40),
      replays: (range) => set.refusesSnapshots(range, (replica) => this.isHopeless(replica)),
      hasRoomFor: (state) => set.hasRoomFor(state),
      sendOff: (range, absorbed) => {
        const gone = set.absorbedHere(range, absorbed)
        for (const replica of gone) {
          this.life.spare(replica)
          this.abandon(replica)
          set.remove(replica)
        }
        return gone
      },
      buried: (replica) => set.buried(replica),
      learn: (descriptor) => this.learn(descriptor),
      send,
      sendAfterPersist: (replica, message) => {
        const to = replica.nodeOf(message.to)
        if (to !== undefined) this.gate.holdSend(to, message)
      },
    })
    const { stallMs, disk, tickMs } = options.settings
    this.handover = new Handover({ stallMs, ...disk }, tickMs)
    const sessionOfBeats = options.prng.int(1, 2 ** 40)
    this.life = new RangeLife(this)
    this.changes = new RangeChanges(this)
    const loop = this
    this.merges = new (options.parts?.Merges ?? Merges)({
      node: options.node,
      replicas: this.replicas,
      get awake() {
        return set.awake
      },
      settings: options.settings,
      get clock() {
        return loop.clock
      },
      get stampMs() {
        return loop.stampMs
      },
      send,
      rouse: (replica) => this.rouse(replica),
      isHopeless: (replica) => this.isHopeless(replica),
      resume: (replica) => this.queue.resume(replica),
    })
    this.holes = new HoleFilling({
      get clock() {
        return loop.clock
      },
      maxBytes: options.settings.maxAppendBytes,
      firstSequence: options.prng.int(1, 2 ** 40),
      send,
      note: (message) => storage.note(message),
      flush: () => {
        storage.flushWanted = true
      },
      restart: (replica) => {
        this.rouse(replica)
        set.restart(replica, this.clock.monotonicMs)
      },
    })
    this.beats = new (options.parts?.Beats ?? Beats)({
      get clock() {
        return loop.clock
      },
      settings: options.settings,
      set,
      session: sessionOfBeats,
      isBusy: (replica) =>
        this.changes.isUnderWay(replica.range) ||
        this.exchange.isBusy(replica.range) ||
        this.merges.isUnderWay(replica),
      send,
    })
    this.comparison = new Comparison({
      get sorted() {
        return set.sorted
      },
      engine: storage.engine,
      settings: options.settings,
      send,
      note: (line) => storage.note(line),
      report: (error) => storage.report(error),
    })
    this.rangeTicks = new Ticks({
      get clock() {
        return loop.clock
      },
      get stampMs() {
        return loop.stampMs
      },
      session: options.prng.int(1, 2 ** 40),
      send,
    })
    this.eventual = new EventualHalf({
      ...{ node: options.node, storage, settings: options.settings, clock: options.clock },
      prng: options.eventualPrng ?? new Prng(options.node),
      seal: () => storage.seal(set.all),
    })
    const { queue, life, changes, merges, comparison, settings } = this
    const { gate, exchange, rangeTicks } = this
    this.collector = new Collector({ gate, queue, changes, exchange, send })
    this.applier = new Applier({
      ...{ storage, settings, set, queue, life, changes, merges, comparison },
      ticks: rangeTicks,
    })
  }

  /** In order of range id. */
  private get sorted(): ReadonlyArray<Replica> {
    return this.set.sorted
  }

  /** Those that a turn visits: who sleeps has nothing to do. */
  private get awake(): ReadonlyArray<Replica> {
    return this.set.awake
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

  /** The same of an eventual namespace. */
  requestEventual(request: EventualRequest): void {
    this.eventual.request(request)
  }

  /** The write of an earlier output is durable. */
  journalDurable(write: JournalWrite): void {
    this.gate.durable(write)
  }

  /** A job was carried out: of its lane the oldest that is not done yet. `job` is the very object that was given out. */
  jobDone(job: StoreJob, result: StoreJobResult): void {
    this.storage.jobDone(job, result)
  }

  /** A range waits for a snapshot to be turned into tables. */
  get isInstalling(): boolean {
    return this.exchange.isInstalling
  }

  /** What a request waited for its answer, of some that stand for all: what goes on in the background goes by it. */
  noticeLatency(ms: number): void {
    this.exchange.noticeLatency(ms)
    this.eventual.noticeLatency(ms)
  }

  /** The transport lost its connection to a node, or dropped messages to it. Of those that sleep none was on its way. */
  unreachable(node: NodeId): void {
    this.eventual.unreachable(node)
    for (const replica of this.awake) {
      for (const [place, at] of replica.knownNodes()) {
        if (at === node) replica.raft.reportUnreachable(place)
      }
    }
  }

  turn(clock: ClockReading): StoreOutput {
    this.clock = clock
    this.eventual.now(clock, this.gate.isWriting)
    this.stampMs = this.clockGuard.isTrusted(clock.monotonicMs) ? clock.wallMs : 0
    this.handover.turn(clock.monotonicMs, this.gate.isWriting)
    for (const { raft } of this.awake) raft.observeClocks(clock.monotonicMs, clock.wallMs)
    this.drainInbox()
    this.tickIfDue()
    this.exchange.advance(clock.monotonicMs)
    this.collect()
    this.exchange.dropUnwanted()
    this.life.advance()
    this.queue.admit()
    this.changes.advance()
    this.merges.advance()
    this.proposeGathered()
    this.collect()
    let more = this.applier.applyCommitted()
    for (const replica of this.awake) this.queue.takeConfirmed(replica)
    if (this.queue.serveReads()) more = true
    const mark = this.eventual.turn((to, message) => this.send(to, message))
    if (mark > 0) this.gate.tellMark(mark)
    const journal = this.gate.cut()
    if (journal !== undefined) this.handover.writeBegan()
    if (this.storage.wantsSeal(this.set.changing)) this.storage.seal(this.set.all)
    const jobs = this.storage.takeJobs(clock.monotonicMs, clock.wallMs)
    more ||= this.merges.hasMore || this.exchange.isReading || this.inbox.length > 0
    more ||= this.awake.some((replica) => replica.raft.hasReady())
    const { sends } = this
    this.sends = []
    const reports = this.storage.takeReports()
    const replies = this.queue.takeReplies()
    const eventualReplies = this.eventual.takeReplies()
    if (replies.length + eventualReplies.length > 0) {
      this.exchange.noteForeground()
      this.eventual.noteForeground()
    }
    return { journal, sends, replies, eventualReplies, jobs, reports, waitMs: this.waitMs(), more }
  }

  /** Until proposals or a snapshot's frame may go on; 0 = nothing waits so. */
  private waitMs(): number {
    const { monotonicMs } = this.clock
    const proposals = Math.max(0, this.proposeAtMs - monotonicMs)
    const frame = this.exchange.waitMs(monotonicMs)
    return proposals > 0 && frame > 0 ? Math.min(proposals, frame) : proposals + frame
  }

  /** Leaders propose what was gathered, and ask for read confirmation. */
  private proposeGathered(): void {
    const { clock } = this
    const { awake } = this
    const count = awake.length
    for (let i = 0, first = this.proposeFrom; i < count; i++) {
      const place = (first + i) % count
      const replica = awake[place] as Replica
      replica.askForReads(clock)
      if (!replica.isLeader) continue
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
  }

  /**
   * Answers of the last turn that only a clock makes true, by a reading taken after it: call right before its replies leave, and send these
   * too. What no longer holds is read anew.
   */
  release(clock: ClockReading): ReadonlyArray<Reply> {
    return this.queue.release(clock)
  }

  /** Every range of the cluster that this node knows of, in order of position. */
  ranges(): ReadonlyArray<RangeReport> {
    return this.known.reports()
  }

  /** What the ranges that are led here hold, and what is asked of them. */
  rangeMeasures(): ReadonlyArray<RangeMeasure> {
    return this.measures.take(this.sorted, this.clock.monotonicMs)
  }

  /** A position that halves what is asked of a range here, if there is one. */
  cutOf(range: RangeId): Position | undefined {
    return this.replicas.get(range)?.load.cut()
  }

  /** Replicas of ranges led here that hold other data than most, and are to be replaced. */
  oddReplicas(): ReadonlyArray<OddReplica> {
    return this.comparison.oddOnes()
  }

  /** Begins what a request about the range itself asks for, or refuses it. */
  changeRange(request: RangeRequest): void {
    this.changes.begin(request)
  }

  /** Takes note of a descriptor, unless this node knows of a newer one. */
  learn(descriptor: RangeDescriptor): void {
    this.known.learn(descriptor)
  }

  /** Where a replica's range is now, and what it was split into, as far as this node knows. */
  movedTo({ range, machine }: Replica): ReadonlyArray<RangeDescriptor> {
    return this.known.movedTo(range, machine.descriptor)
  }

  /** A range without a replica here, as far as this node knows. */
  whereIs(range: RangeId): ReadonlyArray<RangeDescriptor> {
    const tombstone = this.storage.tombstones.get(range)
    const isAbsorbed = tombstone?.absorbedBy !== undefined
    return this.known.whereIs(range, isAbsorbed ? tombstone.descriptor : undefined)
  }

  // ---- What the rooms of the loop ask of it

  send(to: NodeId, message: PeerMessage): void {
    this.sends.push({ to, message })
  }

  stepAgain(from: NodeId, message: PeerMessage): void {
    this.inbox.push({ from, message })
  }

  refuse(token: number, replica: Replica | undefined, refusal: Refusal): void {
    this.queue.refuse(token, replica, refusal)
  }

  answer(reply: Reply): void {
    this.queue.answer(reply)
  }

  isHopeless(replica: Replica): boolean {
    return this.holes.isHopeless(replica)
  }

  receiptOf(replica: Replica, entry: { readonly index: LogIndex; readonly term: Term }): Receipt {
    return this.queue.receiptOf(replica, entry)
  }

  /** Something is about to happen to the replica: it is awake from here on. */
  rouse(replica: Replica): void {
    this.beats.rouse(replica)
  }

  wantTick(replica: Replica): void {
    this.rangeTicks.advance(replica)
  }

  abandon(replica: Replica): void {
    this.rouse(replica)
    this.changes.abandon(replica)
    this.queue.abandon(replica)
    this.merges.abandon(replica)
    this.exchange.abandon(replica)
    this.gate.forget(replica)
  }

  giveUp(replica: Replica): void {
    this.rouse(replica)
    this.changes.abandon(replica)
    this.queue.takenIn(replica)
    this.merges.abandon(replica)
    this.exchange.abandon(replica)
    this.gate.forget(replica)
  }

  private drainInbox(): void {
    if (this.inbox.length === 0) return
    const inbox = this.inbox
    this.inbox = []
    for (const { from, message } of inbox) this.step(from, message)
  }

  private step(from: NodeId, message: PeerMessage): void {
    this.eventual.heardOf(from)
    switch (message._tag) {
      case "Eventual":
        return this.eventual.receive(from, message.bytes)
      case "Beat":
        return this.beats.beaten(from, message)
      case "BeatEcho":
        return this.beats.echoed(from, message)
      case "Rouse":
        return this.beats.roused(from, message)
      case "Swim":
        return this.swim.receive(from, message, this.clock.monotonicMs)
    }
    const concerned = this.replicas.get(message.range)
    if (concerned !== undefined && rouses(message, concerned)) this.rouse(concerned)
    if (message._tag === "Gone") return this.life.gone(from, message)
    if (message._tag === "Merge") return this.merges.received(from, message)
    if (message._tag === "Clock") {
      return this.clockGuard.observe(from, message.wallMs, this.clock)
    }
    const ids = message._tag === "Raft" ? message.message : message
    const here = this.replicas.get(message.range)
    const replica = here?.machine.replica === ids.to ? here : this.life.unknown(from, message, ids)
    if (replica === "held") return
    if (replica === undefined || !replica.learnNode(ids.from, from)) {
      this.droppedMessages++
      return
    }
    const nowMs = this.clock.monotonicMs
    switch (message._tag) {
      case "Raft":
        if (this.life.refuses(replica, from, ids.from)) return
        replica.heardAtMs = nowMs
        // Damage took its promises: until they are known again it takes no part.
        if (!replica.log.mayVote || this.holes.keepsFrom(replica, message.message)) return
        this.holes.heard(replica, message.message)
        return replica.raft.step(message.message, nowMs)
      case "SnapshotFrame":
        // Nor does it answer for what a snapshot brings.
        if (!replica.log.mayVote) return
        return this.exchange.receive(replica, message, from)
      case "SnapshotFrameAck":
        return this.exchange.acknowledged(replica, message, nowMs)
      case "EntriesWanted":
        return this.holes.asked(replica, message, from)
      case "EntriesFound":
        return this.holes.answered(replica, message)
      case "Chain":
        return this.comparison.received(replica, message)
      case "TickWanted":
        return this.rangeTicks.asked(replica, message, from)
      case "TickRefused":
        return this.rangeTicks.answered(replica, message)
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
    this.eventual.tick()
    limitUnapplied(this.awake, this.settings.maxUnappliedBytes)
    // A disk that stands still must not hold up groups that others could lead.
    this.handover.tick(this.awake, nowMs, (replica) => this.shouldYield(replica))
    this.holes.tick(this.awake)
    this.exchange.tick(nowMs)
    this.beats.tick()
    this.swim.tick(nowMs)
    this.life.tick()
    this.comparison.tick(nowMs)
    this.measures.tick(this.sorted, nowMs)
    this.tellClock(nowMs)
    if (this.ticks % expiryTicks === 0) {
      for (const replica of this.awake) this.queue.expire(replica)
      this.changes.expire()
    }
    if (this.ticks % this.settings.retentionTicks === 0) this.releaseLogs()
    this.gate.ticked()
  }

  /** Nodes that share a range tell each other what their clocks read. */
  private tellClock(nowMs: MonotonicMs): void {
    if (!this.clockGuard.tells(nowMs)) return
    const aheadMs = this.clockGuard.aheadMs(nowMs)
    if (aheadMs > clockAheadMaxMs) {
      this.storage.note(
        "ClockSkew: this node's clock is over 10 s ahead of most of its peers': versions and expiry go by the log alone until it is set right",
      )
    }
    const nodes = new Set<NodeId>()
    for (const replica of this.sorted) for (const [, node] of replica.knownNodes()) nodes.add(node)
    nodes.delete(this.node)
    const { wallMs } = this.clock
    for (const node of nodes) this.send(node, { _tag: "Clock", range: 0, wallMs })
  }

  private releaseLogs(): void {
    // Stored bytes read back, or a comparison, may have found damage where a group sleeps.
    for (const replica of this.sorted) {
      const { log, differs, damage } = replica
      const isHurt = log.missingCount > 0 || differs !== undefined || damage !== undefined
      if (isHurt && replica.asleep !== undefined) this.rouse(replica)
    }
    const { storage, settings, exchange } = this
    releaseLogs(this.sorted, { storage, settings, exchange }, this.clock.monotonicMs)
  }

  /** A replica that cannot apply leads nothing, where another one could; nor does one that has lost what it should send, and nobody has. */
  private shouldYield(replica: Replica): boolean {
    const { damage, differs, lacksSource, machine, isLeader } = replica
    const cannot = damage !== undefined || differs !== undefined || lacksSource
    const cannotSend = isLeader && this.holes.isUnfillable(replica)
    return (cannot || cannotSend) && machine.descriptor.replicas.length > 1
  }

  /** Takes what one core has to hand out. */
  collectAll(replica: Replica): void {
    this.collector.collectAll(replica, this.clock.monotonicMs)
  }

  private collect(): void {
    for (const replica of this.awake) {
      this.collectAll(replica)
      if (replica.noticeRole() && !replica.isLeader) this.queue.loseLeadership(replica)
    }
  }
}

/**
 * Whether a message is about to change a replica, or shows that somebody wants something of its group. Beats of the group itself and their echoes wake a
 * sleeper, whose leader is awake then, and keep nobody from falling asleep; questions of comparisons are answered from the state alone.
 */
function rouses(message: PeerMessage, replica: Replica): boolean {
  if (message._tag === "Clock") return false
  if (message._tag === "Chain") return message.kind === "differs" || message.kind === "sumDiffers"
  if (message._tag !== "Raft") return true
  const { _tag } = message.message
  return replica.asleep !== undefined || !(_tag === "Heartbeat" || _tag === "HeartbeatResponse")
}
