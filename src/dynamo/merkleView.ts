import type { Slot } from "../types.ts"
import {
  childrenOf,
  comparePairs,
  type MerkleAnswer,
  type MerkleNode,
  type Pair,
  pairsListed,
  pairsListedMax,
  prefixBitsMax,
  prefixOf,
  type Sum,
  sameSum,
} from "./merkleMessages.ts"
import type { MerkleTree } from "./merkleTree.ts"

/** Reads the pairs of a slot out of the data, by the state that the tree has: what the memtable has taken, the tree has. */
export type PairReader = (slot: Slot, visit: (pair: Pair) => void) => void

/** A replica's side of a comparison: sums of any node, from the tree where its leaves reach, from the data below them. */
export class MerkleView {
  private readonly tree: MerkleTree
  private readonly readPairs: PairReader
  /** The pairs of parts of slots, for as long as a question is worked on. */
  private readonly loaded: Map<number, ReadonlyArray<Pair>> = new Map()

  constructor(tree: MerkleTree, readPairs: PairReader) {
    this.tree = tree
    this.readPairs = readPairs
  }

  /**
   * Reads what is about to be asked of parts of slots below the leaves, each slot once, however many of its parts are among them: a slot may have a million keys.
   * `isListed` names the nodes whose pairs are wanted in any case. Followed by `release`.
   */
  load(nodes: ReadonlyArray<MerkleNode>, isListed: (index: number) => boolean): void {
    const bySlot = new Map<Slot, Map<number, Array<Pair>>>()
    for (const [i, node] of nodes.entries()) {
      if (node.slots > 1) continue
      if (node.bits <= this.tree.leafBits(node.start) && !isListed(i)) continue
      const parts = bySlot.get(node.start) ?? new Map<number, Array<Pair>>()
      bySlot.set(node.start, parts.set(nameOf(node.bits, node.prefix), []))
    }
    for (const [slot, parts] of bySlot) {
      const widths = [...new Set([...parts.keys()].map((name) => Math.floor(name / 2 ** 32)))]
      this.readPairs(slot, (pair) => {
        for (const bits of widths) parts.get(nameOf(bits, prefixOf(pair.keyHigh, bits)))?.push(pair)
      })
      for (const [name, pairs] of parts) this.loaded.set(slotName(slot, name), summed(pairs))
    }
  }

  release(): void {
    this.loaded.clear()
  }

  sumOf(node: MerkleNode): Sum {
    const { tree } = this
    if (node.slots > 1 || node.bits === 0) tree.sumOfSlots(node.start, node.slots)
    else if (node.bits <= tree.leafBits(node.start)) {
      tree.sumOfPrefix(node.start, node.bits, node.prefix)
    } else return totalOf(this.pairsOf(node))
    return { low: tree.sum.low, high: tree.sum.high }
  }

  /** The sums of all children. Below the leaves the slot is read once for them. */
  sumsOfChildren(node: MerkleNode): ReadonlyArray<Sum> {
    const children = childrenOf(node)
    if (this.isBelowLeaves(node)) return this.sumsAmong(this.pairsOf(node), children)
    return children.map((child) => this.sumOf(child))
  }

  private sumsAmong(
    pairs: ReadonlyArray<Pair>,
    children: ReadonlyArray<MerkleNode>,
  ): ReadonlyArray<Sum> {
    const parts = children.map((): Array<Pair> => [])
    const first = children[0]
    for (const pair of pairs) parts[prefixOf(pair.keyHigh, first.bits) - first.prefix].push(pair)
    return parts.map(totalOf)
  }

  /** The pairs of a part of a slot, in order of key hash; pairs of equal key hashes are added up. */
  pairsOf(node: MerkleNode): ReadonlyArray<Pair> {
    const loaded = this.loaded.get(slotName(node.start, nameOf(node.bits, node.prefix)))
    if (loaded !== undefined) return loaded
    const found: Array<Pair> = []
    this.readPairs(node.start, (pair) => {
      if (prefixOf(pair.keyHigh, node.bits) === node.prefix) found.push(pair)
    })
    return summed(found)
  }

  /** Whether the children of a node are to be had from the data only. */
  isBelowLeaves(node: MerkleNode): boolean {
    return node.slots === 1 && node.bits >= this.tree.leafBits(node.start)
  }

  /** Whether a node of another sum would be answered with pairs, for all that the tree says. */
  isListed(node: MerkleNode): boolean {
    const { tree } = this
    if (node.slots > 1) return false
    if (this.isBelowLeaves(node)) return true
    return tree.count(node.start) / 2 ** node.bits <= pairsListed
  }

  /** What to say to a replica that has this sum for the node. It changes nothing here. */
  answer(node: MerkleNode, sum: Sum): MerkleAnswer {
    if (sameSum(this.sumOf(node), sum)) return { _tag: "same" }
    if (node.slots > 1) return { _tag: "children", sums: this.sumsOfChildren(node) }
    if (!this.isListed(node)) return { _tag: "children", sums: this.sumsOfChildren(node) }
    const pairs = this.pairsOf(node)
    if (pairs.length <= pairsListed) return { _tag: "pairs", pairs }
    if (node.bits < prefixBitsMax) {
      return { _tag: "children", sums: this.sumsAmong(pairs, childrenOf(node)) }
    }
    return pairs.length <= pairsListedMax ? { _tag: "pairs", pairs } : { _tag: "crowded" }
  }
}

function totalOf(pairs: ReadonlyArray<Sum>): Sum {
  let low = 0
  let high = 0
  for (const pair of pairs) {
    low = (low + pair.low) | 0
    high = (high + pair.high) | 0
  }
  return { low: low >>> 0, high: high >>> 0 }
}

/** A part of a slot by number. */
function nameOf(bits: number, prefix: number): number {
  return bits * 2 ** 32 + prefix
}

/** A part of some slot by number, below 2^52. */
function slotName(slot: Slot, name: number): number {
  return slot * 2 ** 38 + name
}

/** In order of key hash, one for each. Sorts its argument. */
function summed(found: Array<Pair>): ReadonlyArray<Pair> {
  found.sort(comparePairs)
  const pairs: Array<Pair> = []
  for (const pair of found) {
    const last = pairs[pairs.length - 1]
    if (last === undefined || comparePairs(last, pair) !== 0) pairs.push(pair)
    else pairs[pairs.length - 1] = { ...last, ...totalOf([last, pair]) }
  }
  return pairs
}
