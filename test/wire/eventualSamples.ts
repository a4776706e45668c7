import type { Level } from "../../src/dynamo/coordinator/slotPlan.ts"
import { actorOf } from "../../src/dynamo/dot.ts"
import { type ConflictRule, ruleNumbers } from "../../src/dynamo/elements.ts"
import { contextOf } from "../../src/dynamo/keyState.ts"
import { changedState } from "../../src/dynamo/node/changes.ts"
import type {
  EventualChange,
  EventualPage,
  EventualReceipt,
  EventualRefusal,
  EventualReply,
  EventualRequest,
  EventualWrite,
} from "../../src/dynamo/node/requests.ts"
import type { Prng } from "../../src/lib/prng.ts"

/** Well-formed requests to eventual namespaces and their answers, drawn from a seed. */

const levels = ["one", "quorum", "all", "localQuorum"] as const

export const levelOf = (prng: Prng): Level => prng.pick(levels)
const maybeLevel = (prng: Prng) => (prng.chance(0.3) ? undefined : levelOf(prng))
const safe = (prng: Prng) => Math.floor(prng.logUniform(1, 2 ** 53 - 1))
const signed = (prng: Prng) =>
  prng.pick([0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), BigInt(safe(prng)), -BigInt(safe(prng))])

function bytesOf(prng: Prng, min: number, max: number): Uint8Array {
  return Uint8Array.from({ length: prng.int(min, max) }, () => prng.int(0, 255))
}

const keyOf = (prng: Prng) => bytesOf(prng, 1, prng.chance(0.05) ? 2048 : 20)

function changeOf(prng: Prng): EventualChange {
  const member = keyOf(prng)
  return prng.pick<EventualChange>([
    { _tag: "Put", value: bytesOf(prng, 0, 60), ttlMs: prng.chance(0.5) ? 0 : safe(prng) },
    { _tag: "Delete" },
    { _tag: "Add", member },
    { _tag: "Remove", member },
    { _tag: "Increment", delta: signed(prng) },
    { _tag: "Enable" },
    { _tag: "Disable" },
  ])
}

const ruleNames = Object.keys(ruleNumbers) as ReadonlyArray<ConflictRule>

const isOf: Readonly<Record<ConflictRule, ReadonlyArray<EventualChange["_tag"]>>> = {
  siblings: ["Put", "Delete"],
  lww: ["Put", "Delete"],
  register: ["Put", "Delete"],
  set: ["Add", "Remove", "Delete"],
  flag: ["Enable", "Disable", "Delete"],
  counter: ["Increment", "Delete"],
}

/** Of a key that nodes 1 to 3 have written a few times, some of them blindly. */
export function stateOf(prng: Prng): Uint8Array {
  const rule = prng.pick(ruleNames)
  const stamped = rule === "lww" || rule === "register"
  let state: Uint8Array | undefined
  for (let counter = 1; state === undefined || prng.chance(0.7); ) {
    const change = changeOf(prng)
    if (!isOf[rule].includes(change._tag)) continue
    const dot = { actor: actorOf(prng.int(1, 3), prng.int(1, 2)), counter }
    const context = state === undefined || prng.chance(0.5) ? undefined : contextOf(state)
    const target = { rule, local: state, dot, context, wallMs: 1_700_000_000_000, seen: undefined }
    const next = changedState({ ...target, stamp: stamped ? counter : 0 }, small(change))
    if (next instanceof Uint8Array) state = next
    counter++
  }
  return state
}

/** One that a counter and a TTL can take many of. */
function small(change: EventualChange): EventualChange {
  if (change._tag === "Increment") return { ...change, delta: BigInt.asIntN(32, change.delta) }
  return change._tag === "Put" ? { ...change, ttlMs: change.ttlMs % 1e9 } : change
}

function commonOf(prng: Prng) {
  const [namespace, deadlineMs] = [prng.uint32(), prng.int(1, 110_000)]
  return { token: 0, namespace, level: maybeLevel(prng), deadlineMs }
}

export function eventualWriteOf(prng: Prng): EventualWrite {
  return {
    ...commonOf(prng),
    _tag: "EventualWrite",
    key: keyOf(prng),
    change: changeOf(prng),
    context: prng.chance(0.5) ? undefined : bytesOf(prng, 0, prng.chance(0.05) ? 16_384 : 40),
    strict: prng.chance(0.5),
    requestId: prng.chance(0.5) ? 0 : safe(prng),
    ...(prng.chance(0.8) ? {} : { isRetry: true }),
  }
}

export function eventualPageOf(prng: Prng): EventualPage {
  const slots: Array<number> = []
  for (let start = prng.int(0, 100); start < 16_384 && slots.length < 40; ) {
    const count = prng.int(1, Math.min(500, 16_384 - start))
    slots.push(start, count)
    start += count + prng.int(1, 500)
  }
  const after = prng.chance(0.5) ? undefined : { slot: prng.int(0, 16_383), key: keyOf(prng) }
  const what = { prefix: bytesOf(prng, 0, 10), limit: prng.int(1, 1000) }
  return { ...commonOf(prng), _tag: "EventualPage", slots, after, ...what }
}

export function eventualRequestOf(prng: Prng): EventualRequest {
  switch (prng.int(0, 2)) {
    case 0:
      return eventualWriteOf(prng)
    case 1:
      return { ...commonOf(prng), _tag: "EventualRead", key: keyOf(prng) }
    default:
      return eventualPageOf(prng)
  }
}

/** Of up to fourteen owners: seven old ones and seven new ones, while a slot moves. */
export function eventualReceiptOf(prng: Prng): EventualReceipt {
  const owners = Array.from({ length: prng.int(0, 14) }, (_, i) => 1 + 3 * i + prng.int(0, 2))
  const some = () => owners.filter(() => prng.chance(0.5))
  return {
    coordinator: prng.uint32(),
    asked: levelOf(prng),
    achieved: prng.chance(0.2) ? "none" : levelOf(prng),
    answered: some(),
    owners,
    standIns: some().map((owner) => ({ node: prng.uint32(), owner })),
    sloppy: prng.chance(0.5),
    overlap: prng.chance(0.5),
    repairs: some(),
  }
}

export function eventualRefusalOf(prng: Prng): EventualRefusal {
  const message = prng.pick(["", "no", "größer als erlaubt — 2"])
  return prng.pick<EventualRefusal>([
    {
      _tag: "LevelUnavailable",
      level: levelOf(prng),
      answered: Array.from({ length: prng.int(0, 7) }, () => prng.uint32()),
    },
    { _tag: "WriteUnknown", receipt: prng.chance(0.5) ? undefined : eventualReceiptOf(prng) },
    { _tag: "RingMoved", ringVersion: safe(prng) },
    { _tag: "TooManySiblings", limit: prng.uint32() },
    { _tag: "BadContext", message },
    { _tag: "NotSupportedInMode", message },
    { _tag: "ClockAhead", message },
    { _tag: "InvalidRequest", message },
    { _tag: "Overloaded", what: message },
    { _tag: "DiskFull", node: prng.uint32() },
    { _tag: "StorageCorrupt", message },
  ])
}

export function eventualReplyOf(prng: Prng): EventualReply {
  const [token, receipt] = [0, eventualReceiptOf(prng)]
  const state = stateOf(prng)
  switch (prng.int(0, 3)) {
    case 0: {
      const counter = prng.chance(0.5) ? undefined : signed(prng)
      return { _tag: "EventualWritten", token, counter, receipt }
    }
    case 1:
      return { _tag: "EventualValue", token, receipt, state: prng.chance(0.3) ? undefined : state }
    case 2:
      return {
        ...{ _tag: "EventualEntries", token, node: prng.uint32() },
        entries: Array.from({ length: prng.int(0, 6) }, () => {
          return { key: keyOf(prng), state: stateOf(prng) }
        }),
        next: prng.chance(0.5) ? undefined : { slot: prng.int(0, 16_383), key: keyOf(prng) },
      }
    default:
      return { _tag: "EventualRefused", token, refusal: eventualRefusalOf(prng) }
  }
}
