/**
 * The ring: which nodes hold a slot of the eventual namespaces, now and while that changes.
 *
 * The idea. Keys hash to 16,384 slots (`lib/slot.ts`). Every member of the ring stands on the circle of slots with a number of
 * virtual nodes; a virtual node's token is the last slot of its arc. From an arc clockwise, each next member that spreads the copies best over zones,
 * racks and hosts makes the arc's *preference list*: a key of N copies has the first N of it as owners, and the others after them as
 * stand-ins (Dynamo 4.3, 4.6, 6.2). Nothing that has to be agreed upon is computed, though: a ring *states* the list of every slot. The tokens
 * only say where slots ought to be; how the lists get there is a sequence of ring versions, one made from the other, of which the meta group keeps the last.
 * Two builds of Kvorum that would place differently still read the same ring alike.
 *
 * A change, step by step.
 *   1. `ringMembers.ts` makes a version with a member more, one that leaves, one that is gone, or one in the place of another; `allocator.ts` chooses the
 *      tokens. No slot has moved yet.
 *   2. `ringChange.ts` compares the lists with where the tokens place the slots, and lets so many slots at a time go from owned to *pending* (the new owners
 *      take writes and are filled), to *filled*, to owned by the new list. Each version holds all steps that are due. It remembers nothing: the plan is
 *      made anew from the ring each time, so that whoever makes the steps may die between any two of them, and members may change their mind meanwhile.
 *   3. A member that no list names any more is dropped.
 *
 * A request asks `owners` for whom to send to and what has to be answered (`slotOwners.ts`), and carries the version it used. A replica judges that by
 * `verdictOf`: `moved` when the slot has changed since, `ahead` when the replica itself has to learn the newer ring first.
 *
 * Invariants, asserted where they could break:
 *   - A slot has one list, or two while it changes; a list names a member once, and nobody who is no member.
 *   - Versions only grow; a slot's version is the one that last changed it or, at rest, the floor if that is later: the version that every
 *     member is known to have. What is below the floor is `moved` for every slot, so that old steps need not be told apart for ever.
 *   - The owners of N copies are the beginning of the owners of more.
 *   - Of a write and a later read of the same key, W copies and R with W + R > N, at least one node takes part in both, whatever versions of the ring their
 *     coordinators and the replicas know, as long as nobody stands in for an owner (`ringChange.ts` says why).
 *   - Equal rings have equal bytes (`ringCodec.ts`).
 *
 * Left out: moving tokens of members that stay, to even what a leave has made uneven: arcs fall to their neighbours, and the next member evens it. Moving a slot for load:
 * weights are set by hand. Who makes the steps, who streams and who reports is the servers' matter.
 *
 * Sources: DeCandia et al., "Dynamo", 2007; Cassandra's ReplicationAwareTokenAllocator and its pending ranges; RELIABILITY pitfall 20.
 */
import { assert } from "../lib/assert.ts"
import { slotCount } from "../lib/slot.ts"
import type { NodeId, RingVersion, Slot } from "../types.ts"
import { isPlaced, memberOf, membersProblem, type RingMember, type Strategy } from "./member.ts"
import type { SlotOwners, SlotState } from "./slotOwners.ts"
import { type ListTable, type Placement, placementOf } from "./slotTable.ts"

/** What a replica says to a message of some ring version about some slot. */
export type Verdict = "current" | "moved" | "ahead"

/** A slot on its way from one list to another. */
export interface SlotChange {
  readonly slot: Slot
  readonly state: "pending" | "filled"
  /** The version that began this step. */
  readonly since: RingVersion
  readonly from: ReadonlyArray<NodeId>
  readonly to: ReadonlyArray<NodeId>
}

/** In `states`. Stored: do not change. */
export const stateNames: ReadonlyArray<SlotState> = ["owned", "pending", "filled"]
export const ownedCode = 0
export const pendingCode = 1
export const filledCode = 2

/** The slots of a ring in arrays: some 210 KiB, off the heap of objects. */
export interface SlotTable {
  readonly lists: ListTable
  /** Number of the list of the present owners, and of those to be; the same for a slot at rest. */
  readonly from: Uint16Array
  readonly to: Uint16Array
  readonly states: Uint8Array
  /** Version that last changed the slot. */
  readonly since: Float64Array
}

export interface RingParts {
  readonly version: RingVersion
  readonly floor: RingVersion
  readonly strategy: Strategy
  /** In order of id. */
  readonly members: ReadonlyArray<RingMember>
  readonly table: SlotTable
}

/** One version of the ring. It never changes. */
export class Ring {
  readonly version: RingVersion
  /** Every member is known to have confirmed this version or a later one. */
  readonly floor: RingVersion
  readonly strategy: Strategy
  readonly members: ReadonlyArray<RingMember>
  readonly table: SlotTable

  constructor(parts: RingParts) {
    const problem = ringProblem(parts)
    assert(problem === undefined, () => `ring ${parts.version}: ${problem}`)
    this.version = parts.version
    this.floor = parts.floor
    this.strategy = parts.strategy
    this.members = parts.members
    this.table = parts.table
  }

  /** The first ring, whose slots are where the tokens place them: nobody has data yet. */
  static founded(members: ReadonlyArray<RingMember>, strategy: Strategy): Ring {
    const { lists, of } = placementOf(members, strategy)
    const states = new Uint8Array(slotCount)
    const since = new Float64Array(slotCount).fill(1)
    const table = { lists, from: of, to: of.slice(), states, since }
    return new Ring({ version: 1, floor: 0, strategy, members, table })
  }

  /** Fills `owners` with the owners of a slot for keys of `replicas` copies; fewer when there are fewer members. */
  owners(slot: Slot, replicas: number, owners: SlotOwners): void {
    const { lists, from, to, states } = this.table
    const oldList = from[slot]
    const oldCount = Math.min(lists.size(oldList), replicas)
    for (let rank = 0; rank < oldCount; rank++) owners.nodes[rank] = lists.node(oldList, rank)
    owners.count = oldCount
    owners.oldMask = (1 << oldCount) - 1
    owners.state = stateNames[states[slot]]
    if (states[slot] === ownedCode) {
      owners.newMask = owners.oldMask
      return
    }
    const newList = to[slot]
    const newCount = Math.min(lists.size(newList), replicas)
    let newMask = 0
    for (let rank = 0; rank < newCount; rank++) {
      const node = lists.node(newList, rank)
      let place = lists.rankOf(oldList, node)
      if (place < 0 || place >= oldCount) {
        place = owners.count++
        owners.nodes[place] = node
      }
      newMask |= 1 << place
    }
    owners.newMask = newMask
  }

  /** Bits of those owners that are in a zone, for levels that count in one zone only. */
  maskOfZone(owners: SlotOwners, zone: string): number {
    let mask = 0
    for (let i = 0; i < owners.count; i++) {
      if (memberOf(this.members, owners.nodes[i])?.zone === zone) mask |= 1 << i
    }
    return mask
  }

  /** Whether a node owns a slot, or is about to, for keys of `replicas` copies. */
  isOwner(slot: Slot, replicas: number, node: NodeId): boolean {
    const { lists, from, to } = this.table
    const now = lists.rankOf(from[slot], node)
    if (now >= 0 && now < replicas) return true
    const soon = lists.rankOf(to[slot], node)
    return soon >= 0 && soon < replicas
  }

  /** Empty for a stranger. */
  zoneOf(node: NodeId): string {
    return memberOf(this.members, node)?.zone ?? ""
  }

  /** All members, in order of id. */
  nodes(): ReadonlyArray<NodeId> {
    return this.members.map(({ node }) => node)
  }

  /** What a replica that has this ring says to a message about `slot` from somebody who had version `version`. */
  verdictOf(slot: Slot, version: RingVersion): Verdict {
    if (version > this.version) return "ahead"
    return version < this.table.since[slot] ? "moved" : "current"
  }

  changedAt(slot: Slot): RingVersion {
    return this.table.since[slot]
  }

  /** Whether a node may keep what is others': one that has left, or is to join, will not be waited for. */
  isMember(node: NodeId): boolean {
    const member = memberOf(this.members, node)
    return member !== undefined && member.state !== "gone"
  }

  isGone(node: NodeId): boolean {
    return memberOf(this.members, node)?.state === "gone"
  }

  /**
   * Who stands in for owners of a slot, in the order to ask: first the others of its preference lists, which span the failure domains, then all
   * members in an order of the slot's own (rendezvous hashing), so that what a lost node leaves is spread over all. Never an owner, old or new, nor one that leaves or is gone.
   */
  standIns(slot: Slot, replicas: number): ReadonlyArray<NodeId> {
    const { lists, from, to } = this.table
    const listed = new Set([...lists.nodesOf(from[slot]), ...lists.nodesOf(to[slot])])
    const placed = new Set(this.members.filter(isPlaced).map(({ node }) => node))
    const others = [...placed]
      .filter((node) => !listed.has(node))
      .sort((left, right) => scatter(slot, right) - scatter(slot, left) || left - right)
    return [...listed, ...others].filter(
      (node) => placed.has(node) && !this.isOwner(slot, replicas, node),
    )
  }

  /** The slot's present list. */
  listOf(slot: Slot): ReadonlyArray<NodeId> {
    return this.table.lists.nodesOf(this.table.from[slot])
  }

  /** What a slot is changing to, or `undefined` when it rests. */
  changeOf(slot: Slot): SlotChange | undefined {
    const { lists, from, to, states, since } = this.table
    const state = stateNames[states[slot]]
    if (state === "owned") return undefined
    const lists2 = { from: lists.nodesOf(from[slot]), to: lists.nodesOf(to[slot]) }
    return { slot, state, since: since[slot], ...lists2 }
  }

  /** All slots that are changing, in order. */
  changes(): ReadonlyArray<SlotChange> {
    const found: Array<SlotChange> = []
    for (let slot = 0; slot < slotCount; slot++) {
      const change = this.changeOf(slot)
      if (change !== undefined) found.push(change)
    }
    return found
  }

  /** Where the members' tokens place the slots: what the changes lead to. */
  goal(): Placement {
    return placementOf(this.members, this.strategy)
  }
}

/** A well mixed number of a slot and a node (the finisher of MurmurHash3). */
function scatter(slot: Slot, node: NodeId): number {
  let mixed = Math.imul(slot ^ 0x9e3779b9, 0x85ebca6b) ^ node
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

/** Why these parts are no ring, or `undefined`. */
export function ringProblem(parts: RingParts): string | undefined {
  const { version, floor, members, table } = parts
  const { lists, from, to, states, since } = table
  if (version < 1 || floor < 0 || floor > version) return `version ${version}, floor ${floor}`
  const problem = membersProblem(members)
  if (problem !== undefined) return problem
  const nodes = new Set(members.map(({ node }) => node))
  for (let list = 0; list < lists.count; list++) {
    const named = lists.nodesOf(list)
    if (named.length === 0) return `list ${list} is empty`
    if (new Set(named).size !== named.length) return `list ${list} names a node twice`
    if (!named.every((node) => nodes.has(node))) return `list ${list} names a stranger`
  }
  for (let slot = 0; slot < slotCount; slot++) {
    if (from[slot] >= lists.count || to[slot] >= lists.count) return `slot ${slot} has no list`
    if (states[slot] > filledCode) return `slot ${slot} is in state ${states[slot]}`
    if ((states[slot] === ownedCode) !== (from[slot] === to[slot])) return `slot ${slot} hangs`
    const isOld = states[slot] === ownedCode && since[slot] < floor
    if (isOld || since[slot] > version) return `slot ${slot} changed at ${since[slot]}`
  }
  return undefined
}
