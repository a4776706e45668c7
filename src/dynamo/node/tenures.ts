import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type { MonotonicMs, NamespaceId, NodeId, RingVersion, Slot } from "../../types.ts"
import type { NewDot } from "../crdt/set.ts"
import { type Actor, actorOf } from "../dot.ts"
import type { Epochs } from "./epochs.ts"
import {
  keyKinds,
  kindInterval,
  namespaceOfKey,
  slotOfKey,
  slotPrefixBytes,
  tenureKey,
} from "./keys.ts"
import { opCodes } from "./opCodes.ts"
import type { NodeHost, OwnersView } from "./ports.ts"

/** Time as a stand-in that mints dots for a slot. */
interface Tenure {
  readonly namespace: NamespaceId
  readonly slot: Slot
  readonly epoch: number
  /** Dots minted. */
  counter: number
  /** Of the ring that it began by. */
  readonly ringVersion: RingVersion
  /** A hint of it was dropped: some owner may lack some of it for ever, and nobody is told otherwise. */
  isBroken: boolean
  /** After its end: who has not said that it knows. `undefined`: it lasts. */
  owed: ReadonlyArray<NodeId> | undefined
  askedAtMs: MonotonicMs
}

const format = 1
const out = new ByteWriter(64)
const patienceMs = 1000

/**
 * When none of a slot's owners can be reached, a stand-in takes writes itself, under dots of its own: it begins a tenure, with an epoch that was never used before. All that it
 * writes is owed to all owners as hints (hints.ts). When no hint of the slot is left, each owner has all of the tenure, or what has replaced it, and the tenure ends: the owners are
 * told how far it went, so that their clocks have no gaps where one write of it had replaced another before anybody saw it (DESIGN section 4, "Slot clocks").
 *
 * A write builds on what its actor wrote before it to the same key: a set's vector says that all of it is in there, a counter's total that all of it is counted. A stand-in
 * knows of that only while it keeps the hint. So once a hint of the slot has gone, the next write there begins another tenure, and the one before waits for the rest of its hints.
 *
 *     tenure := format u8 = 1 ‖ ring version varint ‖ counter varint ‖ flags u8 (1 broken, 2 ended) ‖ count u8 ‖ owed varint*        under the slot and the epoch (u32 BE); stored: do not change
 *     ended  := namespace varint ‖ slot varint ‖ epoch varint ‖ counter varint ‖ ring version that it began by varint          sent, and sent back by who knows it now
 *
 * Invariants:
 * - a slot has one tenure at most that mints, and what it minted is held here, all of it; each has another epoch;
 * - the end is told only of a tenure of which every hint was delivered to every owner: of a slot whose owners have changed since it began nobody is told, for a new owner
 *   may have got only the last of its hints. For the same reason an owner that finds that the slot has changed since then says that it knows, and takes over nothing.
 */
export class Tenures {
  private readonly host: NodeHost
  private readonly epochs: Epochs
  private readonly owners: OwnersView
  /** By slot: the one that mints. */
  private readonly minting = new Map<string, Tenure>()
  /** By slot: those with hints left, the one that mints among them. */
  private readonly lasting = new Map<string, Array<Tenure>>()
  private readonly ended = new Map<string, Tenure>()

  constructor(parts: {
    readonly host: NodeHost
    readonly epochs: Epochs
    readonly owners: OwnersView
  }) {
    this.host = parts.host
    this.epochs = parts.epochs
    this.owners = parts.owners
  }

  /** Once the log has been replayed. None of an earlier life mints again: hints of it may have gone. `isHurt`: damage may have taken hints; nobody is told any more how far tenures went. */
  load(isHurt = false): void {
    const { lower, upper } = kindInterval(keyKinds.tenure)
    this.host.store.scan(lower, upper, (key, value) => {
      const tenure = decode(key, value)
      if (tenure.owed === undefined) this.keep(tenure)
      else this.ended.set(endedName(tenure), tenure)
      return true
    })
    if (!isHurt) return
    for (const tenures of this.lasting.values()) for (const tenure of tenures) this.break(tenure)
  }

  private break(tenure: Tenure): void {
    tenure.isBroken = true
    this.put(tenure)
  }

  /** Tenures that last, and those whose end is not known to all owners. */
  get counts(): { readonly lasting: number; readonly ended: number } {
    let lasting = 0
    for (const tenures of this.lasting.values()) lasting += tenures.length
    return { lasting, ended: this.ended.size }
  }

  /** By slot the first epoch of a tenure that is not over, or of which not all owners know how far it went. */
  floors(namespace: NamespaceId): ReadonlyMap<Slot, number> {
    const floors = new Map<Slot, number>()
    const all = [...[...this.lasting.values()].flat(), ...this.ended.values()]
    for (const { slot, epoch, namespace: of } of all) {
      if (of === namespace) floors.set(slot, Math.min(epoch, floors.get(slot) ?? epoch))
    }
    return floors
  }

  /** The dot that `mint` gives next; begins a tenure if need be. */
  next(namespace: NamespaceId, slot: Slot): NewDot {
    const tenure = this.minting.get(nameOf({ namespace, slot })) ?? this.begin(namespace, slot)
    return { actor: actorOf(this.host.node, tenure.epoch), counter: tenure.counter + 1 }
  }

  /** The dot that `next` gave is used. */
  mint(namespace: NamespaceId, slot: Slot): void {
    const tenure = this.minting.get(nameOf({ namespace, slot })) as Tenure
    tenure.counter++
    this.put(tenure)
  }

  /** The dot that `next` gave is not used. A tenure that has minted nothing is none: no hint would ever end it. */
  giveUp(namespace: NamespaceId, slot: Slot): void {
    const name = nameOf({ namespace, slot })
    const tenure = this.minting.get(name)
    if (tenure === undefined || tenure.counter > 0) return
    this.minting.delete(name)
    const others = (this.lasting.get(name) ?? []).filter((each) => each !== tenure)
    if (others.length === 0) this.lasting.delete(name)
    else this.lasting.set(name, others)
    this.host.store.delete(keyOf(tenure))
  }

  private begin(namespace: NamespaceId, slot: Slot): Tenure {
    const epoch = this.epochs.next()
    const tenure: Tenure = {
      ...{ namespace, slot, epoch, counter: 0, ringVersion: this.host.ring?.version ?? 0 },
      ...{ isBroken: false, owed: undefined, askedAtMs: 0 },
    }
    this.minting.set(nameOf(tenure), tenure)
    this.keep(tenure)
    this.put(tenure)
    return tenure
  }

  private keep(tenure: Tenure): void {
    const tenures = this.lasting.get(nameOf(tenure))
    if (tenures === undefined) this.lasting.set(nameOf(tenure), [tenure])
    else tenures.push(tenure)
  }

  /** A hint of the slot was dropped before all owners had it. */
  broken(namespace: NamespaceId, slot: Slot): void {
    for (const tenure of this.lasting.get(nameOf({ namespace, slot })) ?? []) {
      this.break(tenure)
    }
  }

  /** A hint of the slot has gone. */
  parted(namespace: NamespaceId, slot: Slot): void {
    this.minting.delete(nameOf({ namespace, slot }))
  }

  /** No hint of the slot is left. */
  emptied(namespace: NamespaceId, slot: Slot): void {
    const name = nameOf({ namespace, slot })
    const tenures = this.lasting.get(name) ?? []
    this.lasting.delete(name)
    this.minting.delete(name)
    for (const tenure of tenures) this.end(tenure)
  }

  private end(tenure: Tenure): void {
    const { namespace, slot } = tenure
    const { ring, namespaces, store } = this.host
    const policy = namespaces.get(namespace)
    const hasMoved = ring?.verdictOf(slot, tenure.ringVersion) !== "current"
    if (tenure.isBroken || hasMoved || ring === undefined || policy === undefined) {
      store.delete(keyOf(tenure))
      return
    }
    ring.owners(slot, policy.copies, this.owners)
    tenure.owed = [...this.owners.nodes.subarray(0, this.owners.count)]
    tenure.askedAtMs = Number.NEGATIVE_INFINITY
    this.ended.set(endedName(tenure), tenure)
    this.put(tenure)
  }

  private put(tenure: Tenure): void {
    this.host.store.put(keyOf(tenure), encode(tenure))
  }

  tick(): void {
    const { host } = this
    if (this.ended.size === 0) return
    const nowMs = host.clock.monotonicMs
    for (const tenure of this.ended.values()) {
      if (nowMs - tenure.askedAtMs < patienceMs) continue
      tenure.askedAtMs = nowMs
      for (const node of tenure.owed ?? []) {
        // Who owns the slot no more need not know, and says nothing.
        if (!this.owns(node, tenure)) this.known(node, tenure)
        else if (node !== host.node && host.isUp(node)) {
          host.outbox.send(node, opCodes.tenureEnded, host.store.mark, (to) => {
            writeEnd(to, tenure)
          })
        }
      }
    }
  }

  /** By the ring that is known here. */
  private owns(node: NodeId, { namespace, slot }: Tenure): boolean {
    const { ring, namespaces } = this.host
    const copies = namespaces.get(namespace)?.copies
    return ring !== undefined && copies !== undefined && ring.isOwner(slot, copies, node)
  }

  /** An owner knows the end of a tenure. */
  receive(from: NodeId, body: ByteReader): void {
    const end = readEnd(body)
    const tenure = this.ended.get(endedName(end))
    if (tenure !== undefined) this.known(from, tenure)
  }

  private known(node: NodeId, tenure: Tenure): void {
    tenure.owed = (tenure.owed ?? []).filter((each) => each !== node)
    if (tenure.owed.length > 0) return this.put(tenure)
    this.ended.delete(endedName(tenure))
    this.host.store.delete(keyOf(tenure))
  }
}

export interface TenureEnd {
  readonly namespace: NamespaceId
  readonly slot: Slot
  readonly epoch: number
  readonly counter: number
  readonly ringVersion: RingVersion
}

export function writeEnd(to: ByteWriter, end: TenureEnd): void {
  to.varint(end.namespace)
  to.varint(end.slot)
  to.varint(end.epoch)
  to.varint(end.counter)
  to.varint(end.ringVersion)
}

/** Throws `MalformedBytes`. */
export function readEnd(body: ByteReader): TenureEnd {
  const [namespace, slot, epoch] = [body.varint(), body.varint(), body.varint()]
  const [counter, ringVersion] = [body.varint(), body.varint()]
  body.end()
  return { namespace, slot, epoch, counter, ringVersion }
}

export function actorOfEnd(node: NodeId, { epoch }: TenureEnd): Actor {
  return actorOf(node, epoch)
}

function keyOf({ namespace, slot, epoch }: Tenure): Uint8Array {
  const prefix = tenureKey(namespace, slot)
  return Uint8Array.of(...prefix, epoch >>> 24, epoch >>> 16, epoch >>> 8, epoch)
}

function encode({ ringVersion, counter, isBroken, owed }: Tenure): Uint8Array {
  out.reset()
  out.u8(format)
  out.varint(ringVersion)
  out.varint(counter)
  out.u8((isBroken ? 1 : 0) | (owed === undefined ? 0 : 2))
  out.u8(owed?.length ?? 0)
  for (const node of owed ?? []) out.varint(node)
  return out.take()
}

function decode(key: Uint8Array, value: Uint8Array): Tenure {
  const reader = new ByteReader(value, 1)
  const at = slotPrefixBytes
  const epoch = ((key[at] << 24) | (key[at + 1] << 16) | (key[at + 2] << 8) | key[at + 3]) >>> 0
  const ringVersion = reader.varint()
  const counter = reader.varint()
  const flags = reader.u8()
  const owed = Array.from({ length: reader.u8() }, () => reader.varint())
  return {
    ...{ namespace: namespaceOfKey(key), slot: slotOfKey(key), epoch, ringVersion, counter },
    isBroken: (flags & 1) !== 0,
    owed: (flags & 2) === 0 ? undefined : owed,
    askedAtMs: Number.NEGATIVE_INFINITY,
  }
}

function nameOf({ namespace, slot }: { namespace: NamespaceId; slot: Slot }): string {
  return `${namespace}/${slot}`
}

function endedName({ namespace, slot, epoch }: TenureEnd | Tenure): string {
  return `${namespace}/${slot}/${epoch}`
}
