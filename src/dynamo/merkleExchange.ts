import { assert } from "../lib/assert.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { Slot } from "../types.ts"
import {
  childrenOf,
  comparePairs,
  type MerkleNode,
  nodesPerQuestion,
  type Pair,
  readAnswers,
  readQuestion,
  type Sum,
  sameSum,
  writeAnswers,
  writeQuestion,
} from "./merkleMessages.ts"
import type { MerkleView } from "./merkleView.ts"

/** Consecutive slots that both replicas hold. */
export interface SlotRun {
  readonly start: Slot
  readonly slots: number
}

/** A key, by its hash, that the two replicas hold different live dots of, or only one of them any. */
export interface KeyDifference {
  readonly slot: Slot
  readonly keyLow: number
  readonly keyHigh: number
  readonly isHere: boolean
  readonly isThere: boolean
}

/**
 * Finds the keys in which two replicas differ, level by level (Dynamo 4.7). This side asks and the other only answers (`answerQuestion`), so that the
 * other remembers nothing, and either may go away at any time. The first questions hold the sums of the runs alone: between equal replicas nothing else moves.
 * Then one question after another about the parts that differ, the deepest first, so that what waits is no more than a few levels wide.
 *
 * Both go on taking writes meanwhile. A key that was written on one of them between two sums may be reported without need, or missed until the next time;
 * merging it does no harm. Whether a run that was found equal may count for a slot clock is for the caller to say, who knows what state the sums are of.
 */
export class MerkleExchange {
  /** Slots of which a part has too many keys with one hash to list: their keys have to be exchanged one by one. */
  readonly crowdedSlots: Set<Slot> = new Set()
  private readonly view: MerkleView
  /** Parts to ask about, the next at the end. */
  private readonly waiting: Array<MerkleNode>
  private asked: ReadonlyArray<MerkleNode> | undefined
  private found: Array<KeyDifference> = []

  constructor(view: MerkleView, runs: ReadonlyArray<SlotRun>) {
    this.view = view
    this.waiting = runs.map(({ start, slots }) => ({ start, slots, bits: 0, prefix: 0 })).reverse()
  }

  /** All runs have been compared to the end. */
  get isDone(): boolean {
    return this.waiting.length === 0 && this.asked === undefined
  }

  /** Writes the next question and returns true; false when there is none, or one is not answered yet. */
  ask(writer: ByteWriter): boolean {
    if (this.waiting.length === 0 || this.asked !== undefined) return false
    const nodes = this.waiting.splice(-nodesPerQuestion).reverse()
    this.asked = nodes
    this.view.load(nodes, () => false)
    const asked = nodes.map((node) => ({ node, sum: this.view.sumOf(node) }))
    this.view.release()
    writeQuestion(writer, asked)
    return true
  }

  /** Takes the answer to the question asked last. Throws `MalformedBytes`; the question then stays unanswered. */
  take(bytes: Uint8Array): void {
    const { asked } = this
    assert(asked !== undefined, "an answer follows a question")
    const answers = readAnswers(bytes, asked)
    this.asked = undefined
    this.view.load(asked, (i) => {
      const { _tag } = answers[i]
      return _tag === "pairs" || (_tag === "children" && this.view.isBelowLeaves(asked[i]))
    })
    // In reverse, so that the first slots are on top of what waits.
    for (let i = asked.length - 1; i >= 0; i--) {
      const node = asked[i]
      const answer = answers[i]
      switch (answer._tag) {
        case "same":
          break
        case "children":
          this.descend(node, answer.sums)
          break
        case "pairs":
          this.compare(node, answer.pairs)
          break
        case "crowded":
          this.crowdedSlots.add(node.start)
          break
        default:
          answer satisfies never
      }
    }
    this.view.release()
  }

  /** What was found since the last time. */
  takeDifferences(): ReadonlyArray<KeyDifference> {
    const { found } = this
    this.found = []
    return found
  }

  private descend(node: MerkleNode, sums: ReadonlyArray<Sum>): void {
    const own = this.view.sumsOfChildren(node)
    const children = childrenOf(node)
    for (let i = children.length - 1; i >= 0; i--) {
      if (!sameSum(own[i], sums[i])) this.waiting.push(children[i])
    }
  }

  /** Both lists are in order of key hash. */
  private compare(node: MerkleNode, there: ReadonlyArray<Pair>): void {
    const here = this.view.pairsOf(node)
    let i = 0
    let j = 0
    while (i < here.length || j < there.length) {
      let order = 0
      if (i === here.length) order = 1
      else if (j === there.length) order = -1
      else order = comparePairs(here[i], there[j])
      const isHere = order <= 0
      const isThere = order >= 0
      const { keyLow, keyHigh } = isHere ? here[i] : there[j]
      if (order !== 0 || !sameSum(here[i], there[j])) {
        this.found.push({ slot: node.start, keyLow, keyHigh, isHere, isThere })
      }
      if (isHere) i++
      if (isThere) j++
    }
  }
}

/** The other side: answers a question of `MerkleExchange`. Throws `MalformedBytes`. */
export function answerQuestion(view: MerkleView, question: Uint8Array, writer: ByteWriter): void {
  const asked = readQuestion(question)
  const nodes = asked.map(({ node }) => node)
  view.load(nodes, (i) => view.isListed(nodes[i]) && !sameSum(view.sumOf(nodes[i]), asked[i].sum))
  const answers = asked.map(({ node, sum }) => view.answer(node, sum))
  view.release()
  writeAnswers(writer, answers)
}
