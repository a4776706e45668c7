import { StorageCorruption } from "../disk/disk.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import type { LogIndex, MonotonicMs, NodeId, RangeId, ReplicaId, Term } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import type { SnapshotFrame, SnapshotFrameAck } from "./peerMessage.ts"
import type { Replica } from "./replica.ts"
import type { StoreSettings } from "./settings.ts"
import { refuseFrame, SnapshotReceiver } from "./snapshotReceiver.ts"
import { type SendOutcome, SnapshotSender } from "./snapshotSender.ts"
import type { Storage } from "./storage.ts"

/** What the exchange asks of the loop that it belongs to. */
export interface ExchangeHost {
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly replicas: ReadonlyMap<RangeId, Replica>
  send(node: NodeId, message: SnapshotFrame | SnapshotFrameAck): void
  /** Sends once everything given to the journal so far is durable. */
  sendAfterPersist(replica: Replica, message: SnapshotFrameAck): void
}

export interface Install {
  readonly receiver: SnapshotReceiver
  readonly replica: Replica
  /** The seal that must be flushed first; `undefined` until the memtable could be sealed. */
  generation: number | undefined
  started: boolean
}

/**
 * Snapshots between this node and others: at most one goes out at a time (others wait for the core to ask again), at most one comes in
 * for a replica.
 *
 * Installing is a barrier (DESIGN section 3): the core has stopped giving entries of this range, so that the memtable sealed now is the last
 * with anything of its old state. Once that one is flushed, ONE manifest edit adds the received tables and hides the old
 * interval and the old range-local keys. A crash before the edit leaves the old state, after it the new one; then the log, which
 * recovery finds too short, begins at the snapshot's index. Other ranges go on in the new memtable meanwhile.
 */
export class SnapshotExchange {
  protected readonly host: ExchangeHost
  private sender: SnapshotSender | undefined
  private nextId = 1
  private readonly receivers = new Map<RangeId, SnapshotReceiver>()
  private readonly installs = new Map<RangeId, Install>()

  constructor(host: ExchangeHost) {
    this.host = host
  }

  /** The core of a leader wants a follower to have a snapshot. */
  start(replica: Replica, to: ReplicaId, nowMs: MonotonicMs): void {
    if (this.sender !== undefined) {
      if (this.sender.range !== replica.range || this.sender.to !== to) {
        replica.raft.snapshotSent(to, "failed", 0)
      }
      return
    }
    const sender = this.attempt(() => this.senderFor(replica, to, nowMs))
    if (sender === undefined) return replica.raft.snapshotSent(to, "failed", 0)
    this.sender = sender
    this.sendFrame(replica, sender.current())
  }

  /** Reads for a snapshot; `undefined` when stored bytes of it are damaged. */
  private attempt<A>(read: () => A): A | undefined {
    try {
      return read()
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.host.storage.report(error)
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

  private sendFrame(replica: Replica, frame: SnapshotFrame): void {
    const node = replica.nodeOf(frame.to)
    if (node !== undefined) this.host.send(node, frame)
  }

  /** An answer from the follower. */
  acknowledged(replica: Replica, ack: SnapshotFrameAck, nowMs: MonotonicMs): void {
    const { sender } = this
    if (sender === undefined || sender.range !== replica.range) return
    const answer = this.attempt(() => ({ next: sender.acknowledged(ack, nowMs) }))
    const next = answer === undefined ? "failed" : answer.next
    if (next === undefined) return
    if (typeof next === "string") this.finish(replica, next)
    else this.sendFrame(replica, next)
  }

  private finish(replica: Replica, outcome: SendOutcome): void {
    const { sender } = this
    if (sender === undefined) return
    this.sender = undefined
    sender.close()
    if (replica.isLeader) replica.raft.snapshotSent(sender.to, outcome, sender.index)
  }

  /** Call at every tick: repeats and gives up. */
  tick(nowMs: MonotonicMs): void {
    const { sender } = this
    if (sender === undefined) return
    const replica = this.host.replicas.get(sender.range)
    if (replica === undefined) return
    const step = replica.isLeader ? sender.tick(nowMs, this.host.settings) : "failed"
    if (step === "failed") this.finish(replica, "failed")
    else if (step !== undefined) this.sendFrame(replica, step)
  }

  /** A frame from a leader. */
  receive(replica: Replica, frame: SnapshotFrame, node: NodeId): void {
    if (frame.term < replica.raft.term) return this.host.send(node, refuseFrame(frame))
    let receiver = this.receivers.get(replica.range)
    if (receiver === undefined || !receiver.isOf(frame)) {
      if (frame.sequence !== 0 || receiver?.offered === true) {
        return this.host.send(node, refuseFrame(frame))
      }
      const begun = this.begin(frame)
      if (begun === undefined) return this.host.send(node, refuseFrame(frame))
      receiver = begun
    }
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
      this.receivers.set(frame.range, receiver)
      return receiver
    } catch (error) {
      if (error instanceof MalformedBytes) return undefined
      throw error
    }
  }

  /** Offers what has arrived to the cores, and moves installs on. Call once a turn, before `ready` is collected. */
  advance(nowMs: MonotonicMs): void {
    for (const receiver of this.receivers.values()) {
      if (receiver.complete && !receiver.offered) this.offer(receiver, nowMs)
    }
    for (const install of this.installs.values()) this.advanceInstall(install)
  }

  private offer(receiver: SnapshotReceiver, nowMs: MonotonicMs): void {
    const replica = this.host.replicas.get(receiver.range)
    if (replica === undefined) return
    receiver.offered = true
    replica.raft.step(
      {
        _tag: "SnapshotOffer",
        from: receiver.from,
        to: receiver.to,
        term: receiver.term,
        index: receiver.state.appliedIndex,
        indexTerm: receiver.state.appliedTerm,
      },
      nowMs,
    )
  }

  /** The core wants the snapshot at `index`: the one offered last. */
  wanted(replica: Replica, mark: { readonly index: LogIndex; readonly term: Term }): void {
    const receiver = this.receivers.get(replica.range)
    if (receiver?.offered !== true || receiver.state.appliedIndex !== mark.index) return
    replica.installing = true
    this.installs.set(replica.range, { receiver, replica, generation: undefined, started: false })
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
    const { replica, receiver } = install
    const machine: RangeMachine = storage.newMachine(receiver.state)
    storage.ingest(machine, receiver, () => this.installed(replica, receiver))
  }

  /** Seals once, then holds when that memtable is flushed. */
  protected barrierPassed(install: Install): boolean {
    const { storage } = this.host
    if (install.generation === undefined) {
      if (!storage.engine.canSeal) return false
      install.generation = storage.seal(this.host.replicas.values())
    }
    return storage.engine.flushedThrough >= install.generation
  }

  private installed(replica: Replica, receiver: SnapshotReceiver): void {
    this.installs.delete(replica.range)
    this.receivers.delete(replica.range)
    replica.replaceMachine(this.host.storage.loadMachine(replica.range))
    replica.installing = false
    const { appliedIndex, appliedTerm } = replica.machine
    replica.log.resetTo(appliedIndex, appliedTerm)
    replica.raft.snapshotInstalled(appliedIndex, appliedTerm)
    this.host.sendAfterPersist(replica, receiver.finished())
  }
}
