import type { ByteWriter } from "../lib/byteWriter.ts"
import { compareDots } from "./dot.ts"
import { ElementCursor, type Write, writeElement, writeHead } from "./elements.ts"
import { mergeSiblings } from "./siblings.ts"
import type { SeenDots } from "./slotClock.ts"

/**
 * The rule `lww`: the write with the highest stamp of a hybrid clock wins, the higher dot where stamps are equal, and the
 * other is lost, though nobody had seen it. Whoever wants a write to win over one he has read passes that one's stamp on
 * (contextToken.ts), and the coordinator's clock takes it before it stamps.
 *
 * A delete is a write like any other, and keeps its context, so that it is not reaped before every owner has seen what it
 * deleted. What nobody had seen it cannot name: a write with a lower stamp that arrives for the first time after the
 * delete was reaped shows. That is what the hint window is for.
 */

// Used within one call each.
const here = new ElementCursor()
const there = new ElementCursor()

/** Appends the state of a key after `write`, which has a stamp: `false` when what is there has a higher one and stays. */
export function putLww(out: ByteWriter, local: Uint8Array | undefined, write: Write): boolean {
  if (local !== undefined) {
    here.open(local).next()
    if (compareStamps(here.stamp, here.actor, here.counter, write) > 0) {
      out.raw(local)
      return false
    }
  }
  writeHead(out, "lww", 1)
  writeElement(out, write)
  return true
}

function compareStamps(stamp: number, actor: number, counter: number, than: Stamped): number {
  return stamp - than.stamp || compareDots(actor, counter, than.actor, than.counter)
}

type Stamped = Pick<Write, "stamp" | "actor" | "counter">

/** As `mergeSiblings`, by stamp. */
export function mergeLww(
  local: Uint8Array | undefined,
  incoming: Uint8Array,
  seen: SeenDots | undefined,
): Uint8Array | undefined {
  there.open(incoming).next()
  if (local !== undefined) {
    here.open(local).next()
    if (here.actor === there.actor && here.counter === there.counter) {
      return mergeSiblings(local, incoming, seen)
    }
  }
  if (seen?.contains(there.actor, there.counter)) return local
  if (local === undefined) return incoming
  return compareStamps(here.stamp, here.actor, here.counter, there) > 0 ? local : incoming
}

/** The highest stamp in a state whose elements have stamps. */
export function latestStamp(state: Uint8Array): number {
  let latest = 0
  here.open(state)
  while (here.next()) latest = Math.max(latest, here.stamp)
  return latest
}
