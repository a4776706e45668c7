import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { slotCount } from "../lib/slot.ts"
import type { Slot } from "../types.ts"

/**
 * The two messages by which trees are compared. Sent: do not change. Numbers without a width are varints.
 *
 *     question := format u8 = 1 ‖ count ‖ (node ‖ sum)*
 *     answer   := format u8 = 1 ‖ one for each node asked about, in order:
 *                   0 (the same) | 1 ‖ sum of each child | 2 ‖ count ‖ pair* | 3 (too many to list)
 *     node     := start ‖ slots, and of a single slot: bits u8 ‖ prefix
 *     sum      := low u32 ‖ high u32        pair := keyLow u32 ‖ keyHigh u32 ‖ low u32 ‖ high u32, little-endian
 */
export interface MerkleNode {
  readonly start: Slot
  readonly slots: number
  /** The pairs of a single slot whose key hash begins with these bits; all of them for 0 bits. */
  readonly bits: number
  readonly prefix: number
}

export interface Sum {
  readonly low: number
  readonly high: number
}

export interface Pair {
  readonly keyLow: number
  readonly keyHigh: number
  readonly low: number
  readonly high: number
}

/** What the other replica says of a node. Pairs are in order of key hash, one for each hash. */
export type MerkleAnswer =
  | { readonly _tag: "same" }
  | { readonly _tag: "children"; readonly sums: ReadonlyArray<Sum> }
  | { readonly _tag: "pairs"; readonly pairs: ReadonlyArray<Pair> }
  | { readonly _tag: "crowded" }

const format = 1
/** Children of a node, and the bits that tell those of a part of a slot apart. */
const fanOut = 16
const fanOutBits = 4
export const prefixBitsMax = 32
/** Nodes in a question at most. */
export const nodesPerQuestion = 256
/** A node of no more pairs is answered with them. */
export const pairsListed = 64
/** Pairs listed of a node that has no children: so many key hashes with the same 32 bits were made to collide. */
export const pairsListedMax = 1024
/** Of an answer to a question as full as it gets. */
export const answerBytesMax: number = 16 + nodesPerQuestion * (4 + 16 * pairsListedMax)

export function sameSum(left: Sum, right: Sum): boolean {
  return left.low === right.low && left.high === right.high
}

/** The parts of a node, which cover it: sixteen runs of slots, or the parts of a slot by the next four bits. */
export function childrenOf({ start, slots, bits, prefix }: MerkleNode): ReadonlyArray<MerkleNode> {
  if (slots > 1) {
    const size = Math.ceil(slots / fanOut)
    return Array.from({ length: Math.ceil(slots / size) }, (_, i) => ({
      start: start + i * size,
      slots: Math.min(size, slots - i * size),
      bits: 0,
      prefix: 0,
    }))
  }
  assert(bits < prefixBitsMax, "a key's hash has no more bits")
  return Array.from({ length: fanOut }, (_, i) => ({
    start,
    slots,
    bits: bits + fanOutBits,
    prefix: prefix * fanOut + i,
  }))
}

/** The part of a slot that a key's hash lies in. */
export function prefixOf(keyHigh: number, bits: number): number {
  return bits === 0 ? 0 : keyHigh >>> (32 - bits)
}

export function writeQuestion(
  writer: ByteWriter,
  asked: ReadonlyArray<{ readonly node: MerkleNode; readonly sum: Sum }>,
): void {
  assert(asked.length <= nodesPerQuestion, "a question has a limit")
  writer.u8(format)
  writer.varint(asked.length)
  for (const { node, sum } of asked) {
    writer.varint(node.start)
    writer.varint(node.slots)
    if (node.slots === 1) {
      writer.u8(node.bits)
      writer.varint(node.prefix)
    }
    writeSum(writer, sum)
  }
}

/** Throws `MalformedBytes`. */
export function readQuestion(
  bytes: Uint8Array,
): ReadonlyArray<{ readonly node: MerkleNode; readonly sum: Sum }> {
  const reader = opened(bytes)
  const count = reader.varint()
  if (count > nodesPerQuestion) throw new MalformedBytes(`a question about ${count} nodes`)
  const asked = Array.from({ length: count }, () => {
    const start = reader.varint()
    const slots = reader.varint()
    const isWhole = slots >= 1 && start + slots <= slotCount
    if (!isWhole) throw new MalformedBytes(`${slots} slots from ${start}`)
    const bits = slots === 1 ? reader.u8() : 0
    const prefix = slots === 1 ? reader.varint() : 0
    if (bits > prefixBitsMax || bits % fanOutBits !== 0 || prefix >= 2 ** bits) {
      throw new MalformedBytes(`prefix ${prefix} of ${bits} bits`)
    }
    return { node: { start, slots, bits, prefix }, sum: readSum(reader) }
  })
  reader.end()
  return asked
}

export function writeAnswers(writer: ByteWriter, answers: ReadonlyArray<MerkleAnswer>): void {
  writer.u8(format)
  for (const answer of answers) {
    switch (answer._tag) {
      case "same":
        writer.u8(0)
        break
      case "children":
        writer.u8(1)
        for (const sum of answer.sums) writeSum(writer, sum)
        break
      case "pairs":
        writer.u8(2)
        writer.varint(answer.pairs.length)
        for (const pair of answer.pairs) {
          writer.u32(pair.keyLow)
          writer.u32(pair.keyHigh)
          writeSum(writer, pair)
        }
        break
      case "crowded":
        writer.u8(3)
        break
      default:
        answer satisfies never
    }
  }
}

/** The answers to a question about these nodes. Throws `MalformedBytes`. */
export function readAnswers(
  bytes: Uint8Array,
  asked: ReadonlyArray<MerkleNode>,
): ReadonlyArray<MerkleAnswer> {
  const reader = opened(bytes)
  const answers = asked.map((node): MerkleAnswer => {
    const kind = reader.u8()
    if (kind === 0) return { _tag: "same" }
    if (kind === 1 && node.bits < prefixBitsMax) {
      return { _tag: "children", sums: childrenOf(node).map(() => readSum(reader)) }
    }
    if (kind === 2) return { _tag: "pairs", pairs: readPairs(reader, node) }
    if (kind === 3 && node.slots === 1) return { _tag: "crowded" }
    throw new MalformedBytes(`answer of kind ${kind}`)
  })
  reader.end()
  return answers
}

function readPairs(reader: ByteReader, node: MerkleNode): ReadonlyArray<Pair> {
  const count = reader.varint()
  if (count > pairsListedMax || (count > 0 && node.slots > 1)) {
    throw new MalformedBytes(`${count} pairs of a node`)
  }
  let last: Pair | undefined
  return Array.from({ length: count }, () => {
    const pair = { keyLow: reader.u32(), keyHigh: reader.u32(), ...readSum(reader) }
    if (prefixOf(pair.keyHigh, node.bits) !== node.prefix) {
      throw new MalformedBytes("a pair of another node")
    }
    if (last !== undefined && comparePairs(last, pair) >= 0) {
      throw new MalformedBytes("pairs out of order")
    }
    last = pair
    return pair
  })
}

/** By the hash of their keys. */
export function comparePairs(left: Pair, right: Pair): number {
  return left.keyHigh - right.keyHigh || left.keyLow - right.keyLow
}

function writeSum(writer: ByteWriter, sum: Sum): void {
  writer.u32(sum.low)
  writer.u32(sum.high)
}

function readSum(reader: ByteReader): Sum {
  const low = reader.u32()
  return { low, high: reader.u32() }
}

function opened(bytes: Uint8Array): ByteReader {
  const reader = new ByteReader(bytes)
  const found = reader.u8()
  if (found !== format) throw new MalformedBytes(`trees compared by format ${found}`)
  return reader
}
