import { ByteWriter } from "../../lib/byteWriter.ts"
import type { WallMs } from "../../types.ts"
import { deleteCounter, increment } from "../crdt/counter.ts"
import { putFlag } from "../crdt/flag.ts"
import { putRegister } from "../crdt/register.ts"
import { type NewDot, putSet, type SetChange } from "../crdt/set.ts"
import type { ConflictRule, Write } from "../elements.ts"
import { putLww } from "../lww.ts"
import { putSibling, siblingsMax } from "../siblings.ts"
import type { SeenDots } from "../slotClock.ts"
import { emptyVector } from "../versionVector.ts"
import type { EventualChange, EventualRefusal } from "./requests.ts"

type Tag = EventualChange["_tag"]

const changesOfRule: Readonly<Record<ConflictRule, ReadonlyArray<Tag>>> = {
  siblings: ["Put", "Delete"],
  lww: ["Put", "Delete"],
  register: ["Put", "Delete"],
  set: ["Add", "Remove", "Delete"],
  flag: ["Enable", "Disable", "Delete"],
  counter: ["Increment", "Delete"],
}

/** What users call a conflict rule. */
export function ruleName(rule: ConflictRule): string {
  return rule === "siblings" || rule === "lww" ? rule : `crdt:${rule}`
}

/** Why a namespace of this rule takes no such change, or `undefined`. */
export function changeProblem(
  rule: ConflictRule,
  change: EventualChange,
): EventualRefusal | undefined {
  const taken = changesOfRule[rule]
  if (!taken.includes(change._tag)) {
    const message = `a namespace of conflict rule ${ruleName(rule)} takes ${taken.join(", ")}, not ${change._tag}`
    return { _tag: "NotSupportedInMode", message }
  }
  return undefined
}

/** What a change is carried out on, and by whom. */
export interface ChangeTarget {
  readonly rule: ConflictRule
  readonly local: Uint8Array | undefined
  readonly dot: NewDot
  /** The `seen` of the caller's context token; `undefined`: he has read nothing. */
  readonly context: Uint8Array | undefined
  /** Under `lww` and `register`. */
  readonly stamp: number
  readonly wallMs: WallMs
  /** The slot's clock, of an owner. */
  readonly seen: SeenDots | undefined
}

const out = new ByteWriter(4096)

/** The state of a key after a change that its rule takes, or why it is refused: then the dot was not used. */
export function changedState(
  target: ChangeTarget,
  change: EventualChange,
): Uint8Array | EventualRefusal {
  out.reset()
  const result = carryOut(target, change)
  switch (result) {
    case "written":
      return leavesTooMuch(target, change) ? tooManySiblings : out.take()
    case "tooManySiblings":
      return tooManySiblings
    case "contextAhead": {
      const message = "the context is from before a node lost data: read the key again"
      return { _tag: "BadContext", message }
    }
    case "tooLarge":
      return { _tag: "InvalidRequest", message: "the set would pass 1 MiB" }
    case "outOfRange":
      return { _tag: "InvalidRequest", message: "the counter would leave 64 bits" }
    case "outranked": {
      const message = "the value has a stamp that is ahead of this node's clock"
      return { _tag: "ClockAhead", message }
    }
    default:
      return result satisfies never
  }
}

const tooManySiblings = { _tag: "TooManySiblings", limit: siblingsMax } as const

/** Beside the value that is written, the values that its writer has not seen may have so many bytes: all owners' together fit a frame. */
const unseenBytesMax = 1024 * 1024

function leavesTooMuch({ local }: ChangeTarget, change: EventualChange): boolean {
  if (change._tag !== "Put") return false
  return out.length - change.value.length > unseenBytesMax && out.length > (local?.length ?? 0)
}

function carryOut(target: ChangeTarget, change: EventualChange) {
  const { rule, local, dot, seen } = target
  switch (rule) {
    case "siblings":
      return putSibling(out, local, { ...writeOf(target, change), stamp: 0 })
    case "register":
      return putRegister(out, local, writeOf(target, change))
    case "lww":
      return putLww(out, local, writeOf(target, change)) ? "written" : "outranked"
    case "set":
      return putSet(out, local, dot, setChangeOf(change, target.context))
    case "flag":
      return putFlag(out, local, dot, change._tag === "Enable", target.context)
    case "counter":
      if (change._tag === "Increment") return increment(out, local, dot, change.delta)
      return deleteCounter(out, local, dot, target.context ?? local, seen)
    default:
      return rule satisfies never
  }
}

function writeOf({ dot, context, stamp, wallMs }: ChangeTarget, change: EventualChange): Write {
  const common = { actor: dot.actor, counter: dot.counter, context: context ?? emptyVector, stamp }
  if (change._tag !== "Put") return { ...common, expiryMs: 0, value: undefined }
  const { value, ttlMs } = change
  return { ...common, expiryMs: ttlMs === 0 ? 0 : Math.round(wallMs + ttlMs), value }
}

function setChangeOf(change: EventualChange, context: Uint8Array | undefined): SetChange {
  const seen = context === undefined ? {} : { context }
  if (change._tag === "Add") return { _tag: "Add", value: change.member }
  if (change._tag === "Remove") return { _tag: "Remove", value: change.member, ...seen }
  return { _tag: "Clear", ...seen }
}
