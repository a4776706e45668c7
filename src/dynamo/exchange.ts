import { ByteWriter } from "../lib/byteWriter.ts"
import { keepCounterEntries } from "./crdt/counter.ts"
import { SetState } from "./crdt/set.ts"
import type { Actor } from "./dot.ts"
import { ElementCursor } from "./elements.ts"
import { forEachDot, mergeStates, ruleOf } from "./keyState.ts"
import type { SeenDots } from "./slotClock.ts"

/**
 * Whether `state` has a write or a delete that their clock lacks. Trees compare live values only, so these keys are part of a
 * complete exchange as well as those that the trees find: a clock that vouches for a delete without it would let every
 * owner reap it while one of them shows what it deleted.
 */
export function hasNews(state: Uint8Array, seenThere: SeenDots): boolean {
  let news = false
  forEachDot(state, (actor, counter) => {
    news ||= !seenThere.contains(actor, counter)
  })
  return news
}

/**
 * What an owner holds for a key after the key's part of a complete exchange of a slot. Both sides have then said all: what
 * is in `theirs` and was never here is new here; and what is here, inside their clock and not in `theirs`, was there
 * and is gone, deleted and reaped perhaps, so it goes here too. Without this second half an owner that began again, and
 * was brought an old value before its delete, would take over the clock and keep the value for ever.
 *
 * `theirs` (`undefined`: they hold nothing of the key) and `seenThere` are of one snapshot; `local` and `seenHere` are of
 * now. Every key whose live dots differ goes through this, and every one that `hasNews` for either side; then the
 * clock is adopted.
 */
export function mergeExchanged(
  local: Uint8Array | undefined,
  theirs: Uint8Array | undefined,
  seenHere: SeenDots,
  seenThere: SeenDots,
): Uint8Array | undefined {
  const kept = local === undefined ? undefined : notGoneThere(local, theirs, seenThere)
  return theirs === undefined ? kept : mergeStates(kept, theirs, seenHere)
}

function notGoneThere(
  local: Uint8Array,
  theirs: Uint8Array | undefined,
  seenThere: SeenDots,
): Uint8Array | undefined {
  const held: Array<number> = []
  if (theirs !== undefined) forEachDot(theirs, (actor, counter) => held.push(actor, counter))
  // An actor's entry in a counter moves from dot to dot; which of two is newer is for the merge to say.
  const anyCounter = ruleOf(local) === "counter"
  const holds = (actor: Actor, counter: number) => {
    for (let i = 0; i < held.length; i += 2) {
      if (held[i] === actor && (anyCounter || held[i + 1] === counter)) return true
    }
    return false
  }
  const keep = (actor: Actor, counter: number) =>
    !seenThere.contains(actor, counter) || holds(actor, counter)
  let all = true
  forEachDot(local, (actor, counter) => {
    all &&= keep(actor, counter)
  })
  return all ? local : keepDots(local, keep)
}

function keepDots(
  state: Uint8Array,
  keep: (actor: Actor, counter: number) => boolean,
): Uint8Array | undefined {
  const out = new ByteWriter(state.length)
  const rule = ruleOf(state)
  if (rule === "counter") {
    const any = keepCounterEntries(out, state, ({ actor, last }) => keep(actor, last))
    return any ? out.take() : undefined
  }
  if (rule === "set" || rule === "flag") {
    const set = SetState.read(state)
    set.keepDots(keep)
    set.write(out, rule)
    return out.take()
  }
  const kept = new ByteWriter(state.length)
  let count = 0
  const cursor = new ElementCursor().open(state)
  while (cursor.next()) {
    if (!keep(cursor.actor, cursor.counter)) continue
    cursor.copyTo(kept)
    count++
  }
  if (count === 0) return undefined
  out.u8(state[0])
  out.varint(count)
  out.raw(kept.bytes())
  return out.take()
}
