import { assert } from "../../lib/assert.ts"
import { ByteReader } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import { loadU32, storeU32 } from "../../lib/littleEndian.ts"
import { slotCount } from "../../lib/slot.ts"
import type { NamespaceId, NodeId, Slot } from "../../types.ts"
import { type Actor, actorOf, nodeOf } from "../dot.ts"
import { hasNews, mergeExchanged } from "../exchange.ts"
import { addDots, forEachLiveDot, mergeStates, stateBytesMax } from "../keyState.ts"
import { MerkleHash } from "../merkleHash.ts"
import type { Sum } from "../merkleMessages.ts"
import { MerkleView } from "../merkleView.ts"
import { type SeenDots, SlotClock } from "../slotClock.ts"
import {
  keyKinds,
  kindInterval,
  namespaceOfKey,
  slotKey,
  slotOfKey,
  slotsInterval,
  slotsPerRun,
  tablesKey,
  userKeyOf,
} from "./keys.ts"
import type { NodeStore } from "./ports.ts"
import { SlotTables } from "./slotTables.ts"

/** A key, and where it is. */
export interface KeyPlace {
  readonly namespace: NamespaceId
  readonly slot: Slot
  readonly key: Uint8Array
}

/** What other rooms ask of it. */
export interface OwnerTables {
  /** It may be kept, and must not be written to. */
  state(namespace: NamespaceId, slot: Slot, key: Uint8Array): Uint8Array | undefined
  /** Merges a state that came from anywhere. False: the two together are too large for a state, and nothing was changed. */
  merge(namespace: NamespaceId, slot: Slot, key: Uint8Array, incoming: Uint8Array): boolean
  /** The key's part of a complete exchange; false as above. */
  mergeExchanged(place: KeyPlace, theirs: Uint8Array | undefined, seenThere: SeenDots): boolean
  /** Puts what is left of a state that has expired; `undefined`: nothing. */
  replace(namespace: NamespaceId, slot: Slot, key: Uint8Array, state: Uint8Array | undefined): void
  /** The same where it was pruned: what is left is as old as it was. */
  prune(place: KeyPlace, state: Uint8Array | undefined, changedMs: number): void
  /** The slot's clock as an object of its own. */
  copyClock(namespace: NamespaceId, slot: Slot): SlotClock
  /** The bytes of the slot's clock. */
  writeClock(namespace: NamespaceId, slot: Slot, to: ByteWriter): void
  adopt(namespace: NamespaceId, slot: Slot, clock: SlotClock): void
  /** The slot's clock as a view, until the next call. */
  seen(namespace: NamespaceId, slot: Slot): SeenDots
  view(namespace: NamespaceId): MerkleView
  /** In order of key, until `visit` returns false. Views; nothing may be put meanwhile. */
  forEachState(
    namespace: NamespaceId,
    slot: Slot,
    visit: (key: Uint8Array, state: Uint8Array, changedMs: number) => boolean,
  ): void
  /** With this mark all that is held of the slot is durable, its clock and tree included. */
  markOf(namespace: NamespaceId, slot: Slot): number
  /** As which this node owns the slot; `undefined`: it does not. */
  actorOf(namespace: NamespaceId, slot: Slot): Actor | undefined
}

/** Bytes before the state in what is stored of a key: when it last changed, by this node's wall clock. */
const changedBytes = 6
/** Reused. */
const changedHead = new Uint8Array(changedBytes)
/** First byte of a record that stands in the log alone. Stored: do not change. */
const records = { clock: 1, epochs: 2, dropped: 3 } as const

const record = new ByteWriter(4096)
const hash = new MerkleHash()

/**
 * What this node holds of eventual namespaces as an owner of slots: the states of keys, and beside them the slots' clocks and trees, which change with them in one step.
 *
 * A key's state is put into the store; clock, tree and epoch of its slot are tables in memory, which follow from the puts, in order, when the log is replayed. What does
 * not follow from a put, a clock that was adopted and an epoch that began, stands in the log as a record of its own. All tables that changed are written when the
 * memtable is sealed (`seal`), so that they are as old as the keys beside them.
 *
 * Invariants:
 * - the tree has exactly the live dots of the states held, and a pair is taken out with the hash that it was put in with;
 * - the clock has every dot of every state held, and only grows;
 * - a dot is minted in the epoch in which this node owns the slot, and the clock has it before the state is put.
 */
export class Owner implements OwnerTables {
  private readonly node: NodeId
  private readonly store: NodeStore
  private readonly wallMs: () => number
  private readonly nextEpoch: () => number
  private readonly tables = new Map<NamespaceId, SlotTables>()
  /** Slots of which clocks and trees are not kept while the log is replayed, since they are to begin again. */
  private readonly unreckoned = new Set<Slot>()

  constructor(options: {
    readonly node: NodeId
    readonly store: NodeStore
    readonly wallMs: () => number
    readonly nextEpoch: () => number
  }) {
    this.node = options.node
    this.store = options.store
    this.wallMs = options.wallMs
    this.nextEpoch = options.nextEpoch
  }

  // ---- Recovery

  /** Reads the tables as they were sealed; then the log is replayed. `lost`: slots that will begin again (`beginAgain`). Throws `MalformedBytes`. */
  load(lost: Iterable<Slot> = []): void {
    for (const slot of lost) this.unreckoned.add(slot)
    const { lower, upper } = kindInterval(keyKinds.tables)
    this.store.scan(lower, upper, (key, value) => {
      this.tablesOf(namespaceOfKey(key)).readRun(slotOfKey(key) * slotsPerRun, value)
      return true
    })
  }

  /** What is stored of a slot cannot be read: until it begins again, the log need not be reckoned up for it. */
  replayLost(key: Uint8Array): void {
    if (key[1] === keyKinds.data) this.unreckoned.add(slotOfKey(key))
  }

  /** Something of the log is missing, and the same goes for all slots. */
  replayBroken(): void {
    for (let slot = 0; slot < slotCount; slot++) this.unreckoned.add(slot)
  }

  /** Before a put or delete of the log is put again: what it does to clock and tree. `value` undefined: a delete. */
  replayPut(key: Uint8Array, value: Uint8Array | undefined, mark: number): void {
    if (key[1] !== keyKinds.data) return
    const [namespace, slot] = [namespaceOfKey(key), slotOfKey(key)]
    if (this.unreckoned.has(slot)) return
    const before = this.store.get(key, changedBytes)
    this.account({ namespace, slot, key: userKeyOf(key) }, before, value?.subarray(changedBytes))
    this.tablesOf(namespace).changed(slot, mark)
  }

  /** The same of a deleted interval: of a whole namespace that was dropped. A dropped slot has a record of its own. */
  replayDelete(lower: Uint8Array, upper: Uint8Array): void {
    const isWhole = namespaceOfKey(upper) !== namespaceOfKey(lower)
    if (lower[1] === keyKinds.data && isWhole) this.tables.delete(namespaceOfKey(lower))
  }

  /** A record that stood in the log alone. */
  replayRecord(bytes: Uint8Array, mark: number): void {
    const reader = new ByteReader(bytes)
    const kind = reader.u8()
    const tables = this.tablesOf(reader.varint())
    if (kind === records.clock) {
      const slot = reader.varint()
      tables.clocks.set(slot, SlotClock.read(reader))
      tables.changed(slot, mark)
    } else if (kind === records.dropped) {
      const slot = reader.varint()
      tables.clocks.set(slot, new SlotClock())
      tables.tree.forget(slot)
      tables.changed(slot, mark)
    } else {
      const epoch = reader.varint()
      while (reader.remaining > 0) {
        const start = reader.varint()
        const count = reader.varint()
        for (let slot = start; slot < start + count; slot++) {
          tables.epochs[slot] = epoch
          tables.changed(slot, mark)
        }
      }
    }
  }

  /**
   * Slots of which data was lost begin again: with what is still held of them, clocks that have the dots of that and no other, and a new epoch where this node owns them. Once the
   * log has been replayed.
   */
  beginAgain(lost: ReadonlySet<Slot>, nextEpoch: () => number): void {
    this.unreckoned.clear()
    if (lost.size === 0) return
    const runs = runsOf(lost)
    for (const namespace of this.namespacesHeld()) {
      const { clocks, tree, epochs } = this.tablesOf(namespace)
      for (const slot of lost) {
        clocks.set(slot, new SlotClock())
        tree.forget(slot)
      }
      for (let i = 0; i < runs.length; i += 2) {
        const slots = { start: runs[i], slots: runs[i + 1] }
        this.forEachWithin(namespace, slots, (slot, key, state) => {
          this.account({ namespace, slot, key }, undefined, state)
          return true
        })
      }
      for (const slot of lost) this.tablesOf(namespace).changed(slot, this.store.mark)
      const owned = runsOf([...lost].filter((slot) => epochs[slot] > 0))
      if (owned.length > 0) this.setEpoch(namespace, nextEpoch(), owned)
    }
  }

  /** By tables or by keys. */
  private namespacesHeld(): ReadonlySet<NamespaceId> {
    const found = new Set(this.tables.keys())
    const { upper } = kindInterval(keyKinds.data)
    let { lower } = kindInterval(keyKinds.data)
    for (let last = -1; ; ) {
      let next = -1
      this.store.scan(lower, upper, (key) => {
        next = namespaceOfKey(key)
        return false
      })
      if (next <= last) return found
      found.add(next)
      last = next
      lower = slotsInterval(keyKinds.data, next + 1, { start: 0, slots: 1 }).lower
    }
  }

  // ---- Sealing

  /** About as many bytes as `seal` puts. */
  get sealBytes(): number {
    let bytes = 0
    for (const tables of this.tables.values()) bytes += tables.dirtyBytes
    return bytes
  }

  /** Puts all tables that have changed since the last time, right before the memtable is sealed; `put` goes to the memtable alone. */
  seal(put: (key: Uint8Array, value: Uint8Array) => void): void {
    for (const [namespace, tables] of this.tables) {
      for (const start of tables.takeDirty()) {
        record.reset()
        tables.writeRun(start, record)
        put(tablesKey(namespace, start), record.bytes())
      }
    }
  }

  // ---- Slots

  private tablesOf(namespace: NamespaceId): SlotTables {
    let tables = this.tables.get(namespace)
    if (tables === undefined) {
      tables = new SlotTables()
      this.tables.set(namespace, tables)
    }
    return tables
  }

  actorOf(namespace: NamespaceId, slot: Slot): Actor | undefined {
    // Other nodes name namespaces and slots: what there is not has no owner, and gets no tables.
    const epoch = this.tables.get(namespace)?.epochs[slot] ?? 0
    return epoch === 0 ? undefined : actorOf(this.node, epoch)
  }

  /**
   * Takes note of which slots this node owns now. Those that it did not own are owned in the epoch that `nextEpoch` gives; where it owned one
   * before, its data and clock stay as they were, but never its epoch.
   */
  own(namespace: NamespaceId, isOwner: (slot: Slot) => boolean, nextEpoch: () => number): void {
    const { epochs } = this.tablesOf(namespace)
    const gained: Array<Slot> = []
    const lost: Array<Slot> = []
    for (let slot = 0; slot < slotCount; slot++) {
      const owns = isOwner(slot)
      if (owns !== epochs[slot] > 0) (owns ? gained : lost).push(slot)
    }
    if (lost.length > 0) this.setEpoch(namespace, 0, runsOf(lost))
    if (gained.length > 0) this.setEpoch(namespace, nextEpoch(), runsOf(gained))
  }

  private setEpoch(namespace: NamespaceId, epoch: number, slots: ReadonlyArray<number>): void {
    record.reset()
    record.u8(records.epochs)
    record.varint(namespace)
    record.varint(epoch)
    for (const number of slots) record.varint(number)
    const bytes = record.take()
    this.store.log(bytes)
    this.replayRecord(bytes, this.store.mark)
  }

  // ---- Keys

  state(namespace: NamespaceId, slot: Slot, key: Uint8Array): Uint8Array | undefined {
    return this.store.get(slotKey(keyKinds.data, { namespace, slot, key }), changedBytes)
  }

  /**
   * Writes a key under the next dot of this node: `make` gives its new state from the present one, or refuses, and then the dot is as if it had never been. Requires that this node owns
   * the slot.
   */
  write<Refusal extends object>(
    place: KeyPlace,
    make: (
      local: Uint8Array | undefined,
      dot: { readonly actor: Actor; readonly counter: number },
    ) => Uint8Array | Refusal,
  ): Uint8Array | Refusal {
    const { namespace, slot } = place
    const actor = this.mintingActor(namespace, slot)
    const { clocks } = this.tablesOf(namespace)
    const stored = slotKey(keyKinds.data, place)
    const local = this.store.get(stored, changedBytes)
    const counter = clocks.next(slot, actor)
    const made = make(local, { actor, counter })
    if (!(made instanceof Uint8Array)) return made
    assert(clocks.mint(slot, actor) === counter, "nobody else mints meanwhile")
    this.put(place, stored, local, made)
    return made
  }

  /**
   * As which this node mints in a slot that it owns. Where the clock knows of dots of this actor that it has not minted, it is another one from here on: a caller may have made up a context,
   * and what he named has been taken in with the state that he wrote.
   */
  private mintingActor(namespace: NamespaceId, slot: Slot): Actor {
    const actor = this.actorOf(namespace, slot)
    assert(actor !== undefined, () => `n${this.node} owns slot ${slot}`)
    if (!this.tablesOf(namespace).clocks.hasGaps(slot, actor)) return actor
    const epoch = this.nextEpoch()
    this.setEpoch(namespace, epoch, [slot, 1])
    return actorOf(this.node, epoch)
  }

  merge(namespace: NamespaceId, slot: Slot, key: Uint8Array, incoming: Uint8Array): boolean {
    const place = { namespace, slot, key }
    const { clocks } = this.tablesOf(namespace)
    const stored = slotKey(keyKinds.data, place)
    const local = this.store.get(stored, changedBytes)
    const merged = mergeStates(local, incoming, clocks.of(slot))
    if (isTooLarge(merged)) return false
    if (merged !== local) this.put(place, stored, local, merged)
    if (merged !== incoming) this.see(namespace, slot, incoming)
    return true
  }

  /** Adds the dots of a state that was merged here. What has been replaced here already is seen all the same, and no put tells of it. */
  private see(namespace: NamespaceId, slot: Slot, state: Uint8Array): void {
    const { clocks } = this.tablesOf(namespace)
    if (!hasNews(state, clocks.of(slot))) return
    addDots(state, clocks.of(slot))
    this.logClock(namespace, slot)
  }

  mergeExchanged(place: KeyPlace, theirs: Uint8Array | undefined, seenThere: SeenDots): boolean {
    const { namespace, slot } = place
    const { clocks } = this.tablesOf(namespace)
    const stored = slotKey(keyKinds.data, place)
    const local = this.store.get(stored, changedBytes)
    const merged = mergeExchanged(local, theirs, clocks.of(slot), seenThere)
    if (isTooLarge(merged)) return false
    if (merged !== local) this.put(place, stored, local, merged)
    if (theirs !== undefined) this.see(namespace, slot, theirs)
    return true
  }

  replace(
    namespace: NamespaceId,
    slot: Slot,
    key: Uint8Array,
    state: Uint8Array | undefined,
  ): void {
    const place = { namespace, slot, key }
    const stored = slotKey(keyKinds.data, place)
    const local = this.store.get(stored, changedBytes)
    if (local !== state) this.put(place, stored, local, state)
  }

  prune(place: KeyPlace, state: Uint8Array | undefined, changedMs: number): void {
    const stored = slotKey(keyKinds.data, place)
    const local = this.store.get(stored, changedBytes)
    if (local === state) return
    stampChanged(changedMs)
    this.putStamped(place, stored, local, state)
  }

  private put(
    place: KeyPlace,
    stored: Uint8Array,
    before: Uint8Array | undefined,
    after: Uint8Array | undefined,
  ): void {
    stampChanged(this.wallMs())
    this.putStamped(place, stored, before, after)
  }

  private putStamped(
    place: KeyPlace,
    stored: Uint8Array,
    before: Uint8Array | undefined,
    after: Uint8Array | undefined,
  ): void {
    // The store first: it may seal a full memtable before it takes this one, with tables that must not have it yet.
    if (after === undefined) this.store.delete(stored)
    else this.store.put(stored, changedHead, after)
    this.account(place, before, after)
    this.tablesOf(place.namespace).changed(place.slot, this.store.mark)
  }

  /** What a change of a key does to the clock and the tree of its slot. */
  private account(
    place: KeyPlace,
    before: Uint8Array | undefined,
    after: Uint8Array | undefined,
  ): void {
    const { slot, key } = place
    const { clocks, tree } = this.tablesOf(place.namespace)
    if (after !== undefined) addDots(after, clocks.of(slot))
    if (before !== undefined && hashState(key, before) > 0) tree.remove(slot, hash)
    if (after !== undefined && hashState(key, after) > 0) tree.insert(slot, hash)
  }

  /** Slots that this node does not own, and of which it holds something still. */
  leftOver(namespace: NamespaceId): ReadonlyArray<Slot> {
    const tables = this.tables.get(namespace)
    const found: Array<Slot> = []
    if (tables === undefined) return found
    for (let slot = 0; slot < slotCount; slot++) {
      if (tables.epochs[slot] === 0 && !tables.isEmpty(slot)) found.push(slot)
    }
    return found
  }

  /** Slots of a run that this node owns and of which anything was ever seen. */
  forEachOwned(namespace: NamespaceId, start: Slot, visit: (slot: Slot) => void): void {
    const tables = this.tables.get(namespace)
    if (tables === undefined) return
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      if (tables.epochs[slot] > 0 && !tables.clocks.isEmpty(slot)) visit(slot)
    }
  }

  /** The first slot from `start` to before `end` of which anything is held. */
  nextHeld(namespace: NamespaceId, start: Slot, end: Slot): Slot | undefined {
    const tables = this.tables.get(namespace)
    for (let slot = start; tables !== undefined && slot < end; slot++) {
      if (!tables.isEmpty(slot)) return slot
    }
    return undefined
  }

  /** Whether anything is held of a slot, owned or not. */
  holdsOf(namespace: NamespaceId, slot: Slot): boolean {
    return this.tables.get(namespace)?.isEmpty(slot) === false
  }

  /** Forgets a slot that others own, keys and clock. */
  dropSlot(namespace: NamespaceId, slot: Slot): void {
    assert(this.actorOf(namespace, slot) === undefined, () => `n${this.node} does not own ${slot}`)
    const { lower, upper } = slotsInterval(keyKinds.data, namespace, { start: slot, slots: 1 })
    this.store.deleteRange(lower, upper)
    record.reset()
    record.u8(records.dropped)
    record.varint(namespace)
    record.varint(slot)
    const bytes = record.take()
    this.store.log(bytes)
    this.replayRecord(bytes, this.store.mark)
  }

  // ---- Clocks

  copyClock(namespace: NamespaceId, slot: Slot): SlotClock {
    return this.tablesOf(namespace).clocks.copy(slot)
  }

  writeClock(namespace: NamespaceId, slot: Slot, to: ByteWriter): void {
    this.tablesOf(namespace).clocks.write(slot, to)
  }

  adopt(namespace: NamespaceId, slot: Slot, clock: SlotClock): void {
    const { clocks } = this.tablesOf(namespace)
    const own = clocks.copy(slot)
    own.adopt(clock)
    clocks.set(slot, own)
    this.logClock(namespace, slot)
  }

  /** Actors with entries of their own in the slot's clock, in order. */
  actorsIn(namespace: NamespaceId, slot: Slot): ReadonlyArray<Actor> {
    return this.tables.get(namespace)?.clocks.actors(slot) ?? []
  }

  /** Notes that epochs have ended: what is missing of the actors in `finals` is lost, and every dot of an epoch of a node below that in `below` is seen (endings.ts). */
  end(
    namespace: NamespaceId,
    slot: Slot,
    finals: ReadonlyMap<Actor, number>,
    below: ReadonlyMap<NodeId, number>,
  ): void {
    const clock = this.copyClock(namespace, slot)
    for (const [actor, counter] of finals) clock.closeLost(actor, counter)
    for (const [node, epoch] of below) {
      const ofNode = new Map([...finals].filter(([actor]) => nodeOf(actor) === node))
      assert(clock.endBelow(node, epoch, ofNode), () => `n${node} below ${epoch} has gaps`)
    }
    this.tablesOf(namespace).clocks.set(slot, clock)
    this.logClock(namespace, slot)
  }

  /** What the puts of the log do not tell. */
  private logClock(namespace: NamespaceId, slot: Slot): void {
    record.reset()
    record.u8(records.clock)
    record.varint(namespace)
    record.varint(slot)
    const tables = this.tablesOf(namespace)
    tables.clocks.write(slot, record)
    this.store.log(record.take())
    tables.changed(slot, this.store.mark)
  }

  seen(namespace: NamespaceId, slot: Slot): SeenDots {
    return this.tablesOf(namespace).clocks.of(slot)
  }

  markOf(namespace: NamespaceId, slot: Slot): number {
    return this.tablesOf(namespace).marks[slot]
  }

  // ---- Comparing

  /** What stands for all that is held of a slot, live values and clock, until the next call. Sent: do not change. */
  digest(namespace: NamespaceId, slot: Slot): Sum {
    return this.tablesOf(namespace).digest(slot)
  }

  /** Adds up the tree of a slot anew, from its keys, with as many leaves as they want. False: it had drifted from them, and is right now. */
  recountTree(namespace: NamespaceId, slot: Slot): boolean {
    const tables = this.tablesOf(namespace)
    const { tree } = tables
    const bits = tree.leafBits(slot)
    const rebuild = tree.beginRebuild(slot)
    assert(rebuild !== undefined, "a rebuild ends in the turn in which it began")
    this.forEachState(namespace, slot, (key, state) => {
      if (hashState(key, state) > 0) rebuild.insert(hash)
      return true
    })
    const isSame = tree.finishRebuild(rebuild) === "same"
    if (!isSame || tree.leafBits(slot) !== bits) tables.changed(slot, this.store.mark)
    return isSame
  }

  view(namespace: NamespaceId): MerkleView {
    return new MerkleView(this.tablesOf(namespace).tree, (slot, visit) => {
      this.forEachState(namespace, slot, (key, state) => {
        if (hashState(key, state) > 0) {
          const { keyLow, keyHigh, low, high } = hash
          visit({ keyLow, keyHigh, low, high })
        }
        return true
      })
    })
  }

  forEachState(
    namespace: NamespaceId,
    slot: Slot,
    visit: (key: Uint8Array, state: Uint8Array, changedMs: number) => boolean,
  ): void {
    this.forEachWithin(namespace, { start: slot, slots: 1 }, (_, key, state, changedMs) =>
      visit(key, state, changedMs),
    )
  }

  /** The same of consecutive slots, in order of slot, then key; from behind `after` on in the first of them. */
  forEachWithin(
    namespace: NamespaceId,
    slots: { readonly start: Slot; readonly slots: number; readonly after?: Uint8Array },
    visit: (slot: Slot, key: Uint8Array, state: Uint8Array, changedMs: number) => boolean,
  ): void {
    const { lower, upper } = slotsInterval(keyKinds.data, namespace, slots)
    const { start: slot, after } = slots
    const from =
      after === undefined
        ? lower
        : slotKey(keyKinds.data, { namespace, slot, key: Uint8Array.of(...after, 0) })
    this.store.scan(from, upper, (key, value) => {
      const changedMs = loadU32(value, 0) + (value[4] + value[5] * 256) * 2 ** 32
      return visit(slotOfKey(key), userKeyOf(key), value.subarray(changedBytes), changedMs)
    })
  }

  /** Forgets a namespace that is gone, keys and tables. */
  drop(namespace: NamespaceId): void {
    for (const kind of [keyKinds.data, keyKinds.tables]) {
      const { lower, upper } = slotsInterval(kind, namespace, { start: 0, slots: slotCount })
      this.store.deleteRange(lower, upper)
    }
    this.tables.delete(namespace)
  }
}

/** Slots as runs: first slot and how many, ascending. */
export function runsOf(slots: Iterable<Slot>): ReadonlyArray<number> {
  const runs: Array<number> = []
  for (const slot of [...slots].sort((left, right) => left - right)) {
    const last = runs.length - 2
    if (last >= 0 && runs[last] + runs[last + 1] === slot) runs[last + 1]++
    else runs.push(slot, 1)
  }
  return runs
}

function isTooLarge(state: Uint8Array | undefined): boolean {
  return state !== undefined && state.length > stateBytesMax
}

/** Fills `hash` with what stands for a key in a tree, and returns how many live dots it has. */
function hashState(key: Uint8Array, state: Uint8Array): number {
  hash.begin(key)
  // Whether something has expired by now is not the tree's matter: it goes by an explicit write.
  forEachLiveDot(state, 0, (actor, counter) => hash.dot(actor, counter))
  return hash.dots
}

/** Writes into `changedHead` when a state has changed. */
function stampChanged(wallMs: number): void {
  const whole = Math.max(0, Math.round(wallMs))
  storeU32(changedHead, 0, whole % 2 ** 32)
  const high = Math.floor(whole / 2 ** 32)
  changedHead[4] = high
  changedHead[5] = high >>> 8
}
