import { assert } from "../lib/assert.ts"
import { slotCount } from "../lib/slot.ts"
import type { NodeId, Slot } from "../types.ts"
import { type RingMember, replicasMax, type Strategy } from "./member.ts"
import { arcOf, noMember, PreferenceWalk, preferenceLists, tokenTable } from "./preference.ts"

/** Words of a list: how many nodes, and the nodes. */
export const listWords: number = 1 + replicasMax
const newList = new Uint32Array(listWords)

/**
 * Preference lists by number, each list once: a ring of ten nodes has some 160 of them for its 16,384 slots. Held in an array buffer, off the heap of
 * objects.
 */
export class ListTable {
  words: Uint32Array
  count = 0
  private numbers: Map<string, number> | undefined

  constructor(capacity = 64) {
    this.words = new Uint32Array(capacity * listWords)
  }

  /** The same lists by the same numbers, to add others to. */
  copy(): ListTable {
    const copy = new ListTable(this.count + 16)
    copy.words.set(this.words.subarray(0, this.count * listWords))
    copy.count = this.count
    return copy
  }

  /** The number of the list of these nodes. */
  intern(nodes: ArrayLike<number>, count = nodes.length): number {
    assert(count <= replicasMax, "a list has seven nodes at most")
    this.numbers ??= new Map(
      Array.from({ length: this.count }, (_, i) => [this.nodesOf(i).join(), i]),
    )
    newList[0] = count
    for (let i = 0; i < count; i++) newList[i + 1] = nodes[i]
    const name = newList.subarray(1, count + 1).join()
    const known = this.numbers.get(name)
    if (known !== undefined) return known
    if ((this.count + 1) * listWords > this.words.length) {
      const larger = new Uint32Array(this.words.length * 2)
      larger.set(this.words)
      this.words = larger
    }
    this.words.set(newList.subarray(0, count + 1), this.count * listWords)
    this.numbers.set(name, this.count)
    return this.count++
  }

  size(list: number): number {
    return this.words[list * listWords]
  }

  node(list: number, rank: number): NodeId {
    return this.words[list * listWords + 1 + rank]
  }

  /** Where a node is in a list, from 0, or -1. */
  rankOf(list: number, node: NodeId): number {
    const start = list * listWords + 1
    const size = this.words[start - 1]
    for (let rank = 0; rank < size; rank++) if (this.words[start + rank] === node) return rank
    return -1
  }

  nodesOf(list: number): ReadonlyArray<NodeId> {
    const start = list * listWords + 1
    return [...this.words.subarray(start, start + this.words[start - 1])]
  }
}

/** A preference list for every slot. */
export interface Placement {
  readonly lists: ListTable
  /** List number by slot. */
  readonly of: Uint16Array
}

/** Where the members' tokens place the slots. It needs a member with tokens. */
export function placementOf(members: ReadonlyArray<RingMember>, strategy: Strategy): Placement {
  const tokens = tokenTable(members)
  assert(tokens.slots.length > 0, "somebody has tokens")
  const walk = new PreferenceWalk(members, strategy)
  const arcs = preferenceLists(tokens, walk)
  const lists = new ListTable()
  const numbers = Uint16Array.from(tokens.slots, (_, arc) => {
    const indexes = arcs.subarray(arc * walk.depth, (arc + 1) * walk.depth)
    assert(!indexes.includes(noMember), "a placed member has tokens")
    return lists.intern([...indexes].map((index) => members[index].node))
  })
  const of = new Uint16Array(slotCount)
  for (let slot: Slot = 0; slot < slotCount; slot++) of[slot] = numbers[arcOf(tokens.slots, slot)]
  return { lists, of }
}
