import { MalformedBytes } from "../lib/byteReader.ts"
import { equalBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { mergeCounter, readCounterState } from "./crdt/counter.ts"
import { SetState } from "./crdt/set.ts"
import type { Actor } from "./dot.ts"
import {
  type ConflictRule,
  checkElements,
  ElementCursor,
  formatVersion,
  ruleNumbers,
  writeChanged,
} from "./elements.ts"
import { mergeLww } from "./lww.ts"
import { contextOfAll, mergeSiblings } from "./siblings.ts"
import type { SeenDots } from "./slotClock.ts"
import { VersionVector } from "./versionVector.ts"

/**
 * No node holds or sends a larger state: it has to fit a frame. One write makes none of nearly that size; merging what many coordinators took apart from each other
 * could. Then each keeps what it has, nothing acknowledged is lost, and the key stays divergent until a write that has seen enough makes it smaller.
 */
export const stateBytesMax = 15 * 1024 * 1024

/**
 * Causality: what a replica of an eventual namespace holds for a key, and how two such states become one. Pure.
 *
 * The idea. Nobody orders writes; each says what it had seen. A write gets a name, its dot (dot.ts), from the owner or
 * stand-in that takes it, and carries its context, the vector of dots that its writer had read (versionVector.ts). It
 * replaces what its context covers and nothing else. So what no write has seen stays, however clocks stand and messages
 * fly, and what was seen and replaced or deleted never comes back. A state is bytes of which there is one form, so
 * replicas that hold the same are equal byte by byte.
 *
 * The flow.
 *   1. A coordinator takes the next counter of its actor from the slot's clock (slotClock.ts; slotClocks.ts keeps those of
 *      all slots off the heap), decodes the caller's context (contextToken.ts), and makes the new state from its own:
 *      `putSibling`, `putLww`, `putRegister`, `putSet`, `putFlag`, `increment`, `deleteCounter`. Then it makes it durable, and
 *      only then sends it.
 *   2. The *whole* state goes to the other replicas, as repairs and hints do later. Each calls `mergeStates` with its
 *      own state and its clock of the slot, then `addDots`. Any order, any number of times.
 *   3. A reader merges the states of R replicas, without a clock, and gets the values and `contextOf` them.
 *   4. Owners compare their trees (merkleTree.ts, fed by `forEachLiveDot`) and exchange what differs, both ways
 *      (exchange.ts, `mergeExchanged`). At the end of a complete exchange each adopts the other's clock.
 *   5. In the background `expireState` turns values past their time into deletes, and `pruneState` (pruning.ts) drops what old
 *      deletes and ended epochs (node/endings.ts) leave behind, once every owner has seen it.
 *
 * Invariants:
 *   - A dot is used for one write only: counters are durable before they leave, an actor that lost data never mints again.
 *   - A state travels whole. Its vector then covers no dot that its holder has neither held nor seen covered, though
 *     the counters of one key skip numbers.
 *   - `mergeStates` without a clock is commutative, associative and idempotent, on the bytes.
 *   - A dot inside the slot's clock and not held is obsolete, whoever brings it. So whoever has no clock of the slot, a
 *     reader, a stand-in, an owner that is being filled, may see at one that lags what was deleted and reaped: reads
 *     count owners that are filled.
 *   - A clock that covers a delete is adopted only by one who was given the delete, or has more (`hasNews`).
 *   - A delete goes only when every owner has, without gaps, everything up to its dot and its context. "Without gaps"
 *     matters: an owner that was given only the newest of three writes has not seen the first two, and one of
 *     them may still be on its way.
 *   - A context loses the entry of an ended epoch only when that holds for its own write as well: an owner that has
 *     not merged the write may hold what it covers.
 *   - Metadata is bounded by replicas and live tenures, never by clients or by how often a key is written.
 *
 * A value that expires keeps its dot and context and becomes a delete where it stands, on each replica by itself: the copies
 * are equal, nothing needs to be sent, and what it covered stays covered.
 *
 * Who is asked, and what has to be answered for a level, is the matter of `coordinator/`: one write, one read.
 *
 * Each rule has a file: `siblings.ts` and `lww.ts` over `elements.ts`, and in `crdt/` register, set, flag, counter.
 * Left out: entries of ended epochs in counters that still count (crdt/counter.ts).
 *
 * Sources: Preguiça et al., "Dotted version vectors" (2010); Gonçalves et al., "Concise server-wide causality management
 * for eventually consistent data stores" (2015); DeCandia et al., "Dynamo" (2007); Shapiro et al., "A comprehensive study
 * of convergent and commutative replicated data types" (2011).
 */

const rulesByNumber: ReadonlyArray<ConflictRule | undefined> = [
  undefined,
  ...(Object.keys(ruleNumbers) as Array<ConflictRule>).sort(
    (left, right) => ruleNumbers[left] - ruleNumbers[right],
  ),
]

const cursor = new ElementCursor()
const out = new ByteWriter(4096)

/** The rule that a state was made under. Throws `MalformedBytes` for bytes that no version of this program writes. */
export function ruleOf(state: Uint8Array): ConflictRule {
  const rule = rulesByNumber[state[0] % 16]
  if (rule === undefined || state[0] >> 4 !== formatVersion) {
    throw new MalformedBytes(`no state of a key begins with ${state[0]}`)
  }
  return rule
}

/** Throws `MalformedBytes` unless `state` is a state of a key in its only form. For bytes from outside; all else here trusts them. */
export function checkState(state: Uint8Array): void {
  const rule = ruleOf(state)
  if (rule === "counter") readCounterState(state)
  else if (rule === "set" || rule === "flag") SetState.read(state)
  else checkElements(state, rule)
}

/**
 * What a replica holds after it has `incoming` besides `local`: one of the two, by identity, where that is the answer;
 * `undefined` when nothing of either is left. `seen` is the clock of the slot, before `addDots`; none merges two
 * answers to one read. Both states are of one rule.
 */
export function mergeStates(
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen?: SeenDots,
): Uint8Array | undefined {
  const rule = ruleOf(incoming)
  if (local !== undefined && local[0] !== incoming[0]) {
    throw new MalformedBytes(`a state under ${rule} where the key's is under ${ruleOf(local)}`)
  }
  switch (rule) {
    case "siblings":
    case "register":
      return mergeSiblings(local, incoming, seen)
    case "lww":
      return mergeLww(local, incoming, seen)
    case "set":
    case "flag":
      return mergeSets(local, incoming, seen, rule)
    case "counter":
      out.reset()
      return mergeCounter(out, local, incoming, seen) ? chosen(local, incoming) : undefined
    default:
      return rule satisfies never
  }
}

function mergeSets(
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen: SeenDots | undefined,
  rule: "set" | "flag",
): Uint8Array | undefined {
  if (local !== undefined && equalBytes(local, incoming)) return local
  const state = SetState.read(local)
  state.merge(SetState.read(incoming), seen)
  // A set that was reaped here, brought again by one who has not reaped it, stays away.
  if (local === undefined && seen !== undefined && isEmpty(state) && allSeen(state.vector, seen)) {
    return undefined
  }
  out.reset()
  state.write(out, rule)
  return chosen(local, incoming)
}

function isEmpty(state: SetState): boolean {
  return state.members.length === 0 && state.pending.length === 0
}

function allSeen(vector: VersionVector, seen: SeenDots): boolean {
  let all = true
  vector.forEach((actor, counter) => {
    all &&= seen.contains(actor, counter)
  })
  return all
}

/** What is in `out`, as `local` or `incoming` itself where it is equal. */
function chosen(local: Uint8Array | undefined, incoming: Uint8Array): Uint8Array {
  const bytes = out.bytes()
  if (local !== undefined && equalBytes(bytes, local)) return local
  return equalBytes(bytes, incoming) ? incoming : out.take()
}

/** What a reader of `state` has seen, as the `seen` of a context token. */
export function contextOf(state: Uint8Array): Uint8Array {
  const rule = ruleOf(state)
  if (rule === "counter") return state.slice()
  if (rule !== "set" && rule !== "flag") return contextOfAll(state)
  out.reset()
  SetState.read(state).vector.write(out)
  return out.take()
}

/** Adds the dots of the state's own writes to the slot's clock: after each merge, and when a state is loaded. */
export function addDots(
  state: Uint8Array,
  clock: { add(actor: Actor, counter: number): boolean },
): void {
  forEachDot(state, (actor, counter) => {
    clock.add(actor, counter)
  })
}

/**
 * Visits the dots of the writes that a state consists of, deletes too. For a set these include the newest dot of each
 * actor in its vector, which may be a removal's.
 */
export function forEachDot(
  state: Uint8Array,
  visit: (actor: Actor, counter: number) => void,
): void {
  const rule = ruleOf(state)
  if (rule === "counter") {
    for (const { actor, last } of readCounterState(state)) visit(actor, last)
  } else if (rule === "set" || rule === "flag") {
    const set = SetState.read(state)
    for (const { dots } of set.members) {
      for (let i = 0; i < dots.length; i += 2) visit(dots[i], dots[i + 1])
    }
    set.vector.forEach(visit)
  } else {
    const elements = new ElementCursor().open(state)
    while (elements.next()) visit(elements.actor, elements.counter)
  }
}

/**
 * Visits what makes two replicas of a key differ in what a reader at `nowMs` sees: the dots of live values; of a counter
 * also the dots up to which it was deleted.
 */
export function forEachLiveDot(
  state: Uint8Array,
  nowMs: number,
  visit: (actor: Actor, counter: number) => void,
): void {
  const rule = ruleOf(state)
  if (rule === "counter") {
    for (const { actor, counter, since } of readCounterState(state)) {
      if (counter > since) visit(actor, counter)
      if (counter > since && since > 0) visit(actor, since)
    }
  } else if (rule === "set" || rule === "flag") {
    for (const { dots } of SetState.read(state).members) {
      for (let i = 0; i < dots.length; i += 2) visit(dots[i], dots[i + 1])
    }
  } else {
    const elements = new ElementCursor().open(state)
    while (elements.next()) if (elements.liveAt(nowMs)) visit(elements.actor, elements.counter)
  }
}

/**
 * The state with every value whose time is up at `nowMs` turned into a delete; `state` itself when there is none. Dot and
 * context stay, so what the value covered stays covered, and a replica that expires it later makes the same bytes.
 */
export function expireState(state: Uint8Array, nowMs: number): Uint8Array {
  const rule = ruleOf(state)
  if (rule === "set" || rule === "flag" || rule === "counter") return state
  let expired = false
  cursor.open(state)
  while (cursor.next()) expired ||= !cursor.deleted && !cursor.liveAt(nowMs)
  if (!expired) return state
  out.reset()
  out.u8(state[0])
  out.varint(cursor.open(state).count)
  const vector = new VersionVector()
  const context = new ByteWriter(64)
  while (cursor.next()) {
    if (cursor.deleted || cursor.liveAt(nowMs)) {
      cursor.copyTo(out)
      continue
    }
    vector.clear()
    cursor.joinContext(vector)
    context.reset()
    vector.write(context)
    writeChanged(out, cursor, context.bytes(), true)
  }
  return out.take()
}
