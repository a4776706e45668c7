import { deleteCounter, increment } from "../../src/dynamo/crdt/counter.ts"
import { type NewDot, putSet, type SetChange, SetState } from "../../src/dynamo/crdt/set.ts"
import { actorOf } from "../../src/dynamo/dot.ts"
import { ElementCursor } from "../../src/dynamo/elements.ts"
import { mergeExchanged } from "../../src/dynamo/exchange.ts"
import { addDots, contextOf, mergeStates } from "../../src/dynamo/keyState.ts"
import type { Stability } from "../../src/dynamo/pruning.ts"
import { type Put, putSibling } from "../../src/dynamo/siblings.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector, VersionVector } from "../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"

const out = new ByteWriter()

/** One owner or stand-in with one key, for tests that tell a story. */
export class Replica {
  readonly actor: number
  clock = new SlotClock()
  state: Uint8Array | undefined

  constructor(node: number, epoch = 1) {
    this.actor = actorOf(node, epoch)
  }

  private dot(): NewDot {
    return { actor: this.actor, counter: this.clock.mint(this.actor) }
  }

  private keep(result: string): string {
    if (result === "written") this.state = out.take()
    return result
  }

  /** `undefined` deletes. */
  put(value: string | undefined, context: Uint8Array = emptyVector): Put {
    const write = {
      ...this.dot(),
      context,
      stamp: 0,
      expiryMs: 0,
      value: value === undefined ? undefined : utf8(value),
    }
    return this.keep(putSibling(out, this.state, write)) as Put
  }

  change(change: SetChange): string {
    return this.keep(putSet(out, this.state, this.dot(), change))
  }

  add(delta: number): void {
    this.keep(increment(out, this.state, this.dot(), BigInt(delta)))
  }

  deleteCounter(observed = this.state): void {
    this.keep(deleteCounter(out, this.state, this.dot(), observed, this.clock))
  }

  context(): Uint8Array {
    return this.state === undefined ? emptyVector : contextOf(this.state)
  }

  receive(state: Uint8Array | undefined): void {
    if (state === undefined) return
    this.state = mergeStates(this.state, state, this.clock)
    addDots(state, this.clock)
  }

  /** This side's half of a complete exchange. */
  exchange(other: Replica): void {
    this.state = mergeExchanged(this.state, other.state, this.clock, other.clock)
    if (other.state !== undefined) addDots(other.state, this.clock)
    this.clock.adopt(other.clock)
  }

  values(): ReadonlyArray<string> {
    return this.state === undefined ? [] : valuesOf(this.state)
  }

  members(): ReadonlyArray<string> {
    return SetState.read(this.state).members.map(({ value }) => text(value))
  }
}

/** What these owners, all of a slot, report to each other now. */
export function stable(...owners: ReadonlyArray<Replica>): Stability {
  const minted = new VersionVector()
  for (const { actor, clock } of owners) {
    const base = clock.baseOf(actor)
    if (base > 0) minted.add(actor, base)
  }
  return { clock: SlotClock.meet(owners.map(({ clock }) => clock)), minted }
}

/** The values of siblings, in order of their dots. */
export function valuesOf(state: Uint8Array): ReadonlyArray<string> {
  const values: Array<string> = []
  const cursor = new ElementCursor().open(state)
  while (cursor.next()) if (cursor.liveAt(0)) values.push(text(cursor.value))
  return values
}

export const add = (value: string): SetChange => ({ _tag: "Add", value: utf8(value) })
export const remove = (value: string, context?: Uint8Array): SetChange => ({
  _tag: "Remove",
  value: utf8(value),
  ...(context === undefined ? {} : { context }),
})
