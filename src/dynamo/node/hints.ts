import type { ByteReader } from "../../lib/byteReader.ts"
import { equalBytes } from "../../lib/bytes.ts"
import { slotCount } from "../../lib/slot.ts"
import type { MonotonicMs, NamespaceId, NodeId, Slot } from "../../types.ts"
import { mergeStates, stateBytesMax } from "../keyState.ts"
import { decodeHint, encodeHint, type HintRecord } from "./hintRecord.ts"
import {
  keyKinds,
  kindInterval,
  namespaceOfKey,
  slotKey,
  slotOfKey,
  slotsInterval,
  userKeyOf,
} from "./keys.ts"
import { opCodes } from "./opCodes.ts"
import type { KeyPlace } from "./owner.ts"
import type { NodeHost, OwnersView } from "./ports.ts"
import { readVerdict, verdicts, writeStore } from "./requestOps.ts"

export interface HintOptions {
  /** Of one owner; beyond, hints for it are refused. */
  readonly bytesPerOwnerMax: number
  /** A hint that is older is dropped as soon as that is allowed. */
  readonly windowMs: number
  readonly bytesPerSecond: number
  readonly inFlightMax: number
  /** One that was not answered for so long is sent again. */
  readonly patienceMs: number
}

export const hintDefaults: HintOptions = {
  bytesPerOwnerMax: 256 * 1024 * 1024,
  windowMs: 3 * 3_600_000,
  bytesPerSecond: 8 * 1024 * 1024,
  inFlightMax: 64,
  patienceMs: 1000,
}

/** What this node owes to one other. */
export interface HintsOwed {
  readonly node: NodeId
  readonly count: number
  readonly bytes: number
}

interface Sent {
  readonly id: number
  readonly key: Uint8Array
  readonly state: Uint8Array
  readonly node: NodeId
  readonly atMs: MonotonicMs
}

/** What becomes of hints beside their delivery. */
export interface HintEvents {
  /** A hint of a slot has gone. */
  readonly parted: (namespace: NamespaceId, slot: Slot) => void
  /** The last one has. */
  readonly emptied: (namespace: NamespaceId, slot: Slot) => void
  /** One goes that some owner lacks. */
  readonly dropping: (namespace: NamespaceId, slot: Slot) => void
  /** This node owns the slot itself by now; false: the state is too large for what it holds already. */
  readonly own: (place: KeyPlace, state: Uint8Array) => boolean
}

/**
 * Hinted hand-off (Dynamo 4.6): states that this node holds for owners that could not be reached, until they have them. A hint is a key's state, merged with what is held for that key
 * already, and the owners that are owed it; it is brought to each as soon as it is heard of again, a few at a time and so many bytes a second, and merged there like
 * any other state, so that it may come late, twice, or after a delete.
 *
 * Whom a hint is owed to is looked up in the present ring: when one of them owns the slot no more, all owners are owed it.
 *
 * A hint that is older than the window is offered to all owners of its slot, and dropped once as many of them hold it as its writer waited for: the others get it by anti-entropy. One
 * that cannot be offered so is kept. So nothing is lost by dropping, and the budget of an owner may stay full: then new hints for it are refused, and the write counts on
 * somebody else, or fails.
 *
 * Invariants:
 * - a hint goes only when every owner that is owed it has said that it holds that very state, or as many as `copies` have and it is past the window;
 * - a hint is sent when it is durable here;
 * - what is counted is what is stored.
 */
export class Hints {
  private readonly host: NodeHost
  private readonly options: HintOptions
  private readonly owners: OwnersView
  private readonly events: HintEvents
  private readonly byOwner = new Map<NodeId, { count: number; bytes: number }>()
  private readonly bySlot = new Map<string, number>()
  private total = 0
  /** Of the last change. */
  private mark = 0
  private readonly sent = new Map<number, Sent>()
  /** By hint and owner: under way. */
  private readonly busy = new Set<string>()
  /** By hint that is past the window: who holds it as it is now. */
  private readonly holders = new Map<string, Set<NodeId>>()
  private cursor: Uint8Array = kindInterval(keyKinds.hint).lower
  private allowance = 0
  private allowanceMs: MonotonicMs
  private nextId: number
  dropped = 0

  constructor(parts: {
    readonly host: NodeHost
    readonly options: HintOptions
    readonly owners: OwnersView
    readonly firstId: number
    readonly events: HintEvents
  }) {
    this.host = parts.host
    this.options = parts.options
    this.owners = parts.owners
    this.events = parts.events
    this.nextId = parts.firstId
    this.allowanceMs = parts.host.clock.monotonicMs
  }

  /** Counts what is stored; once the log has been replayed. */
  load(): void {
    const { lower, upper } = kindInterval(keyKinds.hint)
    this.host.store.scan(lower, upper, (key, value) => {
      this.account(key, decodeHint(value), value.length, 1)
      return true
    })
    this.mark = this.host.store.mark
  }

  get count(): number {
    return this.total
  }

  /** Hints held of a slot. */
  countOf(namespace: NamespaceId, slot: Slot): number {
    return this.bySlot.get(slotName(namespace, slot)) ?? 0
  }

  owed(): ReadonlyArray<HintsOwed> {
    return [...this.byOwner]
      .filter(([, { count }]) => count > 0)
      .map(([node, { count, bytes }]) => ({ node, count, bytes }))
      .sort((left, right) => left.node - right.node)
  }

  /** What is held of a key for its owners. */
  state(place: KeyPlace): Uint8Array | undefined {
    const held = this.host.store.get(slotKey(keyKinds.hint, place))
    return held === undefined ? undefined : decodeHint(held).state
  }

  /** Whether there is room for another hint of so many bytes for these owners. */
  hasRoom(owners: ReadonlyArray<NodeId>, bytes: number): boolean {
    const { bytesPerOwnerMax } = this.options
    return owners.every((node) => (this.byOwner.get(node)?.bytes ?? 0) + bytes <= bytesPerOwnerMax)
  }

  /** Takes a state for owners; false when there is no room. */
  hold(
    place: KeyPlace,
    hint: {
      readonly state: Uint8Array
      readonly owners: ReadonlyArray<NodeId>
      readonly copies: number
    },
  ): boolean {
    const { store, clock } = this.host
    if (!this.hasRoom(hint.owners, hint.state.length)) return false
    const key = slotKey(keyKinds.hint, place)
    const stored = store.get(key)
    const known = stored === undefined ? undefined : decodeHint(stored)
    const state = mergeStates(known?.state, hint.state) ?? hint.state
    if (state.length > stateBytesMax) return false
    const owed = [...new Set([...(known?.owed ?? []), ...hint.owners])].sort((a, b) => a - b)
    const sinceMs = known?.sinceMs ?? clock.wallMs
    const copies = Math.max(known?.copies ?? 0, hint.copies)
    this.replace(key, stored, { sinceMs, copies, owed, state })
    // They hold what it was.
    this.holders.delete(keyName(key))
    return true
  }

  /** Forgets all hints of a namespace that is being deleted. */
  drop(namespace: NamespaceId): void {
    const { store } = this.host
    const all = { start: 0, slots: slotCount }
    const { lower, upper } = slotsInterval(keyKinds.hint, namespace, all)
    const slots = new Set<Slot>()
    store.scan(lower, upper, (key, value) => {
      slots.add(slotOfKey(key))
      this.account(key, decodeHint(value), value.length, -1)
      this.holders.delete(keyName(key))
      return true
    })
    store.deleteRange(lower, upper)
    for (const slot of slots) this.events.emptied(namespace, slot)
    this.mark = store.mark
  }

  private replace(key: Uint8Array, before: Uint8Array | undefined, after: HintRecord | undefined) {
    const { store } = this.host
    if (before !== undefined) this.account(key, decodeHint(before), before.length, -1)
    if (after === undefined) store.delete(key)
    else {
      const value = encodeHint(after)
      store.put(key, value)
      this.account(key, after, value.length, 1)
    }
    this.mark = store.mark
    if (after === undefined) {
      this.holders.delete(keyName(key))
      const [namespace, slot] = [namespaceOfKey(key), slotOfKey(key)]
      this.events.parted(namespace, slot)
      if (this.countOf(namespace, slot) === 0) this.events.emptied(namespace, slot)
    }
  }

  private account(key: Uint8Array, { owed }: HintRecord, bytes: number, sign: 1 | -1): void {
    for (const node of owed) {
      const sums = this.byOwner.get(node) ?? { count: 0, bytes: 0 }
      sums.count += sign
      sums.bytes += sign * bytes
      this.byOwner.set(node, sums)
    }
    const name = slotName(namespaceOfKey(key), slotOfKey(key))
    const count = (this.bySlot.get(name) ?? 0) + sign
    if (count === 0) this.bySlot.delete(name)
    else this.bySlot.set(name, count)
    this.total += sign
  }

  // ---- Delivery

  tick(): void {
    const { clock } = this.host
    const nowMs = clock.monotonicMs
    const { bytesPerSecond, patienceMs } = this.options
    const earned = ((nowMs - this.allowanceMs) / 1000) * bytesPerSecond
    this.allowance = Math.min(bytesPerSecond, this.allowance + earned)
    this.allowanceMs = nowMs
    for (const [id, sent] of this.sent) {
      if (nowMs - sent.atMs < patienceMs) break
      this.sent.delete(id)
      this.busy.delete(busyName(sent.key, sent.node))
    }
    if (this.total > 0) this.deliver()
  }

  /** Goes on where the last tick ended, round and round. */
  private deliver(): void {
    const { store } = this.host
    const { lower, upper } = kindInterval(keyKinds.hint)
    const found: Array<{ key: Uint8Array; value: Uint8Array }> = []
    const { inFlightMax } = this.options
    store.scan(this.cursor, upper, (key, value) => {
      found.push({ key: key.slice(), value: value.slice() })
      return found.length < inFlightMax
    })
    const last = found[found.length - 1]
    const isEnd = last === undefined || found.length < inFlightMax
    this.cursor = isEnd ? lower : nextKey(last.key)
    for (const { key, value } of found) {
      if (this.allowance <= 0 || this.sent.size >= inFlightMax) return
      this.offer(key, value)
    }
  }

  private offer(key: Uint8Array, value: Uint8Array): void {
    const { host, options } = this
    const { ring, namespaces, node: self } = host
    const namespace = namespaces.get(namespaceOfKey(key))
    // This node may know less than when it took the hint: whoever drops a namespace says so (`drop`).
    if (ring === undefined || namespace === undefined) return
    const hint = decodeHint(value)
    const slot = slotOfKey(key)
    ring.owners(slot, namespace.copies, this.owners)
    const present = [...this.owners.nodes.subarray(0, this.owners.count)]
    const isStale = hint.owed.some((node) => !present.includes(node))
    if (isStale) return this.replace(key, value, { ...hint, owed: present.sort((a, b) => a - b) })
    if (hint.owed.includes(self)) {
      const place = { namespace: namespace.id, slot, key: userKeyOf(key) }
      if (!this.events.own(place, hint.state)) return
      const owed = hint.owed.filter((node) => node !== self)
      return this.replace(key, value, owed.length === 0 ? undefined : { ...hint, owed })
    }
    const holders = this.holders.get(keyName(key))
    // Whoever is owed it since the ring has changed may have said before that it holds it.
    const lacking = hint.owed.filter((node) => holders?.has(node) !== true)
    if (lacking.length < hint.owed.length) {
      return this.replace(key, value, lacking.length === 0 ? undefined : { ...hint, owed: lacking })
    }
    const isOld = host.clock.wallMs - hint.sinceMs > options.windowMs
    for (const node of isOld ? present : hint.owed) {
      if (node === self || !host.isUp(node) || this.busy.has(busyName(key, node))) continue
      if (holders?.has(node) !== true) this.send(key, hint, node)
    }
  }

  private send(key: Uint8Array, hint: HintRecord, node: NodeId): void {
    const { host } = this
    const id = this.nextId++
    const { state, copies } = hint
    this.sent.set(id, { id, key, state, node, atMs: host.clock.monotonicMs })
    this.busy.add(busyName(key, node))
    this.allowance -= key.length + state.length
    const ringVersion = host.ring?.version ?? 0
    const namespace = namespaceOfKey(key)
    host.outbox.send(node, opCodes.hint, this.mark, (out) => {
      writeStore(out, {
        id,
        namespace,
        ringVersion,
        hintFor: 0,
        copies,
        key: userKeyOf(key),
        state,
      })
    })
  }

  /** Whether as many of these own the hint's slot now as a write would ask for: what others hold may be forgotten. */
  private isHeldBy(key: Uint8Array, holders: ReadonlySet<NodeId>, copies: number): boolean {
    const { host, owners } = this
    const { ring } = host
    const namespace = host.namespaces.get(namespaceOfKey(key))
    if (ring === undefined || namespace === undefined) return false
    ring.owners(slotOfKey(key), namespace.copies, owners)
    let held = 0
    for (const node of holders) {
      const place = owners.indexOf(node)
      if (place >= 0) held |= 1 << place
    }
    return owners.writeMet(held, copies)
  }

  /** An owner's answer. */
  receive(from: NodeId, body: ByteReader): void {
    const { id, verdict } = readVerdict(body)
    const sent = this.sent.get(id)
    if (sent?.node !== from) return
    this.sent.delete(id)
    this.busy.delete(busyName(sent.key, from))
    if (verdict !== verdicts.done) return
    const value = this.host.store.get(sent.key)
    if (value === undefined) return
    const hint = decodeHint(value)
    // It has grown since: the owner is owed the rest.
    if (!equalBytes(hint.state, sent.state)) return
    const owed = hint.owed.filter((node) => node !== from)
    const holders = this.holders.get(keyName(sent.key)) ?? new Set()
    holders.add(from)
    const isOld = this.host.clock.wallMs - hint.sinceMs > this.options.windowMs
    const mayGo = isOld && this.isHeldBy(sent.key, holders, hint.copies)
    if (owed.length === 0) return this.replace(sent.key, value, undefined)
    if (mayGo) {
      this.dropped++
      this.events.dropping(namespaceOfKey(sent.key), slotOfKey(sent.key))
      return this.replace(sent.key, value, undefined)
    }
    if (isOld) this.holders.set(keyName(sent.key), holders)
    if (owed.length < hint.owed.length) this.replace(sent.key, value, { ...hint, owed })
  }
}

function keyName(key: Uint8Array): string {
  return Buffer.from(key).toString("latin1")
}

function busyName(key: Uint8Array, node: NodeId): string {
  return `${node} ${keyName(key)}`
}

function slotName(namespace: NamespaceId, slot: Slot): string {
  return `${namespace}/${slot}`
}

function nextKey(key: Uint8Array): Uint8Array {
  const next = new Uint8Array(key.length + 1)
  next.set(key)
  return next
}
