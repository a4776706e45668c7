import { assert } from "../../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import { int64Of, isInt64, loadInt64 } from "../../lib/int64.ts"
import { type Actor, describeDot, readActor, readCounter, writeActor } from "../dot.ts"
import { headOf } from "../elements.ts"
import type { SeenDots } from "../slotClock.ts"
import type { NewDot } from "./set.ts"

/**
 * The rule `crdt:counter`. Each actor has one entry, which only its node changes: the running total of its increments up to
 * the newest (`counter`), and its newest dot of any kind (`last`). A delete does not set to zero, it subtracts what its caller had seen: per actor, the dot up to which
 * increments were seen (`since`) and the total as it then stood (`base`). So the counter shows the sum of total - base,
 * increments made apart from a delete survive it, and what was deleted never counts again, whatever arrives late.
 *
 * Merging takes, per actor, (counter, total) with the larger counter and (since, base) with the larger since: two maxima
 * over facts that never change, as both totals are sums along the one sequence of that actor's increments. A counter that
 * was reaped begins again from 0, with everything up to its first new dot taken for deleted.
 *
 *     state = head u8 ‖ entries varint (>= 1) ‖ entry*       by actor, ascending
 *     entry = actor ‖ last varint ‖ counter varint (<= last) ‖ total i64 ‖ since varint (<= counter) ‖ base i64
 *
 * Stored and sent: do not change. An entry whose since is its counter shows nothing; where all are so, the key is absent.
 * What is left out: entries of ended epochs with something left to count stay, so a counter keeps one
 * entry for each tenure in which it was incremented.
 */
export interface CounterEntry {
  readonly actor: Actor
  readonly last: number
  readonly counter: number
  readonly total: bigint
  readonly since: number
  readonly base: bigint
}

/** `outOfRange`: the actor's total would leave 64 bits. `contextAhead`: as in siblings.ts, or what was observed is not what the actor counted. */
export type CounterPut = "written" | "outOfRange" | "contextAhead"

/** The entries of a state; none for `undefined`. Throws `MalformedBytes` unless it is one, in its only form. */
export function readCounterState(bytes: Uint8Array | undefined): Array<CounterEntry> {
  const entries: Array<CounterEntry> = []
  if (bytes === undefined) return entries
  const reader = new ByteReader(bytes, 1)
  const count = reader.varint()
  if (count === 0) throw new MalformedBytes("a counter without entries")
  let lastActor = 0
  for (let i = 0; i < count; i++) {
    const actor = readActor(reader)
    if (actor <= lastActor) throw new MalformedBytes("entries of a counter out of order")
    const last = readCounter(reader)
    const counter = readCounter(reader)
    const total = loadInt64(reader.raw(8))
    const since = reader.varint()
    if (counter > last || since > counter) {
      throw new MalformedBytes(`${describeDot(actor, last)} comes before ${counter} or ${since}`)
    }
    entries.push({ actor, last, counter, total, since, base: loadInt64(reader.raw(8)) })
    lastActor = actor
  }
  reader.end()
  return entries
}

function write(out: ByteWriter, entries: ReadonlyArray<CounterEntry>): void {
  out.u8(headOf("counter"))
  out.varint(entries.length)
  for (const { actor, last, counter, total, since, base } of entries) {
    writeActor(out, actor)
    out.varint(last)
    out.varint(counter)
    out.raw(int64Of(total))
    out.varint(since)
    out.raw(int64Of(base))
  }
}

/** Appends the state after one increment by `delta`, negative or not. Appends nothing when it refuses. */
export function increment(
  out: ByteWriter,
  local: Uint8Array | undefined,
  dot: NewDot,
  delta: bigint,
): CounterPut {
  const { actor, counter } = dot
  const entries = readCounterState(local)
  const own = entries.find((entry) => entry.actor === actor)
  assert(own === undefined || own.last < counter, () => `${describeDot(actor, counter)} is used`)
  // Where this node has no entry, whatever it counted here before was deleted and reaped.
  const total = (own?.total ?? 0n) + delta
  if (!isInt64(total)) return "outOfRange"
  const { since, base } = own ?? { since: counter - 1, base: 0n }
  write(out, withEntry(entries, { actor, last: counter, counter, total, since, base }))
  return "written"
}

/**
 * Appends the state after a delete of what `observed` shows: a state of this counter as its caller read it, perhaps from
 * another replica, or `local` itself. `seen` is the clock of the slot, if this is an owner: what it has and `local` has not
 * was deleted and reaped, and an entry made of it again would vouch for less than the clock does.
 */
export function deleteCounter(
  out: ByteWriter,
  local: Uint8Array | undefined,
  dot: NewDot,
  observed: Uint8Array | undefined,
  seen: SeenDots | undefined,
): CounterPut {
  const { actor, counter } = dot
  const held = readCounterState(local)
  const deleted = readCounterState(observed).map(nothingLeft)
  if (deleted.some((entry) => isMadeUp(entry, dot, held))) return "contextAhead"
  const entries = mergeEntries(held, deleted, seen)
  const own = entries.find((entry) => entry.actor === actor)
  assert(own === undefined || own.last < counter, () => `${describeDot(actor, counter)} is used`)
  // The dot of the delete stands in the entry of its actor, so that every replica can tell that it has the delete.
  // One without an entry here has had all it counted before deleted and reaped, and says so.
  const entry = own ?? { actor, counter, total: 0n, since: counter, base: 0n }
  write(out, withEntry(entries, { ...entry, last: counter }))
  return "written"
}

/** Whether an entry that a caller says to have read names dots that the writer has yet to mint, or another total than is held of the same dot. */
function isMadeUp(
  { actor, last, counter, total }: CounterEntry,
  dot: NewDot,
  held: ReadonlyArray<CounterEntry>,
): boolean {
  if (actor === dot.actor && last >= dot.counter) return true
  return held.some((e) => e.actor === actor && e.counter === counter && e.total !== total)
}

function nothingLeft(entry: CounterEntry): CounterEntry {
  return { ...entry, since: entry.counter, base: entry.total }
}

function withEntry(entries: ReadonlyArray<CounterEntry>, entry: CounterEntry): Array<CounterEntry> {
  const others = entries.filter(({ actor }) => actor !== entry.actor)
  return [...others, entry].sort((left, right) => left.actor - right.actor)
}

function mergeEntries(
  local: ReadonlyArray<CounterEntry>,
  incoming: ReadonlyArray<CounterEntry>,
  seen: SeenDots | undefined,
): Array<CounterEntry> {
  const merged: Array<CounterEntry> = []
  let i = 0
  let j = 0
  while (i < local.length || j < incoming.length) {
    const order =
      i === local.length ? 1 : j === incoming.length ? -1 : local[i].actor - incoming[j].actor
    if (order < 0) merged.push(local[i])
    else if (order === 0) merged.push(mergeEntry(local[i], incoming[j]))
    else if (!seen?.contains(incoming[j].actor, incoming[j].last)) merged.push(incoming[j])
    if (order <= 0) i++
    if (order >= 0) j++
  }
  return merged
}

function mergeEntry(left: CounterEntry, right: CounterEntry): CounterEntry {
  const { actor } = left
  // Two totals of one dot: a caller made one of them up while the other was on its way. All owners must take the same.
  const isSame = left.counter === right.counter
  const newer = (isSame ? left.total >= right.total : left.counter > right.counter) ? left : right
  const { counter, total } = newer
  // Equal since with another base: a counter begun again right after its last delete was reaped. Its entry is the newer.
  const deleted = left.since === right.since ? newer : left.since > right.since ? left : right
  const { since, base } = deleted
  return { actor, last: Math.max(left.last, right.last), counter, total, since, base }
}

/** As `mergeSiblings`; always in new bytes. */
export function mergeCounter(
  out: ByteWriter,
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen: SeenDots | undefined,
): boolean {
  const merged = mergeEntries(readCounterState(local), readCounterState(incoming), seen)
  if (merged.length === 0) return false
  write(out, merged)
  return true
}

/** The sum, which may leave 64 bits, or `undefined` when nothing is left to count. */
export function counterValue(state: Uint8Array | undefined): bigint | undefined {
  let sum: bigint | undefined
  for (const { counter, since, total, base } of readCounterState(state)) {
    if (counter > since) sum = (sum ?? 0n) + total - base
  }
  return sum
}

/** Appends the state with the entries for which `keep` is true; `false`, and nothing, when none is. */
export function keepCounterEntries(
  out: ByteWriter,
  state: Uint8Array,
  keep: (entry: CounterEntry) => boolean,
): boolean {
  const kept = readCounterState(state).filter(keep)
  if (kept.length === 0) return false
  write(out, kept)
  return true
}
