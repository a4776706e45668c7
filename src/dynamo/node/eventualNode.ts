import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import type { Prng } from "../../lib/prng.ts"
import { slotOf } from "../../lib/slot.ts"
import type { NamespaceId, NodeId, Slot } from "../../types.ts"
import { Coordinators } from "./coordinators.ts"
import { type EndingOptions, Endings } from "./endings.ts"
import { Epochs } from "./epochs.ts"
import type { EventualStatus } from "./eventualStatus.ts"
import type { HandOverPort } from "./exchangeFills.ts"
import { type ExchangeOptions, Exchanges } from "./exchanges.ts"
import { FormerSlots } from "./formerSlots.ts"
import { GatedOutbox, type Parcel } from "./gatedOutbox.ts"
import { type HintOptions, Hints } from "./hints.ts"
import { Liveness } from "./liveness.ts"
import { opCodes } from "./opCodes.ts"
import { Owner } from "./owner.ts"
import { Pages } from "./pages.ts"
import type {
  EventualNamespace,
  NodeClock,
  NodeHost,
  NodeStore,
  OwnersView,
  RingPort,
} from "./ports.ts"
import { Reaper, type ReapOptions } from "./reaper.ts"
import { Refills } from "./refills.ts"
import { ReplicaSide } from "./replicaSide.ts"
import type { EventualRefusal, EventualReply, EventualRequest } from "./requests.ts"
import { StandIns } from "./standIns.ts"
import { Tenures } from "./tenures.ts"

/** Puts of other nodes that wait for a turn; beyond, they are dropped as a network would. */
const storesMax = 65_536
const storesBytesMax = 64 * 1024 * 1024

interface WaitingStore {
  readonly from: NodeId
  readonly code: number
  readonly body: ByteReader
}

export interface EventualSettings {
  readonly patienceMs: number
  readonly requestsMax: number
  readonly clockAheadMaxMs: number
  readonly pageEntries: number
  readonly pageBytes: number
  readonly exchange: ExchangeOptions
  readonly hints: HintOptions
  readonly reap: ReapOptions
  readonly endings: EndingOptions
}

export interface EventualNodeOptions {
  readonly node: NodeId
  readonly store: NodeStore
  readonly clock: NodeClock
  readonly prng: Prng
  readonly settings: EventualSettings
  readonly newOwners: () => OwnersView
  /** Slots of which data was lost. */
  readonly lost: ReadonlySet<Slot>
  /** What the ring that was learned last brings to this node. */
  readonly handOver: HandOverPort
}

/**
 * The eventual half of a node: leaderless replication (DESIGN section 4), as one pure machine that the store loop turns (server/storeLoop.ts). Requests, messages of other nodes, and
 * word of what is durable go in as calls; parcels for other nodes and replies come out of `take`.
 *
 * One idea a room, all over the same store and outbox:
 *   - owner.ts: what this node holds, with the slots' clocks and trees;
 *   - coordinators.ts: requests that this node carries out for a client;
 *   - replicaSide.ts: what it says to those who coordinate elsewhere;
 *   - pages.ts: its part of a scan;
 *   - exchanges.ts: owners compare what they hold, for ever, and fill new ones;
 *   - hints.ts, tenures.ts, standIns.ts: what it holds and writes for owners that are out of reach;
 *   - reaper.ts: what has expired becomes a delete, and deletes that all owners have go;
 *   - formerSlots.ts: what it owned, and forgets when the present owners have it;
 *   - refills.ts: slots of which it has lost data, until it has again what the other owners have;
 *   - liveness.ts: who is up;
 *   - epochs.ts: numbers for the actors that mint here; endings.ts: those that have ended leave the clocks.
 *
 * The store is a log and a memtable that change in one step; what leaves waits until what it speaks of is durable (gatedOutbox.ts). So after a crash nobody knows of
 * anything that this node has forgotten.
 *
 * The ring and the namespaces are learned from the meta group, whenever it can be reached; the node works by the last that it has heard.
 */
export class EventualNode implements NodeHost {
  readonly node: NodeId
  readonly store: NodeStore
  readonly outbox: GatedOutbox
  readonly owner: Owner
  readonly coordinators: Coordinators
  readonly exchanges: Exchanges
  readonly hints: Hints
  readonly tenures: Tenures
  readonly reaper: Reaper
  readonly endings: Endings
  readonly formerSlots: FormerSlots
  readonly refills: Refills
  clock: NodeClock
  ring: RingPort | undefined
  namespaces: ReadonlyMap<NamespaceId, EventualNamespace> = new Map()
  /** Messages that no version of this program sends. */
  malformed = 0
  /** Who has greeted since the last greeting from here. One that has left the ring, or is to join it, must know who is up too: it may hold hints. */
  private readonly greeters = new Set<NodeId>()
  /** The newest version of the ring that another node works by. */
  private ringHeard = 0
  /** Namespaces that were dropped in this life, with the mark that it is durable with. */
  private readonly dropped = new Map<NamespaceId, number>()
  private readonly epochs: Epochs
  private readonly liveness: Liveness
  private readonly replica: ReplicaSide
  private readonly pages: Pages
  /** Nothing that was put now could be durable before the next write of the journal: what puts waits for that, and gathers. */
  isWriting = false
  /** Of other nodes: what is to be put. */
  private stores: Array<WaitingStore> = []
  private storesBytes = 0
  /** Those that were dropped because too many waited. */
  droppedStores = 0
  private requests: Array<EventualRequest> = []
  private abandoned: ReadonlyArray<EventualReply> = []
  private readonly requestsMax: number
  private readonly lost: ReadonlySet<Slot>

  constructor(options: EventualNodeOptions) {
    const { node, store, settings, newOwners, prng } = options
    this.node = node
    this.store = store
    this.clock = options.clock
    this.requestsMax = settings.requestsMax
    this.lost = options.lost
    this.outbox = new GatedOutbox(() => store.durableMark)
    this.epochs = new Epochs(store)
    this.owner = new Owner({
      ...{ node, store, wallMs: () => this.clock.wallMs },
      nextEpoch: () => this.epochs.next(),
    })
    this.liveness = new Liveness(options.clock.monotonicMs)
    const owners = newOwners()
    this.tenures = new Tenures({ host: this, epochs: this.epochs, owners })
    this.hints = new Hints({
      ...{ host: this, options: settings.hints, owners, firstId: prng.int(1, 2 ** 40) },
      events: {
        parted: (namespace, slot) => this.tenures.parted(namespace, slot),
        emptied: (namespace, slot) => this.tenures.emptied(namespace, slot),
        dropping: (namespace, slot) => this.tenures.broken(namespace, slot),
        own: ({ namespace, slot, key }, state) => this.owner.merge(namespace, slot, key, state),
      },
    })
    this.reaper = new Reaper({
      ...{ host: this, owner: this.owner, options: settings.reap, owners: newOwners() },
      firstId: prng.int(1, 2 ** 40),
    })
    this.endings = new Endings({
      ...{ host: this, owner: this.owner, epochs: this.epochs, hints: this.hints },
      ...{ tenures: this.tenures, options: settings.endings, owners: newOwners() },
      firstId: prng.int(1, 2 ** 40),
    })
    const standIn = new StandIns({ host: this, hints: this.hints, tenures: this.tenures, owners })
    this.replica = new ReplicaSide(this, this.owner, (op) => {
      const { namespace, key, state, hintFor, copies } = op
      const place = { namespace, slot: slotOf(key), key }
      // A coordinator that has not learned the ring takes this node for an owner.
      if (hintFor === node) return standIn.keep(place, copies, state)
      return this.hints.hold(place, { state, owners: [hintFor], copies })
    })
    this.formerSlots = new FormerSlots({
      ...{ host: this, owner: this.owner, owners: newOwners(), firstId: prng.int(1, 2 ** 40) },
      keep: (place, copies, state) => standIn.keep(place, copies, state),
    })
    this.pages = new Pages(this, this.owner, settings)
    this.refills = new Refills({
      ...{ host: this, owner: this.owner, owners: newOwners(), slots: options.lost },
    })
    this.exchanges = new Exchanges({
      ...{ host: this, owner: this.owner, handOver: options.handOver, refills: this.refills },
      ...{ prng: prng.fork(), options: settings.exchange },
    })
    this.coordinators = new Coordinators({
      ...{ host: this, owner: this.owner, newOwners, standIn },
      options: settings,
      firstId: prng.int(1, 2 ** 40),
    })
  }

  /** Before the log is replayed. */
  load(): void {
    this.owner.load(this.lost)
  }

  /** The log has been replayed into owner and store. `isHurt`: damage has taken something of what is held, if only hints. */
  recovered(isHurt: boolean): void {
    let epoch = 0
    this.owner.beginAgain(this.lost, () => {
      epoch ||= this.epochs.next()
      return epoch
    })
    this.hints.load()
    this.tenures.load(isHurt)
  }

  isRefilling(slot: Slot): boolean {
    return this.refills.has(slot)
  }

  get ringVersion(): number {
    return this.ring?.version ?? 0
  }

  /** Others know a newer ring. */
  get isBehind(): boolean {
    return Math.max(this.ringHeard, this.replica.ringHeard) > this.ringVersion
  }

  isUp(node: NodeId): boolean {
    return node === this.node || this.liveness.isUp(node, this.clock.monotonicMs)
  }

  /** For how long nothing was heard of a node. */
  silentMs(node: NodeId): number {
    return node === this.node ? 0 : this.liveness.silentMs(node, this.clock.monotonicMs)
  }

  /** Takes over what the meta group says. An older ring changes nothing. */
  learn(ring: RingPort | undefined, namespaces: ReadonlyArray<EventualNamespace>): void {
    const known = this.namespaces
    const kept = namespaces.filter(({ id }) => !this.dropped.has(id))
    this.namespaces = new Map(kept.map((namespace) => [namespace.id, namespace]))
    const isNewer = ring !== undefined && ring.version > this.ringVersion
    if (isNewer) this.ring = ring
    const present = this.ring
    if (present === undefined) return
    let epoch = 0
    const nextEpoch = () => {
      epoch ||= this.epochs.next()
      return epoch
    }
    for (const { id, copies } of kept) {
      if (!isNewer && known.get(id)?.copies === copies) continue
      this.owner.own(id, (slot) => present.isOwner(slot, copies, this.node), nextEpoch)
    }
    this.exchanges.ringChanged()
    if (isNewer) this.coordinators.ringChanged()
  }

  /**
   * Forgets a namespace that is being deleted, and all that is held of it. True once that is durable: then this node never shows anything of it again. Asked again it
   * does nothing.
   */
  drop(namespace: NamespaceId): boolean {
    const { store } = this
    const known = this.dropped.get(namespace)
    if (known !== undefined) return known <= store.durableMark
    this.namespaces = new Map([...this.namespaces].filter(([id]) => id !== namespace))
    this.owner.drop(namespace)
    this.hints.drop(namespace)
    this.dropped.set(namespace, store.mark)
    return false
  }

  /** A request from a door; answered exactly once. */
  request(request: EventualRequest): void {
    this.requests.push(request)
  }

  /** A parcel of another node. */
  receive(from: NodeId, bytes: Uint8Array): void {
    this.liveness.heardOf(from, this.clock.monotonicMs)
    try {
      const reader = new ByteReader(bytes)
      while (reader.remaining > 0) {
        const code = reader.u8()
        this.take(from, code, new ByteReader(reader.raw(reader.u32())))
      }
    } catch (error) {
      this.countMalformed(error)
    }
  }

  /** One message. Those beside one that can't be taken are taken. */
  private take(from: NodeId, code: number, body: ByteReader): void {
    try {
      this.dispatch(from, code, body)
    } catch (error) {
      this.countMalformed(error)
    }
  }

  private countMalformed(error: unknown): void {
    if (!(error instanceof MalformedBytes)) throw error
    this.malformed++
  }

  private dispatch(from: NodeId, code: number, body: ByteReader): void {
    switch (code) {
      case opCodes.store:
      case opCodes.hint:
        if (!this.isWriting) return this.putFor(from, code, body)
        return this.putLater({ from, code, body })
      case opCodes.fetch:
        return this.replica.answerFetch(from, body)
      case opCodes.stored:
      case opCodes.fetched:
        return this.coordinators.receive(from, code, body)
      case opCodes.exchange:
        return this.exchanges.receive(from, code, body)
      case opCodes.hinted:
        return this.hints.receive(from, body)
      case opCodes.tenureEnded:
        return this.replica.answerTenureEnd(from, body)
      case opCodes.tenureKnown:
        return this.tenures.receive(from, body)
      case opCodes.clocksWanted:
      case opCodes.clocks:
        return this.reaper.receive(from, code, body)
      case opCodes.coverWanted:
        return this.reaper.answer(from, body, opCodes.cover)
      case opCodes.cover:
        return this.formerSlots.receive(from, body)
      case opCodes.endingWanted:
      case opCodes.endingSaid:
        return this.endings.receive(from, code, body)
      case opCodes.parting:
        return this.formerSlots.adopt(body)
      case opCodes.greeting:
        this.ringHeard = Math.max(this.ringHeard, body.varint())
        this.greeters.add(from)
        return
      default:
        throw new MalformedBytes(`a message of code ${code}`)
    }
  }

  private putLater(waiting: WaitingStore): void {
    const { length } = this.stores
    const bytes = this.storesBytes + waiting.body.remaining
    if (length >= storesMax || (length > 0 && bytes > storesBytesMax)) {
      this.droppedStores++
      return
    }
    this.stores.push(waiting)
    this.storesBytes = bytes
  }

  private putFor(from: NodeId, code: number, body: ByteReader): void {
    this.replica.answerStore(from, body, code === opCodes.hint ? opCodes.hinted : opCodes.stored)
  }

  /** Something of the strong mode came from that node. */
  heardOf(node: NodeId): void {
    this.liveness.heardOf(node, this.clock.monotonicMs)
  }

  unreachable(node: NodeId): void {
    this.liveness.lose(node)
    this.coordinators.unreachable(node)
  }

  /** What was put up to `store.durableMark` is durable. */
  durable(): void {
    this.coordinators.durable(this.store.durableMark, this.clock.monotonicMs)
  }

  tick(): void {
    this.coordinators.tick()
    if (this.ring !== undefined) {
      this.exchanges.tick()
      this.refills.tick()
      this.hints.tick()
      this.tenures.tick()
      this.reaper.tick()
      this.endings.tick()
      this.formerSlots.tick()
    }
    this.greet()
  }

  private greet(): void {
    const { ring } = this
    if (ring === undefined || !this.liveness.greets(this.clock.monotonicMs)) return
    for (const node of ring.nodes()) this.greeters.add(node)
    for (const node of this.greeters) {
      if (node === this.node) continue
      this.outbox.send(node, opCodes.greeting, 0, (out) => out.varint(ring.version))
    }
    this.greeters.clear()
  }

  /** Carries out what came since the last turn. */
  serve(): void {
    if (!this.isWriting && this.stores.length > 0) this.putWaiting()
    const { requests } = this
    if (requests.length === 0) return
    this.requests = []
    for (const [i, request] of requests.entries()) {
      try {
        this.carryOut(request)
      } catch (error) {
        // What was met in it is the caller's matter, and each of them has to be answered all the same.
        this.requests.unshift(...requests.slice(i))
        throw error
      }
    }
  }

  private carryOut(request: EventualRequest): void {
    if (request._tag === "EventualRead") this.coordinators.read(request)
    else if (request._tag === "EventualPage") this.pages.serve(request)
    else if (!this.isWriting) this.coordinators.write(request)
    else if (this.requests.length < this.requestsMax) this.requests.push(request)
    else {
      this.coordinators.refuse(request, { _tag: "Overloaded", what: "too many requests at once" })
    }
  }

  private putWaiting(): void {
    const { stores } = this
    this.stores = []
    this.storesBytes = 0
    for (const { from, code, body } of stores) this.take(from, code, body)
  }

  status(): Omit<EventualStatus, "latencies"> {
    const { siblings, tombstones, keys } = this.reaper.counts
    return {
      ringVersion: this.ringVersion,
      divergence: this.exchanges.divergence(),
      hints: this.hints.owed(),
      hintsDropped: this.hints.dropped,
      tenures: this.tenures.counts,
      refilling: this.refills.status(),
      ...{ siblings, tombstones, keys, treesDrifted: this.reaper.drifted },
    }
  }

  /** Answers all requests that it has taken and not answered. Nothing else may be asked of it from then on but `takeReplies`. */
  abandon(refusal: EventualRefusal): void {
    const left = this.requests.filter(({ token }) => !this.coordinators.isUnderWay(token))
    for (const request of left) this.coordinators.refuse(request, refusal)
    this.requests = []
    this.coordinators.abandon(refusal)
    this.abandoned = this.pages.abandon(refusal)
  }

  takeParcels(): ReadonlyArray<Parcel> {
    return this.outbox.take()
  }

  takeReplies(): ReadonlyArray<EventualReply> {
    const own = this.coordinators.takeReplies()
    const pages = this.pages.takeReplies()
    const { abandoned } = this
    this.abandoned = []
    return pages.length + abandoned.length === 0 ? own : [...own, ...pages, ...abandoned]
  }
}
