import { fromHex } from "../lib/bytes.ts"
import type { NodeId, Position, RangeId } from "../types.ts"

/**
 * The orders that a control plane takes, as the native door brings them: a verb and JSON (wire/native.ts, kind 7). A string in place of an order says
 * what is wrong with it.
 */
export interface NewNamespace {
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
}

export type Order =
  | { readonly _tag: "NamespaceCreate"; readonly namespace: NewNamespace }
  | { readonly _tag: "NamespaceList" }
  | { readonly _tag: "NamespaceDelete"; readonly name: string }
  | { readonly _tag: "RangeSplit"; readonly range: RangeId; readonly at: Position | undefined }
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
  | { readonly _tag: "NodeRemove"; readonly node: NodeId }
  | { readonly _tag: "Refresh" }

export const verbs = {
  namespaceCreate: "namespace.create",
  namespaceList: "namespace.list",
  namespaceDelete: "namespace.delete",
  rangeSplit: "range.split",
  rangeMove: "range.move",
  addReplica: "range.addReplica",
  removeReplica: "range.removeReplica",
  transfer: "range.transfer",
  nodeJoin: "node.join",
  nodeRemove: "node.remove",
  /** Read the directory now. */
  refresh: "directory.refresh",
} as const

export const namespaceRangesMax = 1024
const replicasMax = 7
const namePattern = /^[A-Za-z][A-Za-z0-9._-]{0,63}$/

export function parseOrder(verb: string, args: unknown): Order | string {
  const fields = typeof args === "object" && args !== null ? (args as Fields) : {}
  try {
    return read(verb, fields)
  } catch (problem) {
    if (problem instanceof BadOrder) return `${verb}: ${problem.message}`
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
      return { _tag: "NodeJoin", node: { incarnation, peer, client, host } }
    }
    case verbs.nodeRemove:
      return { _tag: "NodeRemove", node: count(fields, "node") }
    case verbs.refresh:
      return { _tag: "Refresh" }
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
  if (mode === "eventual") {
    throw new BadOrder("eventual namespaces are not served by this version: mode is strong")
  }
  if (mode !== undefined && mode !== "strong") throw new BadOrder("mode is strong")
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
  return { name, partitioning, ranges, replicas: wanted }
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
