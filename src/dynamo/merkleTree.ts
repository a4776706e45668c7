import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { slotCount } from "../lib/slot.ts"
import type { Slot } from "../types.ts"
import { LeafPool } from "./leafPool.ts"
import type { MerkleHash } from "./merkleHash.ts"

/**
 * The Merkle trees of one eventual namespace on one node, over all its slots (DESIGN section 4, "Repair").
 *
 * A key with live dots counts as one *pair*, of a hash of the key and a hash of the key with its dots (`merkleHash.ts`). A leaf is the sum of the hashes of its
 * pairs, lane by lane modulo 2^32, and so is every node above it: the sum of a slot, and of any run of slots. That it is a sum makes three things simple. A pair is
 * added or taken away without reading others, in any order. A run has no tree of its own: whatever way a ring change cuts the slots, the sum of a
 * run is that of its slots. And trees with different numbers of leaves compare, since the sums of two leaves make that of the leaf before it was split.
 *
 * Below its slot a pair lies in the leaf that the first bits of its key's hash say. A slot has one leaf at first, and more when it has more keys: `wantedBits`
 * says when, and a rebuild, which reads the slot's keys once, makes them. Writes go on meanwhile and count in both: the sums do not mind the order.
 * A rebuild that ends with another sum than the slot has shows that the two have drifted apart, and the new one is right.
 *
 * Invariants: a slot's sum is that of its leaves (asserted after load and rebuild); its count is that of its pairs. The caller inserts every pair once and
 * removes it with the very hash that it had, in the same step in which the memtable takes the write, and saves every slot that was touched in the
 * flush of that memtable (`saveSlot`), so that a tree on disk is as old as the data; what came later is replayed. Since a pair goes as it came, a hash must not
 * depend on when it is made: a value past its time counts until the delete that its expiry is has been applied.
 */
export class MerkleTree {
  /** Two lanes for each slot. */
  private readonly sums: Uint32Array = new Uint32Array(2 * slotCount)
  private readonly counts: Uint32Array = new Uint32Array(slotCount)
  /** A slot has 2^bits leaves; with 0 bits its sum is the only one. */
  private readonly bits: Uint8Array = new Uint8Array(slotCount)
  private readonly starts: Uint32Array = new Uint32Array(slotCount)
  private readonly pool: LeafPool = new LeafPool()
  private rebuild: SlotRebuild | undefined
  /** A result of two numbers without an object. */
  readonly sum: { low: number; high: number } = { low: 0, high: 0 }

  /** Of the arrays, whatever is in them: 224 KiB and the leaves. */
  get sizeBytes(): number {
    const { sums, counts, bits, starts, pool } = this
    const fixed = sums.byteLength + counts.byteLength + bits.byteLength + starts.byteLength
    return fixed + pool.sizeBytes
  }

  insert(slot: Slot, hash: MerkleHash): void {
    assert(hash.dots > 0, "a key without live dots is not in the tree")
    this.counts[slot]++
    this.add(slot, hash.keyHigh, hash.low, hash.high)
    if (this.rebuild?.slot === slot) this.rebuild.insert(hash)
  }

  remove(slot: Slot, hash: MerkleHash): void {
    assert(hash.dots > 0, "a key without live dots is not in the tree")
    assert(this.counts[slot] > 0, () => `slot ${slot} has a pair to remove`)
    this.counts[slot]--
    this.add(slot, hash.keyHigh, -hash.low, -hash.high)
    if (this.rebuild?.slot === slot) this.rebuild.remove(hash)
  }

  private add(slot: Slot, keyHigh: number, low: number, high: number): void {
    this.sums[2 * slot] += low
    this.sums[2 * slot + 1] += high
    const bits = this.bits[slot]
    if (bits === 0) return
    const at = this.starts[slot] + 2 * (keyHigh >>> (32 - bits))
    this.pool.words[at] += low
    this.pool.words[at + 1] += high
  }

  /** Pairs in a slot. */
  count(slot: Slot): number {
    return this.counts[slot]
  }

  leafBits(slot: Slot): number {
    return this.bits[slot]
  }

  /** Puts the sum of `slots` slots from `start` into `sum`. */
  sumOfSlots(start: Slot, slots: number): void {
    let low = 0
    let high = 0
    for (let slot = start; slot < start + slots; slot++) {
      low = (low + this.sums[2 * slot]) | 0
      high = (high + this.sums[2 * slot + 1]) | 0
    }
    this.sum.low = low >>> 0
    this.sum.high = high >>> 0
  }

  /** Puts into `sum` the sum of the pairs of a slot whose key hash begins with these bits, no more than the slot has. */
  sumOfPrefix(slot: Slot, bits: number, prefix: number): void {
    const own = this.bits[slot]
    assert(bits <= own, () => `${bits} bits of ${own}`)
    if (own === 0) {
      this.sumOfSlots(slot, 1)
      return
    }
    const leaves = 2 ** (own - bits)
    let low = 0
    let high = 0
    for (let leaf = prefix * leaves; leaf < (prefix + 1) * leaves; leaf++) {
      low = (low + this.pool.words[this.starts[slot] + 2 * leaf]) | 0
      high = (high + this.pool.words[this.starts[slot] + 2 * leaf + 1]) | 0
    }
    this.sum.low = low >>> 0
    this.sum.high = high >>> 0
  }

  /** Empties a slot, which is not held any more or is to be filled anew. A rebuild of it ends. */
  forget(slot: Slot): void {
    this.install(slot, 0, 0)
    this.sums.fill(0, 2 * slot, 2 * slot + 2)
    this.counts[slot] = 0
    if (this.rebuild?.slot === slot) this.rebuild = undefined
  }

  /** How many bits of leaves a slot of so many pairs ought to have; what it has, while that will do. */
  wantedBits(slot: Slot): number {
    const count = this.counts[slot]
    let bits = 0
    while (bits < leafBitsMax && 2 ** bits * pairsPerLeafMax < count) bits += leafBitsStep
    // A slot about the border does not come and go.
    const isLittleLess = bits < this.bits[slot] && 2 ** bits * pairsPerLeafMax < 2 * count
    return isLittleLess ? bits + leafBitsStep : bits
  }

  /**
   * Begins to build the leaves of a slot anew. The caller then adds every pair that the slot had at this moment to what it gets, over as many turns as it likes, and ends with
   * `finishRebuild`. One slot at a time: `undefined` while another is under way.
   */
  beginRebuild(slot: Slot, bits = this.wantedBits(slot)): SlotRebuild | undefined {
    if (this.rebuild !== undefined) return undefined
    assert(isLeafBits(bits), () => `${bits} bits of leaves`)
    this.rebuild = new SlotRebuild(slot, bits)
    return this.rebuild
  }

  /** Takes the new leaves over, and says whether they bear out the sum and count that the slot had. `gone`: the slot was forgotten meanwhile. */
  finishRebuild(rebuild: SlotRebuild): "same" | "drifted" | "gone" {
    if (this.rebuild !== rebuild) return "gone"
    this.rebuild = undefined
    const { slot, bits, leaves } = rebuild
    const start = this.install(slot, bits, rebuild.pieceBits)
    if (bits > 0) this.pool.words.set(leaves, start)
    const count = rebuild.count
    const [low, high] = laneSums(leaves)
    const { sums, counts } = this
    const isSame = sums[2 * slot] === low && sums[2 * slot + 1] === high && counts[slot] === count
    sums[2 * slot] = low
    sums[2 * slot + 1] = high
    counts[slot] = count
    return isSame ? "same" : "drifted"
  }

  cancelRebuild(rebuild: SlotRebuild): void {
    if (this.rebuild === rebuild) this.rebuild = undefined
  }

  /** Gives a slot another number of leaves, unset, and returns where they are. */
  private install(slot: Slot, bits: number, pieceBits: number): number {
    if (this.bits[slot] > 0) this.pool.give(this.starts[slot], pieceBitsOf(this.bits[slot]))
    this.bits[slot] = bits
    this.starts[slot] = bits === 0 ? 0 : this.pool.take(pieceBits)
    return this.starts[slot]
  }

  /**
   * A slot as bytes, to be saved under a key of its range. Stored: do not change.
   *
   *     slot := format u8 = 1 ‖ bits u8 ‖ pairs varint ‖ (low u32 ‖ high u32) for each of the 2^bits leaves, little-endian
   */
  saveSlot(slot: Slot, writer: ByteWriter): void {
    writer.u8(savedFormat)
    writer.u8(this.bits[slot])
    writer.varint(this.counts[slot])
    const bits = this.bits[slot]
    const words = bits === 0 ? this.sums : this.pool.words
    const start = bits === 0 ? 2 * slot : this.starts[slot]
    for (let i = start; i < start + 2 * 2 ** bits; i++) writer.u32(words[i])
  }

  /** Puts a saved slot in the place of what is here. Throws `MalformedBytes`. */
  loadSlot(slot: Slot, bytes: Uint8Array): void {
    const reader = new ByteReader(bytes)
    const format = reader.u8()
    if (format !== savedFormat) throw new MalformedBytes(`tree of format ${format}`)
    const bits = reader.u8()
    if (!isLeafBits(bits)) throw new MalformedBytes(`${bits} bits of leaves`)
    const count = reader.varint()
    if (count >= 2 ** 32) throw new MalformedBytes(`${count} pairs in a slot`)
    const width = 2 * 2 ** bits
    if (reader.remaining !== 4 * width) {
      throw new MalformedBytes(`${reader.remaining} bytes of leaves for ${bits} bits`)
    }
    this.forget(slot)
    const leaves = Uint32Array.from({ length: width }, () => reader.u32())
    const [low, high] = laneSums(leaves)
    this.sums[2 * slot] = low
    this.sums[2 * slot + 1] = high
    this.counts[slot] = count
    if (bits > 0) this.pool.words.set(leaves, this.install(slot, bits, pieceBitsOf(bits)))
  }
}

const savedFormat = 1
/** Pairs of a leaf above which a slot gets sixteen times as many leaves. A rebuild reads the whole slot, so it should be rare. */
const pairsPerLeafMax = 64
/** As many as a comparison goes down at a time. */
const leafBitsStep = 4
/** A slot with more than four million keys (a hash tag that all of them share) has fuller leaves. */
const leafBitsMax = 16

function isLeafBits(bits: number): boolean {
  return bits >= 0 && bits <= leafBitsMax && bits % leafBitsStep === 0
}

/** Of two words for each leaf. */
function pieceBitsOf(bits: number): number {
  return bits + 1
}

function laneSums(leaves: Uint32Array): readonly [low: number, high: number] {
  let low = 0
  let high = 0
  for (let i = 0; i < leaves.length; i += 2) {
    low = (low + leaves[i]) | 0
    high = (high + leaves[i + 1]) | 0
  }
  return [low >>> 0, high >>> 0]
}

/** The leaves of a slot while they are being built. */
export class SlotRebuild {
  readonly slot: Slot
  readonly bits: number
  readonly leaves: Uint32Array
  readonly pieceBits: number
  count = 0

  constructor(slot: Slot, bits: number) {
    this.slot = slot
    this.bits = bits
    this.pieceBits = pieceBitsOf(bits)
    this.leaves = new Uint32Array(2 * 2 ** bits)
  }

  /** A pair that was in the slot when the rebuild began, or has come since. */
  insert(hash: MerkleHash): void {
    this.count++
    const at = this.indexOf(hash.keyHigh)
    this.leaves[at] += hash.low
    this.leaves[at + 1] += hash.high
  }

  /** A pair that has gone since. The count may be below 0 for a while. */
  remove(hash: MerkleHash): void {
    this.count--
    const at = this.indexOf(hash.keyHigh)
    this.leaves[at] -= hash.low
    this.leaves[at + 1] -= hash.high
  }

  private indexOf(keyHigh: number): number {
    return this.bits === 0 ? 0 : 2 * (keyHigh >>> (32 - this.bits))
  }
}
