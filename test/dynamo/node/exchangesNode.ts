import type { HandOverPort } from "../../../src/dynamo/node/exchangeFills.ts"
import { Exchanges, exchangeDefaults } from "../../../src/dynamo/node/exchanges.ts"
import { GatedOutbox, type Parcel } from "../../../src/dynamo/node/gatedOutbox.ts"
import { opCodes } from "../../../src/dynamo/node/opCodes.ts"
import { Owner } from "../../../src/dynamo/node/owner.ts"
import type {
  EventualNamespace,
  NodeClock,
  NodeHost,
  RingPort,
} from "../../../src/dynamo/node/ports.ts"
import { assert } from "../../../src/lib/assert.ts"
import { ByteReader } from "../../../src/lib/byteReader.ts"
import { Prng } from "../../../src/lib/prng.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import type { NamespaceId, NodeId, RingVersion, Slot } from "../../../src/types.ts"
import { LoggedStore } from "./exchangesStore.ts"

/** Where a slot is on its way from one list of owners to another. */
export interface SlotStep {
  readonly from: ReadonlyArray<NodeId>
  readonly to: ReadonlyArray<NodeId>
  readonly since: RingVersion
  readonly state: "owned" | "pending" | "filled"
}

/** A ring that has some slots only. */
export class StepRing implements RingPort {
  readonly version: RingVersion
  readonly steps: ReadonlyMap<Slot, SlotStep>
  private readonly members: ReadonlyArray<NodeId>

  constructor(
    version: RingVersion,
    steps: ReadonlyMap<Slot, SlotStep>,
    members: ReadonlyArray<NodeId>,
  ) {
    this.version = version
    this.steps = steps
    this.members = members
  }

  with(slot: Slot, step: Omit<SlotStep, "since">): StepRing {
    const version = this.version + 1
    const steps = new Map(this.steps).set(slot, { ...step, since: version })
    return new StepRing(version, steps, this.members)
  }

  ownersOf(slot: Slot): ReadonlyArray<NodeId> {
    const step = this.steps.get(slot)
    return step === undefined ? [] : [...new Set([...step.from, ...step.to])]
  }

  isOwner(slot: Slot, _: number, node: NodeId): boolean {
    return this.ownersOf(slot).includes(node)
  }

  verdictOf(slot: Slot, version: RingVersion) {
    if (version > this.version) return "ahead"
    return version < (this.steps.get(slot)?.since ?? 0) ? "moved" : "current"
  }

  changedAt(slot: Slot): RingVersion {
    return this.steps.get(slot)?.since ?? 0
  }

  isMember(): boolean {
    return true
  }

  isGone(): boolean {
    return false
  }

  nodes(): ReadonlyArray<NodeId> {
    return this.members
  }

  owners(): void {
    assert(false, "nobody asks in these tests")
  }

  maskOfZone(): number {
    return 0
  }

  standIns(): ReadonlyArray<NodeId> {
    return []
  }

  zoneOf(): string {
    return ""
  }
}

/** What the ring brings to a node, as `transfersOf` has it: from the one whose place it takes, or from all. */
export function handOverTo(node: NodeId, ring: () => StepRing | undefined): HandOverPort {
  const stepOf = (slot: Slot) => {
    const step = ring()?.steps.get(slot)
    const isTarget = step?.to.includes(node) === true && !step.from.includes(node)
    return isTarget && step.state === "pending" ? step : undefined
  }
  return {
    pending: () =>
      [...(ring()?.steps ?? [])].flatMap(([slot, { since }]) =>
        stepOf(slot) === undefined ? [] : [{ slot, since }],
      ),
    sources(slot) {
      const step = stepOf(slot)
      if (step === undefined) return []
      const { from, to } = step
      const parting = from.filter((other) => !to.includes(other))
      const place = to.filter((other) => !from.includes(other)).indexOf(node)
      return place < parting.length ? [parting[place]] : from
    },
  }
}

export type Parts = ConstructorParameters<typeof Exchanges>[0]

export interface MemoryNodeOptions {
  readonly node: NodeId
  readonly clock: NodeClock
  readonly namespaces: ReadonlyMap<NamespaceId, EventualNamespace>
  readonly prng: Prng
  readonly exchanges?: Partial<typeof exchangeDefaults>
  readonly make?: (parts: Parts) => Exchanges
}

/** A write on its way to another owner. */
export interface Write {
  readonly id: number
  readonly namespace: NamespaceId
  readonly key: Uint8Array
  readonly state: Uint8Array
}

/** An owner with its exchanges, over a store in memory. */
export class MemoryNode implements NodeHost {
  readonly node: NodeId
  readonly clock: NodeClock
  readonly namespaces: ReadonlyMap<NamespaceId, EventualNamespace>
  ring: StepRing | undefined
  store = new LoggedStore()
  owner: Owner
  outbox: GatedOutbox
  exchanges: Exchanges
  /** Nodes that this one has not heard of lately. */
  readonly down = new Set<NodeId>()
  /** Answers to writes that were sent from here. */
  stored: Array<{ readonly from: NodeId; readonly id: number }> = []
  private readonly options: MemoryNodeOptions

  constructor(options: MemoryNodeOptions) {
    this.options = options
    this.node = options.node
    this.clock = options.clock
    this.namespaces = options.namespaces
    this.owner = this.newOwner(this.store)
    ;[this.outbox, this.exchanges] = this.newRooms()
  }

  private newOwner(store: LoggedStore): Owner {
    const nextEpoch = () => {
      throw new Error("nobody makes up contexts here")
    }
    return new Owner({ node: this.node, store, wallMs: () => this.clock.wallMs, nextEpoch })
  }

  private newRooms(): [GatedOutbox, Exchanges] {
    const { owner, options } = this
    this.outbox = new GatedOutbox(() => this.store.durableMark)
    const make = options.make ?? ((parts: Parts) => new Exchanges(parts))
    const exchanges = make({
      ...{ host: this, owner, handOver: handOverTo(this.node, () => this.ring) },
      prng: new Prng(options.prng.uint32()),
      options: { ...exchangeDefaults, ...options.exchanges },
    })
    return [this.outbox, exchanges]
  }

  isRefilling(): boolean {
    return false
  }

  isUp(node: NodeId): boolean {
    return !this.down.has(node)
  }

  learn(ring: StepRing, nextEpoch: () => number): void {
    this.ring = ring
    for (const { id, copies } of this.namespaces.values()) {
      this.owner.own(id, (slot) => ring.isOwner(slot, copies, this.node), nextEpoch)
    }
    this.exchanges.ringChanged()
  }

  receive(from: NodeId, bytes: Uint8Array): void {
    const reader = new ByteReader(bytes)
    while (reader.remaining > 0) {
      const code = reader.u8()
      const body = new ByteReader(reader.raw(reader.u32()))
      if (code === opCodes.exchange) this.exchanges.receive(from, code, body)
      else if (code === opCodes.store) this.hold(from, body)
      else this.stored.push({ from, id: body.varint() })
    }
  }

  /** Sends a write to another owner. */
  send(to: NodeId, write: Write): void {
    const { id, namespace, key, state } = write
    this.outbox.send(to, opCodes.store, this.store.mark, (out) => {
      out.varint(id)
      out.varint(namespace)
      out.varint(this.ring?.version ?? 0)
      out.bytes32(key)
      out.bytes32(state)
    })
  }

  private hold(from: NodeId, body: ByteReader): void {
    const id = body.varint()
    const namespace = body.varint()
    const version = body.varint()
    const key = body.bytes32()
    const slot = slotOf(key)
    const { ring, owner } = this
    if (ring?.verdictOf(slot, version) !== "current" || !ring.isOwner(slot, 0, this.node)) return
    owner.merge(namespace, slot, key, body.bytes32())
    const mark = owner.markOf(namespace, slot)
    this.outbox.send(from, opCodes.stored, mark, (out) => out.varint(id))
  }

  takeParcels(): ReadonlyArray<Parcel> {
    this.store.endTurn()
    return this.outbox.take()
  }

  /** What was not durable is forgotten, and so is everything in memory. */
  crash(nextEpoch: () => number): void {
    const { store, owner } = this.store.restart((next) => this.newOwner(next))
    this.restart(store, owner, nextEpoch)
  }

  /** Everything is lost. */
  wipe(nextEpoch: () => number): void {
    const store = new LoggedStore()
    this.ring = undefined
    this.restart(store, this.newOwner(store), nextEpoch)
  }

  private restart(store: LoggedStore, owner: Owner, nextEpoch: () => number): void {
    this.store = store
    this.owner = owner
    ;[this.outbox, this.exchanges] = this.newRooms()
    this.stored = []
    if (this.ring !== undefined) this.learn(this.ring, nextEpoch)
  }
}
