import type { EventualChange } from "../../../src/dynamo/node/requests.ts"
import { utf8 } from "../../../src/lib/bytes.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import type { Sight, Write } from "./book.ts"
import type { Key } from "./key.ts"
import type { EventualParameters } from "./parameters.ts"

export const ttlMsMax = 2000

/** Where a write is drawn. */
export interface PlanPlace {
  readonly prng: Prng
  readonly nowMs: number
  /** Writes before this one: it makes values distinct. */
  readonly count: number
  readonly parameters: Pick<EventualParameters, "deletes" | "ttl" | "skewMsMax">
}

/** A change as its client sends it, and what the book is to know of it. */
export type Plan = Pick<Write, "kind" | "value"> & {
  readonly change: EventualChange
  readonly delta?: number
  readonly expiry?: Write["expiry"]
}

/** The next write of a key by a client that has last seen this of it. */
export function planOf({ namespace, book }: Key, sight: Sight, place: PlanPlace): Plan {
  const { prng, nowMs, count, parameters } = place
  const canDelete = sight.context !== undefined
  if (namespace.rule === "counter") {
    const delta = prng.int(1, 50)
    return {
      kind: "increment",
      value: "",
      delta,
      change: { _tag: "Increment", delta: BigInt(delta) },
    }
  }
  if (canDelete && prng.chance(parameters.deletes)) {
    const isSet = namespace.rule === "set" || namespace.rule === "flag"
    return { kind: isSet ? "clear" : "delete", value: "", change: { _tag: "Delete" } }
  }
  if (namespace.rule === "flag") {
    return canDelete && prng.chance(0.4)
      ? { kind: "remove", value: "on", change: { _tag: "Disable" } }
      : { kind: "add", value: "on", change: { _tag: "Enable" } }
  }
  if (namespace.rule === "set") {
    const known = book.writes.filter(({ kind }) => kind === "add").map(({ value }) => value)
    const isKnown = known.length > 0 && prng.chance(0.4)
    const value = isKnown ? prng.pick(known) : `m${count}`
    return canDelete && isKnown
      ? { kind: "remove", value, change: { _tag: "Remove", member: utf8(value) } }
      : { kind: "add", value, change: { _tag: "Add", member: utf8(value) } }
  }
  const value = `w${count}`
  const ttlMs = prng.chance(parameters.ttl) ? prng.int(50, ttlMsMax) : 0
  const change: EventualChange = { _tag: "Put", value: utf8(value), ttlMs }
  if (ttlMs === 0) return { kind: "put", value, change }
  const apart = 2 * parameters.skewMsMax
  const from = nowMs + ttlMs
  // Taken at the latest at its deadline, by a clock that is ahead.
  return {
    kind: "put",
    value,
    change,
    expiry: { mayMs: from - apart, mustMs: from + 4000 + apart },
  }
}
