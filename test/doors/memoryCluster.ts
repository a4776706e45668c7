import { noEventualStatus } from "../../src/dynamo/node/eventualStatus.ts"
import { compareBytes, startsWith } from "../../src/lib/bytes.ts"
import { namespaceOf, namespaceStart } from "../../src/lib/position.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import type {
  DataRequest,
  RangeReport,
  RangeRequest,
  Refusal,
  Reply,
  Request,
} from "../../src/server/requests.ts"
import type { Administrator, StoreShape } from "../../src/server/StoreService.ts"
import { encodeRing } from "../../src/topology/ringCodec.ts"
import type { NodeId, Position, RangeDescriptor, RangeId, Version } from "../../src/types.ts"
import type { NamespaceInfo } from "../../src/wire/answers.ts"
import { CommandView, commandStatuses } from "../../src/wire/command.ts"
import { isResult } from "../../src/wire/commandCodes.ts"
import { MemoryData, type Result } from "./memoryData.ts"
import { MemoryEventual } from "./memoryEventual.ts"

/**
 * The stores of a small cluster in memory: what doors and clients need of real ones, in two hundred lines. One shared state stands for
 * agreement; each range has one leader, and every other node refuses what only it may answer. A replica can be made to lag. Commands are applied exactly once, by a
 * table for each range that both halves of a split inherit. `intercept` lets a test answer, delay or swallow a request before the store sees it.
 */
export type Intercept = (options: {
  readonly node: NodeId
  readonly request: Request
  readonly reply: (reply: Reply) => void
  /** What the store would do. */
  readonly carryOut: (reply: (reply: Reply) => void) => void
}) => boolean

/** Of one client in one range: what it has acknowledged, and results above. */
interface ClientResults {
  ackedBelow: number
  readonly results: Map<number, Result>
}

const system: NamespaceInfo = { id: 0, name: "system", mode: "strong", partitioning: "ordered" }

export class MemoryCluster {
  readonly nodes: ReadonlyArray<NodeId>
  descriptors: Array<RangeDescriptor>
  namespaces: Array<NamespaceInfo> = [
    system,
    { id: 1, name: "default", mode: "strong", partitioning: "hash" },
  ]
  readonly leaders = new Map<RangeId, NodeId>()
  readonly addresses = new Map<NodeId, string>()
  private readonly data = new MemoryData()
  readonly eventual: MemoryEventual
  /** What a node's replicas show to those who do not ask the leader. */
  private readonly lagging = new Map<NodeId, MemoryData>()
  private readonly sessions = new Map<RangeId, Map<number, ClientResults>>()
  /** True = it took the request. */
  intercept: Intercept = () => false
  /** Mutations that changed something, in order. */
  applied: Array<{
    readonly range: RangeId
    readonly clientId: number
    readonly sequence: number
  }> = []
  requests = 0
  /** By how much a leader's clock, which its answers tell, is ahead of what it has applied; in microseconds. */
  clockAhead = 0
  /** Nodes that have not heard of any namespace made since bootstrap. */
  readonly unaware = new Set<NodeId>()
  /** Nodes that have not learned the ring. */
  readonly ringless = new Set<NodeId>()
  /** The control plane of every node. */
  administer: Administrator = ({ verb }, reply) =>
    reply({
      _tag: "Refused",
      refusal: { _tag: "InvalidRequest", message: `${verb} is not known here` },
    })

  constructor(nodes: ReadonlyArray<NodeId>) {
    this.nodes = nodes
    this.eventual = new MemoryEventual(nodes.length)
    this.descriptors = [...bootstrapDescriptors(nodes)]
    for (const { id, replicas } of this.descriptors) {
      this.leaders.set(id, replicas[0]?.node as NodeId)
    }
  }

  get time(): Version {
    return this.data.time
  }

  /** A clock that stands still would make nothing expire: tests move it. */
  advance(microseconds: number): void {
    this.data.time += microseconds
  }

  /** From now on the node's replicas show what there is now, except to linearizable reads. */
  lag(node: NodeId): void {
    this.lagging.set(node, this.data.copy())
  }

  /** Takes the next id, and the start of the range that belongs to nobody. */
  addNamespace(name: string, partitioning: "hash" | "ordered"): NamespaceInfo {
    const rest = this.descriptors.at(-1) as RangeDescriptor
    const id = namespaceOf(rest.start)
    this.split(rest.id, namespaceStart(id + 1))
    const index = this.descriptors.findIndex((descriptor) => descriptor.id === rest.id)
    this.descriptors[index] = { ...(this.descriptors[index] as RangeDescriptor), namespace: id }
    const namespace: NamespaceInfo = { id, name, mode: "strong", partitioning }
    this.namespaces.push(namespace)
    return namespace
  }

  store(node: NodeId): StoreShape {
    return {
      identity: { node, clusterId: "memory", incarnation: `incarnation-${node}` },
      request: (request, reply) => {
        this.requests++
        const carryOut = (answer: (reply: Reply) => void) => answer(this.serve(node, request))
        if (!this.intercept({ node, request, reply, carryOut })) carryOut(reply)
      },
      eventual: (request, reply) => this.eventual.serve(node, request, reply),
      ring: () => (this.ringless.has(node) ? undefined : encodeRing(this.eventual.ring)),
      ranges: () =>
        this.descriptors.map(
          (descriptor): RangeReport => ({
            descriptor,
            leader: this.leaders.get(descriptor.id),
            term: 1,
            index: this.applied.length,
          }),
        ),
      namespaces: () => (this.unaware.has(node) ? this.namespaces.slice(0, 2) : this.namespaces),
      nodes: () =>
        this.nodes.map((id) => ({
          id,
          client: this.addresses.get(id) ?? "",
          peer: `peer-${id}:1`,
        })),
      status: () => ({
        id: node,
        pid: process.pid,
        state: "ready",
        addresses: { client: this.addresses.get(node) ?? "", peer: `peer-${node}:1` },
        eventual: noEventualStatus,
      }),
      administer: (order, reply) => this.administer(order, reply),
      time: () => this.data.time,
    }
  }

  refused(refusal: Refusal): Reply {
    return { _tag: "Refused", token: 0, rangeTime: this.data.time, refusal }
  }

  private moved(): Reply {
    return this.refused({ _tag: "RangeMoved", descriptors: this.descriptors })
  }

  private serve(node: NodeId, request: Request): Reply {
    const range = this.descriptors.find((descriptor) => descriptor.id === request.range)
    if (range === undefined) return this.moved()
    const isRead = request._tag === "Get" || request._tag === "Scan"
    const isShown = isRead && (request.level !== "linearizable" || request.anyReplica)
    if (this.leaders.get(range.id) !== node && !isShown) return this.notLed(range)
    switch (request._tag) {
      case "Mutate": {
        const result = this.apply(range, request.command)
        const { status, version } = result
        const base = this.base(node, range, request)
        return { _tag: "Mutated", ...base, status, version, value: result.value }
      }
      case "Get":
      case "Scan":
        return this.read(node, range, request)
      default:
        return this.change(node, range, request)
    }
  }

  private notLed({ id }: RangeDescriptor): Reply {
    return this.refused({ _tag: "NotLeader", range: id, leader: this.leaders.get(id) })
  }

  private base(node: NodeId, range: RangeDescriptor, request: Request) {
    const isRead = request._tag === "Get" || request._tag === "Scan"
    const level = isRead ? request.level : ("linearizable" as const)
    return {
      token: request.token,
      rangeTime: this.data.time + this.clockAhead,
      receipt: {
        level,
        node,
        role: this.leaders.get(range.id) === node ? ("leader" as const) : ("follower" as const),
        range: range.id,
        term: 1,
        index: this.applied.length,
        replica: node as number,
        staleBoundMs: level === "local" ? -1 : 0,
        stateTime: this.data.time,
      },
    }
  }

  private read(
    node: NodeId,
    range: RangeDescriptor,
    request: Exclude<DataRequest, { _tag: "Mutate" }>,
  ): Reply {
    if (request.boundsVersion !== range.boundsVersion) return this.moved()
    const lagging = request.level === "linearizable" ? undefined : this.lagging.get(node)
    const data = lagging ?? this.data
    // A lagging replica is cut off: no bound holds, and nothing that a session has seen since arrives.
    const isTooOld = request.level === "bounded" || data.time < request.atLeast
    if (lagging !== undefined && isTooOld) return this.notLed(range)
    const plain = this.base(node, range, request)
    const base = { ...plain, receipt: { ...plain.receipt, stateTime: data.time } }
    if (request._tag === "Get") {
      const pair = data.present(request.position)
      return { _tag: "Value", ...base, value: pair?.value, version: pair?.version ?? 0 }
    }
    const inside = [...data.pairs.values()]
      .filter((pair) => data.present(pair.position) !== undefined)
      .filter((pair) => compareBytes(pair.position, request.lower) >= 0)
      .filter((pair) => compareBytes(pair.position, request.upper) < 0)
      .sort((left, right) => compareBytes(left.position, right.position))
    if (request.count !== undefined) {
      const { offset, prefix } = request.count
      const counted = inside.filter(({ position }) => startsWith(position.subarray(offset), prefix))
      return { _tag: "Page", ...base, entries: [], count: counted.length, next: undefined }
    }
    const next = inside[request.limit]?.position
    const entries = inside.slice(0, request.limit)
    return { _tag: "Page", ...base, entries, count: entries.length, next }
  }

  private apply(range: RangeDescriptor, command: Uint8Array): Result {
    const view = new CommandView()
    view.at(command, 0)
    const { clientId, sequence } = view
    if (view.boundsVersion !== range.boundsVersion) {
      return { status: commandStatuses.rangeMoved, version: 0 }
    }
    const clients = this.sessions.get(range.id) ?? new Map<number, ClientResults>()
    this.sessions.set(range.id, clients)
    const session = clients.get(clientId) ?? { ackedBelow: 0, results: new Map() }
    clients.set(clientId, session)
    const known = session.results.get(sequence)
    if (known !== undefined) return known
    if (sequence < session.ackedBelow || view.expiresAt <= this.data.time) {
      return { status: commandStatuses.expired, version: 0 }
    }
    session.ackedBelow = Math.max(session.ackedBelow, view.ackedBelow)
    for (const each of session.results.keys()) {
      if (each < session.ackedBelow) session.results.delete(each)
    }
    const result = this.data.change(view)
    const changed =
      result.status === commandStatuses.done || result.status === commandStatuses.absent
    if (changed) this.applied.push({ range: range.id, clientId, sequence })
    if (isResult(result.status)) session.results.set(sequence, result)
    return result
  }

  private change(node: NodeId, range: RangeDescriptor, request: RangeRequest): Reply {
    const index = this.descriptors.indexOf(range)
    switch (request._tag) {
      case "Split":
        if (request.boundsVersion !== range.boundsVersion || request.at === undefined) {
          return this.moved()
        }
        this.split(range.id, request.at, request.child)
        break
      case "ChangeMembers":
        if (request.membersVersion !== range.membersVersion) return this.moved()
        this.descriptors[index] = {
          ...range,
          membersVersion: (range.membersVersion as number) + 1,
          replicas: request.replicas,
        }
        break
      case "Transfer":
        this.leaders.set(range.id, request.to)
        break
      case "Clear":
        return this.refused({ _tag: "InvalidRequest", message: "a double is not emptied" })
      case "Merge":
        return this.refused({ _tag: "InvalidRequest", message: "a double is not merged" })
      default:
        request satisfies never
    }
    const descriptor = this.descriptors[index] as RangeDescriptor
    return { _tag: "Changed", ...this.base(node, descriptor, request), descriptor }
  }

  /** Cuts a range in two at `at`; both halves take the next boundsVersion and the table of results. */
  split(range: RangeId, at: Position, childId?: RangeId): void {
    const index = this.descriptors.findIndex((descriptor) => descriptor.id === range)
    const parent = this.descriptors[index] as RangeDescriptor
    const boundsVersion = (parent.boundsVersion as number) + 1
    const child = childId ?? Math.max(...this.descriptors.map((descriptor) => descriptor.id)) + 1
    this.leaders.set(child, this.leaders.get(range) as NodeId)
    const table = new Map<number, ClientResults>()
    for (const [client, { ackedBelow, results }] of this.sessions.get(range) ?? []) {
      table.set(client, { ackedBelow, results: new Map(results) })
    }
    this.sessions.set(child, table)
    this.descriptors.splice(
      index,
      1,
      { ...parent, end: at, boundsVersion },
      { ...parent, id: child, start: at, boundsVersion },
    )
  }
}
