import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import { slotCount } from "../../lib/slot.ts"
import type { Slot } from "../../types.ts"
import { MerkleHash } from "../merkleHash.ts"
import { MerkleTree } from "../merkleTree.ts"
import { SlotClock } from "../slotClock.ts"
import { SlotClocks } from "../slotClocks.ts"
import { slotsPerRun } from "./keys.ts"

/**
 * What an owner keeps of every slot of a namespace beside its keys: the clock, the tree, the epoch in which it owns the slot. In memory, off the heap; written as one record
 * a run of slots whenever the memtable is sealed in which the run's keys have changed, so that on disk they are exactly as old as the keys (DESIGN section 3). Stored: do not
 * change.
 *
 *     run  := format u8 = 1 ‖ slot for each of its slots
 *     slot := 2 * epoch varint, of which nothing was ever held | 2 * epoch + 1 varint ‖ length varint ‖ SlotClock ‖ length varint ‖ MerkleTree.saveSlot
 */
const format = 1
const runs = slotCount / slotsPerRun
const part = new ByteWriter(512)
const hash = new MerkleHash()

export class SlotTables {
  readonly clocks: SlotClocks = new SlotClocks(slotCount)
  readonly tree: MerkleTree = new MerkleTree()
  /** Epoch in which this node owns the slot; 0 = it does not. */
  readonly epochs: Uint32Array = new Uint32Array(slotCount)
  /** Mark of the slot's last change. */
  readonly marks: Float64Array = new Float64Array(slotCount)
  private readonly dirty: Uint8Array = new Uint8Array(runs)
  /** Low and high half of each slot's digest, where it is known. */
  private readonly digests: Int32Array = new Int32Array(2 * slotCount)
  private readonly hasDigest: Uint8Array = new Uint8Array(slotCount)
  private readonly sum = { low: 0, high: 0 }

  /** Called after each change of a slot, of its keys, clock or epoch. */
  changed(slot: Slot, mark: number): void {
    this.marks[slot] = mark
    this.hasDigest[slot] = 0
    this.dirty[(slot / slotsPerRun) | 0] = 1
  }

  get sizeBytes(): number {
    const { clocks, tree, epochs, marks, digests, hasDigest } = this
    const own = epochs.byteLength + marks.byteLength + digests.byteLength + hasDigest.byteLength
    return clocks.sizeBytes + tree.sizeBytes + own
  }

  /** Nothing was ever held of the slot, or all of it was forgotten. */
  isEmpty(slot: Slot): boolean {
    return this.clocks.isEmpty(slot) && this.tree.count(slot) === 0
  }

  /** A hash of the slot's live values and its clock; the same object again and again. Sent: do not change. */
  digest(slot: Slot): { readonly low: number; readonly high: number } {
    const { sum, digests, tree } = this
    if (this.hasDigest[slot] === 0) {
      tree.sumOfSlots(slot, 1)
      part.reset()
      part.u16(slot)
      part.u32(tree.sum.low)
      part.u32(tree.sum.high)
      this.clocks.write(slot, part)
      hash.begin(part.bytes())
      digests[2 * slot] = hash.keyLow
      digests[2 * slot + 1] = hash.keyHigh
      this.hasDigest[slot] = 1
    }
    sum.low = digests[2 * slot]
    sum.high = digests[2 * slot + 1]
    return sum
  }

  /** First slots of the runs that have changed since the last call. */
  takeDirty(): ReadonlyArray<Slot> {
    const found: Array<Slot> = []
    for (let run = 0; run < runs; run++) if (this.dirty[run] === 1) found.push(run * slotsPerRun)
    this.dirty.fill(0)
    return found
  }

  /** About as many bytes as the records of the runs that have changed. */
  get dirtyBytes(): number {
    let count = 0
    for (let run = 0; run < runs; run++) count += this.dirty[run]
    return count * 512
  }

  writeRun(start: Slot, out: ByteWriter): void {
    out.u8(format)
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      const isEmpty = this.isEmpty(slot)
      out.varint(2 * this.epochs[slot] + (isEmpty ? 0 : 1))
      if (isEmpty) continue
      part.reset()
      this.clocks.write(slot, part)
      out.varint(part.length)
      out.raw(part.bytes())
      part.reset()
      this.tree.saveSlot(slot, part)
      out.varint(part.length)
      out.raw(part.bytes())
    }
  }

  /** Throws `MalformedBytes`. */
  readRun(start: Slot, bytes: Uint8Array): void {
    const reader = new ByteReader(bytes)
    const found = reader.u8()
    if (found !== format) throw new MalformedBytes(`slot tables of format ${found}`)
    for (let slot = start; slot < start + slotsPerRun; slot++) {
      const head = reader.varint()
      this.epochs[slot] = Math.floor(head / 2)
      if (head % 2 === 0) continue
      const clock = new ByteReader(reader.raw(reader.varint()))
      this.clocks.set(slot, SlotClock.read(clock))
      clock.end()
      this.tree.loadSlot(slot, reader.raw(reader.varint()))
    }
    reader.end()
  }
}
