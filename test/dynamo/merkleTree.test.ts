import { describe, expect, test } from "bun:test"
import { MerkleHash } from "../../src/dynamo/merkleHash.ts"
import { MerkleTree } from "../../src/dynamo/merkleTree.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { type Dots, hashInto, MerkleReplica } from "./merkleWorld.ts"

/** Slots that the keys of these tests are put into, by hand: few, so that they fill up. */
const slots = [0, 5, 16383]

function randomDots(prng: Prng): Dots {
  const count = prng.chance(0.2) ? 0 : prng.int(1, 3)
  return Array.from({ length: 2 * count }, (_, i) =>
    i % 2 === 0 ? prng.int(1, 3) * 2 ** 32 + prng.int(1, 2) : prng.int(1, 50),
  )
}

function sumsOf(tree: MerkleTree): ReadonlyArray<unknown> {
  return slots.map((slot) => {
    tree.sumOfSlots(slot, 1)
    return [tree.sum.low, tree.sum.high, tree.count(slot)]
  })
}

function saved(tree: MerkleTree, slot: number): Uint8Array {
  const writer = new ByteWriter()
  tree.saveSlot(slot, writer)
  return writer.take()
}

/** A replica after a random history, with rebuilds on the way. */
function randomReplica(prng: Prng, writes: number): MerkleReplica {
  const replica = new MerkleReplica()
  for (let i = 0; i < writes; i++) {
    const slot = prng.pick(slots)
    replica.set(`key${prng.int(1, 200)}`, randomDots(prng), slot)
    if (prng.chance(0.01)) expect(replica.rebuild(slot, 4 * prng.int(0, 2))).toBe("same")
  }
  return replica
}

describe("a tree", () => {
  test("depends on what the keys are, not on how they came to be so", () => {
    const prng = new Prng(1)
    for (let i = 0; i < 10; i++) {
      const replica = randomReplica(prng, 1000)
      const again = new MerkleReplica()
      const all = slots.flatMap((slot) =>
        [...(replica.slots.get(slot) ?? [])].map(([key, dots]) => ({ slot, key, dots })),
      )
      for (const { slot, key, dots } of prng.shuffle(all)) again.set(key, dots, slot)
      expect(sumsOf(again.tree)).toEqual([...sumsOf(replica.tree)])
      for (const slot of slots) {
        again.rebuild(slot, replica.tree.leafBits(slot))
        expect(saved(again.tree, slot)).toEqual(saved(replica.tree, slot))
      }
    }
  })

  test("of other dots, another key, the same dots in other keys, is another", () => {
    const hash = new MerkleHash()
    const seen = new Set<string>()
    let made = 0
    for (let key = 0; key < 300; key++) {
      for (let counter = 1; counter <= 100; counter++) {
        const { low, high } = hashInto(hash, utf8(`user:${key}`), [2 ** 32 + 1, counter])
        seen.add(`${low} ${high}`)
        made++
      }
    }
    for (const dots of [
      [1, 2, 3, 4],
      [3, 4, 1, 2],
      [1, 2],
      [2 ** 32, 2],
      [1, 2 + 2 ** 32],
    ]) {
      const { low, high } = hashInto(hash, utf8("a"), dots)
      seen.add(`${low} ${high}`)
      made++
    }
    expect(seen.size).toBe(made)
  })

  test("a key's hash is of all its bytes, wherever they lie", () => {
    const hash = new MerkleHash()
    const seen = new Set<string>()
    for (let length = 0; length <= 9; length++) {
      const bytes = new Uint8Array(length + 4).fill(7)
      hash.begin(bytes, 2, 2 + length)
      const name = `${hash.keyLow} ${hash.keyHigh}`
      hash.begin(new Uint8Array(length).fill(7))
      expect(`${hash.keyLow} ${hash.keyHigh}`).toBe(name)
      seen.add(name)
    }
    hash.begin(utf8("abc\0"))
    seen.add(`${hash.keyLow} ${hash.keyHigh}`)
    hash.begin(utf8("abc"))
    seen.add(`${hash.keyLow} ${hash.keyHigh}`)
    expect(seen.size).toBe(12)
  })

  test("spreads keys evenly over leaves, and sums of leaves over both lanes", () => {
    const hash = new MerkleHash()
    const leaves = new Float64Array(256)
    const bits = new Float64Array(64)
    for (let i = 0; i < 25_600; i++) {
      hashInto(hash, utf8(`user:${i}`), [2 ** 32 + 1, i + 1])
      leaves[hash.keyHigh >>> 24]++
      for (let bit = 0; bit < 32; bit++) {
        bits[bit] += (hash.low >>> bit) & 1
        bits[32 + bit] += (hash.high >>> bit) & 1
      }
    }
    expect(Math.max(...leaves)).toBeLessThan(150)
    expect(Math.min(...leaves)).toBeGreaterThan(60)
    for (const count of bits) expect(Math.abs(count / 25_600 - 0.5)).toBeLessThan(0.02)
  })

  test("is the same after it was saved and loaded, and goes on from there", () => {
    const prng = new Prng(2)
    const replica = randomReplica(prng, 1500)
    const loaded = new MerkleTree()
    for (const slot of slots) loaded.loadSlot(slot, saved(replica.tree, slot))
    expect(sumsOf(loaded)).toEqual([...sumsOf(replica.tree)])
    const hash = hashInto(new MerkleHash(), utf8("new"), [5, 6])
    for (const tree of [loaded, replica.tree]) tree.insert(5, hash)
    for (const slot of slots) expect(saved(loaded, slot)).toEqual(saved(replica.tree, slot))
  })

  test("does not load what was not saved", () => {
    const replica = randomReplica(new Prng(3), 300)
    const good = saved(replica.tree, 5)
    const tree = new MerkleTree()
    const badFormat = good.slice()
    badFormat[0] = 9
    const badBits = good.slice()
    badBits[1] = 3
    for (const bytes of [badFormat, badBits, good.subarray(1), good.subarray(0, -1)]) {
      expect(() => tree.loadSlot(5, bytes)).toThrow(MalformedBytes)
    }
  })

  test("counts what is written during a rebuild in the old leaves and the new", () => {
    const replica = new MerkleReplica()
    for (let i = 0; i < 100; i++) replica.set(`key${i}`, [1, i + 1], 5)
    const before = [...(replica.slots.get(5) ?? [])]
    const rebuild = replica.tree.beginRebuild(5)
    if (rebuild === undefined) throw new Error("no rebuild")
    expect(replica.tree.beginRebuild(0)).toBeUndefined()
    replica.set("key7", [], 5)
    replica.set("key8", [1, 900], 5)
    replica.set("key100", [1, 901], 5)
    replica.set("key100", [1, 902], 0)
    for (const [key, dots] of before) rebuild.insert(hashInto(new MerkleHash(), utf8(key), dots))
    expect(replica.tree.finishRebuild(rebuild)).toBe("same")
    expect(replica.tree.leafBits(5)).toBeGreaterThan(0)
    expect(replica.rebuild(5)).toBe("same")
  })

  test("AP pitfall 15: a rebuild finds a tree that has drifted from the data, and puts it right", () => {
    const replica = randomReplica(new Prng(4), 300)
    replica.tree.insert(0, hashInto(new MerkleHash(), utf8("nobody"), [1, 1]))
    expect(replica.rebuild(0)).toBe("drifted")
    expect(replica.rebuild(0)).toBe("same")
  })

  test("a slot gets leaves when it has grown sixteenfold, and loses them when it has shrunk", () => {
    const replica = new MerkleReplica()
    const rebuilds: Array<number> = []
    const check = (count: number) => {
      if (replica.tree.wantedBits(5) === replica.tree.leafBits(5)) return
      replica.rebuild(5)
      rebuilds.push(count)
    }
    for (let i = 0; i < 4000; i++) {
      replica.set(`key${i}`, [1, i + 1], 5)
      check(i + 1)
    }
    expect(rebuilds).toEqual([65, 1025])
    for (let i = 0; i < 4000; i++) {
      replica.set(`key${i}`, [], 5)
      check(3999 - i)
    }
    expect(rebuilds).toEqual([65, 1025, 512, 32])
    expect(replica.tree.leafBits(5)).toBe(0)
    expect([...saved(replica.tree, 5)]).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  })

  test("a slot that is forgotten is empty, and a rebuild of it comes to nothing", () => {
    const replica = randomReplica(new Prng(5), 300)
    const rebuild = replica.tree.beginRebuild(5)
    replica.tree.forget(5)
    if (rebuild === undefined) throw new Error("no rebuild")
    expect(replica.tree.finishRebuild(rebuild)).toBe("gone")
    expect(sumsOf(replica.tree)[1]).toEqual([0, 0, 0])
  })
})
