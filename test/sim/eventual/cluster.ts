import type { LostReport } from "../../../src/dynamo/node/refills.ts"
import type { EventualReply, EventualRequest } from "../../../src/dynamo/node/requests.ts"
import type { Prng } from "../../../src/lib/prng.ts"
import { slotOf } from "../../../src/lib/slot.ts"
import type { PeerMessage } from "../../../src/server/peerMessage.ts"
import type { Ring } from "../../../src/topology/ring.ts"
import { nextRing, slotsToMove } from "../../../src/topology/ringChange.ts"
import { withNewcomer, withParting } from "../../../src/topology/ringMembers.ts"
import { SlotOwners } from "../../../src/topology/slotOwners.ts"
import type { NamespaceId, NodeId } from "../../../src/types.ts"
import { LoopNode } from "../../server/loopNode.ts"
import { type ClusterOptions, newcomerOf, ringFrom, ringOf } from "../../topology/harness.ts"
import { SimulatedDisk } from "../simulatedDisk.ts"
import type { Trace } from "../trace.ts"
import type { EventualParameters } from "./parameters.ts"

interface Envelope {
  readonly atMs: number
  readonly from: NodeId
  readonly to: NodeId
  readonly message: PeerMessage
}

interface Pending {
  readonly node: LoopNode
  readonly token: number
  readonly done: (reply: EventualReply | undefined) => void
}

const stepMs = 10
/** A version costs each node a look at all slots, so the meta group takes its time. */
const ringEveryMs = 1000
/** By number of nodes, then of zones. */
const firstRings = new Map<string, Ring>()

/** Whole store loops without a strong range, on simulated disks and clocks, and the network between them; and the meta group, which is no part of it but its word. */
export class SimulatedCluster {
  readonly nodes = new Map<NodeId, LoopNode>()
  /** All that are members, up or not. */
  readonly members = new Set<NodeId>()
  readonly disks = new Map<NodeId, SimulatedDisk>()
  /** One-way links that carry nothing: "from>to". */
  readonly cuts = new Set<string>()
  /** By how much each wall clock is ahead. */
  readonly aheadMs = new Map<NodeId, number>()
  nowMs: number
  /** The newest version, and who has heard of which: what a node knew it knows after a restart. */
  ring: Ring
  private readonly known = new Map<NodeId, Ring>()
  private ringLookedMs = 0
  private looked: { readonly ring: Ring; readonly isAtRest: boolean } | undefined
  private envelopes: Array<Envelope> = []
  private readonly pending = new Set<Pending>()
  private token = 1
  isHealed = false
  private readonly domains: ClusterOptions
  private readonly parameters: EventualParameters
  private readonly prng: Prng
  private readonly trace: Trace

  constructor(parameters: EventualParameters, prng: Prng, trace: Trace) {
    this.parameters = parameters
    this.prng = prng
    this.trace = trace
    this.nowMs = 1000 + prng.int(0, 1_000_000)
    const { nodes, zones } = parameters
    const shape = `${nodes} ${zones}`
    this.domains = zones > 1 ? { zones, strategy: "zone" } : {}
    this.ring = firstRings.get(shape) ?? ringOf(nodes, this.domains)
    firstRings.set(shape, this.ring)
    for (let id = 1; id <= nodes; id++) this.join(id)
  }

  private join(id: NodeId): void {
    this.members.add(id)
    this.disks.set(id, new SimulatedDisk())
    this.known.set(id, this.ring)
    this.start(id)
  }

  // ---- Nodes

  startAll(): void {
    for (const id of this.members) this.start(id)
  }

  start(id: NodeId): void {
    const disk = this.disks.get(id)
    if (disk === undefined || this.nodes.has(id)) return
    const { settings } = this.parameters
    const { nowMs } = this
    const node = new LoopNode({ disk, settings, nowMs, id, nodes: [id], bootstrap: false })
    node.wallAheadMs = this.aheadMs.get(id) ?? 0
    this.nodes.set(id, node)
    this.trace.record("start", nowMs, id)
    this.teach(id, this.known.get(id) ?? this.ring)
  }

  /** The power goes: of what was not synced any part may be lost. */
  crash(id: NodeId): void {
    const node = this.nodes.get(id)
    if (node === undefined) return
    node.loop.storage.close()
    this.nodes.delete(id)
    this.disks.get(id)?.crash(this.prng)
    this.trace.record("stop", this.nowMs, id)
    for (const pending of [...this.pending]) if (pending.node === node) this.end(pending, undefined)
  }

  setAhead(id: NodeId, aheadMs: number): void {
    this.aheadMs.set(id, aheadMs)
    const node = this.nodes.get(id)
    if (node !== undefined) node.wallAheadMs = aheadMs
  }

  node(id: NodeId): LoopNode {
    const node = this.nodes.get(id)
    if (node === undefined) throw new Error(`n${id} is not up`)
    return node
  }

  // ---- The ring

  private teach(id: NodeId, ring: Ring): void {
    this.known.set(id, ring)
    this.nodes.get(id)?.loop.eventual.learn(ring, this.parameters.namespaces)
  }

  /** Word of the newest version reaches a node that is up. */
  tell(id: NodeId): void {
    if (this.nodes.has(id) && this.known.get(id) !== this.ring) this.teach(id, this.ring)
  }

  tellAll(): void {
    for (const id of this.nodes.keys()) this.tell(id)
  }

  addMember(id: NodeId): void {
    this.ring = ringFrom(withNewcomer(this.ring, newcomerOf(id, this.domains), 16))
    this.join(id)
  }

  /** Lost for good, with its disk: nobody hears of it any more, and the others fill its place. */
  lose(id: NodeId): void {
    this.crash(id)
    this.members.delete(id)
    this.disks.delete(id)
    this.ring = ringFrom(withParting(this.ring, id, "gone"))
  }

  /** Hands over what it has, and serves until then. */
  partWith(id: NodeId): void {
    this.ring = ringFrom(withParting(this.ring, id, "leaving"))
  }

  /** The next version, by what the nodes that are up report, if it is time to look and one is due. */
  stepRing(): void {
    if (this.nowMs < this.ringLookedMs + ringEveryMs) return
    const lost = this.lost()
    if (this.isRingAtRest && lost.length === 0) return
    this.ringLookedMs = this.nowMs
    const filled = new Set<string>()
    const confirmed = new Map<NodeId, number>()
    for (const [id, { loop }] of this.nodes) {
      const report = loop.eventual.ringReport()
      confirmed.set(id, report.confirmed)
      for (const { slot, since } of report.filled) filled.add(`${id} ${slot} ${since}`)
    }
    const next = nextRing(this.ring, {
      goal: this.ring.goal(),
      slotsAtOnceMax: 16_384,
      reports: {
        lost,
        confirmedBy: (node) => confirmed.get(node) ?? 0,
        isFilled: (slot, node, since) => filled.has(`${node} ${slot} ${since}`),
      },
    })
    if (next !== undefined) this.ring = next
  }

  private lost(): ReadonlyArray<LostReport> {
    const reports = [...this.nodes.values()].map(({ loop }) => loop.eventual.ringReport())
    return reports.flatMap(({ lost }) => (lost === undefined ? [] : [lost]))
  }

  get isRingAtRest(): boolean {
    const { ring } = this
    if (this.looked?.ring !== ring) {
      const isAtRest = ring.changes().length === 0 && slotsToMove(ring, ring.goal()) === 0
      this.looked = { ring, isAtRest }
    }
    return this.looked.isAtRest
  }

  owners(key: Uint8Array, copies: number): ReadonlyArray<NodeId> {
    const owners = new SlotOwners()
    this.ring.owners(slotOf(key), copies, owners)
    return [...owners.nodes.subarray(0, owners.count)]
  }

  stateAt(id: NodeId, namespace: NamespaceId, key: Uint8Array): Uint8Array | undefined {
    return this.nodes.get(id)?.loop.eventual.machine.owner.state(namespace, slotOf(key), key)
  }

  // ---- Requests

  /** `done` is called once; with `undefined` when the node died. */
  ask(
    id: NodeId,
    request: (token: number) => EventualRequest,
    done: (reply: EventualReply | undefined) => void,
  ): void {
    const node = this.node(id)
    const token = this.token++
    this.trace.record("invoke", this.nowMs, id, token)
    this.pending.add({ node, token, done })
    node.loop.requestEventual(request(token))
  }

  get isAnswered(): boolean {
    return this.pending.size === 0
  }

  private end(pending: Pending, reply: EventualReply | undefined): void {
    this.pending.delete(pending)
    this.trace.record("complete", this.nowMs, pending.token, reply?._tag.length ?? 0)
    pending.done(reply)
  }

  private collect(): void {
    if (this.pending.size === 0) return
    for (const pending of [...this.pending]) {
      const reply = pending.node.eventualReplies.find(({ token }) => token === pending.token)
      if (reply !== undefined) this.end(pending, reply)
    }
    for (const node of this.nodes.values()) node.eventualReplies = []
  }

  // ---- Time

  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.nowMs += stepMs
      this.deliver()
      for (const node of [...this.nodes.values()]) {
        node.turn(stepMs)
        node.someWork(this.prng)
        for (const { to, message } of node.sends.splice(0)) this.post(node.id, to, message)
      }
      this.collect()
    }
  }

  /** All clocks go on by so much at once. */
  leap(ms: number): void {
    this.nowMs += ms
    for (const node of this.nodes.values()) node.nowMs += ms
  }

  private post(from: NodeId, to: NodeId, message: PeerMessage): void {
    const { prng } = this
    const { loss, duplicates, late, lateMsMax } = this.parameters.network
    if (this.isHealed) {
      this.envelopes.push({ atMs: this.nowMs, from, to, message })
      return
    }
    if (this.cuts.has(`${from}>${to}`) || prng.chance(loss)) return
    const copies = prng.chance(duplicates) ? 2 : 1
    for (let i = 0; i < copies; i++) {
      const isLate = i > 0 || prng.chance(late)
      const atMs = this.nowMs + (isLate ? prng.int(10, lateMsMax) : 0)
      this.envelopes.push({ atMs, from, to, message })
    }
  }

  private deliver(): void {
    const due = this.envelopes.filter(({ atMs }) => atMs <= this.nowMs)
    if (due.length === 0) return
    this.envelopes = this.envelopes.filter(({ atMs }) => atMs > this.nowMs)
    for (const { from, to, message } of due) {
      const node = this.nodes.get(to)
      // A cut takes what is on its way with it, and one that was lost is heard no more.
      if (node === undefined || !this.members.has(from) || this.cuts.has(`${from}>${to}`)) continue
      this.trace.record("deliver", this.nowMs, from, to)
      node.loop.receive(from, message)
    }
  }
}
