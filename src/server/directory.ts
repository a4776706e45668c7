import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import { type ConflictRule, ruleNumbers } from "../dynamo/elements.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import { compareBytes, fromHex, toHex } from "../lib/bytes.ts"
import type { Ring } from "../topology/ring.ts"
import { decodeRing, encodeRing } from "../topology/ringCodec.ts"
import type {
  NamespaceId,
  NodeId,
  Position,
  RangeDescriptor,
  ReplicaPlace,
  ReplicaRole,
} from "../types.ts"

/**
 * The directory: what the meta group keeps of nodes, namespaces and ranges (DESIGN section 2), and the rules by which it is put together. Its
 * records are values of the `system` namespace, as JSON: stored, so fields are only ever added.
 *
 *     node/ID          {"id","incarnation","peer","client","host","state"}, and where it was told {"zone","rack","capacity"}
 *     namespace/NAME   {"id","name","mode","partitioning","ranges","replicas","state"}, of an eventual one also {"conflict","write","read"}
 *     ring/current     {"version","ring"}: the ring of the eventual namespaces (topology/ringCodec.ts), in base64
 *     range/ID         {"id","namespace","start","end","boundsVersion","membersVersion","replicas":[{"node","replica","role"}]}, positions in hex
 *     boundary/HEX     a cut that somebody has ordered, at this position: its sides are not merged by themselves
 *     counter/WHAT     the last id given out: node, namespace, eventual, range, replica
 *
 * A range's descriptor belongs to its own group and is only reported here, so that reports come late and in any order. Invariants:
 * - A report is taken only if it is newer than what is known of its own id, and its boundsVersion exceeds that of every other id that it
 *   overlaps. Both halves of a split take a higher boundsVersion than their parent, so that an old whole never hides a new half.
 * - Where two known descriptors overlap, the one of the higher boundsVersion is right about the overlap.
 */
export interface NodeRecord {
  readonly id: NodeId
  readonly incarnation: string
  /** `host:port` for peers and for clients, as the node advertises them. */
  readonly peer: string
  readonly client: string
  /** The machine: two nodes of one host fail together. */
  readonly host: string
  /** Names of the failure domains that it is in; absent = it was given none. */
  readonly zone?: string
  readonly rack?: string
  /** What it can carry, in comparison with others; absent = 1. */
  readonly capacity?: number
  /**
   * `joining`: it was let in, and has not run yet since: it is given nothing. `draining`: it is to hold nothing, and stays; it is given nothing new. `leaving`: its removal was ordered, so that it is given nothing new; it serves what it holds until others hold all of it. `removed` is final: the id and the incarnation are refused
   * for ever.
   */
  readonly state: NodeState
}

export type NodeState = "joining" | "member" | "draining" | "leaving" | "removed"
const nodeStates: ReadonlyArray<unknown> = ["joining", "member", "draining", "leaving", "removed"]

export type NamespaceRecord = StrongNamespace | EventualNamespaceRecord

export interface StrongNamespace {
  readonly id: NamespaceId
  readonly name: string
  readonly mode: "strong"
  readonly partitioning: "hash" | "ordered"
  /** Ranges that it began with. */
  readonly ranges: number
  /** Voters wanted of each. */
  readonly replicas: number
  /** `making`: its ranges are being cut out. `dropping`: its data is being cleared. Doors take data only for a ready one. */
  readonly state: NamespaceState
}

/** Ids of eventual namespaces are from here on, so that they leave no gaps between the positions of strong ones. Stored in keys: do not change. */
export const firstEventualNamespace: NamespaceId = 2 ** 31

export interface EventualNamespaceRecord {
  readonly id: NamespaceId
  readonly name: string
  readonly mode: "eventual"
  readonly partitioning: "hash"
  readonly ranges: 0
  /** Copies of each key, N. */
  readonly replicas: number
  readonly conflict: ConflictRule
  /** Levels of requests that name none. */
  readonly write: Level
  readonly read: Level
  /** `dropping`: every node forgets what it holds of it. */
  readonly state: NamespaceState
}

type NamespaceState = "making" | "ready" | "dropping"

/** The ring as the meta group has it. */
export interface RingRecord {
  readonly ring: Ring
  /** `encodeRing` of it in base64. */
  readonly encoded: string
}

export const ringKey = "ring/current"

export interface Directory {
  /** The records that every cluster begins with have been written. */
  readonly founded: boolean
  readonly nodes: ReadonlyArray<NodeRecord>
  readonly namespaces: ReadonlyArray<NamespaceRecord>
  readonly ranges: ReadonlyArray<RangeDescriptor>
  readonly ring: RingRecord | undefined
}

export const emptyDirectory: Directory = {
  founded: false,
  nodes: [],
  namespaces: [],
  ranges: [],
  ring: undefined,
}

// ---- Rules of ranges

function endsBefore(end: Position, start: Position): boolean {
  return end.length > 0 && compareBytes(end, start) <= 0
}

export function overlaps(left: RangeDescriptor, right: RangeDescriptor): boolean {
  return !endsBefore(left.end, right.start) && !endsBefore(right.end, left.start)
}

export function containsPosition(range: RangeDescriptor, position: Position): boolean {
  return compareBytes(range.start, position) <= 0 && !endsBefore(range.end, position)
}

/** Whether `left` says more than `right`, both of one id. */
export function isNewer(left: RangeDescriptor, right: RangeDescriptor): boolean {
  if (left.boundsVersion !== right.boundsVersion) return left.boundsVersion > right.boundsVersion
  return left.membersVersion > right.membersVersion
}

/** Whether the directory takes this report. */
export function takesReport(
  known: ReadonlyArray<RangeDescriptor>,
  report: RangeDescriptor,
): boolean {
  const same = known.find((other) => other.id === report.id)
  if (same !== undefined && !isNewer(report, same)) return false
  return known.every((other) => {
    if (other.id === report.id || report.boundsVersion > other.boundsVersion) return true
    return !overlaps(report, other)
  })
}

/**
 * What to route by, in order of start: of each id the newest descriptor, cut back where one of a higher boundsVersion says otherwise. A
 * split's left half keeps the id, so that what is left of an old whole is its beginning.
 */
export function tilingOf(
  descriptors: ReadonlyArray<RangeDescriptor>,
): ReadonlyArray<RangeDescriptor> {
  const newest = new Map<number, RangeDescriptor>()
  for (const descriptor of descriptors) {
    const known = newest.get(descriptor.id)
    if (known === undefined || isNewer(descriptor, known)) newest.set(descriptor.id, descriptor)
  }
  const inOrder = [...newest.values()].sort((left, right) => compareBytes(left.start, right.start))
  // Nearly always so, and there may be thousands: neighbours overlap if any do.
  const isClean = inOrder.every((range, i) => i === 0 || !overlaps(inOrder[i - 1] ?? range, range))
  if (isClean) return inOrder
  const byVersion = inOrder.sort(
    (left, right) => right.boundsVersion - left.boundsVersion || left.id - right.id,
  )
  const taken: Array<RangeDescriptor> = []
  for (const descriptor of byVersion) {
    let left: RangeDescriptor | undefined = descriptor
    for (const other of taken) {
      if (left !== undefined && overlaps(left, other)) left = beginningOf(left, other)
    }
    if (left !== undefined) taken.push(left)
  }
  return taken.sort((left, right) => compareBytes(left.start, right.start))
}

function beginningOf(range: RangeDescriptor, other: RangeDescriptor): RangeDescriptor | undefined {
  return compareBytes(range.start, other.start) < 0 ? { ...range, end: other.start } : undefined
}

// ---- Records as JSON

/** Bootstrap writes it last: where it stands, everything else was there once. */
export const lastOfBootstrap = "counter/range"
const decimal = /^\d{1,9}$/

/** The directory in the pairs of the system namespace; keys of other kinds are passed over. `undefined` values never stand for "gone". */
export function directoryOf(pairs: Iterable<readonly [key: string, value: string]>): Directory {
  const nodes: Array<NodeRecord> = []
  const namespaces: Array<NamespaceRecord> = []
  const ranges: Array<RangeDescriptor> = []
  let founded = false
  let ring: RingRecord | undefined
  for (const [key, value] of pairs) {
    if (key === lastOfBootstrap) founded = true
    const record = parsed(value)
    if (record === undefined) continue
    if (key.startsWith("node/")) pushIf(nodes, nodeOf(record))
    else if (key.startsWith("namespace/")) pushIf(namespaces, namespaceOf(record))
    else if (key.startsWith("range/")) pushIf(ranges, rangeOf(record))
    else if (key === ringKey) ring = ringOf(record.ring)
  }
  nodes.sort((left, right) => left.id - right.id)
  namespaces.sort((left, right) => left.id - right.id)
  return { founded, nodes, namespaces, ranges, ring }
}

export function directoryAsJson(directory: Directory): unknown {
  const { ring, ranges, ...rest } = directory
  return { ...rest, ranges: ranges.map(rangeAsJson), ring: ring?.encoded ?? null }
}

export function ringAsJson(ring: Ring): string {
  const encoded = Buffer.from(encodeRing(ring)).toString("base64")
  return JSON.stringify({ version: ring.version, ring: encoded })
}

/** The last one read: nearly always the same again. */
let lastRing: RingRecord | undefined

function ringOf(encoded: unknown): RingRecord | undefined {
  if (typeof encoded !== "string") return undefined
  if (lastRing?.encoded === encoded) return lastRing
  try {
    lastRing = { encoded, ring: decodeRing(Buffer.from(encoded, "base64")) }
    return lastRing
  } catch (error) {
    if (error instanceof MalformedBytes) return undefined
    throw error
  }
}

/** `undefined` when it is no directory. */
export function directoryFromJson(value: unknown): Directory | undefined {
  if (!isRecord(value)) return undefined
  const { founded, nodes, namespaces, ranges } = value
  if (typeof founded !== "boolean") return undefined
  if (!Array.isArray(nodes) || !Array.isArray(namespaces) || !Array.isArray(ranges))
    return undefined
  const read = {
    founded,
    nodes: nodes.filter(isRecord).map(nodeOf),
    namespaces: namespaces.filter(isRecord).map(namespaceOf),
    ranges: ranges.filter(isRecord).map(rangeOf),
    ring: ringOf(value.ring),
  }
  const whole = [...read.nodes, ...read.namespaces, ...read.ranges]
  return whole.includes(undefined) ? undefined : (read as Directory)
}

export function rangeAsJson(range: RangeDescriptor): object {
  const { id, namespace, boundsVersion, membersVersion, replicas } = range
  const bounds = { start: toHex(range.start), end: toHex(range.end) }
  return { id, namespace: namespace ?? null, ...bounds, boundsVersion, membersVersion, replicas }
}

type JsonRecord = Readonly<Record<string, unknown>>

function isRecord(value: unknown): value is JsonRecord {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}

function pushIf<A>(list: Array<A>, value: A | undefined): void {
  if (value !== undefined) list.push(value)
}

function parsed(json: string): JsonRecord | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0
}

export function nodeOf(record: JsonRecord): NodeRecord | undefined {
  const { id, incarnation, peer, client, host, zone, rack, capacity, state } = record
  if (!isCount(id) || typeof incarnation !== "string") return undefined
  if (typeof peer !== "string" || typeof client !== "string" || typeof host !== "string")
    return undefined
  if (!nodeStates.includes(state)) return undefined
  const domains = {
    ...(typeof zone === "string" ? { zone } : {}),
    ...(typeof rack === "string" ? { rack } : {}),
    ...(isCount(capacity) && capacity > 0 ? { capacity } : {}),
  }
  return { id, incarnation, peer, client, host, ...domains, state: state as NodeState }
}

export const levelNames: ReadonlyArray<Level> = ["one", "quorum", "all", "localQuorum"]

function isLevel(value: unknown): value is Level {
  return levelNames.includes(value as Level)
}

export function namespaceOf(record: JsonRecord): NamespaceRecord | undefined {
  const { id, name, mode, partitioning, ranges, replicas, state } = record
  if (mode === "eventual") return eventualOf(record)
  if (!isCount(id) || typeof name !== "string" || mode !== "strong") return undefined
  if (partitioning !== "hash" && partitioning !== "ordered") return undefined
  if (!isCount(ranges) || !isCount(replicas)) return undefined
  if (state !== "making" && state !== "ready" && state !== "dropping") return undefined
  return { id, name, mode, partitioning, ranges, replicas, state }
}

function eventualOf(record: JsonRecord): EventualNamespaceRecord | undefined {
  const { id, name, replicas, conflict, write, read, state } = record
  if (!isCount(id) || typeof name !== "string" || !isCount(replicas)) return undefined
  if (typeof conflict !== "string" || !(conflict in ruleNumbers)) return undefined
  if (!isLevel(write) || !isLevel(read)) return undefined
  if (state !== "making" && state !== "ready" && state !== "dropping") return undefined
  const rule = conflict as ConflictRule
  const common = { mode: "eventual", partitioning: "hash", ranges: 0 } as const
  return { id, name, ...common, replicas, conflict: rule, write, read, state }
}

export function rangeOf(record: JsonRecord): RangeDescriptor | undefined {
  const { id, namespace, boundsVersion, membersVersion, replicas } = record
  const { start: startHex, end: endHex } = record
  const [start, end] = [positionOf(startHex), positionOf(endHex)]
  if (!isCount(id) || start === undefined || end === undefined) return undefined
  if (namespace !== null && !isCount(namespace)) return undefined
  if (!isCount(boundsVersion) || !isCount(membersVersion) || !Array.isArray(replicas))
    return undefined
  const places = replicas.filter(isRecord).map(placeOf)
  if (places.length !== replicas.length || places.includes(undefined)) return undefined
  return {
    id,
    namespace: namespace ?? undefined,
    start,
    end,
    boundsVersion,
    membersVersion,
    replicas: places as Array<ReplicaPlace>,
  }
}

function positionOf(value: unknown): Position | undefined {
  return typeof value === "string" ? fromHex(value) : undefined
}

const roles: ReadonlyArray<unknown> = ["voter", "incoming", "outgoing", "learner"]

function placeOf(record: JsonRecord): ReplicaPlace | undefined {
  const { node, replica, role } = record
  if (!isCount(node) || !isCount(replica) || !roles.includes(role)) return undefined
  return { node, replica, role: role as ReplicaRole }
}

/** The number in a counter's value, or `undefined`. */
export function counterOf(value: string): number | undefined {
  return decimal.test(value) ? Number(value) : undefined
}
