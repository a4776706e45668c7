import type { EventualReply } from "../dynamo/node/requests.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { text, utf8 } from "../lib/bytes.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { Version } from "../types.ts"
import type {
  Answer,
  DataAnswer,
  NodeStatus,
  PageEntry,
  Receipt,
  Refusal,
  Routes,
} from "./answers.ts"
import { type CommandStatus, commandStatuses } from "./command.ts"
import { readEventualReply, writeEventualReply } from "./eventualLayout.ts"
import { beginFrame, endFrame } from "./frames.ts"
import { levelCode, levelOf, parseJson } from "./native.ts"
import { asArray, asBytes, asCount, orUndefined, pack, unpack } from "./packed.ts"
import {
  packDescriptor,
  packRoutes,
  packStatus,
  readDescriptor,
  readRoutes,
  readStatus,
} from "./routesLayout.ts"

/** The node's half of the native protocol, as bytes; native.ts has the grammar. */
const answerKinds = {
  mutated: 1,
  value: 2,
  page: 3,
  refused: 4,
  routes: 5,
  status: 6,
  changed: 7,
  admin: 8,
  eventualWritten: 9,
  eventualValue: 10,
  eventualEntries: 11,
  eventualRefused: 12,
  closing: 255,
} as const
/** In place of a bound in milliseconds. */
const boundUnknown = 0xffffffff
const roles = ["leader", "follower"] as const
const refusalCodes: Record<Refusal["_tag"], number> = {
  NotLeader: 1,
  RangeMoved: 2,
  QuorumUnavailable: 3,
  Overloaded: 4,
  InvalidRequest: 5,
  OutcomeUnknown: 6,
  StorageCorrupt: 7,
  DiskFull: 8,
  Unfinished: 9,
  NamespaceNotFound: 10,
}
const statusMax = Math.max(...Object.values(commandStatuses))

function writeReceipt(writer: ByteWriter, receipt: Receipt): void {
  writer.u8(levelCode(receipt.level))
  writer.u8(roles.indexOf(receipt.role))
  writer.u32(receipt.node)
  writer.u32(receipt.range)
  writer.u64(receipt.term)
  writer.u64(receipt.index)
  writer.u64(receipt.replica)
  writer.u32(receipt.staleBoundMs < 0 ? boundUnknown : receipt.staleBoundMs)
  writer.u64(receipt.stateTime)
}

function readReceipt(reader: ByteReader): Receipt {
  const level = levelOf(reader.u8())
  const role = roles[reader.u8()]
  if (role === undefined) throw new MalformedBytes("unknown role")
  const [node, range, term] = [reader.u32(), reader.u32(), reader.u64()]
  const [index, replica, bound] = [reader.u64(), reader.u64(), reader.u32()]
  const staleBoundMs = bound === boundUnknown ? -1 : bound
  const stateTime = reader.u64()
  return { level, role, node, range, term, index, replica, staleBoundMs, stateTime }
}

function beginAnswer(
  writer: ByteWriter,
  options: { readonly kind: number; readonly id: number; readonly rangeTime: Version },
): number {
  const start = beginFrame(writer)
  writer.u8(options.kind)
  writer.u32(options.id)
  writer.u64(options.rangeTime)
  return start
}

/** One frame. `id` is that of the request answered. */
export function writeAnswer(writer: ByteWriter, id: number, answer: DataAnswer): void {
  const { rangeTime } = answer
  switch (answer._tag) {
    case "Mutated": {
      const start = beginAnswer(writer, { kind: answerKinds.mutated, id, rangeTime })
      writer.u8(answer.status)
      writer.u64(answer.version)
      writeReceipt(writer, answer.receipt)
      if (answer.value !== undefined) writer.raw(answer.value)
      return endFrame(writer, start)
    }
    case "Value": {
      const start = beginAnswer(writer, { kind: answerKinds.value, id, rangeTime })
      writer.u8(answer.value === undefined ? 0 : 1)
      writer.u64(answer.version)
      writeReceipt(writer, answer.receipt)
      if (answer.value !== undefined) writer.raw(answer.value)
      return endFrame(writer, start)
    }
    case "Page": {
      const start = beginAnswer(writer, { kind: answerKinds.page, id, rangeTime })
      writeReceipt(writer, answer.receipt)
      const entries = answer.entries.map((entry) => [entry.position, entry.value, entry.version])
      writer.raw(pack([entries, answer.next ?? null, answer.count]))
      return endFrame(writer, start)
    }
    case "Changed": {
      const start = beginAnswer(writer, { kind: answerKinds.changed, id, rangeTime })
      writeReceipt(writer, answer.receipt)
      writer.raw(pack(packDescriptor(answer.descriptor)))
      return endFrame(writer, start)
    }
    case "Refused": {
      const start = beginAnswer(writer, { kind: answerKinds.refused, id, rangeTime })
      writeRefusal(writer, answer.refusal)
      return endFrame(writer, start)
    }
    default:
      answer satisfies never
  }
}

function writeRefusal(writer: ByteWriter, refusal: Refusal): void {
  writer.u8(refusalCodes[refusal._tag])
  switch (refusal._tag) {
    case "NotLeader":
      writer.u32(refusal.range)
      writer.u32(refusal.leader ?? 0)
      break
    case "RangeMoved":
      writer.raw(pack(refusal.descriptors.map(packDescriptor)))
      break
    case "QuorumUnavailable":
    case "OutcomeUnknown":
      writer.u32(refusal.range)
      break
    case "DiskFull":
      writer.u32(refusal.node)
      break
    case "Overloaded":
      writer.raw(utf8(refusal.what))
      break
    case "InvalidRequest":
    case "StorageCorrupt":
    case "Unfinished":
      writer.raw(utf8(refusal.message))
      break
    case "NamespaceNotFound":
      writer.raw(utf8(refusal.namespace))
      break
    default:
      refusal satisfies never
  }
}

function readRefusal(reader: ByteReader): Refusal {
  const code = reader.u8()
  switch (code) {
    case refusalCodes.NotLeader: {
      const range = reader.u32()
      const leader = reader.u32()
      return { _tag: "NotLeader", range, leader: leader === 0 ? undefined : leader }
    }
    case refusalCodes.RangeMoved:
      return {
        _tag: "RangeMoved",
        descriptors: asArray(unpack(reader.rest())).map(readDescriptor),
      }
    case refusalCodes.QuorumUnavailable:
      return { _tag: "QuorumUnavailable", range: reader.u32() }
    case refusalCodes.OutcomeUnknown:
      return { _tag: "OutcomeUnknown", range: reader.u32() }
    case refusalCodes.DiskFull:
      return { _tag: "DiskFull", node: reader.u32() }
    case refusalCodes.Overloaded:
      return { _tag: "Overloaded", what: text(reader.rest()) }
    case refusalCodes.InvalidRequest:
      return { _tag: "InvalidRequest", message: text(reader.rest()) }
    case refusalCodes.StorageCorrupt:
      return { _tag: "StorageCorrupt", message: text(reader.rest()) }
    case refusalCodes.Unfinished:
      return { _tag: "Unfinished", message: text(reader.rest()) }
    case refusalCodes.NamespaceNotFound:
      return { _tag: "NamespaceNotFound", namespace: text(reader.rest()) }
    default:
      throw new MalformedBytes(`unknown refusal ${code}`)
  }
}

export function writeRoutes(writer: ByteWriter, id: number, routes: Routes): void {
  const start = beginAnswer(writer, { kind: answerKinds.routes, id, rangeTime: 0 })
  writer.raw(pack(packRoutes(routes)))
  endFrame(writer, start)
}

export function writeStatus(writer: ByteWriter, id: number, status: NodeStatus): void {
  const start = beginAnswer(writer, { kind: answerKinds.status, id, rangeTime: 0 })
  writer.raw(pack(packStatus(status)))
  endFrame(writer, start)
}

/** `result` is any JSON. */
export function writeAdministered(writer: ByteWriter, id: number, result: unknown): void {
  const start = beginAnswer(writer, { kind: answerKinds.admin, id, rangeTime: 0 })
  writer.raw(utf8(JSON.stringify(result)))
  endFrame(writer, start)
}

const eventualKinds = {
  EventualWritten: answerKinds.eventualWritten,
  EventualValue: answerKinds.eventualValue,
  EventualEntries: answerKinds.eventualEntries,
  EventualRefused: answerKinds.eventualRefused,
} as const

export function writeEventual(writer: ByteWriter, id: number, reply: EventualReply): void {
  const start = beginAnswer(writer, { kind: eventualKinds[reply._tag], id, rangeTime: 0 })
  writeEventualReply(writer, reply)
  endFrame(writer, start)
}

export function writeClosing(writer: ByteWriter, reason: string): void {
  const start = beginAnswer(writer, { kind: answerKinds.closing, id: 0, rangeTime: 0 })
  writer.raw(utf8(reason))
  endFrame(writer, start)
}

/** The id that an answer belongs to (0 for a closing notice) and what it says. Throws `MalformedBytes`. Values are views. */
export function readAnswer(payload: Uint8Array): { readonly id: number; readonly answer: Answer } {
  const reader = new ByteReader(payload)
  const kind = reader.u8()
  const id = reader.u32()
  return { id, answer: readAnswerBody(reader, kind) }
}

function readAnswerBody(reader: ByteReader, kind: number): Answer {
  const rangeTime = reader.u64()
  switch (kind) {
    case answerKinds.mutated: {
      const status = reader.u8()
      if (status > statusMax) throw new MalformedBytes(`unknown status ${status}`)
      const version = reader.u64()
      const receipt = readReceipt(reader)
      const bytes = reader.rest()
      const value = bytes.length === 0 ? undefined : bytes
      return {
        _tag: "Mutated",
        rangeTime,
        status: status as CommandStatus,
        version,
        value,
        receipt,
      }
    }
    case answerKinds.value: {
      const found = reader.u8() !== 0
      const version = reader.u64()
      const receipt = readReceipt(reader)
      const value = found ? reader.rest() : undefined
      reader.end()
      return { _tag: "Value", rangeTime, value, version, receipt }
    }
    case answerKinds.page: {
      const receipt = readReceipt(reader)
      const [entries, next, count] = asArray(unpack(reader.rest()), 3)
      return {
        _tag: "Page",
        rangeTime,
        receipt,
        entries: asArray(entries).map(readEntry),
        count: asCount(count),
        next: orUndefined(next, asBytes),
      }
    }
    case answerKinds.changed: {
      const receipt = readReceipt(reader)
      const descriptor = readDescriptor(unpack(reader.rest()))
      return { _tag: "Changed", rangeTime, receipt, descriptor }
    }
    case answerKinds.refused:
      return { _tag: "Refused", rangeTime, refusal: readRefusal(reader) }
    case answerKinds.routes:
      return { _tag: "Routes", routes: readRoutes(unpack(reader.rest())) }
    case answerKinds.status:
      return { _tag: "Status", status: readStatus(unpack(reader.rest())) }
    case answerKinds.admin:
      return { _tag: "Admin", result: parseJson(text(reader.rest())) }
    case answerKinds.eventualWritten:
      return { _tag: "Eventual", reply: readEventualReply("EventualWritten", reader) }
    case answerKinds.eventualValue:
      return { _tag: "Eventual", reply: readEventualReply("EventualValue", reader) }
    case answerKinds.eventualEntries:
      return { _tag: "Eventual", reply: readEventualReply("EventualEntries", reader) }
    case answerKinds.eventualRefused:
      return { _tag: "Eventual", reply: readEventualReply("EventualRefused", reader) }
    case answerKinds.closing:
      return { _tag: "Closing", reason: text(reader.rest()) }
    default:
      throw new MalformedBytes(`unknown answer kind ${kind}`)
  }
}

function readEntry(value: unknown): PageEntry {
  const [position, bytes, version] = asArray(value, 3)
  return { position: asBytes(position), value: asBytes(bytes), version: asCount(version) }
}
