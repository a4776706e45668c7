import { counterValue, deleteCounter, increment } from "../../src/dynamo/crdt/counter.ts"
import { flagValue, putFlag } from "../../src/dynamo/crdt/flag.ts"
import { putRegister, registerValue } from "../../src/dynamo/crdt/register.ts"
import { putSet, SetState } from "../../src/dynamo/crdt/set.ts"
import { type ConflictRule, ElementCursor } from "../../src/dynamo/elements.ts"
import { putLww } from "../../src/dynamo/lww.ts"
import { putSibling } from "../../src/dynamo/siblings.ts"
import type { SeenDots } from "../../src/dynamo/slotClock.ts"
import { emptyVector } from "../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import type { Prng } from "../../src/lib/prng.ts"

/**
 * What a world of replicas asks of a conflict rule: to carry a write out on bytes, and to say from the true history which
 * writes a write covers and what a reader should then see. The second half knows nothing of dots.
 */

/** One write, with what is true of it. Ids are given in the order of writing. */
export interface Op {
  readonly id: number
  readonly kind: "put" | "delete"
  /** The member of a set, the amount of an increment; else the value, which is the id. */
  readonly value: string
  readonly expiryMs: number
  readonly stamp: number
  readonly actor: number
  readonly counter: number
  /** Ids of writes that this one replaces or removes. */
  readonly covers: ReadonlySet<number>
}

/** What a client has read: the context for his next write, and the writes behind it. */
export interface Seen {
  readonly context: Uint8Array | undefined
  readonly ops: ReadonlySet<number>
}

export type Draft = Omit<Op, "covers">
type Ops = ReadonlyArray<Op>

export interface RuleModel {
  readonly rule: ConflictRule
  /** Of a put. */
  drawValue(prng: Prng, id: number): string
  /** The new state at the coordinator, or why it refuses. `clock` is an owner's. */
  put(
    local: Uint8Array | undefined,
    op: Draft,
    seen: Seen,
    clock: SeenDots | undefined,
  ): Uint8Array | string
  /** `seen`: what the writer had read. `here`: what his coordinator has. Both of this key. */
  covers(op: Draft, seen: Ops, here: Ops): Ops
  /** From bytes. */
  shown(state: Uint8Array | undefined, nowMs: number): string
  /** From the writes known that no known write covers. */
  expected(live: Ops, nowMs: number): string
}

const out = new ByteWriter()

function taken(result: string): Uint8Array | string {
  return result === "written" ? out.take() : result
}

function writeOf(op: Draft, seen: Seen) {
  const { actor, counter, stamp, expiryMs, kind } = op
  const value = kind === "put" ? utf8(op.value) : undefined
  return { actor, counter, context: seen.context ?? emptyVector, stamp, expiryMs, value }
}

function liveValues(state: Uint8Array | undefined, nowMs: number): string {
  if (state === undefined) return ""
  const values: Array<string> = []
  const cursor = new ElementCursor().open(state)
  while (cursor.next()) if (cursor.liveAt(nowMs)) values.push(text(cursor.value))
  return values.sort().join(" ")
}

function livePuts(live: Ops, nowMs: number): Ops {
  return live.filter(({ kind, expiryMs }) => kind === "put" && (expiryMs === 0 || expiryMs > nowMs))
}

const siblings: RuleModel = {
  rule: "siblings",
  drawValue: (_, id) => `${id}`,
  put: (local, op, seen) => taken(putSibling(out, local, { ...writeOf(op, seen), stamp: 0 })),
  covers: (_, seen) => seen,
  shown: liveValues,
  expected: (live, nowMs) =>
    livePuts(live, nowMs)
      .map(({ value }) => value)
      .sort()
      .join(" "),
}

/** Also compares what lies underneath the value shown. */
const register: RuleModel = {
  ...siblings,
  rule: "register",
  put: (local, op, seen) => taken(putRegister(out, local, writeOf(op, seen))),
  covers: (_, seen, here) => [...seen, ...here],
  shown(state, nowMs) {
    const value = state === undefined ? undefined : registerValue(state, nowMs)
    return `${value === undefined ? "-" : text(value)} of ${liveValues(state, nowMs)}`
  },
  expected(live, nowMs) {
    const top = highest(livePuts(live, nowMs))
    return `${top?.value ?? "-"} of ${siblings.expected(live, nowMs)}`
  },
}

function highest(ops: Ops): Op | undefined {
  return ops.reduce<Op | undefined>((best, op) => {
    if (best === undefined) return op
    const order = op.stamp - best.stamp || op.actor - best.actor || op.counter - best.counter
    return order > 0 ? op : best
  }, undefined)
}

const lww: RuleModel = {
  ...siblings,
  rule: "lww",
  put(local, op, seen) {
    putLww(out, local, writeOf(op, seen))
    return out.take()
  },
  covers: () => [],
  expected(live, nowMs) {
    const top = highest(live)
    return top === undefined ? "" : siblings.expected([top], nowMs)
  },
}

const set: RuleModel = {
  rule: "set",
  drawValue: (prng) => prng.pick(["", "a", "b", "cc"]),
  put(local, op, seen) {
    const context = seen.context === undefined ? {} : { context: seen.context }
    const value = utf8(op.value)
    if (op.kind === "put") return taken(putSet(out, local, op, { _tag: "Add", value }))
    if (op.value === "all") return taken(putSet(out, local, op, { _tag: "Clear", ...context }))
    return taken(putSet(out, local, op, { _tag: "Remove", value, ...context }))
  },
  covers(op, seen, here) {
    const known = op.kind === "put" ? here : seen
    return known.filter(({ value }) => op.value === "all" || value === op.value)
  },
  shown: (state) =>
    SetState.read(state)
      .members.map(({ value }) => `'${text(value)}'`)
      .join(" "),
  expected: (live) =>
    [...new Set(livePuts(live, 0).map(({ value }) => `'${value}'`))].sort().join(" "),
}

const flag: RuleModel = {
  rule: "flag",
  drawValue: () => "on",
  put: (local, op, seen) => taken(putFlag(out, local, op, op.kind === "put", seen.context)),
  covers: (op, seen, here) => (op.kind === "put" ? here : seen),
  shown: (state) => `${flagValue(state)}`,
  expected: (live) => `${livePuts(live, 0).length > 0}`,
}

const counter: RuleModel = {
  rule: "counter",
  drawValue: (prng) => `${prng.int(-3, 9)}`,
  put(local, op, seen, clock) {
    if (op.kind === "put") return taken(increment(out, local, op, BigInt(op.value)))
    return taken(deleteCounter(out, local, op, seen.context, clock))
  },
  covers: (op, seen) => (op.kind === "put" ? [] : seen),
  shown: (state) => `${counterValue(state) ?? "-"}`,
  expected(live) {
    const puts = livePuts(live, 0)
    if (puts.length === 0) return "-"
    return `${puts.reduce((sum, { value }) => sum + BigInt(value), 0n)}`
  },
}

export const ruleModels: ReadonlyArray<RuleModel> = [siblings, lww, register, set, flag, counter]
