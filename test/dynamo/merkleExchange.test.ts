import { describe, expect, test } from "bun:test"
import {
  answerQuestion,
  type KeyDifference,
  MerkleExchange,
} from "../../src/dynamo/merkleExchange.ts"
import { MerkleHash } from "../../src/dynamo/merkleHash.ts"
import {
  answerBytesMax,
  childrenOf,
  type Pair,
  readAnswers,
  readQuestion,
  writeAnswers,
} from "../../src/dynamo/merkleMessages.ts"
import { MerkleTree } from "../../src/dynamo/merkleTree.ts"
import { MerkleView } from "../../src/dynamo/merkleView.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { slotCount } from "../../src/lib/slot.ts"
import { compare, MerkleReplica, nameOfDifference } from "./merkleWorld.ts"

/** Two replicas with the same keys. */
function twins(keys: number, keyOf = (i: number) => `user:${i}`) {
  const here = new MerkleReplica()
  const there = new MerkleReplica()
  for (let i = 0; i < keys; i++) {
    for (const replica of [here, there]) replica.set(keyOf(i), [2 ** 32 + 1, i + 1])
  }
  return { here, there }
}

describe("a comparison of two replicas", () => {
  test("finds the keys that differ, all of them and no other, whatever the leaves of either", () => {
    const prng = new Prng(1)
    for (let round = 0; round < 12; round++) {
      const isCrowded = round % 3 === 0
      const keyOf = (i: number) => (isCrowded ? `{tag${i % 3}}:${i}` : `user:${i}`)
      const { here, there } = twins(3000, keyOf)
      if (prng.chance(0.7)) here.grow()
      if (prng.chance(0.3)) there.grow()
      const expected = new Map<string, string>()
      for (let j = prng.int(0, 60); j > 0; j--) {
        const i = prng.int(0, 3100)
        const key = keyOf(i)
        const replica = prng.pick([here, there])
        replica.set(key, prng.chance(0.4) ? [] : [2 ** 32 + 1, 5000 + j])
        const isHere = here.dotsOf(key).length > 0
        const isThere = there.dotsOf(key).length > 0
        const isSame = here.dotsOf(key).join() === there.dotsOf(key).join()
        if (isSame) expected.delete(here.nameOf(key))
        else expected.set(here.nameOf(key), `${isHere} ${isThere}`)
      }
      const { differences, isDone } = compare(here, there)
      const found = differences.map((each) => [
        nameOfDifference(each),
        `${each.isHere} ${each.isThere}`,
      ])
      expect(isDone).toBe(true)
      expect(found.toSorted()).toEqual([...expected].toSorted())
      // Seen from the other side the same.
      expect(compare(there, here).differences).toHaveLength(differences.length)
    }
  })

  test("moves nothing but the sums of the runs where nothing differs", () => {
    const { here, there } = twins(2000)
    there.grow()
    const runs = Array.from({ length: 128 }, (_, i) => ({ start: i * 128, slots: 128 }))
    const { differences, bytes, questions } = compare(here, there, runs)
    expect(differences).toEqual([])
    expect(questions).toBe(1)
    expect(bytes).toBeLessThan(128 * 14)
  })

  test("keeps to the runs that it was given", () => {
    const { here, there } = twins(500)
    there.set("user:7", [1, 1])
    const slot = Number(here.nameOf("user:7").split("/")[0])
    const [before, after] = [
      { start: 0, slots: slot },
      { start: slot + 1, slots: slotCount - slot - 1 },
    ]
    expect(compare(here, there, [before, after]).differences).toEqual([])
    expect(compare(here, there, [{ start: slot, slots: 1 }]).differences).toHaveLength(1)
  })

  test("of a replica with nothing finds everything, in questions and answers of limited size", () => {
    const { here } = twins(3000)
    const { differences, isDone } = compare(here, new MerkleReplica())
    expect(differences).toHaveLength(3000)
    expect(isDone).toBe(true)
    expect(differences.every(({ isHere, isThere }) => isHere && !isThere)).toBe(true)
    expect(compare(new MerkleReplica(), here).differences).toHaveLength(3000)
  })

  test("reads a slot that is crowded once a question, not once a leaf", () => {
    const { here, there } = twins(4000, (i) => `{tag}:${i}`)
    here.grow()
    there.grow()
    for (let i = 0; i < 4000; i += 100) there.set(`{tag}:${i}`, [1, 1])
    const { differences, questions } = compare(here, there)
    expect(differences).toHaveLength(40)
    expect(there.reads).toBeLessThanOrEqual(questions)
    expect(here.reads).toBeLessThanOrEqual(questions)
  })

  test("goes on while both are written, and ends; a second one finds the rest", () => {
    const prng = new Prng(6)
    const { here, there } = twins(2000)
    for (let i = 0; i < 50; i++) there.set(`user:${prng.int(0, 1999)}`, [9, i + 1])
    const exchange = new MerkleExchange(here.view, [{ start: 0, slots: slotCount }])
    const writer = new ByteWriter()
    let counter = 1000
    while (exchange.ask(writer)) {
      const question = writer.take()
      for (const replica of [here, there]) {
        replica.set(`user:${prng.int(0, 1999)}`, [8, counter++])
      }
      answerQuestion(there.view, question, writer)
      const answer = writer.take()
      here.set(`user:${prng.int(0, 1999)}`, [8, counter++])
      exchange.take(answer)
    }
    expect(exchange.isDone).toBe(true)
    const differing = Array.from({ length: 2000 }, (_, i) => `user:${i}`).filter(
      (key) => here.dotsOf(key).join() !== there.dotsOf(key).join(),
    )
    const found = compare(here, there).differences.map(nameOfDifference).toSorted()
    expect(found).toEqual(differing.map((key) => here.nameOf(key)).toSorted())
  })

  test("the parts of any node cover it and nothing twice", () => {
    for (const slots of [1, 2, 15, 16, 17, 33, 100, 1000, slotCount]) {
      if (slots === 1) continue
      let next = 3
      const children = childrenOf({ start: 3, slots, bits: 0, prefix: 0 })
      for (const child of children) {
        expect(child.start).toBe(next)
        next += child.slots
      }
      expect(next).toBe(3 + slots)
      expect(children.length).toBeLessThanOrEqual(16)
    }
    const parts = childrenOf({ start: 3, slots: 1, bits: 4, prefix: 5 })
    expect(parts.map(({ prefix }) => prefix)).toEqual(Array.from({ length: 16 }, (_, i) => 80 + i))
  })

  test("keys of one hash count as one, and too many of nearly one are named by their slot", () => {
    const sides = [0, 1].map((side) => {
      const tree = new MerkleTree()
      const pairs: Array<Pair> = []
      const add = (slot: number, pair: Pair) => {
        tree.insert(slot, Object.assign(new MerkleHash(), { ...pair, dots: 1 }))
        if (slot === 9) pairs.push(pair)
      }
      // In slot 9 three keys of the same hash, the last of them another on either side; in slot 10 more than an answer lists.
      for (const low of [1, 2, 3 + side]) add(9, { keyHigh: 7, keyLow: 8, low, high: 1 })
      const many = Array.from({ length: 1100 }, (_, keyLow) => {
        return { keyHigh: 7, keyLow, low: keyLow === 5 ? side : keyLow, high: 1 }
      })
      for (const pair of many) add(10, pair)
      return new MerkleView(tree, (slot, visit) => {
        for (const pair of slot === 9 ? pairs : slot === 10 ? many : []) visit(pair)
      })
    })
    const exchange = new MerkleExchange(sides[0], [{ start: 0, slots: 100 }])
    const writer = new ByteWriter()
    const found: Array<KeyDifference> = []
    while (exchange.ask(writer)) {
      const question = writer.take()
      answerQuestion(sides[1], question, writer)
      exchange.take(writer.take())
      found.push(...exchange.takeDifferences())
    }
    expect(found).toEqual([{ slot: 9, keyHigh: 7, keyLow: 8, isHere: true, isThere: true }])
    expect([...exchange.crowdedSlots]).toEqual([10])
  })

  test("pairs of an answer are in order, each once, and of the node", () => {
    const node = { start: 4, slots: 1, bits: 4, prefix: 1 }
    const pair = { keyHigh: 0x10000000, keyLow: 2, low: 3, high: 4 }
    const answerOf = (...pairs: ReadonlyArray<Pair>) => {
      const writer = new ByteWriter()
      writeAnswers(writer, [{ _tag: "pairs", pairs }])
      return () => readAnswers(writer.take(), [node])
    }
    expect(answerOf(pair, { ...pair, keyLow: 3 })()).toHaveLength(1)
    expect(answerOf(pair, pair)).toThrow("out of order")
    expect(answerOf(pair, { ...pair, keyLow: 1 })).toThrow("out of order")
    expect(answerOf({ ...pair, keyHigh: 0x20000000 })).toThrow("another node")
  })

  test("bytes that are no question or answer are refused by name", () => {
    const prng = new Prng(7)
    const { here, there } = twins(800)
    there.set("user:3", [1, 1])
    const exchange = new MerkleExchange(here.view, [{ start: 0, slots: slotCount }])
    const writer = new ByteWriter()
    exchange.ask(writer)
    const question = writer.take()
    answerQuestion(there.view, question, writer)
    const answer = writer.take()
    const nodes = readQuestion(question).map(({ node }) => node)
    expect(answer.length).toBeLessThan(answerBytesMax)
    for (let i = 0; i < 400; i++) {
      for (const bytes of [question.slice(), answer.slice()]) {
        bytes[prng.int(0, bytes.length - 1)] = prng.int(0, 255)
        const cut = prng.chance(0.3) ? bytes.subarray(0, prng.int(0, bytes.length)) : bytes
        try {
          if (prng.chance(0.5)) readQuestion(cut)
          else readAnswers(cut, nodes)
        } catch (error) {
          expect(error).toBeInstanceOf(MalformedBytes)
        }
      }
    }
    expect(() => exchange.take(question)).toThrow(MalformedBytes)
    exchange.take(answer)
    expect(exchange.isDone).toBe(false)
  })
})
