import { ByteWriter } from "../../lib/byteWriter.ts"
import type { NamespaceId, NodeId, Slot } from "../../types.ts"
import { hasNews } from "../exchange.ts"
import { answerQuestion } from "../merkleExchange.ts"
import { type Sum, sameSum } from "../merkleMessages.ts"
import type { SlotClock } from "../slotClock.ts"
import {
  type Answer,
  type ClockedPlace,
  type Heading,
  type PageCursor,
  type PageEntry,
  type Place,
  type Question,
  writeAnswer,
} from "./exchangeOps.ts"
import { opCodes } from "./opCodes.ts"
import type { Owner, OwnerTables } from "./owner.ts"
import type { NodeHost } from "./ports.ts"

/** What an exchange needs of the owner's tables. */
export type HeldSlots = OwnerTables &
  Pick<Owner, "forEachWithin" | "digest" | "nextHeld" | "recountTree">

/** Keys looked at for one page, whether there is news in them or not; beyond, the page ends where it is. */
const keysPerPage = 20_000

const bytes = new ByteWriter(512)

/** What stands for all that is held of some slots: the sum of what stands for each (slotTables.ts). */
export function digestOf(
  owner: HeldSlots,
  namespace: NamespaceId,
  slots: ReadonlyArray<Slot>,
): Sum {
  let low = 0
  let high = 0
  for (const slot of slots) {
    const sum = owner.digest(namespace, slot)
    low = (low + sum.low) | 0
    high = (high + sum.high) | 0
  }
  return { low: low >>> 0, high: high >>> 0 }
}

/** With this mark all that is held of some slots is durable. */
export function markOfAll(
  owner: HeldSlots,
  namespace: NamespaceId,
  slots: ReadonlyArray<{ readonly slot: Slot }>,
): number {
  let mark = 0
  for (const { slot } of slots) mark = Math.max(mark, owner.markOf(namespace, slot))
  return mark
}

/**
 * An owner from which others pull. It remembers nothing of them, so either side may go away at any time, and a question may be asked twice.
 *
 * Invariants:
 * - what it says of a slot is of one moment, the moment of the answer; and of one life of the slot, the epoch in which it owns it: where a question names another, because
 *   the slot was lost or given away since, it says nothing;
 * - an answer leaves when all that is held of its slots is durable.
 */
export class ExchangeSource {
  protected readonly host: NodeHost
  protected readonly owner: HeldSlots
  private readonly pageBytes: number

  constructor(host: NodeHost, owner: HeldSlots, pageBytes: number) {
    this.host = host
    this.owner = owner
    this.pageBytes = pageBytes
  }

  /** Returns how many bytes the answer has. Throws `MalformedBytes`. */
  answer(to: NodeId, heading: Heading, question: Question, isBusy: boolean): number {
    const answer: Answer = isBusy ? { _tag: "Busy" } : this.answerTo(question)
    const slots = "slots" in question ? question.slots.map((slot) => ({ slot })) : question.places
    const places = "places" in question ? question.places : []
    const isSilent = answer._tag === "Busy" || answer._tag === "Gone"
    const mark = isSilent ? 0 : markOfAll(this.owner, question.namespace, slots)
    let sent = 0
    this.host.outbox.send(to, opCodes.exchange, mark, (out) => {
      const before = out.length
      writeAnswer(out, heading, answer, places)
      sent = out.length - before
    })
    return sent
  }

  private answerTo(question: Question): Answer {
    const { namespace } = question
    if (!this.host.namespaces.has(namespace)) return { _tag: "Gone" }
    switch (question._tag) {
      case "Compare":
        return this.compare(namespace, question.slots, question.digest)
      case "Open":
        return this.open(namespace, question.slots, question.digests)
      case "News":
        if (!this.isHeld(namespace, question.places)) return { _tag: "Gone" }
        return this.news(namespace, question.places, question.after)
      case "Tree":
        if (!this.isHeld(namespace, question.places)) return { _tag: "Gone" }
        bytes.reset()
        answerQuestion(this.owner.view(namespace), question.question, bytes)
        return { _tag: "Compared", answer: bytes.take() }
      case "Keys":
        if (!this.isHeld(namespace, question.places)) return { _tag: "Gone" }
        return this.states(namespace, question.places[0].slot, question.keys)
      default:
        return question satisfies never
    }
  }

  /** Whether the slots are still owned in the epochs that the clocks of the pull are of. */
  protected isHeld(namespace: NamespaceId, places: ReadonlyArray<Place>): boolean {
    return places.every(({ slot, actor }) => this.owner.actorOf(namespace, slot) === actor)
  }

  private ownsAll(namespace: NamespaceId, slots: ReadonlyArray<Slot>): boolean {
    return slots.every((slot) => this.owner.actorOf(namespace, slot) !== undefined)
  }

  private get ringVersion(): number {
    return this.host.ring?.version ?? 0
  }

  private compare(namespace: NamespaceId, slots: ReadonlyArray<Slot>, digest: Sum): Answer {
    if (!this.ownsAll(namespace, slots)) return { _tag: "Gone" }
    const isSame = sameSum(digestOf(this.owner, namespace, slots), digest)
    if (!isSame) return { _tag: "Differs" }
    return { _tag: "Same", ringVersion: this.ringVersion, refilling: this.refilling(slots) }
  }

  private open(
    namespace: NamespaceId,
    slots: ReadonlyArray<Slot>,
    digests: ReadonlyArray<Sum>,
  ): Answer {
    const { owner, ringVersion } = this
    const places: Array<ClockedPlace> = []
    for (const [i, slot] of slots.entries()) {
      const actor = owner.actorOf(namespace, slot)
      if (actor === undefined) return { _tag: "Gone" }
      if (sameSum(digestOf(owner, namespace, [slot]), digests[i])) continue
      places.push({ slot, actor, clock: this.clockOf(namespace, slot) })
    }
    const refilling = this.refilling(slots)
    if (places.length === 0) return { _tag: "Same", ringVersion, refilling }
    return { _tag: "Opened", ringVersion, places, refilling }
  }

  private refilling(slots: ReadonlyArray<Slot>): ReadonlyArray<Slot> {
    return slots.filter((slot) => this.host.isRefilling(slot))
  }

  protected clockOf(namespace: NamespaceId, slot: Slot): SlotClock {
    return this.owner.copyClock(namespace, slot)
  }

  /** The next states in which there is a write or a delete that the clocks of who asks lack. */
  private news(
    namespace: NamespaceId,
    places: ReadonlyArray<ClockedPlace>,
    after: Uint8Array | undefined,
  ): Answer {
    const entries: Array<PageEntry> = []
    let size = 0
    let looked = 0
    let next: PageCursor | undefined
    for (const [i, { slot, clock }] of places.entries()) {
      let last = i === 0 ? after : undefined
      const slots = { start: slot, slots: 1, ...(last === undefined ? {} : { after: last }) }
      this.owner.forEachWithin(namespace, slots, (_, key, state) => {
        if (this.isNews(state, clock)) {
          const isFull = entries.length > 0 && size + key.length + state.length > this.pageBytes
          if (isFull) next = { slot, after: last }
          if (isFull) return false
          entries.push({ slot, key: key.slice(), state: state.slice() })
          size += key.length + state.length
        }
        last = key.slice()
        if (++looked >= keysPerPage) next = { slot, after: last }
        return next === undefined
      })
      if (next !== undefined) break
    }
    return { _tag: "Page", entries, next }
  }

  protected isNews(state: Uint8Array, seenThere: SlotClock): boolean {
    return hasNews(state, seenThere)
  }

  /** Of as many of the keys as fit on a page, and of one at least. */
  private states(namespace: NamespaceId, slot: Slot, keys: ReadonlyArray<Uint8Array>): Answer {
    const states: Array<Uint8Array | undefined> = []
    let size = 0
    for (const key of keys) {
      const state = this.owner.state(namespace, slot, key)
      size += state?.length ?? 1
      if (states.length > 0 && size > this.pageBytes) break
      states.push(state)
    }
    return { _tag: "States", states }
  }
}
