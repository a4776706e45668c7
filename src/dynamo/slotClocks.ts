import { assert } from "../lib/assert.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId, Slot } from "../types.ts"
import { type Actor, epochOf, nodeOf, writeActor } from "./dot.ts"
import { clockFormat, type SeenDots, SlotClock } from "./slotClock.ts"

/**
 * The clocks of many slots, 96 bytes each in one array off the JavaScript heap. A clock without gaps is a few pairs of
 * numbers: (actor, base), and (-node, epoch) for a node of which every dot of an epoch below that is seen. A clock with gaps,
 * or with more pairs than fit, is a `SlotClock` of its own until the gaps have closed.
 */
const pairsMax = 6
const cellNumbers = 2 * pairsMax

export class SlotClocks {
  private readonly cells: Float64Array
  /** The clocks that do not fit a cell. */
  private readonly grown = new Map<Slot, SlotClock>()
  private readonly view: SlotClockView

  constructor(slots: number) {
    this.cells = new Float64Array(slots * cellNumbers)
    this.view = new SlotClockView(this)
  }

  /** How many clocks stand on the heap at present. */
  get grownCount(): number {
    return this.grown.size
  }

  get sizeBytes(): number {
    return this.cells.byteLength
  }

  /** The clock of a slot for `mergeStates` and `addDots`: one view, until the next call. */
  of(slot: Slot): SlotClockView {
    this.view.slot = slot
    return this.view
  }

  contains(slot: Slot, actor: Actor, counter: number): boolean {
    const at = this.find(slot, actor)
    if (at >= 0) return counter <= this.cells[at + 1]
    const grown = this.grown.size === 0 ? undefined : this.grown.get(slot)
    return grown === undefined ? this.hasEndedIn(slot, actor) : grown.contains(actor, counter)
  }

  /** As `SlotClock.add`. */
  add(slot: Slot, actor: Actor, counter: number): boolean {
    const at = this.find(slot, actor)
    if (at >= 0) {
      const base = this.cells[at + 1]
      if (counter <= base) return true
      if (counter === base + 1) {
        this.cells[at + 1] = counter
        return true
      }
    }
    const clock = this.grown.get(slot) ?? this.copy(slot)
    const added = clock.add(actor, counter)
    this.set(slot, clock)
    return added
  }

  /** Nothing was ever seen of the slot. */
  isEmpty(slot: Slot): boolean {
    return this.cells[slot * cellNumbers] === 0 && !this.grown.has(slot)
  }

  /** The counter that `mint` would give. */
  next(slot: Slot, actor: Actor): number {
    const at = this.find(slot, actor)
    if (at >= 0) return this.cells[at + 1] + 1
    return (this.grown.get(slot)?.baseOf(actor) ?? 0) + 1
  }

  /** Whether the clock has dots of an actor beyond a gap. */
  hasGaps(slot: Slot, actor: Actor): boolean {
    const grown = this.grown.get(slot)
    return grown !== undefined && grown.highest(actor) > grown.baseOf(actor)
  }

  /** As `SlotClock.mint`. */
  mint(slot: Slot, actor: Actor): number {
    const at = this.find(slot, actor)
    if (at >= 0) return ++this.cells[at + 1]
    const clock = this.grown.get(slot) ?? this.copy(slot)
    const counter = clock.mint(actor)
    this.set(slot, clock)
    return counter
  }

  /** The clock of a slot as an object of its own: to write, send, adopt and compare. */
  copy(slot: Slot): SlotClock {
    const clock = new SlotClock()
    const grown = this.grown.get(slot)
    if (grown !== undefined) {
      clock.adopt(grown)
      return clock
    }
    const start = slot * cellNumbers
    for (let at = start; at < start + cellNumbers && this.cells[at] !== 0; at += 2) {
      const key = this.cells[at]
      if (key > 0) clock.closeLost(key, this.cells[at + 1])
      else clock.endBelow(-key, this.cells[at + 1], new Map())
    }
    return clock
  }

  /** The bytes of a slot's clock, as `SlotClock.write` has them. */
  write(slot: Slot, out: ByteWriter): void {
    const grown = this.grown.get(slot)
    if (grown !== undefined) return grown.write(out)
    const { cells } = this
    const start = slot * cellNumbers
    let actors = 0
    let ended = 0
    for (let at = start; at < start + cellNumbers && cells[at] !== 0; at += 2) {
      if (cells[at] < 0) ended++
      else if (cells[at + 1] > 0) actors++
    }
    out.u8(clockFormat)
    out.varint(ended)
    for (let at = start; ended > 0 && at < start + cellNumbers && cells[at] !== 0; at += 2) {
      if (cells[at] > 0) continue
      out.varint(-cells[at])
      out.varint(cells[at + 1])
    }
    out.varint(actors)
    for (let at = start; at < start + cellNumbers && cells[at] !== 0; at += 2) {
      if (cells[at] < 0 || cells[at + 1] === 0) continue
      writeActor(out, cells[at])
      out.varint(cells[at + 1])
      out.varint(0)
    }
  }

  /** Makes `clock` the clock of a slot, which may go on living here: the caller lets go of it. */
  set(slot: Slot, clock: SlotClock): void {
    const start = slot * cellNumbers
    assert(start + cellNumbers <= this.cells.length, () => `there is no slot ${slot}`)
    this.cells.fill(0, start, start + cellNumbers)
    this.grown.delete(slot)
    if (!this.fits(clock)) {
      this.grown.set(slot, clock)
      return
    }
    let at = start
    const pair = (key: number, value: number) => {
      this.cells[at++] = key
      this.cells[at++] = value
    }
    clock.forEach(pair, (node, epoch) => pair(-node, epoch))
  }

  private fits(clock: SlotClock): boolean {
    if (!clock.hasNoGaps) return false
    let pairs = 0
    const count = () => {
      pairs++
    }
    clock.forEach(count, count)
    return pairs <= pairsMax
  }

  /** Where the pair of an actor is in the cell of a slot, or -1. */
  private find(slot: Slot, actor: Actor): number {
    const { cells } = this
    const start = slot * cellNumbers
    for (let at = start; at < start + cellNumbers; at += 2) {
      if (cells[at] === actor) return at
      if (cells[at] === 0) return -1
    }
    return -1
  }

  /** Actors that have an entry of their own, in order. */
  actors(slot: Slot): ReadonlyArray<Actor> {
    const found: Array<Actor> = []
    const take = (actor: Actor) => {
      found.push(actor)
    }
    const grown = this.grown.get(slot)
    if (grown !== undefined) grown.forEach(take, () => {})
    else {
      const start = slot * cellNumbers
      for (let at = start; at < start + cellNumbers && this.cells[at] !== 0; at += 2) {
        if (this.cells[at] > 0) found.push(this.cells[at])
      }
    }
    return found
  }

  /** As `SlotClock.hasEnded`. */
  hasEnded(slot: Slot, actor: Actor): boolean {
    return this.grown.get(slot)?.hasEnded(actor) ?? this.hasEndedIn(slot, actor)
  }

  private hasEndedIn(slot: Slot, actor: Actor): boolean {
    const node: NodeId = nodeOf(actor)
    const at = this.find(slot, -node)
    return at >= 0 && epochOf(actor) < this.cells[at + 1]
  }
}

/** One slot's clock in the table. */
export class SlotClockView implements SeenDots {
  slot: Slot = 0
  private readonly clocks: SlotClocks

  constructor(clocks: SlotClocks) {
    this.clocks = clocks
  }

  contains(actor: Actor, counter: number): boolean {
    return this.clocks.contains(this.slot, actor, counter)
  }

  hasEnded(actor: Actor): boolean {
    return this.clocks.hasEnded(this.slot, actor)
  }

  add(actor: Actor, counter: number): boolean {
    return this.clocks.add(this.slot, actor, counter)
  }
}
