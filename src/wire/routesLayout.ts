import type { Level } from "../dynamo/coordinator/slotPlan.ts"
import { type ConflictRule, ruleNumbers } from "../dynamo/elements.ts"
import type { EventualStatus } from "../dynamo/node/eventualStatus.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import type { RangeDescriptor, ReplicaPlace } from "../types.ts"
import type {
  EventualPolicy,
  NamespaceInfo,
  NodeAddresses,
  NodeStatus,
  RangeReport,
  Routes,
} from "./answers.ts"
import { asArray, asBytes, asCount, asText, orUndefined } from "./packed.ts"
import { roleCode, roleOf } from "./replicaRoles.ts"

/**
 * Descriptors, routes and status as arrays for MessagePack; members in the order of the code below. Do not change: sent.
 * The readers throw `MalformedBytes`.
 */
export function packDescriptor(descriptor: RangeDescriptor): ReadonlyArray<unknown> {
  const { id, namespace, start, end, boundsVersion, membersVersion, replicas } = descriptor
  const places = packPlaces(replicas)
  return [id, namespace ?? null, start, end, boundsVersion, membersVersion, places]
}

export function packPlaces(places: ReadonlyArray<ReplicaPlace>): ReadonlyArray<unknown> {
  return places.map((place) => [place.node, place.replica, roleCode(place.role)])
}

export function readPlaces(value: unknown): ReadonlyArray<ReplicaPlace> {
  return asArray(value).map((place) => {
    const [node, replica, code] = asArray(place, 3)
    return { node: asCount(node), replica: asCount(replica), role: roleOf(asCount(code)) }
  })
}

export function readDescriptor(value: unknown): RangeDescriptor {
  const members = asArray(value, 7)
  return {
    id: asCount(members[0]),
    namespace: orUndefined(members[1], asCount),
    start: asBytes(members[2]),
    end: asBytes(members[3]),
    boundsVersion: asCount(members[4]),
    membersVersion: asCount(members[5]),
    replicas: readPlaces(members[6]),
  }
}

function packReport(report: RangeReport): ReadonlyArray<unknown> {
  return [packDescriptor(report.descriptor), report.leader ?? null, report.term, report.index]
}

function readReport(value: unknown): RangeReport {
  const [descriptor, leader, term, index] = asArray(value, 4)
  return {
    descriptor: readDescriptor(descriptor),
    leader: orUndefined(leader, asCount),
    term: asCount(term),
    index: asCount(index),
  }
}

function readAddresses(value: unknown): NodeAddresses {
  const [id, client, peer] = asArray(value, 3)
  return { id: asCount(id), client: asText(client), peer: asText(peer) }
}

function readNamespace(value: unknown): NamespaceInfo {
  const [id, name, mode, partitioning, policy] = asArray(value, 5)
  if (mode !== "strong" && mode !== "eventual") throw new MalformedBytes("unknown mode")
  if (partitioning !== "hash" && partitioning !== "ordered") {
    throw new MalformedBytes("unknown partitioning")
  }
  const common = { id: asCount(id), name: asText(name), mode, partitioning } as const
  const eventual = orUndefined(policy, readPolicy)
  return eventual === undefined ? common : { ...common, eventual }
}

const levelNames: ReadonlyArray<Level> = ["one", "quorum", "all", "localQuorum"]

function readPolicy(value: unknown): EventualPolicy {
  const [conflict, copies, write, read] = asArray(value, 4)
  const rule = asText(conflict)
  if (!(rule in ruleNumbers)) throw new MalformedBytes("unknown conflict rule")
  const level = (name: unknown) => {
    const found = levelNames.find((each) => each === name)
    if (found === undefined) throw new MalformedBytes("unknown level")
    return found
  }
  const levels = { write: level(write), read: level(read) }
  return { conflict: rule as ConflictRule, copies: asCount(copies), ...levels }
}

function packNamespace(namespace: NamespaceInfo): ReadonlyArray<unknown> {
  const { id, name, mode, partitioning, eventual } = namespace
  const policy =
    eventual === undefined
      ? null
      : [eventual.conflict, eventual.copies, eventual.write, eventual.read]
  return [id, name, mode, partitioning, policy]
}

export function packRoutes(routes: Routes): ReadonlyArray<unknown> {
  return [
    routes.nodes.map((node) => [node.id, node.client, node.peer]),
    routes.namespaces.map(packNamespace),
    routes.ranges.map(packReport),
    routes.ring ?? null,
  ]
}

export function readRoutes(value: unknown): Routes {
  const [nodes, namespaces, ranges, ring] = asArray(value, 4)
  return {
    nodes: asArray(nodes).map(readAddresses),
    namespaces: asArray(namespaces).map(readNamespace),
    ranges: asArray(ranges).map(readReport),
    ring: orUndefined(ring, asBytes),
  }
}

export function packStatus(status: NodeStatus): ReadonlyArray<unknown> {
  const { id, pid, state, addresses, eventual } = status
  return [id, pid, state, addresses.client, addresses.peer, JSON.stringify(eventual)]
}

/** Numbers for people and scripts, which fields are added to: as JSON. */
function readEventualStatus(json: string): EventualStatus {
  try {
    const status: unknown = JSON.parse(json)
    if (typeof status === "object" && status !== null) return status as EventualStatus
  } catch {
    // Said below.
  }
  throw new MalformedBytes("a status was expected")
}

export function readStatus(value: unknown): NodeStatus {
  const [id, pid, state, client, peer, eventual] = asArray(value, 6)
  return {
    id: asCount(id),
    pid: asCount(pid),
    state: asText(state),
    addresses: { client: asText(client), peer: asText(peer) },
    eventual: readEventualStatus(asText(eventual)),
  }
}
