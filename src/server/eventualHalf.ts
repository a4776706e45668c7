import { StorageCorruption } from "../disk/disk.ts"
import { EventualNode } from "../dynamo/node/eventualNode.ts"
import type { EventualStatus } from "../dynamo/node/eventualStatus.ts"
import type { EventualNamespace } from "../dynamo/node/ports.ts"
import type { LostReport } from "../dynamo/node/refills.ts"
import type { EventualRefusal, EventualReply, EventualRequest } from "../dynamo/node/requests.ts"
import type { Prng } from "../lib/prng.ts"
import type { Ring } from "../topology/ring.ts"
import { SlotOwners } from "../topology/slotOwners.ts"
import type { NamespaceId, NodeId, RingVersion, Slot } from "../types.ts"
import { BackgroundRate } from "./backgroundRate.ts"
import type { Directory } from "./directory.ts"
import { eventualTree } from "./engineKeys.ts"
import { EventualStore } from "./eventualStore.ts"
import { LostSlots } from "./lostSlots.ts"
import type { PeerMessage } from "./peerMessage.ts"
import { RingHandOver } from "./ringHandOver.ts"
import type { StoreSettings } from "./settings.ts"
import type { Storage } from "./storage.ts"
import type { ClockReading } from "./storeTypes.ts"

/** How far a node is with the ring (topology/ringChange.ts). */
export interface RingReport {
  /** The version that it works by. */
  readonly confirmed: RingVersion
  /** Slots that it was given anew and holds all of, with the version that began the step. */
  readonly filled: ReadonlyArray<{ readonly slot: Slot; readonly since: RingVersion }>
  /** Hints that it keeps for others, and requests that it coordinates. */
  readonly owed: number
  /** Slots of which it has lost data, and that need a new version of the ring (dynamo/node/refills.ts). */
  readonly lost?: LostReport
}

interface EventualHalfOptions {
  readonly node: NodeId
  readonly storage: Storage
  readonly settings: StoreSettings
  readonly clock: ClockReading
  readonly prng: Prng
  readonly seal: () => void
}

/**
 * Joins the eventual half of a node to the store loop: its store over journal and engine, its parcels among the peers' messages.
 *
 * Damage to what it holds ends neither the node nor this half: it *closes* and begins again in place, as after a restart.
 *   1. At a start, or when a read, a compaction or the scrub meets damage, the slots that may be hurt are noted (lostSlots.ts): those of the interval of the damaged table; all,
 *      where entries of the log are missing. Requests under way are answered, and from now on all are refused; parcels are dropped, as a network would.
 *   2. When that note is flushed, with all that is in memory, damaged tables are let go of, whole.
 *   3. A new machine takes over what is left. The slots begin again with the dots of that (`Owner.beginAgain`), in a new epoch, and are refilled (dynamo/node/refills.ts). If it
 *      meets more damage, all this happens once more.
 *
 * Letting go of a table brings older values to light, and deletes that it held are forgotten; the clocks of the other owners know of both. Only where all
 * owners lost a slot at the same time could a value come back whose delete was reaped.
 *
 * Invariants:
 * - nothing is let go of before it is noted for good whose slots it may have been of;
 * - while it is closed nothing is put and nothing leaves: what leaves then knows of the loss.
 */
export class EventualHalf {
  machine: EventualNode
  private readonly options: EventualHalfOptions
  private readonly handOver: RingHandOver
  private readonly store: EventualStore
  private readonly lost: LostSlots
  /** Of exchanges. */
  private readonly rate: BackgroundRate
  private isOpen = false
  private isReplayed = false
  private isResigned = false
  /** As learned last. */
  private ring: Ring | undefined
  private namespaces: ReadonlyArray<EventualNamespace> = []
  private replies: Array<EventualReply> = []

  /** Reads back what the directory holds. */
  constructor(options: EventualHalfOptions) {
    const { node, storage, settings, seal } = options
    this.options = options
    this.store = new EventualStore(storage, { entryBytes: settings.entryBytes, seal })
    this.lost = new LostSlots(storage.engine)
    if (this.store.isHurt) this.lost.addAll()
    this.handOver = new RingHandOver(node)
    const { bytesPerSecond, leastBytesPerSecond } = settings.eventual.exchange
    this.rate = new BackgroundRate({ leastBytesPerSecond, mostBytesPerSecond: bytesPerSecond })
    this.machine = this.newMachine(options.clock)
    this.begin()
  }

  private newMachine(clock: ClockReading): EventualNode {
    const { node, prng, settings } = this.options
    return new EventualNode({
      ...{ node, store: this.store, clock, prng },
      settings: settings.eventual,
      newOwners: () => new SlotOwners(),
      lost: this.lost.slots,
      handOver: this.handOver,
    })
  }

  // ---- Damage

  /** Opens with a machine that has taken over nothing yet, unless there is damage. */
  private begin(): void {
    const { machine, store, lost } = this
    if (this.isResigned) return
    try {
      machine.load()
      store.heldBy(machine.owner)
      if (!this.isReplayed) store.replay(machine.owner)
      this.isReplayed = true
      if (store.isHurt || this.damaged().length > 0) return this.close()
      machine.recovered(!lost.isEmpty)
    } catch (error) {
      if (!this.isDamage(error)) throw error
      return this.close()
    }
    this.isOpen = true
    if (lost.hints) {
      lost.hints = false
      lost.keep()
    }
    this.guard(() => machine.learn(this.ring, this.namespaces))
  }

  /** Damaged tables of this half. */
  private damaged() {
    const reports = this.options.storage.engine.quarantined()
    return reports.filter(({ interval }) => interval.lower[0] === eventualTree)
  }

  private isDamage(error: unknown): boolean {
    return error instanceof StorageCorruption && this.damaged().length > 0
  }

  private guard(work: () => void): void {
    if (!this.isOpen) return
    try {
      work()
    } catch (error) {
      if (!this.isDamage(error)) throw error
      this.close()
    }
  }

  private close(): void {
    const { store, lost } = this
    const { storage } = this.options
    this.isOpen = false
    const damaged = this.damaged()
    if (store.isHurt) lost.addAll()
    for (const { interval } of damaged) lost.addInterval(interval)
    lost.keep()
    this.abandonRequests()
    storage.note(
      `${lost.slots.size} slots of eventual namespaces have lost data on this node; they are refilled from their other owners, and what no other owner holds is lost`,
    )
    const paths = [...new Set(damaged.map(({ path }) => path))]
    storage.whenFlushed(() => {
      store.mended()
      if (paths.length === 0) this.beginAgain()
      else storage.letGo(paths, () => this.beginAgain())
    })
  }

  private abandonRequests(): void {
    this.machine.abandon(this.refusal())
    this.replies.push(...this.machine.takeReplies())
  }

  /** Of requests while it is closed. */
  private refusal(): EventualRefusal {
    const { node } = this.options
    if (this.isResigned)
      return { _tag: "Overloaded", what: `n${node}, which is not of its cluster` }
    const message = `n${node} has found damage in what it holds, and begins again`
    return { _tag: "StorageCorrupt", message }
  }

  /**
   * Closes for good: this node was removed, or its directory is not the one that its cluster knows. Nobody would ever fetch what it takes, and in an emptied directory the epochs
   * begin anew, so that it would give out dots a second time.
   */
  resign(): void {
    if (this.isResigned) return
    this.isResigned = true
    if (!this.isOpen) return
    this.isOpen = false
    this.abandonRequests()
  }

  private beginAgain(): void {
    const { clock } = this.machine
    this.machine = this.newMachine(clock)
    this.begin()
  }

  /** Looks for damage that others have met, and for slots that have become whole. */
  private watch(): void {
    const { storage } = this.options
    const { lost, store } = this
    if (this.damaged().length > 0) return this.close()
    if (store.wantsFlush) storage.flushWanted = true
    const whole = this.machine.refills.takeWhole()
    if (whole.length === 0) return
    for (const { slot } of whole) lost.slots.delete(slot)
    // With the clocks of these slots in the same memtable.
    lost.keep()
    const alone = whole.filter(({ isAlone }) => isAlone).length
    if (alone > 0) {
      storage.note(`${alone} of these slots have no other owner: what damage took of them is lost`)
    }
    if (lost.slots.size === 0) storage.note("all slots of eventual namespaces are whole again")
  }

  status(): Omit<EventualStatus, "latencies"> {
    const status = this.machine.status()
    if (this.isOpen) return status
    const { size: slots } = this.lost.slots
    return { ...status, refilling: { slots, unannounced: slots, from: [] } }
  }

  // ---- What the loop tells

  /** A turn begins. */
  now(clock: ClockReading, isWriting: boolean): void {
    this.machine.clock = clock
    this.machine.isWriting = isWriting
  }

  learn(ring: Ring | undefined, namespaces: ReadonlyArray<EventualNamespace>): void {
    if (ring !== undefined && ring.version >= (this.ring?.version ?? 0)) {
      this.ring = ring
      this.handOver.ring = ring
    }
    this.namespaces = namespaces
    this.guard(() => this.machine.learn(ring, namespaces))
  }

  /** The same out of the directory. A namespace that is being deleted is forgotten. */
  learnDirectory(directory: Directory): void {
    const own = directory.namespaces.filter((namespace) => namespace.mode === "eventual")
    for (const { id, state } of own) if (state === "dropping") this.drop(id)
    const open = own.filter(({ state }) => state === "ready")
    this.learn(
      directory.ring?.ring,
      open.map(({ id, conflict, replicas, write, read }) => {
        return { id, rule: conflict, copies: replicas, write, read }
      }),
    )
  }

  /** Others know a newer ring: the directory should be read again. */
  get isBehind(): boolean {
    return this.machine.isBehind
  }

  ringReport(): RingReport {
    if (!this.isOpen) return { confirmed: 0, filled: [], owed: 0 }
    const { exchanges, ringVersion, refills, hints, coordinators } = this.machine
    const lost = refills.lost()
    const owed = hints.count + coordinators.count
    const report = { confirmed: ringVersion, filled: exchanges.filled(), owed }
    return lost === undefined ? report : { ...report, lost }
  }

  /** Forgets a namespace that is being deleted; true once that is durable. */
  drop(namespace: NamespaceId): boolean {
    let isDone = false
    this.guard(() => {
      isDone = this.machine.drop(namespace)
    })
    return isDone
  }

  request(request: EventualRequest): void {
    if (this.isOpen) return this.machine.request(request)
    this.replies.push({ _tag: "EventualRefused", token: request.token, refusal: this.refusal() })
  }

  receive(from: NodeId, bytes: Uint8Array): void {
    this.guard(() => this.machine.receive(from, bytes))
  }

  heardOf(from: NodeId): void {
    this.machine.heardOf(from)
  }

  unreachable(node: NodeId): void {
    this.guard(() => this.machine.unreachable(node))
  }

  durable(mark: number): void {
    this.store.durableMark = mark
    this.guard(() => this.machine.durable())
  }

  tick(): void {
    this.guard(() => {
      const { exchanges } = this.machine
      this.rate.tick(exchanges.isPulling)
      exchanges.throttle(this.rate.bytesPerSecond)
      this.machine.tick()
      this.watch()
    })
  }

  /** What a request waited for its answer, of some that stand for all. */
  noticeLatency(ms: number): void {
    this.rate.noticeLatency(ms)
  }

  noteForeground(): void {
    this.rate.noteForeground()
  }

  /** Carries out what came in, and sends what may leave. Returns what to tell the journal's gate. */
  turn(send: (to: NodeId, message: PeerMessage) => void): number {
    this.guard(() => this.machine.serve())
    const mark = this.store.endTurn()
    if (!this.isOpen) return mark
    for (const { to, bytes } of this.machine.takeParcels()) {
      send(to, { _tag: "Eventual", range: 0, bytes })
    }
    return mark
  }

  takeReplies(): ReadonlyArray<EventualReply> {
    const { replies } = this
    if (replies.length === 0) return this.machine.takeReplies()
    this.replies = []
    return [...replies, ...this.machine.takeReplies()]
  }
}
