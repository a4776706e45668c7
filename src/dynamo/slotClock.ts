import { assert } from "../lib/assert.ts"
import { type ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId } from "../types.ts"
import { type Actor, actorOf, describeDot, epochOf, nodeOf, readActor, writeActor } from "./dot.ts"

/**
 * What an owner of a slot has seen of it: for each actor a base, below which nothing is missing, and the runs of counters
 * seen above it; the gaps lie between. (Gonçalves et al., "Concise server-wide causality management", 2015)
 *
 * It grows in two ways only. By the dots of values and deletes merged here (`add`, and `mint` for this node's own). And at
 * the end of a complete exchange of the slot with another owner by that owner's clock as it stood in the snapshot
 * exchanged (`adopt`), when every value and delete that it covers is durable here; a broken exchange adds nothing. The
 * hand-over that ends a tenure is such an exchange: the stand-in's clock has its own dots, those it wrote over too. A
 * context is never added: it speaks of one key, and would swallow the dots of all others below its numbers.
 *
 * A dot inside the clock that is not held here was here and is gone, or was gone where the clock came from: it is
 * obsolete, whoever brings it. So the clock takes the place of all deletes that were reaped. For the same reason it is never
 * reset while the node owns the slot, and a node that lost the slot's data begins with an empty clock and a new epoch.
 *
 * When an epoch has ended, and everybody has all of it, its entry becomes part of one number per node: every dot of an epoch
 * below it is seen (`endBelow`). The last dots of a node that lost its data may have reached nobody; once nothing of that
 * epoch is on its way the owners close the gaps by agreement (`closeLost`).
 *
 *     clock = format u8 (1) ‖ nodes varint ‖ (node varint ‖ first epoch not seen in full varint)*
 *             ‖ actors varint ‖ (actor ‖ base varint ‖ runs varint ‖ (gap - 1 varint ‖ length - 1 varint)*)*
 *
 * Nodes and actors ascending; a gap is counted from the end before. Stored and sent: do not change.
 */
export const clockFormat = 1

/**
 * Runs kept per actor. A dot beyond that is not noted: its key is held and merged as ever, only deletes wait to be reaped
 * until a complete exchange has closed the gaps.
 */
export const runsMax = 256

/** What merging asks of a slot's clock. */
export interface SeenDots {
  contains(actor: Actor, counter: number): boolean
  /** Whether an actor's epoch has ended and all of it is seen. */
  hasEnded(actor: Actor): boolean
}

interface Entry {
  readonly actor: Actor
  base: number
  /** First and last of each run above the base, ascending, never touching: [9, 9, 12, 20]. */
  runs: Array<number>
}

export class SlotClock implements SeenDots {
  private entries: Array<Entry> = []
  /** By node, ascending: every dot of an epoch below `epoch` is seen. */
  private readonly ended: Array<{ readonly node: NodeId; epoch: number }> = []

  /** The next dot of an actor of this node. The actor's own clock has no gaps. */
  mint(actor: Actor): number {
    assert(!this.hasEnded(actor), () => `the epoch of ${describeDot(actor, 0)} has ended`)
    const entry = this.entryOf(actor)
    assert(entry.runs.length === 0, () => `${describeDot(actor, entry.base)} has gaps of its own`)
    return ++entry.base
  }

  contains(actor: Actor, counter: number): boolean {
    const entry = this.find(actor)
    if (entry === undefined) return this.hasEnded(actor)
    if (counter <= entry.base) return true
    const { runs } = entry
    const index = runEndingAt(runs, counter)
    return index < runs.length && runs[index] <= counter
  }

  /** Whether every dot of `actor` up to `counter` is inside. */
  covers(actor: Actor, counter: number): boolean {
    return counter <= this.baseOf(actor)
  }

  /** Whether every dot inside `other` is inside this clock too. */
  includes(other: SlotClock): boolean {
    for (const { node, epoch } of other.ended) if (this.seenBelow(node) < epoch) return false
    return other.entries.every(({ actor, base, runs }) => {
      if (base > 0 && !this.covers(actor, base)) return false
      for (let i = 0; i < runs.length; i += 2) {
        for (let counter = runs[i]; counter <= runs[i + 1]; counter++) {
          if (!this.contains(actor, counter)) return false
        }
      }
      return true
    })
  }

  /** The counter up to which nothing of `actor` is missing. Infinite for an epoch that ended. */
  baseOf(actor: Actor): number {
    return this.find(actor)?.base ?? (this.hasEnded(actor) ? Number.POSITIVE_INFINITY : 0)
  }

  /** Adds the dot of a value or delete merged here. `false` when there is no room for another run: the dot is not noted. */
  add(actor: Actor, counter: number): boolean {
    const entry = this.find(actor)
    if (entry === undefined && this.hasEnded(actor)) return true
    return addRun(entry ?? this.entryOf(actor), counter, counter)
  }

  /** Adds another owner's clock, at the end of a complete exchange with it. */
  adopt(other: SlotClock): void {
    for (const { node, epoch } of other.ended) this.raiseEnded(node, epoch)
    for (const { actor, base, runs } of other.entries) {
      if (this.hasEnded(actor)) continue
      const entry = this.entryOf(actor)
      if (base > 0) addRun(entry, 1, base)
      for (let i = 0; i < runs.length; i += 2) addRun(entry, runs[i], runs[i + 1])
    }
  }

  /** Whether every dot inside is below a base. */
  get hasNoGaps(): boolean {
    return this.entries.every(({ runs }) => runs.length === 0)
  }

  /** Bases by actor, then by node the epoch below which all is seen. */
  forEach(
    base: (actor: Actor, counter: number) => void,
    ended: (node: NodeId, epoch: number) => void,
  ): void {
    for (const entry of this.entries) base(entry.actor, entry.base)
    for (const entry of this.ended) ended(entry.node, entry.epoch)
  }

  /**
   * Takes the gaps of an actor up to `counter` for seen: dots that were minted and lost before anyone had them. Requires that
   * the actor's epoch has ended, that all owners agree on what they have of it, and that nothing of it is on its way.
   */
  closeLost(actor: Actor, counter: number): void {
    if (counter > 0 && !this.hasEnded(actor)) addRun(this.entryOf(actor), 1, counter)
  }

  /** The highest counter of `actor` inside the clock; 0 for none, and for an epoch that has ended. */
  highest(actor: Actor): number {
    const entry = this.find(actor)
    return entry === undefined ? 0 : (entry.runs.at(-1) ?? entry.base)
  }

  /**
   * Notes that every dot of an epoch of `node` below `epoch` is seen. `finals` has the last counter of each of these
   * epochs of which anything was ever minted. `false`, and nothing changes, when one of them has gaps here. Requires that
   * every owner can do so, and that no member of the ring keeps a hint of these epochs.
   */
  endBelow(node: NodeId, epoch: number, finals: ReadonlyMap<Actor, number>): boolean {
    for (const [actor, counter] of finals) {
      assert(nodeOf(actor) === node && epochOf(actor) < epoch, () => `${actor} is not of n${node}`)
      if (!this.covers(actor, counter)) return false
    }
    this.raiseEnded(node, epoch)
    return true
  }

  /** Every dot of an epoch of `node` below this is seen; 1 when nothing of the kind is known. */
  seenBelow(node: NodeId): number {
    return this.ended.find((entry) => entry.node === node)?.epoch ?? 1
  }

  /** Whether an actor's epoch has ended and all of it is seen. */
  hasEnded(actor: Actor): boolean {
    if (this.ended.length === 0) return false
    return epochOf(actor) < this.seenBelow(nodeOf(actor))
  }

  /** What all of `clocks` have seen without gaps. */
  static meet(clocks: ReadonlyArray<SlotClock>): SlotClock {
    const [first, ...others] = clocks
    const result = new SlotClock()
    for (const { node } of first.ended) {
      const epoch = Math.min(...clocks.map((clock) => clock.seenBelow(node)))
      if (epoch > 1) result.raiseEnded(node, epoch)
    }
    const actors = new Set(clocks.flatMap((clock) => clock.entries.map(({ actor }) => actor)))
    for (const actor of actors) {
      if (result.hasEnded(actor)) continue
      const base = others.reduce(
        (least, c) => Math.min(least, c.baseOf(actor)),
        first.baseOf(actor),
      )
      if (base > 0) result.entryOf(actor).base = base
    }
    return result
  }

  private find(actor: Actor): Entry | undefined {
    const { entries } = this
    for (let i = 0; i < entries.length; i++) if (entries[i].actor === actor) return entries[i]
    return undefined
  }

  private entryOf(actor: Actor): Entry {
    const found = this.find(actor)
    if (found !== undefined) return found
    const entry: Entry = { actor, base: 0, runs: [] }
    let index = this.entries.length
    while (index > 0 && this.entries[index - 1].actor > actor) index--
    this.entries.splice(index, 0, entry)
    return entry
  }

  private raiseEnded(node: NodeId, epoch: number): void {
    const found = this.ended.find((entry) => entry.node === node)
    if (found === undefined) {
      let index = this.ended.length
      while (index > 0 && this.ended[index - 1].node > node) index--
      this.ended.splice(index, 0, { node, epoch })
    } else if (found.epoch < epoch) found.epoch = epoch
    this.entries = this.entries.filter(({ actor }) => !this.hasEnded(actor))
  }

  write(out: ByteWriter): void {
    out.u8(clockFormat)
    out.varint(this.ended.length)
    for (const { node, epoch } of this.ended) {
      out.varint(node)
      out.varint(epoch)
    }
    const entries = this.entries.filter(({ base, runs }) => base > 0 || runs.length > 0)
    out.varint(entries.length)
    for (const { actor, base, runs } of entries) {
      writeActor(out, actor)
      out.varint(base)
      out.varint(runs.length / 2)
      let end = base
      for (let i = 0; i < runs.length; i += 2) {
        out.varint(runs[i] - end - 2)
        out.varint(runs[i + 1] - runs[i])
        end = runs[i + 1]
      }
    }
  }

  /** A clock from stored or sent bytes. Throws `MalformedBytes` unless it is one, in its only form. */
  static read(reader: ByteReader): SlotClock {
    const clock = new SlotClock()
    if (reader.u8() !== clockFormat) throw new MalformedBytes("a slot clock of an unknown format")
    let lastNode = 0
    for (let count = reader.varint(); count > 0; count--) {
      const node = reader.varint()
      const epoch = reader.varint()
      if (node <= lastNode || epoch < 2) throw new MalformedBytes(`n${node} ended below ${epoch}`)
      actorOf(node, epoch)
      clock.ended.push({ node, epoch })
      lastNode = node
    }
    let lastActor = 0
    for (let count = reader.varint(); count > 0; count--) {
      const entry = readEntry(reader)
      if (entry.actor <= lastActor || clock.hasEnded(entry.actor)) {
        throw new MalformedBytes(`${describeDot(entry.actor, entry.base)} is out of place`)
      }
      clock.entries.push(entry)
      lastActor = entry.actor
    }
    return clock
  }

  /** `n1.1:4+6-9`, or nothing: no dot of it is seen, or its epoch has ended. */
  describeActor(actor: Actor): string {
    const entry = this.find(actor)
    if (entry === undefined) return ""
    const { base, runs } = entry
    let text = describeDot(actor, base)
    for (let i = 0; i < runs.length; i += 2) text += `+${runs[i]}-${runs[i + 1]}`
    return text
  }

  /** `n1.1:4+6-9 n2.1:7, n3 below 2`. */
  describe(): string {
    const actors = this.entries.map(({ actor }) => this.describeActor(actor))
    const ended = this.ended.map(({ node, epoch }) => `n${node} below ${epoch}`)
    return [actors.join(" "), ...ended].join(", ")
  }
}

function readEntry(reader: ByteReader): Entry {
  const entry: Entry = { actor: readActor(reader), base: reader.varint(), runs: [] }
  const count = reader.varint()
  if (count > runsMax) throw new MalformedBytes(`${count} runs of one actor`)
  if (entry.base === 0 && count === 0) throw new MalformedBytes("an actor of which nothing is seen")
  let end = entry.base
  for (let i = 0; i < count; i++) {
    const first = end + 2 + reader.varint()
    end = first + reader.varint()
    entry.runs.push(first, end)
  }
  if (end > Number.MAX_SAFE_INTEGER) throw new MalformedBytes("a run beyond all counters")
  return entry
}

/** The index of the first run that ends at `counter` or above, or the number of numbers in `runs`. */
function runEndingAt(runs: ReadonlyArray<number>, counter: number): number {
  let low = 0
  let high = runs.length / 2
  while (low < high) {
    const middle = (low + high) >>> 1
    if (runs[2 * middle + 1] < counter) low = middle + 1
    else high = middle
  }
  return 2 * low
}

/** Adds `first` to `last`, joining what then touches. `false` when that would make one run too many. */
function addRun(entry: Entry, first: number, last: number): boolean {
  const { runs } = entry
  if (last <= entry.base) return true
  // Runs from `from` to before `to` touch or overlap the new one.
  const from = runEndingAt(runs, first - 1)
  let to = from
  while (to < runs.length && runs[to] <= last + 1) to += 2
  const start = to > from ? Math.min(first, runs[from]) : first
  const end = to > from ? Math.max(last, runs[to - 1]) : last
  if (start <= entry.base + 1) {
    entry.base = end
    runs.splice(0, to)
    return true
  }
  if (from === to && runs.length >= 2 * runsMax) return false
  runs.splice(from, to - from, start, end)
  return true
}
