import { encodeToken } from "../../../src/dynamo/contextToken.ts"
import { copiesOf, type Level } from "../../../src/dynamo/coordinator/slotPlan.ts"
import { describeDot } from "../../../src/dynamo/dot.ts"
import { contextOf, forEachLiveDot, ruleOf } from "../../../src/dynamo/keyState.ts"
import { latestStamp } from "../../../src/dynamo/lww.ts"
import type { EventualNamespace } from "../../../src/dynamo/node/ports.ts"
import { viewOf } from "../../../src/dynamo/valueView.ts"
import { text, utf8 } from "../../../src/lib/bytes.ts"
import { type Answer, type KeyBook, type Sight, unseen } from "./book.ts"
import { CounterBook } from "./counterBook.ts"
import type { EventualParameters } from "./parameters.ts"
import { SetBook } from "./setBook.ts"
import { ValuesBook } from "./valuesBook.ts"

/** A key of the world: what is known of its writes, and what each client has last seen of it. */
export interface Key {
  readonly namespace: EventualNamespace
  readonly bytes: Uint8Array
  readonly book: KeyBook
  /** By client. */
  readonly sights: Array<Sight>
}

/** The key of this number in its namespace, with a book of its own. */
export function keyOf(
  parameters: Pick<EventualParameters, "oneSlot" | "clients">,
  namespace: EventualNamespace,
  index: number,
): Key {
  const { rule } = namespace
  const name = parameters.oneSlot ? `{a}${index}` : `key${index}`
  const full = `${rule} ${name}`
  const book =
    rule === "counter"
      ? new CounterBook(full)
      : rule === "set" || rule === "flag"
        ? new SetBook(full)
        : new ValuesBook(full, rule)
  const sights = Array.from({ length: parameters.clients }, () => unseen)
  return { namespace, bytes: utf8(name), book, sights }
}

/** What a state shows that is read now. */
export function answerOf(
  state: Uint8Array | undefined,
  times: Omit<Answer, "values" | "total">,
): Answer {
  const view = state === undefined ? undefined : viewOf(state)
  switch (view?._tag) {
    case "Values":
      return { values: view.values.map(text), total: undefined, ...times }
    case "Set":
      return { values: view.members.map(text), total: undefined, ...times }
    case "Flag":
      return { values: view.enabled ? ["on"] : [], total: undefined, ...times }
    case "Counter":
      return { values: [], total: view.value ?? 0n, ...times }
    default:
      return { values: [], total: undefined, ...times }
  }
}

/** What a read of this level meets, and what it leaves behind: above `one` it is answered when enough owners hold what it shows. */
export function reachOf(
  level: Level,
  { copies }: EventualNamespace,
): Pick<Answer, "owners" | "meetsOwners"> {
  if (level === "localQuorum") return { owners: 0, meetsOwners: Number.POSITIVE_INFINITY }
  const owners = copiesOf(level, copies)
  return { owners: level === "one" ? 0 : owners, meetsOwners: copies - owners + 1 }
}

/** The token that a client is given with what it reads. */
export function contextIn({ namespace, bytes }: Key, state: Uint8Array | undefined) {
  if (state === undefined) return undefined
  const rule = ruleOf(state)
  const stamp = rule === "lww" || rule === "register" ? latestStamp(state) : 0
  return encodeToken({ rule, stamp, seen: contextOf(state) }, namespace.id, bytes)
}

/** The names of what is live in a state. */
export function liveIn(state: Uint8Array): string {
  const dots: Array<string> = []
  forEachLiveDot(state, 0, (actor, counter) => dots.push(describeDot(actor, counter)))
  return dots.sort().join()
}
