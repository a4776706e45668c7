import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import { checkState } from "../dynamo/keyState.ts"
import type {
  EventualChange,
  EventualReceipt,
  EventualRefusal,
  EventualReply,
  EventualRequest,
  EventualWrite,
} from "../dynamo/node/requests.ts"
import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { text, utf8 } from "../lib/bytes.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { int64Of, loadInt64 } from "../lib/int64.ts"
import type { NodeId } from "../types.ts"
import { asArray, asBytes, asCount, orUndefined, pack, unpack } from "./packed.ts"

/**
 * Requests to eventual namespaces and their answers, inside the frames of the native door (native.ts): what follows kind and request id, and of answers eight bytes of
 * zeros. Little-endian. Do not change: sent.
 *
 *     write     u32 namespace ‖ u32 deadline ms ‖ u8 level ‖ u8 flags (1 strict, 2 with a context, 4 sent before) ‖ u64 request id (0 = none) ‖ u8 change ‖ u64 TTL ms
 *               ‖ u16 length of the context ‖ u16 length of the key ‖ context ‖ key ‖ value, member or increment (i64)
 *     read      u32 namespace ‖ u32 deadline ms ‖ u8 level ‖ key
 *     page      packed [namespace, deadline ms, level, slots, prefix, after (nil or [slot, key]), limit]
 *
 *     written   u8 with a counter ‖ i64 counter ‖ receipt
 *     value     receipt ‖ u8 found ‖ state (dynamo/keyState.ts)
 *     entries   packed [node, [[key, state]], next (nil or [slot, key])]
 *     refused   u8 code ‖ by code
 *
 *     receipt   u32 coordinator ‖ u8 level asked ‖ u8 level achieved ‖ u8 flags (1 sloppy, 2 overlap) ‖ u8 owners ‖ u8 stand-ins ‖ u16 owners that answered ‖ u16 owners
 *               repaired ‖ owners (u32)* ‖ stand-ins (u32 node ‖ u32 owner)*
 *     level     0 as the namespace has it, or none; 1 one, 2 quorum, 3 all, 4 localQuorum
 *     change    1 put, 2 delete, 3 add, 4 remove, 5 increment, 6 enable, 7 disable
 */
const levels: ReadonlyArray<Level | undefined> = [undefined, "one", "quorum", "all", "localQuorum"]
const changes = {
  Put: 1,
  Delete: 2,
  Add: 3,
  Remove: 4,
  Increment: 5,
  Enable: 6,
  Disable: 7,
} as const
const refusalCodes = {
  LevelUnavailable: 1,
  WriteUnknown: 2,
  RingMoved: 3,
  TooManySiblings: 4,
  BadContext: 5,
  NotSupportedInMode: 6,
  ClockAhead: 7,
  InvalidRequest: 8,
  Overloaded: 9,
  DiskFull: 10,
  StorageCorrupt: 11,
} as const

/** Slots of a page are named by runs; a node has a few hundred at most. */
const slotRunsMax = 16_384

function levelCode(level: Level | "none" | undefined): number {
  return level === "none" ? 0 : levels.indexOf(level)
}

function levelOf(code: number): Level | undefined {
  if (code >= levels.length) throw new MalformedBytes(`unknown level ${code}`)
  return levels[code]
}

// ---- Requests

/** What follows kind and id. */
export function writeEventualRequest(out: ByteWriter, request: EventualRequest): void {
  switch (request._tag) {
    case "EventualWrite":
      return writeWrite(out, request)
    case "EventualRead":
      out.u32(request.namespace)
      out.u32(request.deadlineMs)
      out.u8(levelCode(request.level))
      out.raw(request.key)
      return
    case "EventualPage": {
      const { namespace, deadlineMs, level, slots, prefix, after, limit } = request
      const from = after === undefined ? null : [after.slot, after.key]
      out.raw(pack([namespace, deadlineMs, levelCode(level), slots, prefix, from, limit]))
      return
    }
    default:
      request satisfies never
  }
}

function writeWrite(out: ByteWriter, request: EventualWrite): void {
  const { change, context, key, strict } = request
  out.u32(request.namespace)
  out.u32(request.deadlineMs)
  out.u8(levelCode(request.level))
  const isRetry = request.isRetry === true
  out.u8((strict ? 1 : 0) | (context === undefined ? 0 : 2) | (isRetry ? 4 : 0))
  out.u64(request.requestId)
  out.u8(changes[change._tag])
  out.u64(change._tag === "Put" ? change.ttlMs : 0)
  out.u16(context?.length ?? 0)
  out.u16(key.length)
  if (context !== undefined) out.raw(context)
  out.raw(key)
  if (change._tag === "Put") out.raw(change.value)
  else if (change._tag === "Add" || change._tag === "Remove") out.raw(change.member)
  else if (change._tag === "Increment") out.raw(int64Of(change.delta))
}

/** Byte strings are views. Throws `MalformedBytes`. */
export function readEventualWrite(reader: ByteReader): EventualWrite {
  const namespace = reader.u32()
  const deadlineMs = reader.u32()
  const level = levelOf(reader.u8())
  const flags = reader.u8()
  if (flags > 7) throw new MalformedBytes(`unknown flags ${flags}`)
  const requestId = reader.u64()
  const code = reader.u8()
  const ttlMs = reader.u64()
  const contextBytes = reader.u16()
  const keyBytes = reader.u16()
  const context = reader.raw(contextBytes)
  const key = reader.raw(keyBytes)
  const change = changeOf(code, ttlMs, reader.rest())
  if ((flags & 2) === 0 && contextBytes > 0) throw new MalformedBytes("a context too many")
  return {
    ...{ _tag: "EventualWrite", token: 0, namespace, deadlineMs, level, requestId, key, change },
    strict: (flags & 1) !== 0,
    context: (flags & 2) === 0 ? undefined : context,
    ...((flags & 4) === 0 ? {} : { isRetry: true }),
  }
}

function changeOf(code: number, ttlMs: number, rest: Uint8Array): EventualChange {
  const hasNoBody = code === changes.Delete || code === changes.Enable || code === changes.Disable
  if (hasNoBody && rest.length > 0) throw new MalformedBytes(`change ${code} has no bytes`)
  if (code !== changes.Put && ttlMs > 0) throw new MalformedBytes(`change ${code} has no TTL`)
  switch (code) {
    case changes.Put:
      return { _tag: "Put", value: rest, ttlMs }
    case changes.Delete:
      return { _tag: "Delete" }
    case changes.Add:
      return { _tag: "Add", member: rest }
    case changes.Remove:
      return { _tag: "Remove", member: rest }
    case changes.Increment:
      if (rest.length !== 8) throw new MalformedBytes("an increment has eight bytes")
      return { _tag: "Increment", delta: loadInt64(rest) }
    case changes.Enable:
      return { _tag: "Enable" }
    case changes.Disable:
      return { _tag: "Disable" }
    default:
      throw new MalformedBytes(`unknown change ${code}`)
  }
}

export function readEventualRead(reader: ByteReader): EventualRequest {
  return {
    _tag: "EventualRead",
    token: 0,
    namespace: reader.u32(),
    deadlineMs: reader.u32(),
    level: levelOf(reader.u8()),
    key: reader.rest(),
  }
}

export function readEventualPage(reader: ByteReader): EventualRequest {
  const members = asArray(unpack(reader.rest()), 7)
  const slots = asArray(members[3])
  if (slots.length > 2 * slotRunsMax) throw new MalformedBytes(`${slots.length} numbers of slots`)
  return {
    _tag: "EventualPage",
    token: 0,
    namespace: asCount(members[0]),
    deadlineMs: asCount(members[1]),
    level: levelOf(asCount(members[2])),
    slots: slots.map(asCount),
    prefix: asBytes(members[4]),
    after: orUndefined(members[5], asPlace),
    limit: asCount(members[6]),
  }
}

function asPlace(value: unknown): { readonly slot: number; readonly key: Uint8Array } {
  const [slot, key] = asArray(value, 2)
  return { slot: asCount(slot), key: asBytes(key) }
}

// ---- Answers

/** What follows kind, id and eight bytes. */
export function writeEventualReply(out: ByteWriter, reply: EventualReply): void {
  switch (reply._tag) {
    case "EventualWritten":
      out.u8(reply.counter === undefined ? 0 : 1)
      out.raw(int64Of(BigInt.asIntN(64, reply.counter ?? 0n)))
      return writeReceipt(out, reply.receipt)
    case "EventualValue":
      writeReceipt(out, reply.receipt)
      out.u8(reply.state === undefined ? 0 : 1)
      if (reply.state !== undefined) out.raw(reply.state)
      return
    case "EventualEntries": {
      const entries = reply.entries.map(({ key, state }) => [key, state])
      const next = reply.next === undefined ? null : [reply.next.slot, reply.next.key]
      out.raw(pack([reply.node, entries, next]))
      return
    }
    case "EventualRefused":
      return writeRefusal(out, reply.refusal)
    default:
      reply satisfies never
  }
}

export type EventualReplyTag = EventualReply["_tag"]

/** Throws `MalformedBytes`. Byte strings are views. */
export function readEventualReply(tag: EventualReplyTag, reader: ByteReader): EventualReply {
  const token = 0
  switch (tag) {
    case "EventualWritten": {
      const hasCounter = reader.u8() === 1
      const counter = loadInt64(reader.raw(8))
      const receipt = readReceipt(reader)
      reader.end()
      return { _tag: tag, token, counter: hasCounter ? counter : undefined, receipt }
    }
    case "EventualValue": {
      const receipt = readReceipt(reader)
      const state = reader.u8() === 1 ? stateOf(reader.rest()) : undefined
      reader.end()
      return { _tag: tag, token, state, receipt }
    }
    case "EventualEntries": {
      const [node, entries, next] = asArray(unpack(reader.rest()), 3)
      return {
        _tag: tag,
        token,
        node: asCount(node),
        entries: asArray(entries).map((entry) => {
          const [key, state] = asArray(entry, 2)
          return { key: asBytes(key), state: stateOf(asBytes(state)) }
        }),
        next: orUndefined(next, asPlace),
      }
    }
    case "EventualRefused":
      return { _tag: tag, token, refusal: readRefusal(reader) }
    default:
      return tag satisfies never
  }
}

/** Who takes a state apart trusts its bytes. */
function stateOf(bytes: Uint8Array): Uint8Array {
  checkState(bytes)
  return bytes
}

function writeReceipt(out: ByteWriter, receipt: EventualReceipt): void {
  const { owners, standIns, answered, repairs } = receipt
  const maskOf = (nodes: ReadonlyArray<NodeId>) =>
    owners.reduce((mask, owner, i) => (nodes.includes(owner) ? mask | (1 << i) : mask), 0)
  out.u32(receipt.coordinator)
  out.u8(levelCode(receipt.asked))
  out.u8(levelCode(receipt.achieved))
  out.u8((receipt.sloppy ? 1 : 0) | (receipt.overlap ? 2 : 0))
  out.u8(owners.length)
  out.u8(standIns.length)
  out.u16(maskOf(answered))
  out.u16(maskOf(repairs))
  for (const owner of owners) out.u32(owner)
  for (const { node, owner } of standIns) {
    out.u32(node)
    out.u32(owner)
  }
}

function readReceipt(reader: ByteReader): EventualReceipt {
  const coordinator = reader.u32()
  const asked = levelOf(reader.u8())
  const achieved = levelOf(reader.u8()) ?? "none"
  if (asked === undefined) throw new MalformedBytes("a receipt without a level")
  const flags = reader.u8()
  const ownerCount = reader.u8()
  const standInCount = reader.u8()
  const answeredMask = reader.u16()
  const repairsMask = reader.u16()
  const owners: Array<NodeId> = []
  const answered: Array<NodeId> = []
  const repairs: Array<NodeId> = []
  for (let i = 0; i < ownerCount; i++) {
    const owner = reader.u32()
    owners.push(owner)
    if ((answeredMask & (1 << i)) !== 0) answered.push(owner)
    if ((repairsMask & (1 << i)) !== 0) repairs.push(owner)
  }
  const standIns: Array<EventualReceipt["standIns"][number]> = []
  for (let i = 0; i < standInCount; i++) {
    standIns.push({ node: reader.u32(), owner: reader.u32() })
  }
  const [sloppy, overlap] = [(flags & 1) !== 0, (flags & 2) !== 0]
  return { coordinator, asked, achieved, answered, owners, standIns, sloppy, overlap, repairs }
}

function writeRefusal(out: ByteWriter, refusal: EventualRefusal): void {
  out.u8(refusalCodes[refusal._tag])
  switch (refusal._tag) {
    case "LevelUnavailable":
      out.u8(levelCode(refusal.level))
      for (const node of refusal.answered) out.u32(node)
      return
    case "WriteUnknown":
      if (refusal.receipt !== undefined) writeReceipt(out, refusal.receipt)
      return
    case "RingMoved":
      return out.u64(refusal.ringVersion)
    case "TooManySiblings":
      return out.u32(refusal.limit)
    case "DiskFull":
      return out.u32(refusal.node)
    case "Overloaded":
      return out.raw(utf8(refusal.what))
    case "BadContext":
    case "NotSupportedInMode":
    case "ClockAhead":
    case "InvalidRequest":
    case "StorageCorrupt":
      return out.raw(utf8(refusal.message))
    default:
      refusal satisfies never
  }
}

function readRefusal(reader: ByteReader): EventualRefusal {
  const code = reader.u8()
  switch (code) {
    case refusalCodes.LevelUnavailable: {
      const level = levelOf(reader.u8())
      if (level === undefined) throw new MalformedBytes("a refusal without a level")
      const answered: Array<NodeId> = []
      while (reader.remaining > 0) answered.push(reader.u32())
      return { _tag: "LevelUnavailable", level, answered }
    }
    case refusalCodes.WriteUnknown: {
      const receipt = reader.remaining === 0 ? undefined : readReceipt(reader)
      reader.end()
      return { _tag: "WriteUnknown", receipt }
    }
    case refusalCodes.RingMoved: {
      const ringVersion = reader.u64()
      reader.end()
      return { _tag: "RingMoved", ringVersion }
    }
    case refusalCodes.TooManySiblings: {
      const limit = reader.u32()
      reader.end()
      return { _tag: "TooManySiblings", limit }
    }
    case refusalCodes.DiskFull: {
      const node = reader.u32()
      reader.end()
      return { _tag: "DiskFull", node }
    }
    case refusalCodes.Overloaded:
      return { _tag: "Overloaded", what: text(reader.rest()) }
    case refusalCodes.BadContext:
      return { _tag: "BadContext", message: text(reader.rest()) }
    case refusalCodes.NotSupportedInMode:
      return { _tag: "NotSupportedInMode", message: text(reader.rest()) }
    case refusalCodes.ClockAhead:
      return { _tag: "ClockAhead", message: text(reader.rest()) }
    case refusalCodes.InvalidRequest:
      return { _tag: "InvalidRequest", message: text(reader.rest()) }
    case refusalCodes.StorageCorrupt:
      return { _tag: "StorageCorrupt", message: text(reader.rest()) }
    default:
      throw new MalformedBytes(`unknown refusal ${code}`)
  }
}
