import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import { slotCount } from "../../lib/slot.ts"
import type { MonotonicMs, NamespaceId, NodeId, Slot } from "../../types.ts"
import { type Actor, epochOf, nodeOf } from "../dot.ts"
import { SlotClock } from "../slotClock.ts"
import type { Epochs } from "./epochs.ts"
import type { Hints } from "./hints.ts"
import { slotsPerRun } from "./keys.ts"
import { opCodes } from "./opCodes.ts"
import type { Owner } from "./owner.ts"
import type { NodeHost, OwnersView } from "./ports.ts"
import type { Tenures } from "./tenures.ts"

export interface EndingOptions {
  /** A pass over all runs of slots of all namespaces takes so long at least. */
  readonly passMs: number
  /** What was found is found again so much later at least, before anything ends: longer than any message is on its way. */
  readonly quietMs: number
  /** Members that have not answered for so long are not waited for: the run is left for the next pass. */
  readonly patienceMs: number
}

export const endingDefaults: EndingOptions = {
  passMs: 600_000,
  quietMs: 600_000,
  patienceMs: 2000,
}

/** Slots of which it is remembered what was found; beyond, others wait for a later pass. */
const foundMax = 65_536

/** What a member says of a slot. */
interface Said {
  /** It keeps something of the slot that the owners may lack. */
  readonly isBusy: boolean
  /** It mints no dot there any more in any epoch below this one. */
  readonly floor: number
  /** Of an owner. */
  readonly clock: SlotClock | undefined
}

/** A run of slots that all members are asked about. */
interface Asked {
  readonly id: number
  readonly namespace: NamespaceId
  readonly slots: ReadonlyArray<Slot>
  readonly ringVersion: number
  readonly members: ReadonlyArray<NodeId>
  readonly said: Map<string, Said>
  readonly answered: Set<NodeId>
  readonly askedAtMs: MonotonicMs
}

interface Found {
  readonly ringVersion: number
  readonly text: string
  readonly atMs: MonotonicMs
}

/** The entries of a clock whose epochs have ended. */
interface Ending {
  /** With the last counter of each. */
  readonly finals: ReadonlyMap<Actor, number>
  /** By node: the first epoch that has not ended. */
  readonly below: ReadonlyMap<NodeId, number>
  readonly text: string
}

const flags = { busy: 1, owner: 2 } as const
const out = new ByteWriter(4096)

/**
 * Epochs that have ended leave the slots' clocks, in the background: a node that became owner once more, lost data, or stood in for others has left an entry behind each time, and without this
 * clocks and contexts would grow with every one of them (DESIGN section 4, "Causality").
 *
 * The flow. One run of slots after another, the first owner of a slot:
 *   1. looks for entries in its clock of epochs that may have ended: a later one of the same node is there as well, or the node does not own the slot;
 *   2. asks every member of the ring: below which epoch it mints no more there; whether it keeps a hint of the slot, or data of it as a former owner, or is being refilled; and the owners their clocks;
 *   3. when all have answered, nobody keeps anything, and all owners have the same of those epochs, remembers that;
 *   4. when it finds the very same again after `quietMs`, with the same ring, closes the gaps (dots that were minted and lost before anybody had them) and notes the number per node
 *      below which every epoch is seen. The other owners get that as part of the clock, by the exchange that follows (exchanges.ts).
 *
 * Entries in contexts go later, when the clocks of all owners have the number (pruning.ts).
 *
 *     wanted := id varint ‖ namespace varint ‖ ring version varint ‖ slots varint ‖ slot varint*
 *     said   := id varint ‖ (slot varint ‖ flags u8 (1 busy, 2 owner) ‖ floor varint ‖ [length u32 ‖ clock])*          sent: do not change
 *
 * Invariants:
 * - an epoch ends only below what its node has said, and said durably; of a node that will never answer again, below the highest that the owners have seen, never above;
 * - nothing ends of which two owners differ, so a dot that one of them alone has is not lost;
 * - what a member says leaves when everything that it has put is durable.
 */
export class Endings {
  private readonly host: NodeHost
  private readonly owner: Owner
  private readonly epochs: Epochs
  private readonly hints: Hints
  private readonly tenures: Tenures
  private readonly options: EndingOptions
  private readonly owners: OwnersView
  private readonly found = new Map<string, Found>()
  private asked: Asked | undefined
  private place: { namespace: number; slot: Slot } = { namespace: 0, slot: 0 }
  private nextRunMs: MonotonicMs
  private nextId: number
  /** Slots in whose clocks epochs have ended. */
  ended = 0

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: Owner
    readonly epochs: Epochs
    readonly hints: Hints
    readonly tenures: Tenures
    readonly options: EndingOptions
    readonly owners: OwnersView
    readonly firstId: number
  }) {
    this.host = parts.host
    this.owner = parts.owner
    this.epochs = parts.epochs
    this.hints = parts.hints
    this.tenures = parts.tenures
    this.options = parts.options
    this.owners = parts.owners
    this.nextId = parts.firstId
    this.nextRunMs = parts.host.clock.monotonicMs
  }

  tick(): void {
    const { host, options, asked } = this
    const nowMs = host.clock.monotonicMs
    if (asked !== undefined) {
      if (nowMs - asked.askedAtMs < options.patienceMs) return
      this.asked = undefined
    }
    for (let i = 0; i < runsPerTick && nowMs >= this.nextRunMs && this.asked === undefined; i++) {
      this.lookAtRun(nowMs)
    }
  }

  private lookAtRun(nowMs: MonotonicMs): void {
    const { host, options } = this
    const namespaces = [...host.namespaces.keys()]
    if (namespaces.length === 0 || host.store.isFull) return
    if (this.place.namespace >= namespaces.length) this.place = { namespace: 0, slot: 0 }
    const namespace = namespaces[this.place.namespace]
    const { slot: start } = this.place
    const next = start + slotsPerRun
    this.place =
      next < slotCount
        ? { ...this.place, slot: next }
        : { namespace: this.place.namespace + 1, slot: 0 }
    const runs = (namespaces.length * slotCount) / slotsPerRun
    this.nextRunMs = Math.max(this.nextRunMs, nowMs - 1000) + options.passMs / runs
    const slots: Array<Slot> = []
    this.owner.forEachOwned(namespace, start, (slot) => {
      if (this.mayEnd(namespace, slot)) slots.push(slot)
    })
    if (slots.length > 0) this.ask(namespace, slots, nowMs)
  }

  /** Whether this node is the one to look, and the clock has entries that may have ended. */
  private mayEnd(namespace: NamespaceId, slot: Slot): boolean {
    const { host, owner, owners } = this
    if (host.isRefilling(slot)) return false
    const actors = owner.actorsIn(namespace, slot)
    const first = this.ownersOf(namespace, slot)
    if (first?.[0] !== host.node || owners.newMask !== owners.oldMask) return false
    return actors.some(
      (actor, i) =>
        !first.includes(nodeOf(actor)) ||
        (i + 1 < actors.length && nodeOf(actors[i + 1]) === nodeOf(actor)),
    )
  }

  private ownersOf(namespace: NamespaceId, slot: Slot): ReadonlyArray<NodeId> | undefined {
    const { ring, namespaces } = this.host
    const copies = namespaces.get(namespace)?.copies
    if (ring === undefined || copies === undefined) return undefined
    ring.owners(slot, copies, this.owners)
    return [...this.owners.nodes.subarray(0, this.owners.count)]
  }

  private ask(namespace: NamespaceId, slots: ReadonlyArray<Slot>, nowMs: MonotonicMs): void {
    const { host } = this
    const { ring } = host
    if (ring === undefined) return
    const members = ring.nodes().filter((node) => !ring.isGone(node))
    if (!members.every((node) => host.isUp(node))) return
    const id = this.nextId++
    this.asked = {
      ...{ id, namespace, slots, members, ringVersion: ring.version, askedAtMs: nowMs },
      ...{ said: new Map(), answered: new Set() },
    }
    for (const node of members) {
      if (node === host.node) continue
      host.outbox.send(node, opCodes.endingWanted, 0, (to) => {
        to.varint(id)
        to.varint(namespace)
        to.varint(ring.version)
        to.varint(slots.length)
        for (const slot of slots) to.varint(slot)
      })
    }
    this.answered(host.node, this.say(namespace, slots))
  }

  /** Another member's question, or its answer. Throws `MalformedBytes`. */
  receive(from: NodeId, code: number, body: ByteReader): void {
    if (code === opCodes.endingWanted) this.answer(from, body)
    else if (this.asked?.id === body.varint()) this.answered(from, body)
  }

  private answer(from: NodeId, body: ByteReader): void {
    const { host } = this
    const [id, namespace, version] = [body.varint(), body.varint(), body.varint()]
    const slots = Array.from({ length: Math.min(slotsPerRun, body.varint()) }, () => body.varint())
    if (host.ring?.version !== version || !host.namespaces.has(namespace)) return
    const said = this.say(
      namespace,
      slots.filter((slot) => slot < slotCount),
    )
    host.outbox.send(from, opCodes.endingSaid, host.store.mark, (to) => {
      to.varint(id)
      to.raw(said.rest())
    })
  }

  private say(namespace: NamespaceId, slots: ReadonlyArray<Slot>): ByteReader {
    const { owner, epochs } = this
    const floors = this.tenures.floors(namespace)
    out.reset()
    for (const slot of slots) {
      const actor = owner.actorOf(namespace, slot)
      const isBusy = this.isBusy(namespace, slot)
      const present = actor === undefined ? epochs.last + 1 : epochOf(actor)
      out.varint(slot)
      out.u8((isBusy ? flags.busy : 0) | (actor === undefined ? 0 : flags.owner))
      out.varint(Math.min(present, floors.get(slot) ?? present))
      if (actor === undefined) continue
      const at = out.length
      out.u32(0)
      owner.writeClock(namespace, slot, out)
      out.patchU32(at, out.length - at - 4)
    }
    return new ByteReader(out.take())
  }

  /** It has hints of the slot, what is left of it as a former owner, or not yet again what it had. */
  private isBusy(namespace: NamespaceId, slot: Slot): boolean {
    const { host, owner, hints } = this
    if (hints.countOf(namespace, slot) > 0 || host.isRefilling(slot)) return true
    return owner.actorOf(namespace, slot) === undefined && owner.holdsOf(namespace, slot)
  }

  private answered(from: NodeId, body: ByteReader): void {
    const { asked, host } = this
    if (asked === undefined) return
    while (body.remaining > 0) {
      const slot = body.varint()
      const said = body.u8()
      const floor = body.varint()
      const isOwner = (said & flags.owner) !== 0
      const clock = isOwner ? SlotClock.read(new ByteReader(body.raw(body.u32()))) : undefined
      asked.said.set(saidName(from, slot), { isBusy: (said & flags.busy) !== 0, floor, clock })
    }
    asked.answered.add(from)
    if (!asked.members.every((node) => asked.answered.has(node))) return
    this.asked = undefined
    if (host.ring?.version !== asked.ringVersion || host.store.isFull) return
    for (const slot of asked.slots) this.judge(asked, slot)
  }

  private judge(asked: Asked, slot: Slot): void {
    const { host, owner } = this
    const { namespace, ringVersion } = asked
    const name = `${namespace}/${slot}`
    const known = this.found.get(name)
    const ending = this.endingOf(asked, slot)
    if (ending === undefined) {
      this.found.delete(name)
      return
    }
    const nowMs = host.clock.monotonicMs
    if (known?.ringVersion !== ringVersion || known.text !== ending.text) {
      if (known === undefined && this.found.size >= foundMax) return
      this.found.set(name, { ringVersion, text: ending.text, atMs: nowMs })
      return
    }
    if (nowMs - known.atMs < this.options.quietMs) return
    this.found.delete(name)
    owner.end(namespace, slot, ending.finals, ending.below)
    this.ended++
  }

  /** What has ended by all that was said of a slot; `undefined`: nothing, or not yet. */
  private endingOf(asked: Asked, slot: Slot): Ending | undefined {
    const { host, owner } = this
    const { namespace } = asked
    const owners = this.ownersOf(namespace, slot) ?? []
    const said = asked.members.map((node) => asked.said.get(saidName(node, slot)))
    if (said.some((each) => each === undefined || each.isBusy)) return undefined
    const own = owner.copyClock(namespace, slot)
    const finals = new Map<Actor, number>()
    const below = new Map<NodeId, number>()
    for (const actor of owner.actorsIn(namespace, slot)) {
      const node = nodeOf(actor)
      const floor = asked.said.get(saidName(node, slot))?.floor ?? Number.POSITIVE_INFINITY
      if (epochOf(actor) >= floor) continue
      finals.set(actor, own.highest(actor))
      below.set(node, Math.max(below.get(node) ?? 0, epochOf(actor) + 1))
    }
    const actors = [...finals.keys()]
    const text = describe(own, actors)
    const clocks = owners
      .filter((node) => node !== host.node)
      .map((node) => asked.said.get(saidName(node, slot))?.clock)
    if (finals.size === 0 || !this.agree(clocks, actors, text)) return undefined
    return { finals, below, text }
  }

  /** Whether all these clocks have the same of some actors. */
  private agree(
    clocks: ReadonlyArray<SlotClock | undefined>,
    actors: ReadonlyArray<Actor>,
    text: string,
  ): boolean {
    return clocks.every((clock) => clock !== undefined && describe(clock, actors) === text)
  }
}

/** Runs looked at in a tick at most. */
const runsPerTick = 16

/** What a clock has of some actors, in words that are equal where that is. */
function describe(clock: SlotClock, actors: ReadonlyArray<Actor>): string {
  return actors.map((actor) => clock.describeActor(actor)).join(" ")
}

function saidName(node: NodeId, slot: Slot): string {
  return `${node}/${slot}`
}
