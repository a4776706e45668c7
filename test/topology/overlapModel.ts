import type { Prng } from "../../src/lib/prng.ts"
import { slotCount } from "../../src/lib/slot.ts"
import { memberOf } from "../../src/topology/member.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { type ChangeReports, nextRing, transfersOf } from "../../src/topology/ringChange.ts"
import {
  isRefusal,
  type RingRefusal,
  withNewcomer,
  withParting,
  withReplacement,
} from "../../src/topology/ringMembers.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import type { Placement } from "../../src/topology/slotTable.ts"
import type { NodeId, RingVersion, Slot } from "../../src/types.ts"
import { newcomerOf, ringOf } from "./harness.ts"

/** What a mutant gets wrong. */
export interface Rules {
  /** A read of a filled slot asks the old owners alone. */
  readonly readsOldWhenFilled?: boolean
  /** The new list takes over before everybody has confirmed that the slot is filled. */
  readonly ownsUnconfirmed?: boolean
  /** A source streams before it has confirmed the pending step. */
  readonly streamsUnconfirmed?: boolean
  /** A write of a changing slot needs W of the old owners alone. */
  readonly writesOldOnly?: boolean
  /** A replica answers messages of older versions. */
  readonly takesMoved?: boolean
}

interface Node {
  ring: Ring
  isUp: boolean
  /** Writes by slot. */
  readonly held: Map<Slot, Set<number>>
  /** Of the slots that it is being filled with: the step, and the sources that it has heard to the end. */
  readonly filling: Map<Slot, { readonly since: RingVersion; readonly done: Set<NodeId> }>
}

interface Request {
  readonly write: number | undefined
  readonly slot: Slot
  readonly version: RingVersion
  readonly owners: SlotOwners
  /** Places of owners that the message is still on its way to. */
  readonly waiting: Array<number>
  answered: number
  readonly found: Set<number>
  /** Writes that were complete when a read began. */
  readonly due: ReadonlySet<number>
}

/** Few of either, so that much happens to each while a version is on its way round. */
const watchedSlots = 3
const requestsMax = 5

/**
 * A cluster that changes its ring while keys are written and read, told apart from the real thing only in that nothing has a content: a write is a number.
 * Nodes learn of versions late and in jumps; messages arrive in any order, or never; a step of the ring is made by the repo's own code as soon as its own reports
 * allow it. A read that misses a write which was complete before it began is a finding.
 */
export class OverlapModel {
  readonly findings: Array<string> = []
  readsMet = 0
  stepsMade = 0
  private readonly prng: Prng
  private readonly rules: Rules
  private readonly replicas: number
  private readonly copiesToWrite: number
  private readonly nodes = new Map<NodeId, Node>()
  private readonly versions: Array<Ring> = []
  private readonly slots: ReadonlyArray<Slot>
  private readonly complete = new Map<Slot, Set<number>>()
  private requests: Array<Request> = []
  private goal: { readonly members: Ring["members"]; readonly placement: Placement }
  private nextNode: NodeId
  private nextWrite = 1

  constructor(prng: Prng, rules: Rules) {
    this.prng = prng
    this.rules = rules
    this.replicas = prng.int(2, 5)
    this.copiesToWrite = prng.int(1, this.replicas)
    const count = prng.int(Math.max(2, this.replicas - 1), 7)
    const ring = ringOf(count, { virtualNodes: () => 4 })
    this.versions.push(ring)
    this.goal = { members: ring.members, placement: ring.goal() }
    this.nextNode = count + 1
    for (const { node } of ring.members) this.addNode(node)
    this.slots = Array.from({ length: watchedSlots }, () => prng.int(0, slotCount - 1))
  }

  private addNode(node: NodeId): void {
    const fresh = { ring: this.newest, isUp: true, held: new Map(), filling: new Map() }
    this.nodes.set(node, fresh)
  }

  private get newest(): Ring {
    return this.versions[this.versions.length - 1]
  }

  run(steps: number): void {
    const { prng } = this
    for (let i = 0; i < steps; i++) {
      const draw = prng.float()
      if (draw < 0.74) this.deliver()
      else if (draw < 0.9) this.request()
      else if (draw < 0.93) this.learn()
      else if (draw < 0.972) this.fill()
      else if (draw < 0.996) this.step()
      else this.changeMembers()
    }
  }

  private upNodes(): ReadonlyArray<NodeId> {
    return [...this.nodes].filter(([, node]) => node.isUp).map(([id]) => id)
  }

  private nodeOf(id: NodeId): Node {
    return this.nodes.get(id) as Node
  }

  private heldBy(id: NodeId, slot: Slot): Set<number> {
    const { held } = this.nodeOf(id)
    const known = held.get(slot) ?? new Set()
    held.set(slot, known)
    return known
  }

  private request(): void {
    const { prng } = this
    const { ring } = this.nodeOf(prng.pick(this.upNodes()))
    const slot = prng.pick(this.slots)
    const owners = new SlotOwners()
    ring.owners(slot, this.replicas, owners)
    const write = prng.chance(0.5) ? this.nextWrite++ : undefined
    const mask = write === undefined ? this.readMaskOf(owners) : owners.writeMask
    const waiting = Array.from({ length: owners.count }, (_, i) => i).filter((i) => mask & (1 << i))
    this.requests.push({
      write,
      slot,
      version: ring.version,
      owners,
      waiting: prng.shuffle(waiting),
      answered: 0,
      found: new Set(),
      due: new Set(this.complete.get(slot)),
    })
    if (this.requests.length > requestsMax) this.requests.shift()
  }

  private readMaskOf(owners: SlotOwners): number {
    return this.rules.readsOldWhenFilled ? owners.oldMask : owners.readMask
  }

  /** One message of some request arrives, or is lost. */
  private deliver(): void {
    const { prng } = this
    if (this.requests.length === 0) return
    const request = prng.pick(this.requests)
    const place = request.waiting.pop()
    if (place === undefined || prng.chance(0.08)) return
    const id = request.owners.nodes[place]
    const node = this.nodes.get(id)
    if (node?.isUp !== true) return
    const verdict = node.ring.verdictOf(request.slot, request.version)
    if (verdict === "moved" && this.rules.takesMoved !== true) return
    if (verdict === "ahead") this.take(id, this.versions[request.version - 1])
    request.answered |= 1 << place
    if (request.write === undefined) this.answerRead(request, id)
    else this.answerWrite(request, id, request.write)
  }

  private answerWrite(request: Request, id: NodeId, write: number): void {
    const { slot, owners } = request
    this.heldBy(id, slot).add(write)
    if (this.rules.writesOldOnly === true) owners.newMask = owners.oldMask
    if (!owners.writeMet(request.answered, this.copiesToWrite)) return
    const complete = this.complete.get(slot) ?? new Set()
    this.complete.set(slot, complete.add(write))
  }

  private answerRead(request: Request, id: NodeId): void {
    const { slot, owners, found, due } = request
    for (const write of this.heldBy(id, slot)) found.add(write)
    const copies = this.replicas - this.copiesToWrite + 1
    if (this.rules.readsOldWhenFilled === true) owners.state = "pending"
    if (!owners.readMet(request.answered, copies)) return
    this.readsMet++
    const missing = [...due].filter((write) => !found.has(write))
    if (missing.length > 0) {
      this.findings.push(`slot ${slot}: a read by version ${request.version} misses ${missing}`)
    }
    request.waiting.length = 0
  }

  /** Some node takes some newer version. */
  private learn(): void {
    const id = this.prng.pick(this.upNodes())
    const from = this.nodeOf(id).ring.version
    if (from < this.newest.version) {
      this.take(id, this.versions[this.prng.int(from, this.newest.version - 1)])
    }
  }

  /** Who begins to own a slot has nothing of it: what was there may have been thrown away as an ex-owner's. */
  private take(id: NodeId, ring: Ring): void {
    const node = this.nodeOf(id)
    node.ring = ring
    for (const slot of this.slots) {
      const change = ring.changeOf(slot)
      if (change?.state !== "pending" || node.filling.get(slot)?.since === change.since) continue
      node.filling.set(slot, { since: change.since, done: new Set() })
      if (!change.from.slice(0, this.replicas).includes(id)) this.heldBy(id, slot).clear()
    }
  }

  /** A node that is to be filled hears from one of its sources, to the end. */
  private fill(): void {
    const { prng } = this
    const slot = prng.pick(this.slots)
    const id = prng.pick(this.newest.changeOf(slot)?.to ?? this.upNodes())
    const node = this.nodeOf(id)
    const change = node.ring.changeOf(slot)
    if (change === undefined || !node.isUp) return
    const filling = node.filling.get(slot)
    const isGone = (other: NodeId) => !this.nodeOf(other).isUp
    for (const { source, target } of transfersOf(change, this.replicas, isGone)) {
      if (target !== id || !prng.chance(0.7)) continue
      const other = this.nodeOf(source)
      if (other.ring.version < change.since && this.rules.streamsUnconfirmed !== true) continue
      for (const write of this.heldBy(source, slot)) this.heldBy(id, slot).add(write)
      filling?.done.add(source)
    }
  }

  private readonly reports: ChangeReports = {
    confirmedBy: (node) =>
      this.rules.ownsUnconfirmed === true ? 10_000 : this.nodeOf(node).ring.version,
    isFilled: (slot, node, since) => {
      if (!this.slots.includes(slot)) return true
      const { filling } = this.nodeOf(node)
      const change = this.newest.changeOf(slot)
      if (change === undefined) return false
      const isGone = (other: NodeId) => !this.nodeOf(other).isUp
      const sources = transfersOf(change, this.replicas, isGone)
        .filter(({ target }) => target === node)
        .map(({ source }) => source)
      const found = filling.get(slot)
      if (sources.length === 0) return true
      return found?.since === since && sources.every((source) => found.done.has(source))
    },
  }

  private step(): void {
    const ring = this.newest
    if (this.goal.members !== ring.members) {
      this.goal = { members: ring.members, placement: this.goalOf(ring) }
    }
    const options = {
      goal: this.goal.placement,
      reports: this.reports,
      slotsAtOnceMax: slotCount,
    }
    this.publish(nextRing(ring, options))
  }

  /** Where the watched slots ought to be. The others stay where they are, for speed. */
  private goalOf(ring: Ring): Placement {
    const goal = ring.goal()
    const placement = { lists: ring.table.lists.copy(), of: ring.table.from.slice() }
    for (const slot of this.slots) {
      placement.of[slot] = placement.lists.intern(goal.lists.nodesOf(goal.of[slot]))
    }
    return placement
  }

  private publish(ring: Ring | RingRefusal | undefined): void {
    if (ring === undefined || isRefusal(ring)) return
    this.stepsMade++
    this.versions.push(ring)
  }

  private changeMembers(): void {
    const { prng, newest } = this
    const placed = newest.members.filter(({ state }) => state === "member")
    const draw = prng.float()
    const node = prng.pick(placed).node
    if (draw < 0.35 && placed.length < 9) {
      this.publish(withNewcomer(newest, newcomerOf(this.nextNode), 4))
      this.addNode(this.nextNode++)
    } else if (draw < 0.6 && placed.length > this.replicas) {
      this.publish(withParting(newest, node, "leaving"))
    } else if (draw < 0.8) {
      const newcomer = newcomerOf(this.nextNode)
      const state = this.mayLose(node) && prng.chance(0.5) ? "gone" : "leaving"
      if (state === "gone") this.nodeOf(node).isUp = false
      this.addNode(this.nextNode++)
      this.publish(withReplacement(newest, { node, state, newcomer }))
    } else if (placed.length > this.replicas && this.mayLose(node)) {
      this.nodeOf(node).isUp = false
      this.publish(withParting(newest, node, "gone"))
    }
  }

  /** One copy may be lost where writes have two: nobody else is gone, and no slot is on its way. */
  private mayLose(node: NodeId): boolean {
    const { members } = this.newest
    const isLost = (other: NodeId) => memberOf(members, other)?.state === "gone"
    const isWounded = this.slots.some((slot) => {
      const change = this.newest.changeOf(slot)
      return [...(change?.to ?? []), ...this.newest.listOf(slot)].some(isLost)
    })
    return this.copiesToWrite > 1 && !isWounded && this.nodeOf(node).isUp
  }
}
