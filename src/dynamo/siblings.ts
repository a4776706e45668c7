import { assert } from "../lib/assert.ts"
import { equalBytes } from "../lib/bytes.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import { compareDots, describeDot } from "./dot.ts"
import { ElementCursor, headOf, type Write, writeChanged, writeElement } from "./elements.ts"
import type { SeenDots } from "./slotClock.ts"
import { emptyVector, VersionVector, vectorCovers } from "./versionVector.ts"

/**
 * The rule `siblings`: all writes that no other write had seen stand side by side, until one that has seen them replaces
 * them. Each keeps its dot and its context, what its writer had seen; a delete is an element without a value, which goes
 * on covering what it deleted. (Preguiça et al., "Dotted version vectors", 2010; Almeida et al., 2014)
 *
 * Merging keeps an element unless a context of the other side covers it, or the slot's clock here says that it was here
 * before and is gone. Contexts speak of dots, never of the gap between them, so it does not matter in which order
 * states arrive, how often, or by what way.
 */

/** A write that covers nothing is refused where it would make more elements than this. (Riak: 100) */
export const siblingsMax = 100

export type Put =
  | "written"
  /** The key has too many siblings: read, and write with the context read. */
  | "tooManySiblings"
  /** The context covers the dot of this very write: made up, or from before this node lost data. */
  | "contextAhead"

// Used within one call each: nothing here calls itself.
const here = new ElementCursor()
const there = new ElementCursor()
const contextsHere = new VersionVector()
const contextsThere = new VersionVector()
const contextOut = new ByteWriter()
const scratch = new ByteWriter(4096)

/**
 * Appends to `out` the state in which `write` replaces what its context covers of `local` (`undefined`: nothing is known
 * of the key). Appends nothing when it refuses. The write's counter is above every counter of its actor in `local`.
 */
export function putSibling(
  out: ByteWriter,
  local: Uint8Array | undefined,
  write: Write,
  rule: "siblings" | "register" = "siblings",
): Put {
  const { actor, counter, context } = write
  if (vectorCovers(context, 0, actor, counter)) return "contextAhead"
  let kept = 0
  if (local !== undefined) {
    here.open(local)
    while (here.next()) {
      if (here.actor === actor && here.counter >= counter) reused(actor, counter)
      if (!vectorCovers(context, 0, here.actor, here.counter)) kept++
    }
    if (kept >= siblingsMax && kept === here.count) return "tooManySiblings"
  }
  out.u8(headOf(rule))
  out.varint(kept + 1)
  if (kept === 0 || local === undefined) {
    writeElement(out, write)
    return "written"
  }
  let written = false
  here.open(local)
  while (here.next()) {
    if (vectorCovers(context, 0, here.actor, here.counter)) continue
    if (!written && compareDots(actor, counter, here.actor, here.counter) < 0) {
      writeElement(out, write)
      written = true
    }
    here.copyTo(out)
  }
  if (!written) writeElement(out, write)
  return "written"
}

function reused(actor: number, counter: number): never {
  assert(false, () => `the dot ${describeDot(actor, counter)} is used a second time`)
  throw new Error("unreachable")
}

/**
 * What a replica holds after it has `incoming` besides `local`: one of the two as they are where that is the answer, so
 * that the caller can tell by identity, or new bytes; `undefined` when nothing of either is left. `seen` is the clock of
 * the slot here, before the incoming dots are added: a dot inside it that is not in `local` is obsolete. Without it
 * two answers to one read are merged.
 */
export function mergeSiblings(
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen: SeenDots | undefined,
): Uint8Array | undefined {
  there.open(incoming)
  if (local === undefined) {
    return seen === undefined || noneSeen(seen) ? incoming : mergeAll(undefined, incoming, seen)
  }
  here.open(local)
  if (here.count === 1 && there.count === 1) {
    here.next()
    there.next()
    if (here.actor !== there.actor || here.counter !== there.counter) {
      const hereGoes = there.covers(here.actor, here.counter)
      const thereGoes =
        here.covers(there.actor, there.counter) ||
        (seen?.contains(there.actor, there.counter) ?? false)
      if (hereGoes !== thereGoes) return hereGoes ? incoming : local
    }
  }
  if (equalBytes(local, incoming)) return local
  return mergeAll(local, incoming, seen)
}

/** Whether no dot of the state that `there` has open is in the clock. */
function noneSeen(seen: SeenDots): boolean {
  while (there.next()) if (seen.contains(there.actor, there.counter)) return false
  return true
}

function mergeAll(
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen: SeenDots | undefined,
): Uint8Array | undefined {
  contextsHere.clear()
  contextsThere.clear()
  if (local !== undefined) joinContexts(here.open(local), contextsHere)
  joinContexts(there.open(incoming), contextsThere)
  let count = 0
  scratch.reset()
  let more = local !== undefined && here.open(local).next()
  let moreThere = there.open(incoming).next()
  while (more || moreThere) {
    const order = !more
      ? 1
      : !moreThere
        ? -1
        : compareDots(here.actor, here.counter, there.actor, there.counter)
    if (order < 0) {
      if (!contextsThere.covers(here.actor, here.counter)) {
        here.copyTo(scratch)
        count++
      }
    } else if (order > 0) {
      const obsolete = seen?.contains(there.actor, there.counter) ?? false
      if (!obsolete && !contextsHere.covers(there.actor, there.counter)) {
        there.copyTo(scratch)
        count++
      }
    } else {
      copySame(seen)
      count++
    }
    if (order <= 0) more = here.next()
    if (order >= 0) moreThere = there.next()
  }
  return count === 0 ? undefined : assembled(local, incoming, count)
}

function joinContexts(cursor: ElementCursor, vector: VersionVector): void {
  while (cursor.next()) cursor.joinContext(vector)
}

/**
 * One write on both sides. The copies differ only where one side has deleted an expired value or pruned the context:
 * deleted wins, and contexts are joined, since a context pruned too early would let covered values back in. What was
 * pruned here of an epoch that has ended stays away: else two owners that prune at different times would bring it back
 * to each other for ever.
 */
function copySame(seen: SeenDots | undefined): void {
  const length = here.end - here.start
  if (length === there.end - there.start) {
    let i = 0
    while (i < length && here.bytes[here.start + i] === there.bytes[there.start + i]) i++
    if (i === length) return here.copyTo(scratch)
  }
  const bothLive = !here.deleted && !there.deleted
  assert(
    here.stamp === there.stamp &&
      (!bothLive || (here.expiryMs === there.expiryMs && equalBytes(here.value, there.value))),
    () => `the dot ${describeDot(here.actor, here.counter)} stands for two writes`,
  )
  const context = new VersionVector()
  const theirs = new VersionVector()
  here.joinContext(context)
  there.joinContext(theirs)
  theirs.forEach((actor, counter) => {
    const isPruned = context.counterOf(actor) === 0 && seen?.hasEnded(actor) === true
    if (!isPruned) context.add(actor, counter)
  })
  contextOut.reset()
  context.write(contextOut)
  writeChanged(scratch, here, contextOut.bytes(), !bothLive)
}

/** The elements in `scratch` as a state: `local` or `incoming` itself where it is equal. */
function assembled(local: Uint8Array | undefined, incoming: Uint8Array, count: number): Uint8Array {
  const elements = scratch.take()
  scratch.u8(incoming[0])
  scratch.varint(count)
  scratch.raw(elements)
  const merged = scratch.bytes()
  if (local !== undefined && equalBytes(merged, local)) return local
  return equalBytes(merged, incoming) ? incoming : scratch.take()
}

/** The context of a write that has seen all of `state`, and `more`. */
export function contextOfAll(
  state: Uint8Array | undefined,
  more: Uint8Array = emptyVector,
): Uint8Array {
  const vector = new VersionVector()
  vector.joinBytes(more, 0)
  if (state !== undefined) joinAll(state, vector)
  const out = new ByteWriter(64)
  vector.write(out)
  return out.take()
}

/** Joins all that a state of elements has seen into `vector`: its dots, and their contexts. */
export function joinAll(state: Uint8Array, vector: VersionVector): void {
  here.open(state)
  while (here.next()) {
    here.joinContext(vector)
    vector.add(here.actor, here.counter)
  }
}
