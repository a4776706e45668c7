import { StorageCorruption } from "../disk/disk.ts"
import { assert } from "../lib/assert.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import type { SnapshotOffer } from "../raft/message.ts"
import type {
  LogIndex,
  MonotonicMs,
  NodeId,
  RangeDescriptor,
  RangeId,
  ReplicaId,
  Term,
} from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { BackgroundRate } from "./backgroundRate.ts"
import { overlap } from "./descriptors.ts"
import { membershipOf } from "./membershipOf.ts"
import type { Absorbed } from "./merge/state.ts"
import { ParkedSnapshots } from "./parkedSnapshots.ts"
import type { SnapshotFrame, SnapshotFrameAck } from "./peerMessage.ts"
import type { RangeState } from "./rangeState.ts"
import type { Replica } from "./replica.ts"
import type { StoreSettings } from "./settings.ts"
import { askAnew, refuseFrame, SnapshotReceiver } from "./snapshotReceiver.ts"
import { type SendOutcome, SnapshotSender } from "./snapshotSender.ts"
import type { Storage } from "./storage.ts"
import { tombstoneOf } from "./tombstone.ts"

/** What the exchange asks of the loop that it belongs to. */
export interface ExchangeHost {
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  /** All whose state lies in the engine, also those on their way out. */
  readonly all: ReadonlyArray<Replica>
  /** Streams are numbered from here: a restarted sender must not be taken for its former self. */
  readonly firstId: number
  /** The range has a split to replay, which no snapshot may skip. */
  replays(range: RangeId): boolean
  /** No other replica here keeps a part of the interval. */
  hasRoomFor(state: RangeState): boolean
  /** Takes replicas out of service that go with the coming of a snapshot of the range, because it has taken in theirs; returns them. */
  sendOff(range: RangeId, absorbed: ReadonlyArray<Absorbed>): ReadonlyArray<Replica>
  /** Nothing is left of one of them but its log. */
  buried(replica: Replica): void
  /** A snapshot is installed: its descriptor may be news. */
  learn(descriptor: RangeDescriptor): void
  send(node: NodeId, message: SnapshotFrame | SnapshotFrameAck): void
  /** Sends once everything given to the journal so far is durable. */
  sendAfterPersist(replica: Replica, message: SnapshotFrameAck): void
}

/** What a turn reads of the next frame: about a millisecond's work. */
const sliceBytes = 256 * 1024

export interface Install {
  readonly receiver: SnapshotReceiver
  readonly replica: Replica
  /** Replicas of ranges that it has taken in: they go in the same edit. */
  readonly absorbed: ReadonlyArray<Replica>
  /** The seal that must be flushed first; `undefined` until the memtable could be sealed. */
  generation: number | undefined
  started: boolean
}

/**
 * Snapshots between this node and others: at most one goes out at a time (others wait for the core to ask again), at most one comes in
 * for a replica.
 *
 * One that is broken off by silence, or because its sender leads no more, is kept for a while and gone on with when the core asks again: the receiver says
 * which frame it lacks. Frames leave at a rate that falls while requests of this node feel it (backgroundRate.ts). Log is kept for a follower from its snapshot's
 * index on only, and no longer than the budget for slow followers allows.
 *
 * A snapshot whose interval another replica of this node holds in part is refused until that one has split or gone; the leader sends it again.
 *
 * Installing is a barrier (DESIGN section 3): the core has stopped giving entries of this range, so that the memtable sealed now is the last
 * with anything of its old state. Once that one is flushed, ONE manifest edit adds the received tables and hides the old
 * interval and the old range-local keys. A crash before the edit leaves the old state, after it the new one; then the log, which
 * recovery finds too short, begins at the snapshot's index. Other ranges go on in the new memtable meanwhile.
 */
export class SnapshotExchange {
  protected readonly host: ExchangeHost
  private sender: SnapshotSender | undefined
  private nextId: number
  private readonly receivers = new Map<RangeId, SnapshotReceiver>()
  private nowMs: MonotonicMs = 0
  private readonly installs = new Map<RangeId, Install>()
  private readonly parked: ParkedSnapshots
  private readonly rate: BackgroundRate
  /** The frame under way may not leave yet. */
  private isHeld = false
  /** Of the frame after the one under way, a part is still to be read. */
  isReading = false

  constructor(host: ExchangeHost) {
    this.host = host
    this.nextId = host.firstId
    const { snapshotLeastBytesPerSecond, snapshotMostBytesPerSecond } = host.settings
    this.rate = new BackgroundRate({
      leastBytesPerSecond: snapshotLeastBytesPerSecond,
      mostBytesPerSecond: snapshotMostBytesPerSecond,
    })
    this.parked = new ParkedSnapshots(host.settings.snapshotKeepMs)
  }

  /** The core of a leader wants a follower to have a snapshot. */
  start(replica: Replica, to: ReplicaId, nowMs: MonotonicMs): void {
    if (this.sender !== undefined) {
      if (this.sender.range !== replica.range || this.sender.to !== to) {
        replica.raft.snapshotSent(to, "failed", 0)
      }
      return
    }
    const resumed = this.parked.take(replica, to)
    resumed?.resume(replica.raft.term, nowMs)
    const sender = resumed ?? this.attempt(replica, () => this.senderFor(replica, to, nowMs))
    if (sender === undefined) return replica.raft.snapshotSent(to, "failed", 0)
    this.sender = sender
    this.sendFrame(replica, sender, nowMs)
  }

  /** A snapshot of this range is on its way. */
  isBusy(range: RangeId): boolean {
    return this.sender?.range === range || this.receivers.has(range) || this.installs.has(range)
  }

  /** A snapshot that has arrived is being turned into tables. */
  get isInstalling(): boolean {
    return this.installs.size > 0
  }

  /** The index of the snapshot that this follower is being sent, or may go on with. */
  indexFor(range: RangeId, to: ReplicaId): LogIndex | undefined {
    const { sender } = this
    if (sender?.range === range && sender.to === to) return sender.index
    return this.parked.find(range, to)?.index
  }

  /** Reads for a snapshot; `undefined` when stored bytes of it are damaged. */
  private attempt<A>(replica: Replica, read: () => A): A | undefined {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.host.storage.report(error)
      replica.metDamage = true
      return undefined
    }
  }

  private senderFor(replica: Replica, to: ReplicaId, nowMs: MonotonicMs): SnapshotSender {
    return new SnapshotSender({
      id: this.nextId++,
      machine: replica.machine,
      engine: this.host.storage.engine,
      to,
      term: replica.raft.term,
      frameBytes: this.host.settings.snapshotFrameBytes,
      nowMs,
    })
  }

  /** Sends the frame under way, now or when the rate allows it. */
  private sendFrame(replica: Replica, sender: SnapshotSender, nowMs: MonotonicMs): void {
    const frame = sender.current()
    this.isHeld = !this.rate.takes(nowMs, frame.bytes.length)
    sender.sent(nowMs)
    const node = replica.nodeOf(frame.to)
    if (!this.isHeld && node !== undefined) this.host.send(node, frame)
  }

  private sendHeld(nowMs: MonotonicMs): void {
    if (this.sender === undefined || !this.isHeld) return
    const replica = this.host.replicas.get(this.sender.range)
    if (replica !== undefined && this.waitMs(nowMs) === 0) {
      this.sendFrame(replica, this.sender, nowMs)
    }
  }

  private readAhead(nowMs: MonotonicMs): void {
    this.isReading = false
    const { sender } = this
    const replica = sender === undefined ? undefined : this.host.replicas.get(sender.range)
    if (sender === undefined || replica === undefined) return
    const isReading = this.attempt(replica, () => sender.readAhead(sliceBytes))
    if (isReading === undefined) this.finish(replica, "refused", nowMs)
    else this.isReading = isReading
  }

  /** Milliseconds until a frame may leave that waits for it; 0 = none does. */
  waitMs(nowMs: MonotonicMs): number {
    return this.isHeld ? this.rate.waitMs(nowMs) : 0
  }

  /** This node has requests to serve. */
  noteForeground(): void {
    this.rate.noteForeground()
  }

  /** A request of this node was answered after so long. */
  noticeLatency(ms: number): void {
    this.rate.noticeLatency(ms)
  }

  /** An answer from the follower. */
  acknowledged(replica: Replica, ack: SnapshotFrameAck, nowMs: MonotonicMs): void {
    const { sender } = this
    if (sender === undefined || sender.range !== replica.range) return
    const answer = this.attempt(replica, () => ({ next: sender.acknowledged(ack, nowMs) }))
    const next = answer === undefined ? "refused" : answer.next
    if (next === undefined) return
    if (typeof next === "string") this.finish(replica, next, nowMs)
    else this.sendFrame(replica, sender, nowMs)
  }

  private finish(replica: Replica, outcome: SendOutcome, nowMs: MonotonicMs): void {
    const { sender } = this
    if (sender === undefined) return
    this.sender = undefined
    this.isHeld = false
    if (outcome === "failed") this.parked.add(sender, nowMs)
    else sender.close()
    if (!replica.isLeader) return
    const known = outcome === "installed" ? "installed" : "failed"
    replica.raft.snapshotSent(sender.to, known, sender.index)
  }

  /** The replica goes away: nothing of it is sent or taken any more. One that is being installed must have been waited for. */
  abandon(replica: Replica): void {
    const { range } = replica
    assert(!this.installs.has(range), () => `range ${range} installs a snapshot`)
    if (this.sender?.range === range) {
      this.sender.close()
      this.sender = undefined
      this.isHeld = false
    }
    this.parked.drop(range)
    const receiver = this.receivers.get(range)
    if (receiver !== undefined) this.dropReceiver(receiver)
  }

  /** Call at every tick: repeats and gives up. */
  tick(nowMs: MonotonicMs): void {
    this.nowMs = nowMs
    this.rate.tick(this.sender !== undefined)
    this.dropOldReceivers(nowMs)
    this.parked.tick(nowMs)
    const { sender } = this
    if (sender === undefined || this.isHeld) return
    const replica = this.host.replicas.get(sender.range)
    if (replica === undefined) return
    const step = replica.isLeader ? sender.tick(nowMs, this.host.settings) : "failed"
    if (step === "failed") this.finish(replica, "failed", nowMs)
    else if (step !== undefined) this.sendFrame(replica, sender, nowMs)
  }

  /** A frame from a leader. */
  receive(replica: Replica, frame: SnapshotFrame, node: NodeId): void {
    if (frame.term < replica.raft.term) return this.host.send(node, refuseFrame(frame))
    let receiver = this.receivers.get(replica.range)
    if (receiver === undefined || !receiver.isOf(frame)) {
      if (receiver?.offered === true) return this.host.send(node, refuseFrame(frame))
      if (frame.sequence !== 0) {
        const answer = receiver === undefined ? askAnew(frame) : refuseFrame(frame)
        return this.host.send(node, answer)
      }
      const begun = this.begin(frame)
      if (begun === undefined) return this.host.send(node, refuseFrame(frame))
      receiver = begun
    }
    receiver.heardAtMs = this.nowMs
    const step = receiver.take(frame)
    if (step._tag === "Answer") this.host.send(node, step.ack)
    if (step._tag !== "Spill") return
    const taking = receiver
    this.host.storage.issue(step.job, (result) => {
      if (result._tag === "Failed") return this.spillFailed(replica, taking, node)
      const ack = taking.spilled()
      const current = this.receivers.get(replica.range) === taking
      if (ack !== undefined && current) this.host.send(node, ack)
    })
  }

  /** There was no space for the frame: the snapshot is dropped, and the leader sends another one later. */
  private spillFailed(replica: Replica, receiver: SnapshotReceiver, node: NodeId): void {
    // The file is another stream's by now, which began it anew.
    if (this.receivers.get(replica.range) !== receiver) return
    this.host.storage.issue({ _tag: "Remove", paths: [receiver.path] })
    this.receivers.delete(replica.range)
    this.host.send(node, { ...receiver.finished(), accepted: false })
  }

  private begin(frame: SnapshotFrame): SnapshotReceiver | undefined {
    try {
      const receiver = SnapshotReceiver.begin(frame)
      const replica = this.host.replicas.get(frame.range)
      if (replica !== undefined && replica.machine.appliedIndex >= receiver.state.appliedIndex) {
        // All of it is here already, and the last answer was lost: the core says so to the leader, who would send it for ever.
        replica.raft.step(offerOf(receiver), this.nowMs)
        return undefined
      }
      if (this.host.replays(frame.range)) {
        // The log leads there too: the core says so, and goes on by it.
        if (replica !== undefined && leadsTo(replica, receiver)) {
          replica.raft.step(offerOf(receiver), this.nowMs)
        }
        return undefined
      }
      if (this.isTaken(receiver)) return undefined
      this.receivers.set(frame.range, receiver)
      return receiver
    } catch (error) {
      if (error instanceof MalformedBytes) return undefined
      throw error
    }
  }

  /** Whether a part of the interval belongs to another range here, or is about to. */
  private isTaken({ range, state }: SnapshotReceiver): boolean {
    const { descriptor } = state
    if (!this.host.hasRoomFor(state)) return true
    for (const other of this.receivers.values()) {
      if (other.range === range || !overlap(other.state.descriptor, descriptor)) continue
      // One that has come to a halt must not keep out another for as long as it could be gone on with.
      const isSilent = this.nowMs - other.heardAtMs >= this.host.settings.snapshotGiveUpMs
      if (!isSilent || other.offered) return true
      this.dropReceiver(other)
    }
    return false
  }

  private dropReceiver(receiver: SnapshotReceiver): void {
    this.receivers.delete(receiver.range)
    this.host.storage.issue({ _tag: "Remove", paths: [receiver.path] })
  }

  /** Those whose sender is silent for longer than it would go on, or that are older by now than what is here. */
  private dropOldReceivers(nowMs: MonotonicMs): void {
    for (const receiver of this.receivers.values()) {
      if (receiver.offered) continue
      const applied = this.host.replicas.get(receiver.range)?.machine.appliedIndex ?? 0
      const isOld = nowMs - receiver.heardAtMs >= this.host.settings.snapshotKeepMs
      if (isOld || applied >= receiver.state.appliedIndex) this.dropReceiver(receiver)
    }
  }

  /** Offers what has arrived to the cores, and moves installs on. Call once a turn, before `ready` is collected. */
  advance(nowMs: MonotonicMs): void {
    this.sendHeld(nowMs)
    this.readAhead(nowMs)
    for (const receiver of this.receivers.values()) {
      if (receiver.complete && !receiver.offered) this.offer(receiver, nowMs)
    }
    for (const install of this.installs.values()) this.advanceInstall(install)
  }

  private offer(receiver: SnapshotReceiver, nowMs: MonotonicMs): void {
    const replica = this.host.replicas.get(receiver.range)
    if (replica === undefined) return
    receiver.offered = true
    replica.raft.step(offerOf(receiver), nowMs)
  }

  /** The core wants the snapshot at `index`: the one offered last. */
  wanted(replica: Replica, mark: { readonly index: LogIndex; readonly term: Term }): void {
    const receiver = this.receivers.get(replica.range)
    if (receiver?.offered !== true || receiver.state.appliedIndex !== mark.index) return
    replica.installing = true
    const absorbed = this.host.sendOff(replica.range, receiver.state.absorbed)
    const install = { receiver, replica, absorbed, generation: undefined, started: false }
    this.installs.set(replica.range, install)
  }

  /** Drops what was offered and not wanted. Call after `ready` was collected. */
  dropUnwanted(): void {
    for (const [range, receiver] of this.receivers) {
      if (!receiver.offered || this.installs.has(range)) continue
      this.receivers.delete(range)
      this.host.storage.issue({ _tag: "Remove", paths: [receiver.path] })
      const replica = this.host.replicas.get(range)
      const node = replica?.nodeOf(receiver.from)
      if (node !== undefined) this.host.send(node, { ...receiver.finished(), accepted: false })
    }
  }

  private advanceInstall(install: Install): void {
    const { storage } = this.host
    if (install.started) return
    if (!this.barrierPassed(install)) return
    install.started = true
    const { replica, receiver, absorbed } = install
    const machine: RangeMachine = storage.newMachine(receiver.state)
    const held = replica.isEmpty ? undefined : replica.machine.descriptor
    storage.ingest(machine, receiver, {
      held,
      absorbed: absorbed.map((gone) => gone.machine.descriptor),
      done: () => this.installed(install),
    })
  }

  /** Seals once, then holds when that memtable is flushed. */
  protected barrierPassed(install: Install): boolean {
    const { storage } = this.host
    if (install.generation === undefined) {
      if (!storage.engine.canSeal) return false
      install.generation = storage.seal(this.host.all)
    }
    return storage.engine.flushedThrough >= install.generation
  }

  /** Their state is gone from the engine; a crash before the tombstones are in tables leaves the list, in the state beside them. */
  private bury(replicas: ReadonlyArray<Replica>, absorbed: ReadonlyArray<Absorbed>): void {
    const { storage } = this.host
    for (const each of absorbed) storage.leaveTombstone(each.source.id, tombstoneOf(each))
    for (const replica of replicas) this.host.buried(replica)
  }

  private installed({ replica, receiver, absorbed }: Install): void {
    this.bury(absorbed, receiver.state.absorbed)
    this.installs.delete(replica.range)
    this.receivers.delete(replica.range)
    replica.replaceMachine(this.host.storage.loadMachine(replica.range))
    replica.installing = false
    const { appliedIndex, appliedTerm, descriptor } = replica.machine
    this.host.learn(descriptor)
    replica.log.resetTo(appliedIndex, appliedTerm)
    const membership = membershipOf(replica.machine.descriptor.replicas)
    replica.raft.snapshotInstalled(appliedIndex, appliedTerm, membership)
    this.host.sendAfterPersist(replica, receiver.finished())
  }
}

/** What the core is told of a snapshot. */
function leadsTo({ raft, log }: Replica, { state }: SnapshotReceiver): boolean {
  const { appliedIndex, appliedTerm } = state
  return raft.lastIndex >= appliedIndex && log.term(appliedIndex) === appliedTerm
}

function offerOf({ from, to, term, state }: SnapshotReceiver): SnapshotOffer {
  const { appliedIndex: index, appliedTerm: indexTerm } = state
  return { _tag: "SnapshotOffer", from, to, term, index, indexTerm }
}
