import {
  answerQuestion,
  type KeyDifference,
  MerkleExchange,
} from "../../src/dynamo/merkleExchange.ts"
import { MerkleHash } from "../../src/dynamo/merkleHash.ts"
import type { Pair } from "../../src/dynamo/merkleMessages.ts"
import { MerkleTree } from "../../src/dynamo/merkleTree.ts"
import { MerkleView } from "../../src/dynamo/merkleView.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"
import type { Slot } from "../../src/types.ts"

/** Some dots of a key, as actor and counter in turn. */
export type Dots = ReadonlyArray<number>

export function hashInto(hash: MerkleHash, key: Uint8Array, dots: Dots): MerkleHash {
  hash.begin(key)
  for (let i = 0; i < dots.length; i += 2) hash.dot(dots[i], dots[i + 1])
  return hash
}

/** Keys with their live dots, and the tree of them, kept as a node keeps it: the old pair out, the new one in. */
export class MerkleReplica {
  readonly tree: MerkleTree = new MerkleTree()
  readonly view: MerkleView
  readonly slots: Map<Slot, Map<string, Dots>> = new Map()
  /** Slots read from the data, for the cost of a comparison. */
  reads = 0
  private readonly hash = new MerkleHash()

  constructor() {
    this.view = new MerkleView(this.tree, (slot, visit) => this.visit(slot, visit))
  }

  set(key: string, dots: Dots, slot: Slot = slotOf(utf8(key))): void {
    const bytes = utf8(key)
    const keys = this.slots.get(slot) ?? new Map<string, Dots>()
    this.slots.set(slot, keys)
    const old = keys.get(key) ?? []
    if (old.length > 0) this.tree.remove(slot, hashInto(this.hash, bytes, old))
    if (dots.length > 0) this.tree.insert(slot, hashInto(this.hash, bytes, dots))
    if (dots.length > 0) keys.set(key, dots)
    else keys.delete(key)
  }

  dotsOf(key: string, slot: Slot = slotOf(utf8(key))): Dots {
    return this.slots.get(slot)?.get(key) ?? []
  }

  private visit(slot: Slot, visit: (pair: Pair) => void): void {
    this.reads++
    for (const [key, dots] of this.slots.get(slot) ?? []) {
      const { keyLow, keyHigh, low, high } = hashInto(this.hash, utf8(key), dots)
      visit({ keyLow, keyHigh, low, high })
    }
  }

  /** Gives every slot the leaves that it wants. */
  grow(): void {
    for (let slot = 0; slot < slotCount; slot++) {
      if (this.tree.wantedBits(slot) !== this.tree.leafBits(slot)) this.rebuild(slot)
    }
  }

  rebuild(slot: Slot, bits = this.tree.wantedBits(slot)): string {
    const rebuild = this.tree.beginRebuild(slot, bits)
    if (rebuild === undefined) return "busy"
    for (const [key, dots] of this.slots.get(slot) ?? []) {
      rebuild.insert(hashInto(this.hash, utf8(key), dots))
    }
    return this.tree.finishRebuild(rebuild)
  }

  /** Slot and key hash of a key, as a difference names them. */
  nameOf(key: string, slot: Slot = slotOf(utf8(key))): string {
    this.hash.begin(utf8(key))
    return `${slot}/${this.hash.keyHigh}/${this.hash.keyLow}`
  }
}

export function nameOfDifference({ slot, keyHigh, keyLow }: KeyDifference): string {
  return `${slot}/${keyHigh}/${keyLow}`
}

/** Compares two replicas to the end. */
export function compare(
  here: MerkleReplica,
  there: MerkleReplica,
  runs = [{ start: 0, slots: slotCount }],
) {
  const exchange = new MerkleExchange(here.view, runs)
  const differences: Array<KeyDifference> = []
  const question = new ByteWriter()
  const answer = new ByteWriter()
  let bytes = 0
  let questions = 0
  while (exchange.ask(question)) {
    const asked = question.take()
    answerQuestion(there.view, asked, answer)
    const answered = answer.take()
    exchange.take(answered)
    bytes += asked.length + answered.length
    questions++
    differences.push(...exchange.takeDifferences())
  }
  return { differences, bytes, questions, isDone: exchange.isDone, crowded: exchange.crowdedSlots }
}
