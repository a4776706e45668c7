import { actorOf } from "../../src/dynamo/dot.ts"
import { ElementCursor, writeElement } from "../../src/dynamo/elements.ts"
import { mergeStates } from "../../src/dynamo/keyState.ts"
import type { Stability } from "../../src/dynamo/pruning.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { VersionVector } from "../../src/dynamo/versionVector.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { copyOf, owners, type Replica } from "./causalRules.ts"
import { CausalWorld } from "./causalWorld.ts"
import type { Draft, RuleModel, Seen } from "./rules.ts"

/** Each class breaks one rule of causality; some seed of the world must then fail. */

function bytesOf(vector: VersionVector): Uint8Array {
  const out = new ByteWriter()
  vector.write(out)
  return out.take()
}

function contextOfElement(cursor: ElementCursor): VersionVector {
  const vector = new VersionVector()
  cursor.joinContext(vector)
  return vector
}

/** A dotted version vector *set*: siblings of one actor have the dots n, n - 1, ..., as if counters ran per key. */
class ContiguousDots extends CausalWorld {
  override merge(local: Uint8Array | undefined, incoming: Uint8Array, seen?: SlotClock) {
    const merged = mergeStates(local, incoming, seen)
    return merged === undefined ? undefined : renumbered(merged)
  }
}

function renumbered(state: Uint8Array): Uint8Array {
  const cursor = new ElementCursor().open(state)
  const counters = new Map<number, Array<number>>()
  while (cursor.next()) {
    counters.set(cursor.actor, [...(counters.get(cursor.actor) ?? []), cursor.counter])
  }
  const out = new ByteWriter()
  out.u8(state[0])
  out.varint(cursor.open(state).count)
  while (cursor.next()) {
    const all = counters.get(cursor.actor) as Array<number>
    const behind = all.length - 1 - all.indexOf(cursor.counter)
    const { actor, stamp, expiryMs, deleted, value } = cursor
    writeElement(out, {
      actor,
      counter: (all.at(-1) as number) - behind,
      context: bytesOf(contextOfElement(cursor)),
      stamp,
      expiryMs,
      value: deleted ? undefined : value,
    })
  }
  return out.take()
}

/** A write's context becomes part of the slot's clock. */
class ContextInClock extends CausalWorld {
  override noteWritten(at: Replica, past: Seen): void {
    if (past.context === undefined || !owners.includes(at.node)) return
    const vector = new VersionVector()
    vector.joinBytes(past.context, 0)
    vector.forEach((actor, counter) => {
      at.clock.closeLost(actor, counter)
    })
  }
}

/** A stand-in's second tenure goes on in the epoch of the first, with counters that begin again. */
class KeptEpoch extends CausalWorld {
  override tenureEpoch(at: Replica): number {
    return at.epoch
  }
}

/** The same with durable counters: no dot is used twice, but the actor's own earlier writes are forgotten. */
class KeptEpochAndCounter extends KeptEpoch {
  override tenureClock(at: Replica): SlotClock {
    return at.clock
  }
}

/** An owner that lost its data goes on in its epoch. */
class WipedKeepsEpoch extends CausalWorld {
  override wipedEpoch(at: Replica): number {
    return at.epoch
  }
}

/** It also keeps its clock: everything it lost it takes for obsolete. */
class WipedKeepsClock extends CausalWorld {
  override wipedClock(at: Replica): SlotClock {
    return at.clock
  }
}

class BrokenExchangeAdopts extends CausalWorld {
  override afterBroken(left: Replica, right: Replica): void {
    left.clock.adopt(right.clock)
  }
}

/** Trees cover live values only, and so does what this exchange compares. */
class DeletesNotExchanged extends CausalWorld {
  override isExchanged(left: Replica, right: Replica, key: string): boolean {
    return this.liveDots(left, key) !== this.liveDots(right, key)
  }
}

/** A hand-off leaves only the other's clock, and one's own dots. */
class ClockReset extends CausalWorld {
  override adoptClock(at: Replica, seenThere: SlotClock): void {
    const own = actorOf(at.node, at.epoch)
    const base = at.clock.baseOf(own)
    at.clock = copyOf(seenThere)
    at.clock.closeLost(own, base)
    if (this.prng.chance(0.3)) {
      at.clock = new SlotClock()
      at.clock.closeLost(own, base)
    }
  }
}

/** Dots inside the clock that are not held are taken in again. */
class ObsoleteTakenBack extends CausalWorld {
  override merge(local: Uint8Array | undefined, incoming: Uint8Array) {
    return mergeStates(local, incoming)
  }
}

/** An owner's clock counts by its highest dot, gaps and all. */
class GapsOverlooked extends CausalWorld {
  override stability(): Stability {
    const closed = owners.map((node) => {
      const clock = copyOf(this.replica(node).clock)
      for (const { node: other, epoch } of this.replicas.values()) {
        for (let e = 1; e <= epoch; e++) {
          clock.closeLost(actorOf(other, e), clock.highest(actorOf(other, e)))
        }
      }
      return clock
    })
    return { ...super.stability(), clock: SlotClock.meet(closed) }
  }
}

/** A delete is reaped when this owner, not every owner, has all that it covers. */
class ReapedAlone extends CausalWorld {
  override stability(): Stability {
    const { clock } = this.replica(this.prng.pick(owners))
    return { ...super.stability(), clock }
  }
}

/** A counter is reaped while increments made before the delete was known may be on their way. */
class CounterReapedEarly extends CausalWorld {
  override stability(): Stability {
    const minted = new VersionVector()
    for (const { node, epoch } of this.replicas.values()) {
      for (let e = 1; e <= epoch; e++) minted.add(actorOf(node, e), 1)
    }
    return { ...super.stability(), minted }
  }
}

/** Whose time is up is dropped here and now. */
class ExpiredDropped extends CausalWorld {
  override expired(state: Uint8Array, nowMs: number): Uint8Array | undefined {
    const out = new ByteWriter()
    const cursor = new ElementCursor().open(state)
    let count = 0
    while (cursor.next()) {
      if (!cursor.deleted && !cursor.liveAt(nowMs)) continue
      cursor.copyTo(out)
      count++
    }
    if (count === cursor.count) return state
    const elements = out.take()
    out.u8(state[0])
    out.varint(count)
    out.raw(elements)
    return count === 0 ? undefined : out.take()
  }
}

/** The dot of one's own write is taken for a context, and covers what others wrote through the same node. */
class OwnDotAsContext extends CausalWorld {
  override noteWritten(_: Replica, past: Seen, op: Draft, next: (seen: Seen) => void): void {
    const vector = new VersionVector()
    if (past.context !== undefined) vector.joinBytes(past.context, 0)
    vector.add(op.actor, op.counter)
    next({ context: bytesOf(vector), ops: new Set([...past.ops, op.id]) })
  }
}

type World = new (seed: number, model: RuleModel) => CausalWorld

/** Each with the rules under which it is tried, and the first seed that then diverges. */
export const plantedBugs: ReadonlyArray<
  readonly [string, World, Readonly<Record<string, number>>]
> = [
  ["a contiguous dotted set", ContiguousDots, { siblings: 3 }],
  ["the context added to the clock", ContextInClock, { siblings: 4, set: 3 }],
  ["a stand-in keeps its epoch", KeptEpoch, { siblings: 3, counter: 6 }],
  ["a stand-in keeps epoch and counter", KeptEpochAndCounter, { siblings: 25, counter: 8 }],
  ["an owner that lost data keeps its epoch", WipedKeepsEpoch, { siblings: 11, counter: 6 }],
  ["an owner that lost data keeps its clock", WipedKeepsClock, { siblings: 1 }],
  ["a broken exchange adds to the clock", BrokenExchangeAdopts, { siblings: 2 }],
  ["deletes are not exchanged", DeletesNotExchanged, { siblings: 49 }],
  ["a clock reset at hand-off", ClockReset, { siblings: 1 }],
  ["obsolete dots taken back", ObsoleteTakenBack, { siblings: 12, set: 116, counter: 86 }],
  ["gaps overlooked in reaping", GapsOverlooked, { siblings: 134 }],
  ["a delete reaped alone", ReapedAlone, { siblings: 34, set: 120 }],
  ["a counter reaped early", CounterReapedEarly, { counter: 83 }],
  ["an expired value dropped", ExpiredDropped, { siblings: 31 }],
  ["one's own dot as context", OwnDotAsContext, { siblings: 2 }],
]
