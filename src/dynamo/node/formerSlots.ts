import { ByteReader } from "../../lib/byteReader.ts"
import type { MonotonicMs, NamespaceId, NodeId, Slot } from "../../types.ts"
import { type Actor, readActor, writeActor } from "../dot.ts"
import { hasNews } from "../exchange.ts"
import { SlotClock } from "../slotClock.ts"
import { opCodes } from "./opCodes.ts"
import type { KeyPlace, Owner } from "./owner.ts"
import type { NodeHost, OwnersView } from "./ports.ts"

/** How often slots that others own by now are looked for. */
const everyMs = 2000
const patienceMs = 2000
/** Asked about at a time. */
const slotsAtOnce = 64
/** Brought to an owner at a time, of a slot: one that has lost its data lacks everything, and gets that from others. */
const keysAtOnce = 64

/** Holds a state as a hint for all present owners of its slot; false: there is no room. */
export type KeepForOwners = (place: KeyPlace, copies: number, state: Uint8Array) => boolean

interface NamedSlot {
  readonly namespace: NamespaceId
  readonly slot: Slot
}

interface Asked {
  readonly id: number
  readonly namespace: NamespaceId
  readonly slots: ReadonlyArray<Slot>
  readonly askedAtMs: MonotonicMs
  /** By slot: owners whose clocks have all that this node's has. */
  readonly proven: Map<Slot, Set<NodeId>>
}

/**
 * What an owner keeps of slots that have gone to others: all of it, until every present owner has proved that it has seen everything that was seen here. A clock covers only
 * what its owner holds or knows to be obsolete, so clocks that include this one are the proof; trees need not be equal, since the owners go on taking writes.
 *
 * What a present owner has not seen becomes a hint for all of them: this node took it when it did not know yet that the slot was others', for a client who was told that
 * nobody knows, or that it will spread. Former owners exchange nothing, so it would stay here for ever, seen by nobody. An owner that has seen all that is live here is then given the
 * clock, as at the end of an exchange: what was replaced here before anybody else saw it would leave gaps in its own for ever, so that this slot would not be forgotten, nor deletes in it reaped.
 *
 *     parting := namespace varint ‖ slot varint ‖ actor (as which the receiver owned the slot when its clock was looked at) ‖ clock          sent: do not change
 *
 * Invariant: a slot is forgotten only while this node does not own it, the ring has not changed since its owners were asked, and each of them has answered so.
 */
export class FormerSlots {
  private readonly host: NodeHost
  private readonly owner: Owner
  private readonly owners: OwnersView
  private readonly keep: KeepForOwners
  private asked: Asked | undefined
  private nextMs: MonotonicMs
  private nextId: number
  private ringVersion = 0
  private left: Array<NamedSlot> = []
  forgotten = 0

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: Owner
    readonly owners: OwnersView
    readonly keep: KeepForOwners
    readonly firstId: number
  }) {
    this.host = parts.host
    this.owner = parts.owner
    this.owners = parts.owners
    this.keep = parts.keep
    this.nextId = parts.firstId
    this.nextMs = parts.host.clock.monotonicMs
  }

  tick(): void {
    const { host, asked } = this
    const nowMs = host.clock.monotonicMs
    if (asked !== undefined && nowMs - asked.askedAtMs < patienceMs) return
    this.asked = undefined
    if (this.left.length === 0) {
      if (nowMs < this.nextMs) return
      this.nextMs = nowMs + everyMs
      this.left = [...host.namespaces.keys()].flatMap((namespace) =>
        this.owner.leftOver(namespace).map((slot) => ({ namespace, slot })),
      )
    }
    this.ask(nowMs)
  }

  private ask(nowMs: MonotonicMs): void {
    const { host } = this
    const { ring } = host
    const first = this.left[0]
    if (ring === undefined || first === undefined || host.store.isFull) return
    const { namespace } = first
    const batch = this.left.splice(0, slotsAtOnce)
    this.left.unshift(...batch.filter((each) => each.namespace !== namespace))
    const slots = batch.filter((each) => each.namespace === namespace).map(({ slot }) => slot)
    const id = this.nextId++
    this.ringVersion = ring.version
    this.asked = { id, namespace, slots, askedAtMs: nowMs, proven: new Map() }
    const nodes = new Set(slots.flatMap((slot) => this.ownersOf(namespace, slot)))
    for (const node of nodes) {
      host.outbox.send(node, opCodes.coverWanted, 0, (to) => {
        to.varint(id)
        to.varint(namespace)
        to.varint(ring.version)
        to.varint(slots.length)
        for (const slot of slots) to.varint(slot)
      })
    }
  }

  private ownersOf(namespace: NamespaceId, slot: Slot): ReadonlyArray<NodeId> {
    const { ring, namespaces } = this.host
    const copies = namespaces.get(namespace)?.copies
    if (ring === undefined || copies === undefined) return []
    ring.owners(slot, copies, this.owners)
    return [...this.owners.nodes.subarray(0, this.owners.count)]
  }

  /** An owner's clocks, in the form of the reaper's answers. Throws `MalformedBytes`. */
  receive(from: NodeId, body: ByteReader): void {
    const { asked, host, owner } = this
    if (asked?.id !== body.varint() || host.ring?.version !== this.ringVersion) return
    while (body.remaining > 0) {
      const slot = body.varint()
      const actor = readActor(body)
      const clock = SlotClock.read(new ByteReader(body.raw(body.u32())))
      if (!asked.slots.includes(slot) || owner.actorOf(asked.namespace, slot) !== undefined)
        continue
      if (!clock.includes(owner.copyClock(asked.namespace, slot))) {
        this.bring({ namespace: asked.namespace, slot }, from, { actor, clock })
        continue
      }
      const proven = asked.proven.get(slot) ?? new Set()
      asked.proven.set(slot, proven.add(from))
      const present = this.ownersOf(asked.namespace, slot)
      if (present.length === 0 || !present.every((node) => proven.has(node))) continue
      owner.dropSlot(asked.namespace, slot)
      this.forgotten++
    }
  }

  /** Owes the present owners what one of them has not seen; where it has seen all that is live here, gives it the clock. */
  private bring(
    { namespace, slot }: NamedSlot,
    to: NodeId,
    { actor, clock: seenThere }: { readonly actor: Actor; readonly clock: SlotClock },
  ): void {
    const { host, owner } = this
    const news: Array<{ readonly key: Uint8Array; readonly state: Uint8Array }> = []
    owner.forEachState(namespace, slot, (key, state) => {
      if (hasNews(state, seenThere)) news.push({ key: key.slice(), state: state.slice() })
      return news.length < keysAtOnce
    })
    const copies = host.namespaces.get(namespace)?.copies ?? 0
    for (const { key, state } of news) {
      if (!this.keep({ namespace, slot, key }, copies, state)) return
    }
    if (news.length > 0) return
    host.outbox.send(to, opCodes.parting, owner.markOf(namespace, slot), (out) => {
      out.varint(namespace)
      out.varint(slot)
      writeActor(out, actor)
      owner.writeClock(namespace, slot, out)
    })
  }

  /** A former owner's clock, all of whose live values were seen here by the actor that it names. Throws `MalformedBytes`. */
  adopt(body: ByteReader): void {
    const [namespace, slot] = [body.varint(), body.varint()]
    const actor = readActor(body)
    const clock = SlotClock.read(body)
    // Another actor has lost what the other one had seen.
    if (this.owner.actorOf(namespace, slot) === actor) this.owner.adopt(namespace, slot, clock)
  }
}
