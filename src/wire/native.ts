import type { EventualRequest } from "../dynamo/node/requests.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import { text, utf8 } from "../lib/bytes.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { Consistency, NodeId, Position, RangeId, Version } from "../types.ts"
import {
  readEventualPage,
  readEventualRead,
  readEventualWrite,
  writeEventualRequest,
} from "./eventualLayout.ts"
import { beginFrame, endFrame } from "./frames.ts"
import { asArray, asBytes, asCount, asText, pack, unpack } from "./packed.ts"
import { packChange, type RangeChange, readChange } from "./rangeChange.ts"

export type { RangeChange } from "./rangeChange.ts"

/**
 * The native door's protocol, version 3, inside frames (frames.ts). All numbers are little-endian. Do not change: sent.
 *
 * A connection opens with one frame each way:
 *
 *     client: u32 magic "KVRM" ‖ u16 version ‖ u8 internal (1 = a node of this cluster, which may write the system namespace)
 *     node:   u32 magic ‖ u16 version ‖ u8 accepted ‖ packed [clusterId, node, time]   or   UTF-8 reason
 *
 * Then requests, many at a time, answered in any order by the request id that the client chose:
 *
 *     0 u8 kind   1 u32 request id
 *     1 mutate    5 u32 range   9 u32 deadline ms   13 command (command.ts)
 *     2 get       5 u32 range   9 u32 deadline ms   13 u8 level   14 u8 flags (1 = any replica)   15 u32 boundsVersion
 *                 19 u32 max staleness ms   23 u64 at least   31 position
 *     3 scan      5 packed [range, deadlineMs, level, boundsVersion, lower, upper, limit, prefix, maxStalenessMs, atLeast, anyReplica, countOnly]
 *     4 routes
 *     5 status
 *     6 range     5 packed [range, deadlineMs, verb, ...]: "split", boundsVersion, at (nil = about the middle), child;
 *                 "members", membersVersion, [[node, replica, role (replicaRoles.ts)]]; "transfer", to; "clear", boundsVersion
 *     7 admin     5 u32 deadline ms   9 packed [verb, arguments as JSON text]
 *     8 write, 9 read, 10 page of an eventual namespace: eventualLayout.ts
 *
 *     0 u8 kind   1 u32 request id   5 u64 range time
 *     1 mutated   13 u8 status   14 u64 version   22 receipt   68 value (no bytes = none)
 *     2 value     13 u8 found    14 u64 version   22 receipt   68 value
 *     3 page      13 receipt     59 packed [entries [position, value, version], next]
 *     4 refused   13 u8 code     14 by code: u32 range ‖ u32 leader (0 = unknown); packed descriptors; u32 range; u32 node; UTF-8
 *     5 routes    13 packed (routesLayout.ts)
 *     6 status    13 packed (routesLayout.ts)
 *     7 changed   13 receipt     59 packed descriptor (routesLayout.ts)
 *     8 admin     13 result as JSON text
 *     9 written, 10 value, 11 entries, 12 refused of an eventual namespace: eventualLayout.ts
 *     255 closing 13 UTF-8 reason; the node closes the connection after it
 *
 *     receipt     0 u8 level   1 u8 role   2 u32 node   6 u32 range   10 u64 term   18 u64 index   26 u64 replica   34 u32 stale bound ms (2^32 - 1 = unknown)
 *                 38 u64 state time
 *     level       0 linearizable, 1 local, 2 bounded        role   0 leader, 1 follower
 */
export const nativeMagic = 0x4d52564b
export const nativeVersion = 4

const requestKinds = {
  mutate: 1,
  get: 2,
  scan: 3,
  routes: 4,
  status: 5,
  range: 6,
  admin: 7,
  eventualWrite: 8,
  eventualRead: 9,
  eventualPage: 10,
} as const
const levels: ReadonlyArray<Consistency> = ["linearizable", "local", "bounded"]
/** Arguments of a control-plane verb are a handful of names and numbers. */
export const adminArgsBytesMax = 64 * 1024

export function levelCode(level: Consistency): number {
  return levels.indexOf(level)
}

/** Throws `MalformedBytes`. */
export function levelOf(code: number): Consistency {
  const level = levels[code]
  if (level === undefined) throw new MalformedBytes(`unknown level ${code}`)
  return level
}

export interface Hello {
  /** A node of the cluster speaks for itself: it may write the system namespace. */
  readonly internal: boolean
}

export function writeHello(
  writer: ByteWriter,
  options: { readonly internal?: boolean; readonly version?: number } = {},
): void {
  const start = beginFrame(writer)
  writer.u32(nativeMagic)
  writer.u16(options.version ?? nativeVersion)
  writer.u8(options.internal === true ? 1 : 0)
  endFrame(writer, start)
}

/** The client's side of the handshake; a string is why it is not understood. Throws `MalformedBytes`. */
export function readHello(payload: Uint8Array): Hello | string {
  const reader = new ByteReader(payload)
  if (reader.u32() !== nativeMagic) throw new MalformedBytes("not a Kvorum client")
  const version = reader.u16()
  if (version !== nativeVersion) {
    return `protocol version ${version} is not spoken here: this node speaks ${nativeVersion}`
  }
  const internal = reader.u8()
  if (internal > 1) throw new MalformedBytes("unknown kind of client")
  reader.end()
  return { internal: internal === 1 }
}

export interface Welcome {
  readonly clusterId: string
  readonly node: NodeId
  /** The node's clock in the unit of versions. */
  readonly time: Version
}

export function writeWelcome(writer: ByteWriter, welcome: Welcome): void {
  const start = beginFrame(writer)
  writer.u32(nativeMagic)
  writer.u16(nativeVersion)
  writer.u8(1)
  writer.raw(pack([welcome.clusterId, welcome.node, welcome.time]))
  endFrame(writer, start)
}

export function writeTurnedAway(writer: ByteWriter, reason: string): void {
  const start = beginFrame(writer)
  writer.u32(nativeMagic)
  writer.u16(nativeVersion)
  writer.u8(0)
  writer.raw(utf8(reason))
  endFrame(writer, start)
}

/** The node's side of the handshake; a string is its reason to refuse. Throws `MalformedBytes`. */
export function readWelcome(payload: Uint8Array): Welcome | string {
  const reader = new ByteReader(payload)
  if (reader.u32() !== nativeMagic) throw new MalformedBytes("not a Kvorum node")
  const version = reader.u16()
  if (reader.u8() === 0) return text(reader.rest())
  if (version !== nativeVersion) throw new MalformedBytes(`protocol version ${version}`)
  const [clusterId, node, time] = asArray(unpack(reader.rest()), 3)
  return { clusterId: asText(clusterId), node: asCount(node), time: asCount(time) }
}

interface Addressed {
  readonly id: number
  readonly range: RangeId
  readonly deadlineMs: number
}

export interface WireMutate extends Addressed {
  readonly _tag: "Mutate"
  /** Not yet checked. A view of the frame. */
  readonly command: Uint8Array
}

/** How current a read must be, beyond its level. */
export interface WireFreshness {
  /** Of a `bounded` read: how old, in milliseconds, the state may be. Else 0. */
  readonly maxStalenessMs: number
  /** What the session has seen: a state of an earlier range time is not served. 0 = nothing. */
  readonly atLeast: Version
  /** A `linearizable` read may be served by a follower, which asks its leader for a read index. */
  readonly anyReplica: boolean
}

export interface WireGet extends Addressed, WireFreshness {
  readonly _tag: "Get"
  readonly level: Consistency
  readonly boundsVersion: number
  readonly position: Position
}

export interface WireScan extends Addressed, WireFreshness {
  readonly _tag: "Scan"
  readonly level: Consistency
  readonly boundsVersion: number
  readonly lower: Position
  readonly upper: Position
  readonly limit: number
  /** Keys that do not begin with it are left out of the page. */
  readonly prefix: Uint8Array
  /** The page tells how many there are, and none of them; `limit` says nothing. */
  readonly countOnly: boolean
}

export interface WireRange extends Addressed {
  readonly _tag: "Range"
  readonly change: RangeChange
}

export interface WireAdmin {
  readonly _tag: "Admin"
  readonly id: number
  readonly deadlineMs: number
  /** A procedure of the control plane (admin/verbs.ts). */
  readonly verb: string
  /** Any JSON. */
  readonly args: unknown
}

export interface WireAsk {
  readonly _tag: "AskRoutes" | "AskStatus"
  readonly id: number
}

export interface WireEventual {
  readonly _tag: "Eventual"
  readonly id: number
  readonly request: EventualRequest
}

export type WireRequest =
  | WireMutate
  | WireGet
  | WireScan
  | WireRange
  | WireAdmin
  | WireAsk
  | WireEventual

const eventualKinds = {
  EventualWrite: requestKinds.eventualWrite,
  EventualRead: requestKinds.eventualRead,
  EventualPage: requestKinds.eventualPage,
} as const

/** One frame, under the given request id. */
export function writeRequest(writer: ByteWriter, request: WireRequest, id = request.id): void {
  const start = beginFrame(writer)
  switch (request._tag) {
    case "Mutate":
      writer.u8(requestKinds.mutate)
      writer.u32(id)
      writer.u32(request.range)
      writer.u32(request.deadlineMs)
      writer.raw(request.command)
      break
    case "Get":
      writer.u8(requestKinds.get)
      writer.u32(id)
      writer.u32(request.range)
      writer.u32(request.deadlineMs)
      writer.u8(levelCode(request.level))
      writer.u8(request.anyReplica ? 1 : 0)
      writer.u32(request.boundsVersion)
      writer.u32(request.maxStalenessMs)
      writer.u64(request.atLeast)
      writer.raw(request.position)
      break
    case "Scan":
      writer.u8(requestKinds.scan)
      writer.u32(id)
      writer.raw(pack(scanMembers(request)))
      break
    case "Range":
      writer.u8(requestKinds.range)
      writer.u32(id)
      writer.raw(pack([request.range, request.deadlineMs, ...packChange(request.change)]))
      break
    case "Admin":
      writer.u8(requestKinds.admin)
      writer.u32(id)
      writer.u32(request.deadlineMs)
      writer.raw(pack([request.verb, JSON.stringify(request.args)]))
      break
    case "Eventual":
      writer.u8(eventualKinds[request.request._tag])
      writer.u32(id)
      writeEventualRequest(writer, request.request)
      break
    case "AskRoutes":
      writer.u8(requestKinds.routes)
      writer.u32(id)
      break
    case "AskStatus":
      writer.u8(requestKinds.status)
      writer.u32(id)
      break
    default:
      request satisfies never
  }
  endFrame(writer, start)
}

function scanMembers(scan: WireScan): ReadonlyArray<unknown> {
  const { range, deadlineMs, level, boundsVersion, lower, upper, limit, prefix } = scan
  const { maxStalenessMs, atLeast, anyReplica, countOnly } = scan
  const interval = [lower, upper, limit, prefix]
  const freshness = [maxStalenessMs, atLeast, anyReplica, countOnly]
  return [range, deadlineMs, levelCode(level), boundsVersion, ...interval, ...freshness]
}

/** Throws `MalformedBytes`. Lengths are not yet held against the limits, nor positions against their slots. */
export function readRequest(payload: Uint8Array): WireRequest {
  const reader = new ByteReader(payload)
  const kind = reader.u8()
  const id = reader.u32()
  switch (kind) {
    case requestKinds.mutate:
      return {
        _tag: "Mutate",
        id,
        range: reader.u32(),
        deadlineMs: reader.u32(),
        command: reader.rest(),
      }
    case requestKinds.get:
      return {
        _tag: "Get",
        id,
        range: reader.u32(),
        deadlineMs: reader.u32(),
        level: levelOf(reader.u8()),
        anyReplica: asFlag(reader.u8()),
        boundsVersion: reader.u32(),
        maxStalenessMs: reader.u32(),
        atLeast: reader.u64(),
        position: reader.rest(),
      }
    case requestKinds.scan:
      return readScan(id, reader.rest())
    case requestKinds.range: {
      const [range, deadlineMs, ...change] = asArray(unpack(reader.rest()))
      const addressed = { id, range: asCount(range), deadlineMs: asCount(deadlineMs) }
      return { _tag: "Range", ...addressed, change: readChange(change) }
    }
    case requestKinds.admin: {
      const deadlineMs = reader.u32()
      const [verb, args] = asArray(unpack(reader.rest()), 2)
      return { _tag: "Admin", id, deadlineMs, verb: asText(verb), args: readArgs(asText(args)) }
    }
    case requestKinds.routes:
      reader.end()
      return { _tag: "AskRoutes", id }
    case requestKinds.status:
      reader.end()
      return { _tag: "AskStatus", id }
    case requestKinds.eventualWrite:
      return { _tag: "Eventual", id, request: readEventualWrite(reader) }
    case requestKinds.eventualRead:
      return { _tag: "Eventual", id, request: readEventualRead(reader) }
    case requestKinds.eventualPage:
      return { _tag: "Eventual", id, request: readEventualPage(reader) }
    default:
      throw new MalformedBytes(`unknown request kind ${kind}`)
  }
}

function asFlag(code: number): boolean {
  if (code > 1) throw new MalformedBytes(`unknown flags ${code}`)
  return code === 1
}

function readArgs(json: string): unknown {
  if (json.length > adminArgsBytesMax) throw new MalformedBytes("arguments are too long")
  return parseJson(json)
}

/** Throws `MalformedBytes`. */
export function parseJson(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    throw new MalformedBytes("JSON was expected")
  }
}

function readScan(id: number, bytes: Uint8Array): WireScan {
  const members = asArray(unpack(bytes), 12)
  return {
    _tag: "Scan",
    id,
    range: asCount(members[0]),
    deadlineMs: asCount(members[1]),
    level: levelOf(asCount(members[2])),
    boundsVersion: asCount(members[3]),
    lower: asBytes(members[4]),
    upper: asBytes(members[5]),
    limit: asCount(members[6]),
    prefix: asBytes(members[7]),
    maxStalenessMs: asCount(members[8]),
    atLeast: asCount(members[9]),
    anyReplica: truthOf(members[10]),
    countOnly: truthOf(members[11]),
  }
}

/** Throws `MalformedBytes`. */
function truthOf(value: unknown): boolean {
  if (typeof value === "boolean") return value
  throw new MalformedBytes("a truth value was expected")
}
