import { nodeOf } from "../../../src/dynamo/dot.ts"
import { forEachLiveDot } from "../../../src/dynamo/keyState.ts"
import type { HandOverPort } from "../../../src/dynamo/node/exchangeFills.ts"
import { ExchangeFills, type PulledSlots } from "../../../src/dynamo/node/exchangeFills.ts"
import type { Answer } from "../../../src/dynamo/node/exchangeOps.ts"
import { type OpenSlot, Pull, type PullTarget } from "../../../src/dynamo/node/exchangePull.ts"
import { ExchangeSource } from "../../../src/dynamo/node/exchangeSource.ts"
import { Exchanges } from "../../../src/dynamo/node/exchanges.ts"
import type { Outbox } from "../../../src/dynamo/node/ports.ts"
import type { SlotClock } from "../../../src/dynamo/slotClock.ts"
import { Prng } from "../../../src/lib/prng.ts"
import type { RuleModel } from "../rules.ts"
import type { Parts } from "./exchangesNode.ts"
import { ExchangesWorld } from "./exchangesWorld.ts"

/** What could be wrong about an exchange, each by itself: the world must see it. */

type PullOf = new (...parts: ConstructorParameters<typeof Pull>) => Pull
type SourceOf = new (...parts: ConstructorParameters<typeof ExchangeSource>) => ExchangeSource
type FillsOf = new (...parts: ConstructorParameters<typeof ExchangeFills>) => ExchangeFills
export type WorldOf = new (seed: number, model: RuleModel) => ExchangesWorld

interface WrongParts {
  readonly pull?: PullOf
  readonly source?: SourceOf
  readonly fills?: FillsOf
}

/** Exchanges of which a part is another. */
export function exchangesWith(parts: WrongParts): new (given: Parts) => Exchanges {
  return class extends Exchanges {
    protected override newPull(target: PullTarget): Pull {
      return new (parts.pull ?? Pull)(this.owner, target, this.options.pageBytes)
    }

    protected override newSource(): ExchangeSource {
      const Source = parts.source ?? ExchangeSource
      return new Source(this.host, this.owner, this.options.pageBytes)
    }

    protected override newFills(handOver: HandOverPort): ExchangeFills {
      return new (parts.fills ?? ExchangeFills)(this.host, this.owner, handOver)
    }
  }
}

function worldWith(parts: WrongParts): WorldOf {
  const Wrong = exchangesWith(parts)
  return class extends ExchangesWorld {
    protected override newExchanges(given: Parts): Exchanges {
      return new Wrong(given)
    }
  }
}

/** The clock is adopted when it comes, and the states that it vouches for may never come. */
export class AdoptedFirst extends Pull {
  override take(answer: Answer): void {
    super.take(answer)
    if (answer._tag !== "Opened") return
    for (const { slot, theirs } of this.open) {
      this.owner.adopt(this.target.namespace, slot, theirs)
    }
  }
}

/** What is adopted is the clock as it is in the end, of states that were read before. */
function clockTakenLast(): WorldOf {
  class World extends ExchangesWorld {
    protected override newExchanges(given: Parts): Exchanges {
      const world = this
      class TakenLast extends Pull {
        protected override adopt(open: OpenSlot, now: SlotClock): void {
          const source = world.node(nodeOf(open.actor)).owner
          const theirs = source.copyClock(this.target.namespace, open.slot)
          super.adopt({ ...open, theirs }, now)
        }
      }
      class Wrong extends Exchanges {
        protected override newPull(target: PullTarget): Pull {
          return new TakenLast(this.owner, target, this.options.pageBytes)
        }
      }
      return new Wrong(given)
    }
  }
  return World
}

/** Trees find what is live; deletes are left out. */
export class LiveNewsOnly extends ExchangeSource {
  protected override isNews(state: Uint8Array, seenThere: SlotClock): boolean {
    let isNews = false
    forEachLiveDot(state, 0, (actor, counter) => {
      isNews ||= !seenThere.contains(actor, counter)
    })
    return isNews
  }
}

/** What the source had and holds no more stays here. */
class GoneStays extends Pull {
  protected override merge(open: OpenSlot, key: Uint8Array, theirs: Uint8Array | undefined): void {
    if (theirs !== undefined) this.owner.merge(this.target.namespace, open.slot, key, theirs)
  }
}

/** The trees say what differs, and nobody asks for what we hold with dots of their clock. */
class TreesIgnored extends Pull {
  protected override keysOf(): Array<Uint8Array> {
    return []
  }
}

/** What came from others while the exchange went on is not looked at. */
export class LateOverlooked extends Pull {
  protected override lateKeysOf(): Array<Uint8Array> {
    return []
  }
}

/** Only the first page of news is asked for. */
class FirstPageOnly extends Pull {
  override take(answer: Answer): void {
    super.take(answer._tag === "Page" ? { ...answer, next: undefined } : answer)
  }
}

/** A source that lost everything goes on answering for its former clock. */
export class AnotherLife extends ExchangeSource {
  protected override isHeld(): boolean {
    return true
  }
}

/** This node was given the slot anew, and goes on with what it began before. */
class OwnLossOverlooked extends Pull {
  protected override isStillOwned(): boolean {
    return true
  }
}

/** Whatever the source's ring was, the slot counts as filled. */
export class AnyRing extends ExchangeFills {
  override note(pulled: PulledSlots): void {
    super.note({ ...pulled, ringVersion: Number.POSITIVE_INFINITY })
  }
}

/** One source is as good as all. */
export class AnySource extends ExchangeFills {
  override note(pulled: PulledSlots): void {
    for (let source = 1; source <= 5; source++) super.note({ ...pulled, source })
  }
}

/** A slot counts as filled before what was pulled is durable. */
export class FilledTooEarly extends ExchangeFills {
  protected override markOf(): number {
    return 0
  }
}

/** What is not durable leaves. */
export class NothingGated extends Exchanges {
  constructor(parts: Parts) {
    const { host } = parts
    const outbox: Outbox = {
      send: (to, code, _, write) => host.outbox.send(to, code, 0, write),
    }
    const ungated = new Proxy(host, {
      get: (target, name): unknown => (name === "outbox" ? outbox : Reflect.get(target, name)),
    })
    super({ ...parts, host: ungated })
  }
}

/** Numbers of pulls begin again with each life, so that answers to an earlier one are taken. */
export class NumbersAgain extends Exchanges {
  constructor(parts: Parts) {
    super({ ...parts, prng: new Prng(1) })
  }
}

/**
 * Each with the rules under which it is tried, and a seed whose world fails; when what happens in a world has changed, one of the next may do. Bugs that need a moment of
 * their own are in exchangesStories.test.ts.
 */
export const plantedBugs: ReadonlyArray<
  readonly [string, WorldOf, Readonly<Record<string, number>>]
> = [
  ["a clock adopted first", worldWith({ pull: AdoptedFirst }), { siblings: 1, set: 1 }],
  ["a clock taken last", clockTakenLast(), { siblings: 3, set: 2 }],
  ["deletes left out", worldWith({ source: LiveNewsOnly }), { set: 7 }],
  ["what is gone there stays", worldWith({ pull: GoneStays }), { siblings: 1, set: 12 }],
  ["trees ignored", worldWith({ pull: TreesIgnored }), { siblings: 1, set: 12 }],
  ["the first page only", worldWith({ pull: FirstPageOnly }), { siblings: 1, set: 3 }],
  ["one's own loss overlooked", worldWith({ pull: OwnLossOverlooked }), { siblings: 1, set: 3 }],
]
