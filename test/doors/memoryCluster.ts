import { assert } from "../../src/lib/assert.ts"
import { compareBytes, equalBytes } from "../../src/lib/bytes.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import type { RangeReport, Refusal, Reply, Request } from "../../src/server/requests.ts"
import type { StoreShape } from "../../src/server/StoreService.ts"
import type { NodeId, Position, RangeDescriptor, RangeId, Version } from "../../src/types.ts"
import { CommandView, commandStatuses, conditions, operations } from "../../src/wire/command.ts"

/**
 * The stores of a small cluster in memory: what doors and clients need of real ones, in a hundred lines. One shared state stands for
 * agreement; each range has one leader, and every other node refuses. Commands are applied exactly once. `intercept` lets a test
 * answer, delay or swallow a request before the store sees it.
 */
interface Pair {
  readonly position: Position
  readonly value: Uint8Array
  readonly version: Version
}

interface Result {
  readonly status: (typeof commandStatuses)[keyof typeof commandStatuses]
  readonly version: Version
}

export type Intercept = (options: {
  readonly node: NodeId
  readonly request: Request
  readonly reply: (reply: Reply) => void
  /** What the store would do. */
  readonly carryOut: (reply: (reply: Reply) => void) => void
}) => boolean

const keyOfMap = (position: Position) => Buffer.from(position).toString("latin1")

export class MemoryCluster {
  readonly nodes: ReadonlyArray<NodeId>
  descriptors: Array<RangeDescriptor>
  readonly leaders = new Map<RangeId, NodeId>()
  readonly addresses = new Map<NodeId, string>()
  private readonly pairs = new Map<string, Pair>()
  /** Per client: what it has acknowledged, and results above. */
  private readonly sessions = new Map<
    number,
    { ackedBelow: number; results: Map<number, Result> }
  >()
  private lastVersion = 1_000_000
  /** True = it took the request. */
  intercept: Intercept = () => false
  /** Mutations that changed something, in order. */
  applied: Array<{ readonly clientId: number; readonly sequence: number }> = []
  requests = 0

  constructor(nodes: ReadonlyArray<NodeId>) {
    this.nodes = nodes
    this.descriptors = [...bootstrapDescriptors(nodes)]
    for (const { id, replicas } of this.descriptors) {
      this.leaders.set(id, replicas[0]?.node as NodeId)
    }
  }

  get time(): Version {
    return this.lastVersion
  }

  /** A clock that stands still would make nothing expire: tests move it. */
  advance(microseconds: number): void {
    this.lastVersion += microseconds
  }

  store(node: NodeId): StoreShape {
    return {
      identity: { node, clusterId: "memory", incarnation: `incarnation-${node}` },
      request: (request, reply) => {
        this.requests++
        const carryOut = (answer: (reply: Reply) => void) => answer(this.serve(node, request))
        if (!this.intercept({ node, request, reply, carryOut })) carryOut(reply)
      },
      ranges: () =>
        this.descriptors.map(
          (descriptor): RangeReport => ({
            descriptor,
            leader: this.leaders.get(descriptor.id),
            term: 1,
            index: this.applied.length,
          }),
        ),
      namespaces: () => [{ id: 1, name: "default", mode: "strong", partitioning: "hash" }],
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
      }),
      time: () => this.lastVersion,
    }
  }

  refused(refusal: Refusal): Reply {
    return { _tag: "Refused", token: 0, rangeTime: this.lastVersion, refusal }
  }

  private serve(node: NodeId, request: Request): Reply {
    const range = this.descriptors.find((descriptor) => descriptor.id === request.range)
    if (range === undefined) {
      return this.refused({ _tag: "RangeMoved", descriptors: this.descriptors })
    }
    const leader = this.leaders.get(range.id)
    const isLocal = request._tag !== "Mutate" && request.level === "local"
    if (leader !== node && !isLocal) {
      return this.refused({ _tag: "NotLeader", range: range.id, leader })
    }
    const base = {
      token: request.token,
      rangeTime: this.lastVersion,
      receipt: {
        level: request._tag === "Mutate" ? ("linearizable" as const) : request.level,
        node,
        role: leader === node ? ("leader" as const) : ("follower" as const),
        range: range.id,
        term: 1,
        index: this.applied.length,
      },
    }
    if (request._tag === "Mutate") {
      return { _tag: "Mutated", ...base, ...this.apply(range, request.command) }
    }
    if (request.boundsVersion !== range.boundsVersion) {
      return this.refused({ _tag: "RangeMoved", descriptors: this.descriptors })
    }
    if (request._tag === "Get") {
      const pair = this.pairs.get(keyOfMap(request.position))
      return { _tag: "Value", ...base, value: pair?.value, version: pair?.version ?? 0 }
    }
    const inside = [...this.pairs.values()]
      .filter((pair) => compareBytes(pair.position, request.lower) >= 0)
      .filter((pair) => compareBytes(pair.position, request.upper) < 0)
      .sort((left, right) => compareBytes(left.position, right.position))
    const next = inside[request.limit]?.position
    return { _tag: "Page", ...base, entries: inside.slice(0, request.limit), next }
  }

  private apply(range: RangeDescriptor, command: Uint8Array): Result {
    const view = new CommandView()
    view.at(command, 0)
    const { clientId, sequence } = view
    if (view.boundsVersion !== range.boundsVersion) {
      return { status: commandStatuses.rangeMoved, version: 0 }
    }
    const session = this.sessions.get(clientId) ?? { ackedBelow: 0, results: new Map() }
    this.sessions.set(clientId, session)
    const known = session.results.get(sequence)
    if (known !== undefined) return known
    if (sequence < session.ackedBelow || view.expiresAt <= this.lastVersion) {
      return { status: commandStatuses.expired, version: 0 }
    }
    session.ackedBelow = Math.max(session.ackedBelow, view.ackedBelow)
    for (const each of session.results.keys()) {
      if (each < session.ackedBelow) session.results.delete(each)
    }
    const result = this.change(view)
    session.results.set(sequence, result)
    return result
  }

  private change(view: CommandView): Result {
    const name = keyOfMap(view.position)
    const present = this.pairs.get(name)
    if (!holds(view, present)) {
      return { status: commandStatuses.conditionFalse, version: present?.version ?? 0 }
    }
    const version = ++this.lastVersion
    this.applied.push({ clientId: view.clientId, sequence: view.sequence })
    if (view.operation === operations.put) {
      const position = view.position.slice()
      this.pairs.set(name, { position, value: view.value.slice(), version })
      return { status: commandStatuses.done, version }
    }
    assert(view.operation === operations.delete, "put or delete")
    const existed = this.pairs.delete(name)
    return { status: existed ? commandStatuses.done : commandStatuses.absent, version }
  }

  /** Cuts a range in two at `at`; both halves take the next boundsVersion. */
  split(range: RangeId, at: Position): void {
    const index = this.descriptors.findIndex((descriptor) => descriptor.id === range)
    const parent = this.descriptors[index] as RangeDescriptor
    const boundsVersion = (parent.boundsVersion as number) + 1
    const child = Math.max(...this.descriptors.map((descriptor) => descriptor.id)) + 1
    const leader = this.leaders.get(range) as NodeId
    this.leaders.set(child, leader)
    this.descriptors.splice(
      index,
      1,
      { ...parent, end: at, boundsVersion },
      { ...parent, id: child, start: at, boundsVersion },
    )
  }
}

function holds(view: CommandView, present: Pair | undefined): boolean {
  switch (view.condition) {
    case conditions.none:
      return true
    case conditions.versionEquals:
      return present !== undefined && present.version === view.expectedVersion
    case conditions.absent:
      return present === undefined
    default:
      return present !== undefined && equalBytes(present.value, view.expectedValue)
  }
}
