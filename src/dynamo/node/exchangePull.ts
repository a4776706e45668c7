import { assert } from "../../lib/assert.ts"
import { MalformedBytes } from "../../lib/byteReader.ts"
import { equalBytes } from "../../lib/bytes.ts"
import { ByteWriter } from "../../lib/byteWriter.ts"
import type { NamespaceId, RingVersion, Slot } from "../../types.ts"
import type { Actor } from "../dot.ts"
import type { ConflictRule } from "../elements.ts"
import { addDots, checkState, forEachDot, ruleOf } from "../keyState.ts"
import { type KeyDifference, MerkleExchange } from "../merkleExchange.ts"
import { MerkleHash } from "../merkleHash.ts"
import type { SlotClock } from "../slotClock.ts"
import type { Answer, PageCursor, Place, Question } from "./exchangeOps.ts"
import { digestOf, type HeldSlots } from "./exchangeSource.ts"

/** `equal`: nothing had to be done. `complete`: the source's clocks are adopted. `broken`: nothing was adopted of the slots still open. */
export type PullOutcome = "equal" | "complete" | "broken"

export interface PullTarget {
  readonly namespace: NamespaceId
  readonly rule: ConflictRule
  /** Of one run, ascending; owned here. */
  readonly slots: ReadonlyArray<Slot>
}

/** A slot that differs, until the source's clock is adopted. */
export interface OpenSlot extends Place {
  /** As which the slot is owned here. */
  readonly own: Actor
  /** The source's clock when the pull was opened. */
  readonly theirs: SlotClock
  /** Ours, when what is held here was last held against theirs: dots that have come since are still to be looked at. */
  looked: SlotClock
  /** Keys whose state there is still to be asked for. */
  asked: Array<Uint8Array>
}

const bytes = new ByteWriter(4096)
const hash = new MerkleHash()

/**
 * One half of a complete exchange of a run of slots: everything that the source has seen is taken over here, and at the end its clock. The other half is that the source does
 * the same with this node. Pure but for the owner's tables; who sends, waits and asks again is `exchanges.ts`.
 *
 * The flow. Each step is a question and its answer.
 *   1. `compare`: the sum of the slots' digests. Between equal replicas nothing else moves.
 *   2. `open`: a digest of each slot; the answer has, of those that differ, the source's clock C as it is now. All that follows is read at the source after that.
 *   3. `news`: every state there in which there is a write or a delete that our clock lacks, page by page; each is merged here.
 *   4. `tree`: keys whose live dots differ still, level by level. We may hold a dot of C that the source holds no more.
 *   5. `keys`: those of them that we hold with a dot of C are asked for by name. What the source has seen and does not hold goes here too (`mergeExchanged`).
 *   6. Dots of C may have come here from others since step 4 looked, and be obsolete. As long as there are such, back to 5 with their keys. C does not grow, so this ends.
 *   7. C is adopted, in the turn that found nothing left.
 *
 * Invariants, which make the clock of this node tell the truth after step 7:
 * - C is older than every state that is read for it, and of the same epoch of the source as each of them;
 * - every state at the source with a dot of C that our clock lacked was merged here before, so it is durable before C is;
 * - every key here with a dot of C was found equal to the source's after C was taken, or was merged with the source's;
 * - a pull that does not come to its end adopts nothing; what it has merged by then is as good as any repair.
 */
export class Pull {
  /** `undefined`: it goes on. */
  outcome: PullOutcome | undefined
  /** Of the source's ring, when it said that all is the same or gave its clocks. */
  ringVersion: RingVersion = 0
  /** Slots of which the source itself lacked data then. */
  refilling: ReadonlyArray<Slot> = []
  /** Keys found to differ so far, deletes included. */
  private found = 0
  /** Keys of which the source lacks something, as far as the trees tell. */
  lacking = 0
  readonly target: PullTarget
  protected readonly owner: HeldSlots
  private readonly pageBytes: number
  private phase: "compare" | "open" | "news" | "tree" | "keys" = "compare"
  private readonly owns: ReadonlyArray<Actor | undefined>
  protected open: Array<OpenSlot> = []
  private newsFrom: PageCursor | undefined
  private merkle: MerkleExchange | undefined
  private differences: Array<KeyDifference> = []
  /** What the question under way is about, by which its answer is read. */
  places: ReadonlyArray<Place> = []

  constructor(owner: HeldSlots, target: PullTarget, pageBytes: number) {
    const { namespace, slots } = target
    this.owner = owner
    this.target = target
    this.pageBytes = pageBytes
    this.owns = slots.map((slot) => owner.actorOf(namespace, slot))
    assert(!this.owns.includes(undefined), () => `slots from ${slots[0]} are owned here`)
  }

  /** Keys found to differ by now, deletes included; as soon as the sums differ, one at least. */
  get differing(): number {
    return this.phase === "compare" ? 0 : Math.max(1, this.found)
  }

  /** The next question. Each is asked for once; what it says of this node is of this moment. */
  question(): Question {
    assert(this.outcome === undefined, "a pull that is over asks nothing")
    const question = this.questionOf()
    this.places = "places" in question ? question.places : []
    return question
  }

  private questionOf(): Question {
    const { owner, open } = this
    const { namespace, slots } = this.target
    switch (this.phase) {
      case "compare":
        return { _tag: "Compare", namespace, slots, digest: digestOf(owner, namespace, slots) }
      case "open": {
        const digests = slots.map((slot) => digestOf(owner, namespace, [slot]))
        return { _tag: "Open", namespace, slots, digests }
      }
      case "news": {
        const { newsFrom } = this
        const places = open
          .filter(({ slot }) => newsFrom === undefined || slot >= newsFrom.slot)
          .map(({ slot, actor }) => ({ slot, actor, clock: owner.copyClock(namespace, slot) }))
        return { _tag: "News", namespace, places, after: newsFrom?.after }
      }
      case "tree": {
        bytes.reset()
        const isAsked = this.merkle?.ask(bytes)
        assert(isAsked === true, "trees that are compared to the end are asked about no more")
        return { _tag: "Tree", namespace, places: placesOf(open), question: bytes.take() }
      }
      case "keys": {
        const slot = open.find(({ asked }) => asked.length > 0)
        assert(slot !== undefined, "keys are asked for while there are any")
        let size = 0
        const keys = slot.asked.filter((key, i) => {
          size += key.length + 4
          return i === 0 || size <= this.pageBytes
        })
        return { _tag: "Keys", namespace, places: placesOf([slot]), keys }
      }
      default:
        return this.phase satisfies never
    }
  }

  /** Takes the answer to the last question. Throws `MalformedBytes`; the question may then be asked again, in the same bytes. */
  take(answer: Answer): void {
    assert(this.outcome === undefined, "a pull that is over takes no answer")
    const { phase } = this
    if (answer._tag === "Gone" || !this.isStillOwned()) this.outcome = "broken"
    else if (answer._tag === "Same" && (phase === "compare" || phase === "open")) {
      this.ringVersion = answer.ringVersion
      this.refilling = answer.refilling
      this.outcome = "equal"
    } else if (answer._tag === "Differs" && phase === "compare") this.phase = "open"
    else if (answer._tag === "Opened" && phase === "open") this.takeClocks(answer)
    else if (answer._tag === "Page" && phase === "news") this.takeNews(answer)
    else if (answer._tag === "Compared" && phase === "tree") this.takeTree(answer.answer)
    else if (answer._tag === "States" && phase === "keys") this.takeStates(answer.states)
    else throw new MalformedBytes(`${answer._tag} answers no ${phase}`)
  }

  /** Who was given the slot anew since, or lost it, has begun from nothing. */
  protected isStillOwned(): boolean {
    const { namespace, slots } = this.target
    return slots.every((slot, i) => this.owner.actorOf(namespace, slot) === this.owns[i])
  }

  private takeClocks(answer: Answer & { readonly _tag: "Opened" }): void {
    const { ringVersion, places } = answer
    this.refilling = answer.refilling
    const { namespace, slots } = this.target
    this.open = places.map(({ slot, actor, clock }) => {
      const own = this.owns[slots.indexOf(slot)]
      if (own === undefined) throw new MalformedBytes(`slot ${slot} was not asked about`)
      const looked = this.owner.copyClock(namespace, slot)
      return { slot, actor, own, theirs: clock, looked, asked: [] }
    })
    this.ringVersion = ringVersion
    this.phase = "news"
  }

  // ---- News

  private takeNews({ entries, next }: Answer & { readonly _tag: "Page" }): void {
    for (const { slot, key, state } of entries) {
      const open = this.open.find((place) => place.slot === slot)
      assert(open !== undefined, () => `slot ${slot} is open`)
      this.merge(open, key, state)
      this.found++
    }
    this.newsFrom = next === undefined ? undefined : { ...next, after: next.after?.slice() }
    if (next === undefined) this.beginTree()
  }

  /** `theirs` was read after their clock. */
  protected merge(open: OpenSlot, key: Uint8Array, theirs: Uint8Array | undefined): void {
    const { namespace, rule } = this.target
    if (theirs !== undefined) {
      if (ruleOf(theirs) !== rule) throw new MalformedBytes(`a state that is none of ${rule}`)
      checkState(theirs)
    }
    const place = { namespace, slot: open.slot, key }
    if (this.owner.mergeExchanged(place, theirs, open.theirs)) return
    // Without this key the clock must not be adopted: the pull is not to come to its end.
    throw new MalformedBytes("a key's concurrent values are too large to be held together")
  }

  // ---- Live dots

  private beginTree(): void {
    const { namespace } = this.target
    for (const open of this.open) open.looked = this.owner.copyClock(namespace, open.slot)
    // A source that has seen nothing of a slot has nothing against what is here.
    const runs = this.open
      .filter(({ theirs }) => !isEmpty(theirs))
      .map(({ slot }) => ({ start: slot, slots: 1 }))
    this.merkle = new MerkleExchange(this.owner.view(namespace), runs)
    if (this.merkle.isDone) this.settle()
    else this.phase = "tree"
  }

  private takeTree(answer: Uint8Array): void {
    const { merkle } = this
    assert(merkle !== undefined, "trees are being compared")
    merkle.take(answer)
    this.differences.push(...merkle.takeDifferences())
    if (!merkle.isDone) return
    for (const open of this.open) {
      const differences = this.differences.filter(({ slot }) => slot === open.slot)
      const isCrowded = merkle.crowdedSlots.has(open.slot)
      this.found += differences.length
      if (differences.length > 0 || isCrowded) {
        open.asked = this.keysOf(open, isCrowded ? undefined : differences)
      }
      this.lacking += Math.max(0, differences.length - open.asked.length)
    }
    this.merkle = undefined
    this.differences = []
    this.settle()
  }

  /** Keys held here with a dot of their clock, among those that differ; `undefined`: among all of the slot. */
  protected keysOf(
    open: OpenSlot,
    differences: ReadonlyArray<KeyDifference> | undefined,
  ): Array<Uint8Array> {
    const names = new Set(differences?.map(({ keyLow, keyHigh }) => nameOf(keyLow, keyHigh)))
    return this.keysWhere(open.slot, (key, state) => {
      if (differences !== undefined) {
        hash.begin(key)
        if (!names.has(nameOf(hash.keyLow, hash.keyHigh))) return false
      }
      return hasDot(state, (actor, counter) => open.theirs.contains(actor, counter))
    })
  }

  /** Keys held here with a dot of their clock that was not here when the slot was last looked at. */
  protected lateKeysOf({ slot, theirs, looked }: OpenSlot): Array<Uint8Array> {
    const isLate = (actor: Actor, counter: number) =>
      !looked.contains(actor, counter) && theirs.contains(actor, counter)
    return this.keysWhere(slot, (_, state) => hasDot(state, isLate))
  }

  private keysWhere(
    slot: Slot,
    isWanted: (key: Uint8Array, state: Uint8Array) => boolean,
  ): Array<Uint8Array> {
    const keys: Array<Uint8Array> = []
    this.owner.forEachState(this.target.namespace, slot, (key, state) => {
      if (isWanted(key, state)) keys.push(key.slice())
      return true
    })
    return keys
  }

  // ---- The end

  private takeStates(states: ReadonlyArray<Uint8Array | undefined>): void {
    const open = this.open.find(({ asked }) => asked.length > 0)
    assert(open !== undefined, "keys were asked for")
    if (states.length === 0 || states.length > open.asked.length) {
      throw new MalformedBytes(`${states.length} states for ${open.asked.length} keys`)
    }
    for (const [i, state] of states.entries()) {
      this.merge(open, open.asked[i], state)
      // What came from the source itself need not be held against it once more.
      if (state !== undefined) addDots(state, open.looked)
    }
    open.asked = open.asked.slice(states.length)
    if (open.asked.length === 0) this.settle()
    else this.phase = "keys"
  }

  /** Adopts the clock of every slot in which nothing is left to be asked for. */
  private settle(): void {
    const { namespace } = this.target
    this.open = this.open.filter((open) => {
      if (open.asked.length > 0) return true
      const now = this.owner.copyClock(namespace, open.slot)
      if (!isSameClock(now, open.looked)) {
        open.asked = this.lateKeysOf(open)
        open.looked = now
      }
      if (open.asked.length > 0) return true
      this.adopt(open, now)
      return false
    })
    if (this.open.length === 0) this.outcome = "complete"
    else this.phase = "keys"
  }

  protected adopt({ slot, own, theirs }: OpenSlot, now: SlotClock): void {
    const { namespace } = this.target
    const { owner } = this
    assert(owner.actorOf(namespace, slot) === own, () => `slot ${slot} is owned as when it began`)
    const before = bytesOf(now)
    now.adopt(theirs)
    if (!equalBytes(bytesOf(now), before)) owner.adopt(namespace, slot, theirs)
  }
}

function placesOf(open: ReadonlyArray<Place>): ReadonlyArray<Place> {
  return open.map(({ slot, actor }) => ({ slot, actor }))
}

function hasDot(state: Uint8Array, isWanted: (actor: Actor, counter: number) => boolean): boolean {
  let found = false
  forEachDot(state, (actor, counter) => {
    found ||= isWanted(actor, counter)
  })
  return found
}

function bytesOf(clock: SlotClock): Uint8Array {
  bytes.reset()
  clock.write(bytes)
  return bytes.take()
}

function isEmpty(clock: SlotClock): boolean {
  let isEmpty = true
  const notEmpty = () => {
    isEmpty = false
  }
  clock.forEach(notEmpty, notEmpty)
  return isEmpty
}

function isSameClock(left: SlotClock, right: SlotClock): boolean {
  return equalBytes(bytesOf(left), bytesOf(right))
}

function nameOf(keyLow: number, keyHigh: number): string {
  return `${keyHigh}/${keyLow}`
}
