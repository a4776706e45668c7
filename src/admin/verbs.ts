import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import type { ConflictRule } from "../dynamo/elements.ts"
import { fromHex } from "../lib/bytes.ts"
import type { Key, NamespaceId, NodeId, Position, RangeId } from "../types.ts"

/**
 * The orders that a control plane takes, as the native door brings them: a verb and JSON (wire/native.ts, kind 7). A string in place of an order says
 * what is wrong with it.
 */
export type NewNamespace = NewStrongNamespace | NewEventualNamespace

export interface NewEventualNamespace {
  readonly mode: "eventual"
  readonly name: string
  /** Copies of each key; `undefined` = three, or as many as there are nodes. */
  readonly replicas: number | undefined
  readonly conflict: ConflictRule
  readonly write: Level
  readonly read: Level
}

export interface NewStrongNamespace {
  readonly mode: "strong"
  readonly name: string
  readonly partitioning: "hash" | "ordered"
  /** Ranges to begin with. */
  readonly ranges: number
  /** Voters of each; `undefined` = three, or as many as there are nodes. */
  readonly replicas: number | undefined
}

export interface NewNode {
  readonly incarnation: string
  /** `host:port`, as it advertises them. */
  readonly peer: string
  readonly client: string
  readonly host: string
  readonly zone?: string
  readonly rack?: string
  /** What it can carry, in comparison with others. */
  readonly capacity?: number
}

export type Order =
  | { readonly _tag: "NamespaceCreate"; readonly namespace: NewNamespace }
  | { readonly _tag: "NamespaceList" }
  | { readonly _tag: "NamespaceDelete"; readonly name: string }
  | { readonly _tag: "RangeSplit"; readonly range: RangeId; readonly at: Position | undefined }
  | {
      readonly _tag: "RangeIsolate"
      readonly namespace: string
      /** In a hash namespace it holds a hash tag, in an ordered one it is any beginning of keys. */
      readonly prefix: Key
    }
  | { readonly _tag: "RangeMerge"; readonly ranges: readonly [RangeId, RangeId] }
  | {
      readonly _tag: "RangeMove"
      readonly range: RangeId
      readonly from: NodeId
      readonly to: NodeId
    }
  | { readonly _tag: "AddReplica"; readonly range: RangeId; readonly on: NodeId }
  | { readonly _tag: "RemoveReplica"; readonly range: RangeId; readonly on: NodeId }
  | { readonly _tag: "Transfer"; readonly range: RangeId; readonly to: NodeId }
  | { readonly _tag: "NodeJoin"; readonly node: NewNode }
  | { readonly _tag: "NodeDrain"; readonly node: NodeId }
  | { readonly _tag: "NodeRemove"; readonly node: NodeId }
  | { readonly _tag: "NodeReplace"; readonly node: NodeId }
  | { readonly _tag: "OrderShow"; readonly order: string }
  | { readonly _tag: "Rebalance"; readonly dryRun: boolean }
  | { readonly _tag: "Refresh" }
  | { readonly _tag: "NodeReport" }
  | { readonly _tag: "NodeList" }
  | { readonly _tag: "RingShow" }
  | { readonly _tag: "RingReport" }
  | { readonly _tag: "NamespaceForget"; readonly id: NamespaceId }

export const verbs = {
  namespaceCreate: "namespace.create",
  namespaceList: "namespace.list",
  namespaceDelete: "namespace.delete",
  rangeSplit: "range.split",
  rangeIsolate: "range.isolate",
  rangeMerge: "range.merge",
  rangeMove: "range.move",
  addReplica: "range.addReplica",
  removeReplica: "range.removeReplica",
  transfer: "range.transfer",
  nodeJoin: "node.join",
  nodeList: "node.list",
  nodeDrain: "node.drain",
  nodeRemove: "node.remove",
  nodeReplace: "node.replace",
  /** What has become of a long order. */
  orderShow: "order.show",
  rebalance: "cluster.rebalance",
  /** Read the directory now. */
  refresh: "directory.refresh",
  /** What the ranges that this node leads hold, and what is asked of them. */
  nodeReport: "node.report",
  ringShow: "ring.show",
  /** What this node has confirmed and filled of the ring. */
  ringReport: "ring.report",
  /** Whether this node has forgotten an eventual namespace for good. */
  namespaceForget: "namespace.forget",
} as const

export const namespaceRangesMax = 1024
const replicasMax = 7
const namePattern = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/

export function parseOrder(verb: string, args: unknown): Order | string {
  const fields = typeof args === "object" && args !== null ? (args as Fields) : {}
  try {
    return read(verb, fields)
  } catch (problem) {
    if (problem instanceof BadOrder) return problem.message
    throw problem
  }
}

type Fields = Readonly<Record<string, unknown>>

class BadOrder extends Error {}

function read(verb: string, fields: Fields): Order {
  switch (verb) {
    case verbs.namespaceCreate:
      return { _tag: "NamespaceCreate", namespace: newNamespace(fields) }
    case verbs.namespaceList:
      return { _tag: "NamespaceList" }
    case verbs.namespaceDelete:
      return { _tag: "NamespaceDelete", name: ownName(textOf(fields, "name")) }
    case verbs.rangeSplit: {
      const { at } = fields
      const position = typeof at === "string" ? fromHex(at) : undefined
      if (at !== undefined && at !== null && position === undefined) {
        throw new BadOrder("at is a position in hexadecimal")
      }
      return { _tag: "RangeSplit", range: count(fields, "range"), at: position }
    }
    case verbs.rangeIsolate: {
      const prefix = fromHex(textOf(fields, "prefix"))
      if (prefix === undefined) throw new BadOrder("prefix is bytes in hexadecimal")
      return { _tag: "RangeIsolate", namespace: ownName(textOf(fields, "namespace")), prefix }
    }
    case verbs.rangeMerge:
      return { _tag: "RangeMerge", ranges: [count(fields, "range"), count(fields, "with")] }
    case verbs.rangeMove: {
      const [from, to] = [count(fields, "from"), count(fields, "to")]
      return { _tag: "RangeMove", range: count(fields, "range"), from, to }
    }
    case verbs.addReplica:
      return { _tag: "AddReplica", range: count(fields, "range"), on: count(fields, "on") }
    case verbs.removeReplica:
      return { _tag: "RemoveReplica", range: count(fields, "range"), on: count(fields, "on") }
    case verbs.transfer:
      return { _tag: "Transfer", range: count(fields, "range"), to: count(fields, "to") }
    case verbs.nodeJoin: {
      const [incarnation, host] = [textOf(fields, "incarnation"), textOf(fields, "host")]
      const [peer, client] = [textOf(fields, "peer"), textOf(fields, "client")]
      const domains = { ...domainOf(fields, "zone"), ...domainOf(fields, "rack") }
      const node = { incarnation, peer, client, host, ...domains, ...capacityOf(fields) }
      return { _tag: "NodeJoin", node }
    }
    case verbs.nodeDrain:
      return { _tag: "NodeDrain", node: count(fields, "node") }
    case verbs.nodeRemove:
      return { _tag: "NodeRemove", node: count(fields, "node") }
    case verbs.nodeReplace:
      return { _tag: "NodeReplace", node: count(fields, "node") }
    case verbs.orderShow:
      return { _tag: "OrderShow", order: textOf(fields, "order") }
    case verbs.rebalance:
      return { _tag: "Rebalance", dryRun: fields.dryRun === true }
    case verbs.refresh:
      return { _tag: "Refresh" }
    case verbs.nodeList:
      return { _tag: "NodeList" }
    case verbs.nodeReport:
      return { _tag: "NodeReport" }
    case verbs.ringShow:
      return { _tag: "RingShow" }
    case verbs.ringReport:
      return { _tag: "RingReport" }
    case verbs.namespaceForget:
      return { _tag: "NamespaceForget", id: count(fields, "id") }
    default:
      throw new BadOrder("this node knows no such order")
  }
}

/** The name of a namespace that people may make and delete. */
function ownName(name: string): string {
  if (name === "system") throw new BadOrder("system is the cluster's own namespace")
  return name
}

function newNamespace(fields: Fields): NewNamespace {
  const { mode, partitioning = "hash", ranges = 1, replicas } = fields
  const name = fields.name === "" ? "" : textOf(fields, "name")
  if (!namePattern.test(name)) {
    throw new BadOrder(
      `"${name}" is no name: a letter, then up to 63 letters, digits, dots, dashes or underscores`,
    )
  }
  ownName(name)
  if (mode === "eventual") return newEventual(name, fields)
  if (mode !== undefined && mode !== "strong") throw new BadOrder("mode is strong or eventual")
  for (const field of ["conflict", "write", "read"]) {
    if (fields[field] !== undefined) {
      throw new BadOrder(`${field} is of eventual namespaces only (mode eventual)`)
    }
  }
  if (partitioning !== "hash" && partitioning !== "ordered") {
    throw new BadOrder("partitioning is hash or ordered")
  }
  const wanted = replicas === undefined || replicas === null ? undefined : replicas
  if (!isBetween(ranges, 1, namespaceRangesMax)) {
    throw new BadOrder(`ranges are 1 to ${namespaceRangesMax}`)
  }
  if (wanted !== undefined && !isBetween(wanted, 1, replicasMax)) {
    throw new BadOrder(`replicas are 1 to ${replicasMax}`)
  }
  return { mode: "strong", name, partitioning, ranges, replicas: wanted }
}

const levels: ReadonlyArray<unknown> = ["one", "quorum", "all", "localQuorum"]
/** As users write them. */
const rules: Readonly<Record<string, ConflictRule>> = {
  siblings: "siblings",
  lww: "lww",
  "crdt:counter": "counter",
  "crdt:flag": "flag",
  "crdt:register": "register",
  "crdt:set": "set",
}

function newEventual(name: string, fields: Fields): NewEventualNamespace {
  const { partitioning, ranges, replicas, conflict = "siblings" } = fields
  const { write = "quorum", read = "quorum" } = fields
  if (partitioning !== undefined && partitioning !== "hash") {
    throw new BadOrder("an eventual namespace is always hash")
  }
  if (ranges !== undefined && ranges !== 0) {
    throw new BadOrder("an eventual namespace has no ranges: its slots lie on the ring")
  }
  const wanted = replicas === undefined || replicas === null ? undefined : replicas
  if (wanted !== undefined && !isBetween(wanted, 1, replicasMax)) {
    throw new BadOrder(`replicas are 1 to ${replicasMax}`)
  }
  const rule = typeof conflict === "string" ? rules[conflict] : undefined
  if (rule === undefined) throw new BadOrder(`conflict is one of ${Object.keys(rules).join(", ")}`)
  for (const [what, level] of [
    ["write", write],
    ["read", read],
  ] as const) {
    if (!levels.includes(level)) throw new BadOrder(`${what} is one of ${levels.join(", ")}`)
  }
  const given = { write: write as Level, read: read as Level }
  return { mode: "eventual", name, replicas: wanted, conflict: rule, ...given }
}

/** The name of a failure domain, if one is given. */
function domainOf(fields: Fields, name: "zone" | "rack"): { zone?: string; rack?: string } {
  const value = fields[name]
  if (value === undefined || value === "") return {}
  if (typeof value !== "string" || value.length > 64) {
    throw new BadOrder(`${name} is a name of up to 64 characters`)
  }
  return { [name]: value }
}

/** As many times as an ordinary node. */
export const capacityMax = 1000

function capacityOf({ capacity }: Fields): { capacity?: number } {
  if (capacity === undefined) return {}
  if (!isBetween(capacity, 1, capacityMax)) {
    throw new BadOrder(`capacity is a whole number from 1 to ${capacityMax}`)
  }
  return { capacity }
}

function isBetween(value: unknown, min: number, max: number): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= min && value <= max
}

function textOf(fields: Fields, name: string): string {
  const value = fields[name]
  if (typeof value !== "string") throw new BadOrder(`${name} is a text`)
  if (value.length === 0) throw new BadOrder(`${name} is empty`)
  if (value.length > 1024) throw new BadOrder(`${name} is longer than 1024 characters`)
  return value
}

function count(fields: Fields, name: string): number {
  const value = fields[name]
  if (!isBetween(value, 0, Number.MAX_SAFE_INTEGER)) throw new BadOrder(`${name} is a number`)
  return value
}
