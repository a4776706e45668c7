import type { ByteWriter } from "../../lib/byteWriter.ts"
import { compareDots } from "../dot.ts"
import { ElementCursor, type Write } from "../elements.ts"
import { contextOfAll, type Put, putSibling } from "../siblings.ts"

/**
 * The rule `crdt:register`: one value, causality first. A write replaces whatever its coordinator holds and its writer had
 * seen, however their clocks stood; only among writes made apart does the highest stamp show, the higher dot where stamps
 * are equal. The others stay underneath until a later write has seen them, so that a delete of the one shown
 * lets no other write be lost unseen. A state is one of siblings with stamps, and merges like one.
 */

const cursor = new ElementCursor()

/** Appends the state after `write`, which has a stamp and covers all of `local`. */
export function putRegister(out: ByteWriter, local: Uint8Array | undefined, write: Write): Put {
  const context = contextOfAll(local, write.context)
  return putSibling(out, local, { ...write, context }, "register")
}

/** The value shown at `nowMs`, as a view, or `undefined`. */
export function registerValue(state: Uint8Array, nowMs: number): Uint8Array | undefined {
  let stamp = -1
  let actor = 0
  let counter = 0
  let value: Uint8Array | undefined
  cursor.open(state)
  while (cursor.next()) {
    const order = cursor.stamp - stamp || compareDots(cursor.actor, cursor.counter, actor, counter)
    if (order <= 0 || !cursor.liveAt(nowMs)) continue
    stamp = cursor.stamp
    actor = cursor.actor
    counter = cursor.counter
    value = cursor.value
  }
  return value
}
