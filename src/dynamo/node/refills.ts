import type { NamespaceId, NodeId, RingVersion, Slot } from "../../types.ts"
import type { Actor } from "../dot.ts"
import type { PulledSlots, RunTask } from "./exchangeFills.ts"
import { slotsPerRun } from "./keys.ts"
import { type OwnerTables, runsOf } from "./owner.ts"
import type { NodeHost, OwnersView } from "./ports.ts"

/** Slots of this node that are not whole, by which the ring is asked for a new version of them. */
export interface LostReport {
  /** The ring by which this node worked when it began them again. */
  readonly known: RingVersion
  /** Runs: first slot and how many, first slot and how many. */
  readonly slots: ReadonlyArray<number>
}

/** What is being refilled, as numbers. */
export interface RefillStatus {
  readonly slots: number
  /** Slots that wait for a new version of the ring: the meta group has not heard of them yet. */
  readonly unannounced: number
  /** Owners from which something is still to be pulled. */
  readonly from: ReadonlyArray<NodeId>
}

export interface WholeSlot {
  readonly slot: Slot
  /** This node owns it, and nobody else does: what was lost here is gone. */
  readonly isAlone: boolean
}

interface Refill {
  /** The ring by which pulls count; 0: there is none yet. */
  fence: RingVersion
  /** One for each namespace, in their order. */
  parts: Array<Part>
  /** With it all that was pulled is durable. */
  mark: number
}

/** A slot in one namespace. Lists are shared and never changed. */
interface Part {
  readonly namespace: NamespaceId
  /** As which this node owns the slot. */
  readonly actor: Actor | undefined
  readonly pulled: ReadonlyArray<NodeId>
  /** Still to be pulled from. */
  readonly missing: ReadonlyArray<NodeId>
}

const none: ReadonlyArray<NodeId> = []

/**
 * Slots of which this node has lost data to damage, until it holds again all that the other owners have (DESIGN section 4, "Slot clocks").
 *
 * Such a slot has begun again: its clock has the dots of what is still held and no other, and this node owns it in a new epoch. So whatever the node says of it in exchanges
 * is true, and they go on. What it does not do is answer reads: a write that it acknowledged before may be lost here.
 *
 * The flow of one slot.
 *   1. The node reports it, with the version of the ring that it works by (`known`). Whoever keeps the ring makes a later version in which the slot has changed, and nothing
 *      else: a *fence*.
 *   2. When the fence has come here, the slot is pulled from every other owner that is not gone, by that version or a later one.
 *   3. When all of them are pulled from and that is durable, the slot is whole, and reads are answered again. A slot that nobody else owns waits for its fence too: the node may have
 *      begun with a directory that is older than its slots and namespaces, and what it says of owners counts for nothing.
 *
 * Why that is enough. Let a write be at its level with W owners, this node among them, and lost here. If this node acknowledged it after it began again, it holds it. Else the
 * W - 1 others have it or will get it: one that took it before it knew the fence has it in what was pulled; one that knows the fence refuses it, for it was sent by an
 * older ring, and so it is not at its level by that one. Until the slot is whole a read counts R of the other N - 1 owners, and (W - 1) + R > N - 1 whenever W + R > N. So writes
 * may go on to count this node. The meta group is needed for the fence alone: while it is out of reach the node takes writes of these slots and answers no reads.
 *
 * Two owners that both refill pull from each other, since each still holds what damage has left: damage at different places on all owners is made good. What no owner
 * has any more is gone: a write at level `one` that this node alone had, and everything where there is one copy.
 */
export class Refills {
  private readonly host: NodeHost
  private readonly owner: Pick<OwnerTables, "actorOf" | "markOf">
  private readonly owners: OwnersView
  private readonly slots: Map<Slot, Refill>
  private known: RingVersion | undefined
  /** Slots that are whole once what was pulled of them is durable. */
  private pulledSlots = new Set<Slot>()
  private whole: Array<WholeSlot> = []

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: Pick<OwnerTables, "actorOf" | "markOf">
    readonly owners: OwnersView
    readonly slots: Iterable<Slot>
  }) {
    this.host = parts.host
    this.owner = parts.owner
    this.owners = parts.owners
    this.slots = new Map([...parts.slots].map((slot) => [slot, { fence: 0, parts: [], mark: 0 }]))
  }

  has(slot: Slot): boolean {
    return this.slots.size > 0 && this.slots.has(slot)
  }

  get size(): number {
    return this.slots.size
  }

  // ---- Events

  /** The ring or the namespaces have changed, and with them perhaps the epochs in which slots are owned here. */
  ringChanged(): void {
    const { ring } = this.host
    if (ring === undefined || this.slots.size === 0) return
    this.known ??= ring.version
    this.pulledSlots = new Set()
    for (const [slot, refill] of this.slots) {
      if (refill.fence === 0 && ring.changedAt(slot) > this.known) refill.fence = ring.version
      refill.parts = this.partsOf(slot, refill)
      this.look(slot, refill)
    }
  }

  private partsOf(slot: Slot, { parts }: Refill): Array<Part> {
    const byCopies = new Map<number, ReadonlyArray<NodeId>>()
    return [...this.host.namespaces.values()].map(({ id: namespace, copies }) => {
      const others = byCopies.get(copies) ?? this.others(slot, copies)
      byCopies.set(copies, others)
      const actor = this.owner.actorOf(namespace, slot)
      const before = parts.find((part) => part.namespace === namespace)
      const pulled = before !== undefined && before.actor === actor ? before.pulled : none
      const missing = pulled.length === 0 ? others : others.filter((node) => !pulled.includes(node))
      return { namespace, actor, pulled, missing }
    })
  }

  /** Others that own a slot beside this node, and are not gone. */
  private others(slot: Slot, copies: number): ReadonlyArray<NodeId> {
    const { ring, node } = this.host
    if (ring === undefined || !ring.isOwner(slot, copies, node)) return none
    ring.owners(slot, copies, this.owners)
    const owners = [...this.owners.nodes.subarray(0, this.owners.count)]
    return owners.filter((other) => other !== node && !ring.isGone(other))
  }

  /** A pull came to its end. */
  note({ namespace, slots, source, ringVersion }: PulledSlots): void {
    if (this.slots.size === 0) return
    for (const slot of slots) {
      const refill = this.slots.get(slot)
      if (refill === undefined || refill.fence === 0 || ringVersion < refill.fence) continue
      const at = refill.parts.findIndex((part) => part.namespace === namespace)
      const part = refill.parts[at]
      if (part?.missing.includes(source) !== true) continue
      const pulled = [...part.pulled, source]
      const missing = part.missing.filter((node) => node !== source)
      refill.parts[at] = { ...part, pulled, missing }
      refill.mark = Math.max(refill.mark, this.owner.markOf(namespace, slot))
      this.look(slot, refill)
    }
  }

  private look(slot: Slot, { fence, parts }: Refill): void {
    if (fence > 0 && parts.every(({ missing }) => missing.length === 0)) this.pulledSlots.add(slot)
  }

  tick(): void {
    if (this.pulledSlots.size === 0) return
    for (const slot of this.pulledSlots) {
      const refill = this.slots.get(slot)
      if (refill === undefined || refill.mark > this.host.store.durableMark) continue
      this.pulledSlots.delete(slot)
      this.slots.delete(slot)
      const owned = refill.parts.filter(({ actor }) => actor !== undefined)
      const isAlone = owned.length > 0 && owned.every(({ pulled }) => pulled.length === 0)
      this.whole.push({ slot, isAlone })
    }
  }

  /** Slots that have become whole since the last call. */
  takeWhole(): ReadonlyArray<WholeSlot> {
    const { whole } = this
    if (whole.length > 0) this.whole = []
    return whole
  }

  // ---- What is to be done

  /** What to report; `undefined`: nothing. */
  lost(): LostReport | undefined {
    const { known } = this
    const slots = known === undefined ? [] : this.unfenced()
    return known === undefined || slots.length === 0 ? undefined : { known, slots: runsOf(slots) }
  }

  private unfenced(): ReadonlyArray<Slot> {
    return [...this.slots].filter(([, { fence }]) => fence === 0).map(([slot]) => slot)
  }

  /** Runs with slots that are to be pulled, by source. */
  tasks(): ReadonlyMap<NodeId, ReadonlyArray<RunTask>> {
    const starts = new Set([...this.slots.keys()].map((slot) => slot - (slot % slotsPerRun)))
    const tasks = new Map<NodeId, Array<RunTask>>()
    for (const namespace of this.host.namespaces.keys()) {
      for (const start of starts) {
        for (const source of this.wantedOf({ namespace, start })) {
          const list = tasks.get(source)
          if (list === undefined) tasks.set(source, [{ namespace, start }])
          else list.push({ namespace, start })
        }
      }
    }
    return tasks
  }

  /** Whether anything of a run is still to be pulled from a source. */
  wants(task: RunTask, source: NodeId): boolean {
    return this.slots.size > 0 && this.wantedOf(task).has(source)
  }

  private wantedOf({ namespace, start }: RunTask): ReadonlySet<NodeId> {
    const wanted = new Set<NodeId>()
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      const refill = this.slots.get(slot)
      if (refill === undefined || refill.fence === 0) continue
      const part = refill.parts.find((each) => each.namespace === namespace)
      for (const node of part?.missing ?? none) wanted.add(node)
    }
    return wanted
  }

  status(): RefillStatus {
    const lists = new Set<ReadonlyArray<NodeId>>()
    for (const { parts } of this.slots.values()) for (const { missing } of parts) lists.add(missing)
    const from = [...new Set([...lists].flat())].sort((left, right) => left - right)
    return { slots: this.slots.size, unannounced: this.unfenced().length, from }
  }
}
