import { ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import { compareBytes } from "../../lib/bytes.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import { type Actor, compareDots, describeDot, readActor, readCounter, writeActor } from "../dot.ts"
import { headOf } from "../elements.ts"
import type { SeenDots } from "../slotClock.ts"
import { checkVector, VersionVector } from "../versionVector.ts"

/**
 * The rules `crdt:set` and `crdt:flag`: a set where an add wins over a removal that had not seen it. Each member has the
 * dots of the adds that nobody has seen and removed; one vector tells which dots of the key were seen, so a dot that it
 * covers and no member has is removed, and no tombstone per member is needed. (Bieniusa et al., "An optimized
 * conflict-free replicated set", 2012)
 *
 * A removal takes away exactly the adds that its caller had seen. Where the caller had read another replica, that may be
 * adds which this one has not seen yet: the vector cannot say so without claiming other members' adds too, so the removal
 * waits beside it (`pending`) until the vector has caught up. Clearing the whole set has no such trouble: its caller had
 * seen everything that his context covers, so the vector takes it in. Both mint a dot, or no replica could tell
 * that it has the removal.
 *
 *     state   = head u8 ‖ vector ‖ members varint ‖ member* ‖ pendings varint ‖ pending*
 *     member  = length varint ‖ bytes ‖ dots varint (>= 1) ‖ dot*     by bytes; dots ascending
 *     pending = length varint ‖ bytes ‖ vector                        by bytes
 *
 * Stored and sent: do not change.
 */
export const setBytesMax = 1024 * 1024

/** `tooLarge`: the set would pass `setBytesMax`. `contextAhead`: as in siblings.ts. */
export type SetPut = "written" | "tooLarge" | "contextAhead"

interface Member {
  readonly value: Uint8Array
  /** Actor, counter, actor, counter, ... ascending. */
  readonly dots: ReadonlyArray<number>
}

interface Pending {
  readonly value: Uint8Array
  readonly context: VersionVector
}

/** A set taken apart; the members' bytes are views. */
export class SetState {
  readonly vector = new VersionVector()
  members: Array<Member> = []
  pending: Array<Pending> = []

  /** `undefined` makes an empty one. Throws `MalformedBytes` unless the bytes are a set in its only form. */
  static read(bytes: Uint8Array | undefined): SetState {
    const state = new SetState()
    if (bytes === undefined) return state
    const reader = new ByteReader(bytes, 1)
    checkVector(reader, state.vector)
    let last: Uint8Array | undefined
    for (let count = reader.varint(); count > 0; count--) {
      const value = readValue(reader, last)
      state.members.push({ value, dots: readDots(reader, state.vector) })
      last = value
    }
    last = undefined
    for (let count = reader.varint(); count > 0; count--) {
      const value = readValue(reader, last)
      const context = new VersionVector()
      checkVector(reader, context)
      if (state.vector.includes(context))
        throw new MalformedBytes("a removal that waits for nothing")
      state.pending.push({ value, context })
      last = value
    }
    reader.end()
    return state
  }

  write(out: ByteWriter, rule: "set" | "flag"): void {
    out.u8(headOf(rule))
    this.vector.write(out)
    out.varint(this.members.length)
    for (const { value, dots } of this.members) {
      out.varint(value.length)
      out.raw(value)
      out.varint(dots.length / 2)
      for (let i = 0; i < dots.length; i += 2) {
        writeActor(out, dots[i])
        out.varint(dots[i + 1])
      }
    }
    out.varint(this.pending.length)
    for (const { value, context } of this.pending) {
      out.varint(value.length)
      out.raw(value)
      context.write(out)
    }
  }

  /** Where `value` is among `list`, or ~index of where it would be. */
  private static search(
    list: ReadonlyArray<{ readonly value: Uint8Array }>,
    value: Uint8Array,
  ): number {
    let low = 0
    let high = list.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const order = compareBytes(list[middle].value, value)
      if (order === 0) return middle
      if (order < 0) low = middle + 1
      else high = middle
    }
    return ~low
  }

  add(actor: Actor, counter: number, value: Uint8Array): void {
    this.vector.add(actor, counter)
    const member = { value, dots: [actor, counter] }
    const index = SetState.search(this.members, value)
    if (index >= 0) this.members[index] = member
    else this.members.splice(~index, 0, member)
    this.settle()
  }

  /** Removes the adds of `value` that `context` covers; without one, all that are here. */
  remove(
    actor: Actor,
    counter: number,
    value: Uint8Array,
    context: VersionVector | undefined,
  ): void {
    const observed = new VersionVector()
    observed.join(context ?? this.vector)
    this.vector.add(actor, counter)
    const index = SetState.search(this.pending, value)
    if (index >= 0) this.pending[index].context.join(observed)
    else this.pending.splice(~index, 0, { value, context: observed })
    this.settle()
  }

  /** Removes all adds that `context` covers; without one, all that are here. */
  clear(actor: Actor, counter: number, context: VersionVector | undefined): void {
    const observed = context ?? this.vector
    this.keepDots((a, c) => !observed.covers(a, c))
    if (context !== undefined) this.vector.join(context)
    this.vector.add(actor, counter)
    this.settle()
  }

  /** Takes in all of `other`. `seen` as in siblings.ts. */
  merge(other: SetState, seen: SeenDots | undefined): void {
    const merged: Array<Member> = []
    let i = 0
    let j = 0
    while (i < this.members.length || j < other.members.length) {
      const order =
        i === this.members.length
          ? 1
          : j === other.members.length
            ? -1
            : compareBytes(this.members[i].value, other.members[j].value)
      const dotsHere = order <= 0 ? this.members[i].dots : []
      const dotsThere = order >= 0 ? other.members[j].dots : []
      const dots = mergeDots(
        dotsHere,
        dotsThere,
        other.vector,
        (actor, counter) =>
          this.vector.covers(actor, counter) || (seen?.contains(actor, counter) ?? false),
      )
      const { value } = order <= 0 ? this.members[i] : other.members[j]
      if (dots.length > 0) merged.push({ value, dots })
      if (order <= 0) i++
      if (order >= 0) j++
    }
    this.members = merged
    this.joinUnlessPruned(other.vector, seen)
    for (const { value, context } of other.pending) {
      const index = SetState.search(this.pending, value)
      if (index >= 0) this.pending[index].context.join(context)
      else {
        const copy = new VersionVector()
        copy.join(context)
        this.pending.splice(~index, 0, { value, context: copy })
      }
    }
    this.settle()
  }

  /** What was pruned here of an epoch that has ended stays away: else owners that prune at different times would bring it back to each other for ever. */
  private joinUnlessPruned(vector: VersionVector, seen: SeenDots | undefined): void {
    vector.forEach((actor, counter) => {
      const isPruned = this.vector.counterOf(actor) === 0 && seen?.hasEnded(actor) === true
      if (!isPruned) this.vector.add(actor, counter)
    })
  }

  /** Carries out what removals wait here, and forgets those for which the vector speaks now. */
  private settle(): void {
    if (this.pending.length === 0) return
    for (const { value, context } of this.pending) {
      const index = SetState.search(this.members, value)
      if (index < 0) continue
      const dots = withoutCovered(this.members[index].dots, (a, c) => !context.covers(a, c))
      if (dots.length > 0) this.members[index] = { value, dots }
      else this.members.splice(index, 1)
    }
    this.pending = this.pending.filter(({ context }) => !this.vector.includes(context))
  }

  /** Keeps the dots for which `keep` is true, and the members that have any left. */
  keepDots(keep: (actor: Actor, counter: number) => boolean): void {
    this.members = this.members
      .map(({ value, dots }) => ({ value, dots: withoutCovered(dots, keep) }))
      .filter(({ dots }) => dots.length > 0)
  }
}

/** The dots on both sides, those here that the other side has not seen, those there that this side has not. */
function mergeDots(
  here: ReadonlyArray<number>,
  there: ReadonlyArray<number>,
  seenThere: VersionVector,
  seenHere: (actor: Actor, counter: number) => boolean,
): Array<number> {
  const dots: Array<number> = []
  let i = 0
  let j = 0
  while (i < here.length || j < there.length) {
    const order =
      i === here.length
        ? 1
        : j === there.length
          ? -1
          : compareDots(here[i], here[i + 1], there[j], there[j + 1])
    if (order === 0) dots.push(here[i], here[i + 1])
    else if (order < 0) {
      if (!seenThere.covers(here[i], here[i + 1])) dots.push(here[i], here[i + 1])
    } else if (!seenHere(there[j], there[j + 1])) dots.push(there[j], there[j + 1])
    if (order <= 0) i += 2
    if (order >= 0) j += 2
  }
  return dots
}

function withoutCovered(
  dots: ReadonlyArray<number>,
  keep: (actor: Actor, counter: number) => boolean,
): ReadonlyArray<number> {
  const kept: Array<number> = []
  for (let i = 0; i < dots.length; i += 2) {
    if (keep(dots[i], dots[i + 1])) kept.push(dots[i], dots[i + 1])
  }
  return kept
}

function readValue(reader: ByteReader, last: Uint8Array | undefined): Uint8Array {
  const value = reader.raw(reader.varint())
  if (last !== undefined && compareBytes(last, value) >= 0) {
    throw new MalformedBytes("members of a set out of order")
  }
  return value
}

function readDots(reader: ByteReader, vector: VersionVector): Array<number> {
  const dots: Array<number> = []
  const count = reader.varint()
  if (count === 0) throw new MalformedBytes("a member that nobody added")
  for (let i = 0; i < count; i++) {
    const actor = readActor(reader)
    const counter = readCounter(reader)
    const last = dots.length - 2
    if (i > 0 && compareDots(dots[last], dots[last + 1], actor, counter) >= 0) {
      throw new MalformedBytes(`${describeDot(actor, counter)} is out of order`)
    }
    if (!vector.covers(actor, counter)) {
      throw new MalformedBytes(`${describeDot(actor, counter)} is not in the vector`)
    }
    dots.push(actor, counter)
  }
  return dots
}

/** A new dot of this node. */
export interface NewDot {
  readonly actor: Actor
  readonly counter: number
}

export type SetChange =
  | { readonly _tag: "Add"; readonly value: Uint8Array }
  /** `context`: bytes of the vector that the caller read; without it the removal is of what is here. */
  | { readonly _tag: "Remove"; readonly value: Uint8Array; readonly context?: Uint8Array }
  | { readonly _tag: "Clear"; readonly context?: Uint8Array }

/** Appends the state of a set after `change`. Appends nothing when it refuses. */
export function putSet(
  out: ByteWriter,
  local: Uint8Array | undefined,
  dot: NewDot,
  change: SetChange,
  rule: "set" | "flag" = "set",
): SetPut {
  const { actor, counter } = dot
  const state = SetState.read(local)
  let context: VersionVector | undefined
  if (change._tag !== "Add" && change.context !== undefined) {
    context = new VersionVector()
    context.joinBytes(change.context, 0)
    if (context.covers(actor, counter)) return "contextAhead"
  }
  const before = out.length
  if (change._tag === "Add") state.add(actor, counter, change.value)
  else if (change._tag === "Remove") state.remove(actor, counter, change.value, context)
  else state.clear(actor, counter, context)
  state.write(out, rule)
  // What removes is never refused: it is how a set becomes smaller.
  if (change._tag !== "Add" || out.length - before <= setBytesMax) return "written"
  out.truncate(before)
  return "tooLarge"
}
