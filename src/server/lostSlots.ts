import { StorageCorruption } from "../disk/disk.ts"
import {
  keyKinds,
  namespaceOfKey,
  slotOfKey,
  slotPrefixBytes,
  slotsPerRun,
} from "../dynamo/node/keys.ts"
import { slotCount } from "../lib/slot.ts"
import type { Engine } from "../lsm/engine.ts"
import type { Slot } from "../types.ts"
import { lostSlotsKey } from "./engineKeys.ts"

const format = 1
/** format u8 ‖ 1 when hints may be lost, else 0 ‖ a bit for each slot. Stored: do not change. */
const sizeBytes = 2 + slotCount / 8

interface Interval {
  readonly lower: Uint8Array
  readonly upper: Uint8Array
}

/**
 * Which slots of the eventual half have lost data on this node, and are not refilled yet (dynamo/node/refills.ts). Kept in another tree than the data, and so in other
 * tables. Not logged: what has to be known is flushed before anything is let go of (eventualHalf.ts), and a slot that has become whole is one again after a crash.
 */
export class LostSlots {
  readonly slots = new Set<Slot>()
  /** Hints may be lost, too. */
  hints = false
  private readonly engine: Engine

  /** As it was kept. What cannot be read counts as everything. */
  constructor(engine: Engine) {
    this.engine = engine
    let stored: Uint8Array | undefined
    try {
      stored = engine.get(lostSlotsKey)
    } catch (error) {
      if (!(error instanceof StorageCorruption)) throw error
      this.addAll()
    }
    if (stored === undefined) return
    if (stored.length !== sizeBytes || stored[0] !== format) {
      this.addAll()
      return
    }
    this.hints = stored[1] === 1
    for (let slot = 0; slot < slotCount; slot++) {
      if ((stored[2 + (slot >> 3)] >> (slot & 7)) & 1) this.slots.add(slot)
    }
  }

  get isEmpty(): boolean {
    return this.slots.size === 0 && !this.hints
  }

  addAll(): void {
    this.hints = true
    for (let slot = 0; slot < slotCount; slot++) this.slots.add(slot)
  }

  /** All that may lie in an interval of keys. */
  addInterval(interval: Interval): void {
    const ofKind = (kind: number) => clipped(interval, kind)
    // Notes are few, and say how far the log is applied.
    if (ofKind(keyKinds.note) !== undefined) return this.addAll()
    if (ofKind(keyKinds.hint) !== undefined || ofKind(keyKinds.tenure) !== undefined) {
      this.hints = true
    }
    this.addPlaces(ofKind(keyKinds.tables), slotsPerRun)
    this.addPlaces(ofKind(keyKinds.data), 1)
  }

  /** `slots`: that one place of a key stands for. */
  private addPlaces(interval: Partial<Interval> | undefined, slots: number): void {
    if (interval === undefined) return
    const { lower, upper } = interval
    const hasBoth = lower !== undefined && upper !== undefined
    const isOne = hasBoth && namespaceOfKey(lower) === namespaceOfKey(upper)
    const first = isOne ? slotOfKey(lower) * slots : 0
    const end = isOne ? Math.min(slotCount, (slotOfKey(upper) + 1) * slots) : slotCount
    for (let slot = first; slot < end; slot++) this.slots.add(slot)
  }

  /** Puts it into the memtable. */
  keep(): void {
    const bytes = new Uint8Array(sizeBytes)
    bytes[0] = format
    bytes[1] = this.hints ? 1 : 0
    for (const slot of this.slots) bytes[2 + (slot >> 3)] |= 1 << (slot & 7)
    this.engine.put(lostSlotsKey, bytes)
  }
}

/** The part of an interval that has keys of a kind; an end that lies outside of them is absent. `undefined`: there is no such part. */
function clipped({ lower, upper }: Interval, kind: number): Partial<Interval> | undefined {
  const [first, last] = [kindOf(lower), kindOf(upper)]
  const isBefore = lower[0] < upper[0] ? false : last < kind || (last === kind && upper.length <= 2)
  if (first > kind || isBefore) return undefined
  const isWhole = (key: Uint8Array) => key.length >= slotPrefixBytes
  return {
    ...(first === kind && isWhole(lower) ? { lower } : {}),
    ...(last === kind && lower[0] === upper[0] && isWhole(upper) ? { upper } : {}),
  }
}

function kindOf(key: Uint8Array): number {
  return key.length < 2 ? 0 : key[1]
}
