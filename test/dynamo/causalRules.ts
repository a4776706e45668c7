import { actorOf, describeDot } from "../../src/dynamo/dot.ts"
import { hasNews, mergeExchanged } from "../../src/dynamo/exchange.ts"
import { addDots, expireState, forEachLiveDot, mergeStates } from "../../src/dynamo/keyState.ts"
import { pruneState, type Stability } from "../../src/dynamo/pruning.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { VersionVector } from "../../src/dynamo/versionVector.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { Draft, RuleModel, Seen } from "./rules.ts"

/**
 * The replicas of the causal world and the rules by which they use the pure core, one method each: what a planted bug
 * overrides.
 */
export const keys: ReadonlyArray<string> = ["k0", "k1", "k2"]
export const owners: ReadonlyArray<number> = [1, 2, 3]
export const standIns: ReadonlyArray<number> = [4, 5]

export interface Replica {
  readonly node: number
  epoch: number
  clock: SlotClock
  readonly states: Map<string, Uint8Array>
  /** By key, the ids of the writes that went into its state. */
  readonly ops: Map<string, Set<number>>
  /** Of a stand-in: between its first write and the hand-over of all it holds. */
  active: boolean
}

export class CausalRules {
  readonly prng: Prng
  readonly model: RuleModel
  readonly replicas = new Map<number, Replica>()
  protected nowMs = 1000

  constructor(seed: number, model: RuleModel) {
    this.prng = new Prng(seed)
    this.model = model
    for (const node of [...owners, ...standIns]) {
      this.replicas.set(node, {
        node,
        epoch: 1,
        clock: new SlotClock(),
        states: new Map(),
        ops: new Map(),
        active: false,
      })
    }
  }

  replica(node: number): Replica {
    return this.replicas.get(node) as Replica
  }

  /** What trees would compare. */
  liveDots(at: Replica, key: string): string {
    const dots: Array<string> = []
    const state = at.states.get(key)
    if (state !== undefined) {
      forEachLiveDot(state, this.nowMs, (...dot) => dots.push(describeDot(...dot)))
    }
    return dots.sort().join(" ")
  }

  /** A tenure has an epoch of its own, */
  tenureEpoch(at: Replica): number {
    return at.epoch + 1
  }

  /** and counters of its own. */
  tenureClock(_: Replica): SlotClock {
    return new SlotClock()
  }

  /** What is in the clock and not held is obsolete. */
  merge(local: Uint8Array | undefined, incoming: Uint8Array, seen?: SlotClock) {
    return mergeStates(local, incoming, seen)
  }

  /** Only the dots of what is merged enter the clock. */
  note(at: Replica, incoming: Uint8Array): void {
    addDots(incoming, at.clock)
  }

  /** Nothing but the new dot enters the clock, and the client's next context comes from a read. */
  noteWritten(_at: Replica, _past: Seen, _op: Draft, _next: (seen: Seen) => void): void {}

  /** Deletes are exchanged as well as what trees find. */
  isExchanged(left: Replica, right: Replica, key: string): boolean {
    const news = (from: Replica, to: Replica) => {
      const state = from.states.get(key)
      return state !== undefined && hasNews(state, to.clock)
    }
    const differs = this.liveDots(left, key) !== this.liveDots(right, key)
    return differs || news(left, right) || news(right, left)
  }

  /** A clock is joined, never reset. */
  adoptClock(at: Replica, seenThere: SlotClock): void {
    at.clock.adopt(seenThere)
  }

  /** What they had and hold no more goes here too. */
  mergeExchanged(
    local: Uint8Array | undefined,
    theirs: Uint8Array | undefined,
    seenHere: SlotClock,
    seenThere: SlotClock,
  ) {
    return mergeExchanged(local, theirs, seenHere, seenThere)
  }

  /** A broken exchange adds nothing to the clock. */
  afterBroken(_left: Replica, _right: Replica): void {}

  /** A node that lost data takes a new epoch, */
  wipedEpoch(at: Replica): number {
    return at.epoch + 1
  }

  /** and begins with an empty clock. */
  wipedClock(_: Replica): SlotClock {
    return new SlotClock()
  }

  /** What counts as seen by all. */
  stability(): Stability {
    const clocks = owners.map((node) => this.replica(node).clock)
    const minted = new VersionVector()
    for (const node of owners) {
      const { clock, epoch } = this.replica(node)
      const base = clock.baseOf(actorOf(node, epoch))
      if (base > 0) minted.add(actorOf(node, epoch), base)
    }
    return { clock: SlotClock.meet(clocks), minted }
  }

  /** Only what every owner has, with all that it covers. */
  pruned(state: Uint8Array, stable: Stability): Uint8Array | undefined {
    return pruneState(state, stable)
  }

  /** What expires goes on covering what it covered. */
  expired(state: Uint8Array, nowMs: number): Uint8Array | undefined {
    return expireState(state, nowMs)
  }
}

export function copyOf(clock: SlotClock): SlotClock {
  const copy = new SlotClock()
  copy.adopt(clock)
  return copy
}
