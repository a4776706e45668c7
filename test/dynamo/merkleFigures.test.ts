import { describe, expect, test } from "bun:test"
import { answerQuestion, MerkleExchange } from "../../src/dynamo/merkleExchange.ts"
import { MerkleHash } from "../../src/dynamo/merkleHash.ts"
import { MerkleTree } from "../../src/dynamo/merkleTree.ts"
import { MerkleView } from "../../src/dynamo/merkleView.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { storeU32 } from "../../src/lib/littleEndian.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"

const keyCount = 1_000_000

/** Key number i of a replica. Mixed, since a checksum deals numbered keys out to the slots more evenly than chance would. */
const key = new Uint8Array(16).fill(0x6b)
function keyOf(i: number): Uint8Array {
  const mixed = Math.imul(i ^ (i >>> 15), 0x2c1b3c6d)
  storeU32(key, 8, Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39) >>> 7)
  storeU32(key, 12, i)
  return key
}

/** Key numbers in order of slot: those of slot s are from starts[s] to starts[s + 1]. */
function keysBySlot() {
  const slots = Uint16Array.from({ length: keyCount }, (_, i) => slotOf(keyOf(i)))
  const starts = new Uint32Array(slotCount + 1)
  for (const slot of slots) starts[slot + 1]++
  for (let slot = 0; slot < slotCount; slot++) starts[slot + 1] += starts[slot]
  const next = starts.slice()
  const keys = new Uint32Array(keyCount)
  for (let i = 0; i < keyCount; i++) keys[next[slots[i]]++] = i
  return { keys, starts }
}

const { keys, starts } = keysBySlot()

/** A replica of all keys, some of which were written once more here. */
class LargeReplica {
  readonly tree: MerkleTree = new MerkleTree()
  readonly view: MerkleView
  private readonly hash = new MerkleHash()
  private readonly rewritten = new Set<number>()

  constructor() {
    for (let slot = 0; slot < slotCount; slot++) {
      for (let at = starts[slot]; at < starts[slot + 1]; at++) {
        this.tree.insert(slot, this.hashOf(keys[at]))
      }
    }
    this.view = new MerkleView(this.tree, (slot, visit) => {
      for (let at = starts[slot]; at < starts[slot + 1]; at++) {
        const { keyLow, keyHigh, low, high } = this.hashOf(keys[at])
        visit({ keyLow, keyHigh, low, high })
      }
    })
  }

  private hashOf(i: number): MerkleHash {
    this.hash.begin(keyOf(i))
    this.hash.dot(2 ** 32 + 1, this.rewritten.has(i) ? keyCount + i : i + 1)
    return this.hash
  }

  rewrite(i: number): void {
    const slot = slotOf(keyOf(i))
    this.tree.remove(slot, this.hashOf(i))
    this.rewritten.add(i)
    this.tree.insert(slot, this.hashOf(i))
  }

  grow(): void {
    for (let slot = 0; slot < slotCount; slot++) {
      if (this.tree.wantedBits(slot) === this.tree.leafBits(slot)) continue
      const rebuild = this.tree.beginRebuild(slot)
      for (let at = starts[slot]; at < starts[slot + 1]; at++) {
        rebuild?.insert(this.hashOf(keys[at]))
      }
      if (rebuild !== undefined) expect(this.tree.finishRebuild(rebuild)).toBe("same")
    }
  }
}

/** Compares all slots in 128 runs, as many as a ring of few nodes has. */
function compare(here: LargeReplica, there: LargeReplica) {
  const runs = Array.from({ length: 128 }, (_, i) => ({ start: 128 * i, slots: 128 }))
  const exchange = new MerkleExchange(here.view, runs)
  const writer = new ByteWriter()
  const result = { bytes: 0, questions: 0, found: 0 }
  while (exchange.ask(writer)) {
    const question = writer.take()
    answerQuestion(there.view, question, writer)
    const answer = writer.take()
    exchange.take(answer)
    result.bytes += question.length + answer.length
    result.questions++
    result.found += exchange.takeDifferences().length
  }
  return result
}

describe("two replicas of 1,000,000 keys", () => {
  test("exchange 2 KiB when equal, and less than 256 KiB to find 100 keys that differ", () => {
    const here = new LargeReplica()
    const there = new LargeReplica()
    const equal = compare(here, there)
    expect(equal.found).toBe(0)
    expect(equal.bytes).toBeLessThan(2048)
    here.grow()
    for (let i = 0; i < 100; i++) there.rewrite(i * 9973)
    const unequal = compare(here, there)
    expect(unequal.found).toBe(100)
    expect(unequal.questions).toBeLessThan(12)
    expect(unequal.bytes).toBeLessThan(256 * 1024)
    expect(here.tree.sizeBytes).toBeLessThan(4 * 1024 * 1024)
  })
})
