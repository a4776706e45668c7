import { assert } from "../lib/assert.ts"
import { slotCount } from "../lib/slot.ts"
import type { NodeId, Slot } from "../types.ts"
import { isPlaced, memberIndex, type RingMember, type Strategy, withMember } from "./member.ts"
import {
  arcLength,
  arcOf,
  type ExtraToken,
  noMember,
  PreferenceWalk,
  preferenceLists,
  type TokenTable,
  tokenTable,
} from "./preference.ts"

/** Places tried for one virtual node; fewer in a large ring, where each costs more. */
const placesTried = 384
/** Rounds in which each virtual node of the newcomer may shift a little, once all are placed. */
const shiftRounds = 3
const shifts: ReadonlyArray<number> = [-48, -24, -12, -6, -3, -1, 1, 3, 6, 12, 24, 48]

/**
 * Slots that each member holds a copy of when keys have `replicas` copies, by member index.
 */
export function loadsOf(
  members: ReadonlyArray<RingMember>,
  strategy: Strategy,
  replicas: number,
): Float64Array {
  const tokens = tokenTable(members)
  const walk = new PreferenceWalk(members, strategy)
  const lists = preferenceLists(tokens, walk)
  const loads = new Float64Array(members.length)
  const copies = Math.min(replicas, walk.depth)
  for (let arc = 0; arc < tokens.slots.length; arc++) {
    const slots = arcLength(tokens.slots, arc)
    for (let rank = 0; rank < copies; rank++) {
      const member = lists[arc * walk.depth + rank]
      if (member !== noMember) loads[member] += slots
    }
  }
  return loads
}

/**
 * Tokens for the virtual nodes of a newcomer, so that the loads of all members by weight become as even as they can while nobody else's tokens
 * move (the idea of Cassandra's ReplicationAwareTokenAllocator: look at copies, not at arcs). One virtual node after another is put where it lowers
 * the sum of the fourth powers of the loads the most (squares bear too long with one member that is far above the rest). The newcomer's weight
 * grows with them, so that its arcs come from many and are of a size; then each may shift a little. What comes out depends on the arguments only.
 * It takes some 20 ms in a ring of ten members and half a second in one of 256: not for a loop that serves requests.
 */
export function allocateTokens(options: {
  readonly members: ReadonlyArray<RingMember>
  readonly strategy: Strategy
  readonly newcomer: Omit<RingMember, "tokens" | "state">
  readonly virtualNodes: number
}): ReadonlyArray<Slot> {
  const { strategy, newcomer, virtualNodes } = options
  const members = withMember(options.members, { ...newcomer, state: "member", tokens: [] })
  if (!options.members.some(isPlaced)) {
    return Array.from({ length: virtualNodes }, (_, i) =>
      Math.floor(((i + 1) * slotCount) / virtualNodes - 1),
    )
  }
  const evener = new Evener(members, strategy, newcomer.node)
  for (let i = 1; i <= virtualNodes; i++) evener.place(i)
  for (let round = 0; round < shiftRounds; round++) evener.shiftAll()
  return evener.tokens()
}

/** The loads of a ring while tokens of one member are placed in it. */
class Evener {
  private readonly members: ReadonlyArray<RingMember>
  private readonly newcomer: number
  private readonly walk: PreferenceWalk
  private readonly weights: Float64Array
  private table: TokenTable
  private lists: Uint16Array
  /** Slots of member m among the first N of the lists, at [(N - 1) * members + m]. */
  private readonly loads: Float64Array
  private readonly deltas: Float64Array
  private readonly touched: Array<number> = []
  private readonly scratch: Uint16Array
  private readonly places: number

  constructor(members: ReadonlyArray<RingMember>, strategy: Strategy, newcomer: NodeId) {
    this.members = members
    this.newcomer = memberIndex(members, newcomer)
    this.walk = new PreferenceWalk(members, strategy)
    this.weights = Float64Array.from(members, ({ tokens }) => Math.max(1, tokens.length))
    this.table = tokenTable(members)
    this.lists = preferenceLists(this.table, this.walk)
    this.loads = new Float64Array(this.walk.depth * members.length)
    this.deltas = new Float64Array(this.loads.length)
    this.scratch = new Uint16Array(this.walk.depth)
    this.places = Math.max(32, Math.min(placesTried, Math.floor(16_384 / members.length)))
    this.recount()
  }

  tokens(): ReadonlyArray<Slot> {
    const { slots, members } = this.table
    return [...slots].filter((_, i) => members[i] === this.newcomer)
  }

  /** Puts virtual node number `ordinal` where it evens the most. */
  place(ordinal: number): void {
    this.weights[this.newcomer] = ordinal
    // The odd numbers shift the places a little from one virtual node to the next.
    const stride = slotCount / this.places
    const offset = (ordinal * 7) % Math.max(1, Math.floor(stride))
    let best = -1
    let bestChange = Number.POSITIVE_INFINITY
    for (let i = 0; i < this.places; i++) {
      const slot = Math.floor(i * stride) + offset
      const change = this.changeBy(slot)
      if (change < bestChange) {
        bestChange = change
        best = slot
      }
    }
    if (best < 0) best = this.firstFree()
    this.insert(best)
  }

  /** Lets each token of the newcomer move to where it evens more, others staying. */
  shiftAll(): void {
    for (const token of this.tokens()) {
      this.remove(token)
      let best = token
      let bestChange = this.changeBy(token)
      for (const shift of shifts) {
        const slot = (token + shift + slotCount) % slotCount
        const change = this.changeBy(slot)
        if (change < bestChange) {
          bestChange = change
          best = slot
        }
      }
      this.insert(best)
    }
  }

  /** By how much the sum of powers would change with a token of the newcomer at `slot`; infinity where there is one. */
  private changeBy(slot: Slot): number {
    const { table, walk, scratch } = this
    const { slots } = table
    const at = arcOf(slots, slot)
    if (slots[at] === slot) return Number.POSITIVE_INFINITY
    const extra: ExtraToken = { at, member: this.newcomer }
    const before = slots[at === 0 ? slots.length - 1 : at - 1]
    let length = slots.length === 1 ? slotCount : (slot - before + slotCount) % slotCount
    let arc = at
    let same = 0
    for (let i = 0; i < slots.length && same < 2; i++) {
      walk.list(table, arc, scratch, 0, extra)
      same = this.differ(arc * walk.depth, length) ? 0 : same + 1
      arc = arc === 0 ? slots.length - 1 : arc - 1
      length = arcLength(slots, arc)
    }
    return this.settle()
  }

  /** Notes what `scratch` in the place of the list at `offset` changes for `length` slots; false when nothing. */
  private differ(offset: number, length: number): boolean {
    const { scratch, lists } = this
    const { depth } = this.walk
    let isOther = false
    for (let rank = 0; rank < depth; rank++) {
      const was = lists[offset + rank]
      const is = scratch[rank]
      if (was === is) continue
      isOther = true
      for (let copies = rank; copies < depth; copies++) {
        if (was !== noMember) this.touch(copies * this.members.length + was, -length)
        if (is !== noMember) this.touch(copies * this.members.length + is, length)
      }
    }
    return isOther
  }

  private touch(cell: number, slots: number): void {
    if (this.deltas[cell] === 0) this.touched.push(cell)
    this.deltas[cell] += slots
  }

  /** The change of the sum of powers by the deltas noted, which are forgotten. Divided by the number of copies, every number of copies counts alike. */
  private settle(): number {
    const { touched, deltas, loads, weights } = this
    const width = this.members.length
    let change = 0
    for (const cell of touched) {
      const copies = Math.floor(cell / width) + 1
      const delta = deltas[cell]
      deltas[cell] = 0
      const weight = weights[cell % width]
      const unit = weight * copies
      change += weight * (fourth((loads[cell] + delta) / unit) - fourth(loads[cell] / unit))
    }
    touched.length = 0
    return change
  }

  private firstFree(): Slot {
    const { slots } = this.table
    let slot = 0
    while (slots.includes(slot)) slot++
    assert(slot < slotCount, "a slot is free")
    return slot
  }

  private insert(slot: Slot): void {
    const { slots, members } = this.table
    const found = slots.findIndex((other) => other > slot)
    const at = found < 0 ? slots.length : found
    this.table = {
      slots: Uint16Array.from([...slots].toSpliced(at, 0, slot)),
      members: Uint16Array.from([...members].toSpliced(at, 0, this.newcomer)),
    }
    this.recount()
  }

  private remove(slot: Slot): void {
    const { slots, members } = this.table
    const at = slots.indexOf(slot)
    this.table = {
      slots: Uint16Array.from([...slots].toSpliced(at, 1)),
      members: Uint16Array.from([...members].toSpliced(at, 1)),
    }
    this.recount()
  }

  private recount(): void {
    this.lists = preferenceLists(this.table, this.walk)
    const { lists, loads, table } = this
    const { depth } = this.walk
    loads.fill(0)
    for (let arc = 0; arc < table.slots.length; arc++) {
      const length = arcLength(table.slots, arc)
      for (let rank = 0; rank < depth; rank++) {
        const member = lists[arc * depth + rank]
        if (member === noMember) continue
        for (let copies = rank; copies < depth; copies++)
          loads[copies * this.members.length + member] += length
      }
    }
  }
}

function fourth(value: number): number {
  const square = value * value
  return square * square
}
