import { equalBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { type CounterEntry, keepCounterEntries, readCounterState } from "./crdt/counter.ts"
import { SetState } from "./crdt/set.ts"
import type { Actor } from "./dot.ts"
import { ElementCursor, writeChanged } from "./elements.ts"
import { ruleOf } from "./keyState.ts"
import type { SlotClock } from "./slotClock.ts"
import { VersionVector } from "./versionVector.ts"

const cursor = new ElementCursor()
const out = new ByteWriter(4096)

/** What all owners of a slot, old and pending, are known to have. */
export interface Stability {
  /** `SlotClock.meet` of the owners' clocks. */
  readonly clock: SlotClock
  /**
   * For each owner's present actor its own base, as it reported it together with, or after, a clock that covers what is
   * to be reaped. What an actor counted before it knew of a delete lies below that.
   */
  readonly minted: VersionVector
}

/**
 * The state without what is needed no more: deletes that every owner has, with all that they cover, and in contexts of
 * writes that every owner has the entries of ended epochs. `state` itself when nothing goes, `undefined` when nothing
 * is left: the key is reaped. Requires that the hint window has passed since the state last changed.
 */
export function pruneState(state: Uint8Array, stable: Stability): Uint8Array | undefined {
  const rule = ruleOf(state)
  out.reset()
  switch (rule) {
    case "siblings":
    case "lww":
    case "register":
      return pruneElements(state, stable.clock)
    case "set":
    case "flag":
      return pruneSet(state, stable.clock, rule)
    case "counter":
      return pruneCounter(state, stable)
    default:
      return rule satisfies never
  }
}

/**
 * Whether an owner with this clock may have something to prune in the state: a quick look, before all owners are asked. A set or counter always has, as long as anything is left of it to
 * know beside its members.
 */
export function mayPrune(state: Uint8Array, clock: SlotClock): boolean {
  const rule = ruleOf(state)
  if (rule === "set" || rule === "flag") return setMayPrune(SetState.read(state), clock)
  if (rule === "counter") {
    return readCounterState(state).some(({ counter, since }) => counter === since)
  }
  let found = false
  cursor.open(state)
  while (!found && cursor.next()) found = cursor.deleted || namesEnded(cursor, clock)
  return found
}

/** A vector that says no more than the members do needs nothing more. */
function setMayPrune({ members, pending, vector }: SetState, clock: SlotClock): boolean {
  if (!allCovered(vector, clock)) return false
  if (members.length === 0 || pending.length > 0) return true
  const needed = new VersionVector()
  for (const { dots } of members) {
    for (let i = 0; i < dots.length; i += 2) needed.add(dots[i], dots[i + 1])
  }
  return !needed.includes(vector)
}

function namesEnded(element: ElementCursor, clock: SlotClock): boolean {
  const vector = new VersionVector()
  element.joinContext(vector)
  let found = false
  vector.forEach((actor) => {
    found ||= clock.hasEnded(actor)
  })
  return found
}

function pruneElements(state: Uint8Array, stable: SlotClock): Uint8Array | undefined {
  const kept = new ByteWriter(state.length)
  const context = new ByteWriter(64)
  let count = 0
  cursor.open(state)
  while (cursor.next()) {
    const vector = new VersionVector()
    cursor.joinContext(vector)
    const everywhere = stable.covers(cursor.actor, cursor.counter) && allCovered(vector, stable)
    if (!everywhere) cursor.copyTo(kept)
    else if (!cursor.deleted) {
      context.reset()
      withoutEnded(vector, stable).write(context)
      writeChanged(kept, cursor, context.bytes(), false)
    } else continue
    count++
  }
  if (count === 0) return undefined
  out.u8(state[0])
  out.varint(count)
  out.raw(kept.bytes())
  return written(state)
}

/**
 * When every owner has all of a set, removals are known to all, and slot clocks speak for them: the vector need cover no more
 * than the members' dots, and a removal that waits for dots which all have seen, or seen removed, waits for nothing.
 */
function pruneSet(
  state: Uint8Array,
  stable: SlotClock,
  rule: "set" | "flag",
): Uint8Array | undefined {
  const set = SetState.read(state)
  if (!allCovered(set.vector, stable)) return state
  set.pending = set.pending.filter(({ context }) => !allCovered(context, stable))
  if (set.pending.length === 0) {
    if (set.members.length === 0) return undefined
    set.vector.clear()
    for (const { dots } of set.members) {
      for (let i = 0; i < dots.length; i += 2) set.vector.add(dots[i], dots[i + 1])
    }
  }
  set.write(out, rule)
  return written(state)
}

function pruneCounter(state: Uint8Array, stable: Stability): Uint8Array | undefined {
  const { clock, minted } = stable
  const entries = readCounterState(state)
  if (!entries.every(({ actor, last }) => clock.covers(actor, last))) return state
  // An owner may have gone on counting before it knew of the delete. Its total then holds what was deleted, so the entry
  // that says so stays until nothing of that owner's from before is on its way.
  const quiet = (actor: Actor) => {
    const base = minted.counterOf(actor)
    return clock.hasEnded(actor) || (base > 0 && clock.covers(actor, base))
  }
  const keep = ({ actor, counter, since }: CounterEntry) => counter > since || !quiet(actor)
  return keepCounterEntries(out, state, keep) ? written(state) : undefined
}

/** What is in `out`, or `state` itself where nothing changed. */
function written(state: Uint8Array): Uint8Array {
  return equalBytes(out.bytes(), state) ? state : out.take()
}

function allCovered(vector: VersionVector, stable: SlotClock): boolean {
  let all = true
  vector.forEach((actor, counter) => {
    all &&= stable.covers(actor, counter)
  })
  return all
}

function withoutEnded(vector: VersionVector, stable: SlotClock): VersionVector {
  const kept = new VersionVector()
  vector.forEach((actor, counter) => {
    if (!stable.hasEnded(actor)) kept.add(actor, counter)
  })
  return kept
}
