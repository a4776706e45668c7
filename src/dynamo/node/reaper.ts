import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import { slotCount } from "../../lib/slot.ts"
import type { MonotonicMs, NamespaceId, NodeId, Slot } from "../../types.ts"
import { type Actor, readActor, writeActor } from "../dot.ts"
import { expireState, forEachLiveDot } from "../keyState.ts"
import { mayPrune, pruneState } from "../pruning.ts"
import { SlotClock } from "../slotClock.ts"
import { VersionVector } from "../versionVector.ts"
import type { HeldSlots } from "./exchangeSource.ts"
import { slotsPerRun } from "./keys.ts"
import { opCodes } from "./opCodes.ts"
import type { NodeHost, OwnersView } from "./ports.ts"

export interface ReapOptions {
  /** A delete stays for so long at least: until then a hint may be on its way that knows nothing of it. */
  readonly windowMs: number
  /** A pass over all runs of slots of all namespaces takes so long at least. */
  readonly passMs: number
  /** Keys looked at in a tick at most, beyond the last slot. */
  readonly keysPerTick: number
  /** Owners that have not said their clocks for so long are not waited for: the run is left for the next pass. */
  readonly patienceMs: number
}

export const reapDefaults: ReapOptions = {
  windowMs: 3 * 3_600_000,
  passMs: 600_000,
  keysPerTick: 512,
  patienceMs: 2000,
}

/** What an owner holds that its clock must speak for. */
interface Counts {
  /** Deletes that wait to be reaped. */
  readonly tombstones: number
  /** Live values beside another one of their key. */
  readonly siblings: number
  readonly keys: number
}

/** A run of slots that is looked at, as far as it has come. */
interface Run {
  readonly namespace: NamespaceId
  next: Slot
  readonly end: Slot
  /** Those about which all owners are to be asked. */
  readonly wanted: Array<Slot>
}

/** A run of slots whose owners are asked for their clocks. */
interface Asked {
  readonly id: number
  readonly namespace: NamespaceId
  readonly slots: ReadonlyArray<Slot>
  /** By slot: who has to answer. */
  readonly owners: ReadonlyMap<Slot, ReadonlyArray<NodeId>>
  readonly clocks: Map<string, { readonly clock: SlotClock; readonly actor: Actor | undefined }>
  readonly askedAtMs: MonotonicMs
}

const out = new ByteWriter(4096)

/**
 * Reaping, in the background, and whatever else has to look at every key now and then: values whose time is up become deletes, and deletes that every owner has go, with what is left in contexts of epochs that have ended (DESIGN section 4,
 * "Tombstones"). No calendar says when: the slots' clocks do.
 *
 * The flow. One run of slots after another:
 *   1. Its keys are looked at. What has expired is written as a delete, under its own dot and context (keyState.ts).
 *   2. Slots with something that is older than the window, and that pruning could do away with by what is known here, are asked about: each owner, old and new, says its clock, and how far it has
 *      minted itself.
 *   3. When all have answered, what every one of them has without gaps goes (pruning.ts), by an explicit write. If one does not answer, or the ring has moved meanwhile, nothing goes.
 *
 * On the way the slots' trees are added up anew: one that has drifted from its keys, by whatever bug, would keep owners apart for ever.
 *
 * Each owner reaps by itself: what it reaped is inside its clock and not held, so it is obsolete, whoever brings it again.
 *
 * Invariants:
 * - nothing is reaped that some owner may not have seen, or before the window has passed since its key changed here;
 * - a clock leaves when all that it speaks of is durable;
 * - a key that has changed since the owners were asked is judged by what it is now.
 */
export class Reaper {
  private readonly host: NodeHost
  private readonly owner: HeldSlots
  private readonly options: ReapOptions
  private readonly owners: OwnersView
  /** The one that is looked at. */
  private run: Run | undefined
  private asked: Asked | undefined
  private place: { namespace: number; slot: Slot } = { namespace: 0, slot: 0 }
  private nextRunMs: MonotonicMs
  private nextId: number
  private pass: Counts = { tombstones: 0, siblings: 0, keys: 0 }
  /** As of the last whole pass. */
  counts: Counts = { tombstones: 0, siblings: 0, keys: 0 }
  reaped = 0
  /** Trees that had drifted from their keys. */
  drifted = 0
  expired = 0

  constructor(parts: {
    readonly host: NodeHost
    readonly owner: HeldSlots
    readonly options: ReapOptions
    readonly owners: OwnersView
    readonly firstId: number
  }) {
    this.host = parts.host
    this.owner = parts.owner
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
    let keys = 0
    while (keys < options.keysPerTick && this.asked === undefined) {
      if (host.store.isFull || (this.run === undefined && !this.beginRun(nowMs))) return
      keys += this.lookFurther(nowMs) + 1
    }
  }

  /** Goes on to the next run of slots, if it is time; false: it is not, or there is no namespace. */
  private beginRun(nowMs: MonotonicMs): boolean {
    const { host, options } = this
    const namespaces = [...host.namespaces.keys()]
    if (namespaces.length === 0 || nowMs < this.nextRunMs) return false
    if (this.place.namespace >= namespaces.length) {
      this.place = { namespace: 0, slot: 0 }
      this.counts = this.pass
      this.pass = { tombstones: 0, siblings: 0, keys: 0 }
    }
    const namespace = namespaces[this.place.namespace]
    const { slot } = this.place
    const end = slot + slotsPerRun
    this.place =
      end < slotCount
        ? { ...this.place, slot: end }
        : { namespace: this.place.namespace + 1, slot: 0 }
    const runs = (namespaces.length * slotCount) / slotsPerRun
    this.nextRunMs = Math.max(this.nextRunMs, nowMs - 1000) + options.passMs / runs
    this.run = { namespace, next: slot, end, wanted: [] }
    return true
  }

  /** Looks at the next slot of the run of which anything is held, or asks about what was found in all; returns how many keys were looked at. */
  private lookFurther(nowMs: MonotonicMs): number {
    const { owner, run } = this
    if (run === undefined) return 0
    const slot = owner.nextHeld(run.namespace, run.next, run.end)
    if (slot === undefined) {
      this.run = undefined
      const isKnown = this.host.namespaces.has(run.namespace)
      if (run.wanted.length > 0 && isKnown) this.ask(run.namespace, run.wanted, nowMs)
      return 0
    }
    run.next = slot + 1
    if (!owner.recountTree(run.namespace, slot)) this.drifted++
    return this.lookAt(run, slot)
  }

  private lookAt({ namespace, wanted }: Run, slot: Slot): number {
    const { host, owner, options } = this
    if (owner.actorOf(namespace, slot) === undefined) return 0
    const { wallMs } = host.clock
    const clock = owner.copyClock(namespace, slot)
    const expired: Array<{ key: Uint8Array; state: Uint8Array }> = []
    let { tombstones, siblings, keys } = this.pass
    const before = keys
    let isWanted = false
    owner.forEachState(namespace, slot, (key, state, changedMs) => {
      keys++
      const live = liveDots(state)
      if (live === 0) tombstones++
      else if (live > 1) siblings += live - 1
      const left = expireState(state, wallMs)
      if (left !== state) expired.push({ key: key.slice(), state: left })
      isWanted ||= wallMs - changedMs >= options.windowMs && mayPrune(state, clock)
      return true
    })
    for (const { key, state } of expired) {
      owner.replace(namespace, slot, key, state)
      this.expired++
    }
    if (isWanted) wanted.push(slot)
    this.pass = { tombstones, siblings, keys }
    return keys - before
  }

  // ---- Clocks of all owners

  private ask(namespace: NamespaceId, slots: ReadonlyArray<Slot>, nowMs: MonotonicMs): void {
    const { host } = this
    const { ring } = host
    const policy = host.namespaces.get(namespace)
    if (ring === undefined || policy === undefined) return
    const owners = new Map<Slot, ReadonlyArray<NodeId>>()
    const all = new Set<NodeId>()
    for (const slot of slots) {
      ring.owners(slot, policy.copies, this.owners)
      const nodes = [...this.owners.nodes.subarray(0, this.owners.count)]
      if (!nodes.every((node) => host.isUp(node))) continue
      owners.set(slot, nodes)
      for (const node of nodes) all.add(node)
    }
    if (owners.size === 0) return
    const id = this.nextId++
    const asked = { id, namespace, slots: [...owners.keys()], owners, askedAtMs: nowMs }
    this.asked = { ...asked, clocks: new Map() }
    for (const node of all) {
      if (node === host.node) this.answerOwn()
      else {
        host.outbox.send(node, opCodes.clocksWanted, 0, (to) => {
          to.varint(id)
          to.varint(namespace)
          to.varint(ring.version)
          to.varint(asked.slots.length)
          for (const slot of asked.slots) to.varint(slot)
        })
      }
    }
    this.reapIfAnswered()
  }

  private answerOwn(): void {
    const { host, owner, asked } = this
    if (asked === undefined) return
    for (const slot of asked.slots) {
      const clock = owner.copyClock(asked.namespace, slot)
      asked.clocks.set(clockName(host.node, slot), {
        clock,
        actor: owner.actorOf(asked.namespace, slot),
      })
    }
  }

  /** Another owner's question, or an answer. Throws `MalformedBytes`. */
  receive(from: NodeId, code: number, body: ByteReader): void {
    if (code === opCodes.clocksWanted) this.answer(from, body, opCodes.clocks)
    else this.answered(from, body)
  }

  /** Says the clocks of slots that this node owns; `code`: of the answer. */
  answer(from: NodeId, body: ByteReader, code: number): void {
    const { host, owner } = this
    const [id, namespace, version] = [body.varint(), body.varint(), body.varint()]
    const slots = Array.from({ length: Math.min(slotsPerRun, body.varint()) }, () => body.varint())
    const policy = host.namespaces.get(namespace)
    // By another ring other owners might have to be asked.
    if (host.ring?.version !== version || policy === undefined) return
    out.reset()
    let mark = 0
    for (const slot of slots) {
      const actor = owner.actorOf(namespace, slot)
      if (actor === undefined) continue
      out.varint(slot)
      writeActor(out, actor)
      const at = out.length
      out.u32(0)
      owner.writeClock(namespace, slot, out)
      out.patchU32(at, out.length - at - 4)
      mark = Math.max(mark, owner.markOf(namespace, slot))
    }
    const bytes = out.take()
    host.outbox.send(from, code, mark, (to) => {
      to.varint(id)
      to.raw(bytes)
    })
  }

  private answered(from: NodeId, body: ByteReader): void {
    const { asked } = this
    if (asked?.id !== body.varint()) return
    while (body.remaining > 0) {
      const slot = body.varint()
      const actor = readActor(body)
      const clock = SlotClock.read(new ByteReader(body.raw(body.u32())))
      if (asked.owners.get(slot)?.includes(from) === true) {
        asked.clocks.set(clockName(from, slot), { clock, actor })
      }
    }
    this.reapIfAnswered()
  }

  private reapIfAnswered(): void {
    const { asked, host } = this
    if (asked === undefined) return
    const isWhole = [...asked.owners].every(([slot, nodes]) =>
      nodes.every((node) => asked.clocks.has(clockName(node, slot))),
    )
    if (!isWhole) return
    this.asked = undefined
    const policy = host.namespaces.get(asked.namespace)
    if (policy === undefined || host.store.isFull) return
    for (const [slot, nodes] of asked.owners) {
      // The owners that were asked are those of now.
      host.ring?.owners(slot, policy.copies, this.owners)
      const present = [...this.owners.nodes.subarray(0, this.owners.count)]
      if (present.join() === nodes.join()) this.reap(asked, slot, nodes)
    }
  }

  private reap(asked: Asked, slot: Slot, nodes: ReadonlyArray<NodeId>): void {
    const { host, owner, options } = this
    const { namespace } = asked
    const clocks: Array<SlotClock> = []
    const minted = new VersionVector()
    for (const node of nodes) {
      const said = asked.clocks.get(clockName(node, slot))
      if (said?.actor === undefined) return
      clocks.push(said.clock)
      const base = said.clock.baseOf(said.actor)
      if (base > 0) minted.add(said.actor, base)
    }
    const stable = { clock: SlotClock.meet(clocks), minted }
    const pruned: Array<{ key: Uint8Array; state: Uint8Array | undefined; changedMs: number }> = []
    owner.forEachState(namespace, slot, (key, state, changedMs) => {
      if (host.clock.wallMs - changedMs < options.windowMs) return true
      const left = pruneState(state, stable)
      if (left !== state) pruned.push({ key: key.slice(), state: left?.slice(), changedMs })
      return true
    })
    for (const { key, state, changedMs } of pruned) {
      // Epochs end one after the other: each time a whole window would pass until the next of them leaves.
      owner.prune({ namespace, slot, key }, state, changedMs)
      if (state === undefined) this.reaped++
    }
  }
}

function liveDots(state: Uint8Array): number {
  let count = 0
  forEachLiveDot(state, 0, () => {
    count++
  })
  return count
}

function clockName(node: NodeId, slot: Slot): string {
  return `${node}/${slot}`
}
