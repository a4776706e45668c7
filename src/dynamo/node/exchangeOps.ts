import { type ByteReader, MalformedBytes } from "../../lib/byteReader.ts"
import type { ByteWriter } from "../../lib/byteWriter.ts"
import { slotCount } from "../../lib/slot.ts"
import type { NamespaceId, RingVersion, Slot } from "../../types.ts"
import { type Actor, readActor, writeActor } from "../dot.ts"
import type { Sum } from "../merkleMessages.ts"
import { SlotClock } from "../slotClock.ts"
import { slotsPerRun } from "./keys.ts"

/**
 * What two owners say to each other while one of them pulls a run of slots from the other. Sent: do not change. Numbers without a width are varints.
 *
 *     message := kind u8 ‖ id ‖ step ‖ body         id: of the pull, chosen by who pulls; step: of the question in it, repeated by the answer
 *
 *     1 compare := namespace ‖ slots ‖ digest        the sum of the slots' digests
 *     2 open    := namespace ‖ slots ‖ digest of each slot
 *     3 news    := namespace ‖ places ‖ clock of each place ‖ 0 | 1 ‖ key length ‖ key     go on behind this key of the first place
 *     4 tree    := namespace ‖ places ‖ question of merkleMessages.ts
 *     5 keys    := namespace ‖ places (one) ‖ count ‖ (length ‖ key)*
 *     6 invite  := namespace ‖ slots                 asks for no answer
 *
 *     17 same     := ringVersion (‖ slots)           of the slots asked about: those that are being refilled there (refills.ts), if there are any
 *     18 differs  :=
 *     19 opened   := ringVersion ‖ places ‖ clock of each place (‖ slots)                  of the slots that differ; the last as above
 *     20 page     := count ‖ (place's index ‖ key length ‖ key ‖ state length ‖ state)* ‖ 0 | 1 ‖ place's index ‖ (0 | 1 ‖ length ‖ key)
 *     21 compared := answer of merkleMessages.ts
 *     22 states   := count ‖ (length ‖ state; 0: nothing is held)*                         of as many of the keys as fit
 *     23 busy     :=                                 ask again later
 *     24 gone     :=                                 it does not own all of the slots, or in another epoch than named
 *
 *     slots  := run ‖ u32 ‖ u32                      bit i: slot 64 * run + i
 *     places := slots ‖ actor of each                as which the one who is asked owns the slot
 *     digest := low u32 ‖ high u32
 */
export interface Place {
  readonly slot: Slot
  readonly actor: Actor
}

/** A place with its clock: of who asks in `news`, of who answers in `opened`. */
export interface ClockedPlace extends Place {
  readonly clock: SlotClock
}

/** Where a page goes on: behind a key of a place, or at its begin. */
export interface PageCursor {
  readonly slot: Slot
  readonly after: Uint8Array | undefined
}

interface AboutSlots {
  readonly namespace: NamespaceId
  /** Of one run, ascending. */
  readonly slots: ReadonlyArray<Slot>
}

export type Question =
  | (AboutSlots & { readonly _tag: "Compare"; readonly digest: Sum })
  | (AboutSlots & { readonly _tag: "Open"; readonly digests: ReadonlyArray<Sum> })
  | {
      readonly _tag: "News"
      readonly namespace: NamespaceId
      readonly places: ReadonlyArray<ClockedPlace>
      readonly after: Uint8Array | undefined
    }
  | {
      readonly _tag: "Tree"
      readonly namespace: NamespaceId
      readonly places: ReadonlyArray<Place>
      readonly question: Uint8Array
    }
  | {
      readonly _tag: "Keys"
      readonly namespace: NamespaceId
      readonly places: ReadonlyArray<Place>
      readonly keys: ReadonlyArray<Uint8Array>
    }

export interface Invite extends AboutSlots {
  readonly _tag: "Invite"
}

export interface PageEntry {
  readonly slot: Slot
  readonly key: Uint8Array
  readonly state: Uint8Array
}

export type Answer =
  | {
      readonly _tag: "Same"
      readonly ringVersion: RingVersion
      /** Of which the source itself lacks data. */
      readonly refilling: ReadonlyArray<Slot>
    }
  | { readonly _tag: "Differs" }
  | {
      readonly _tag: "Opened"
      readonly ringVersion: RingVersion
      readonly places: ReadonlyArray<ClockedPlace>
      readonly refilling: ReadonlyArray<Slot>
    }
  | {
      readonly _tag: "Page"
      readonly entries: ReadonlyArray<PageEntry>
      readonly next: PageCursor | undefined
    }
  | { readonly _tag: "Compared"; readonly answer: Uint8Array }
  | { readonly _tag: "States"; readonly states: ReadonlyArray<Uint8Array | undefined> }
  | { readonly _tag: "Busy" }
  | { readonly _tag: "Gone" }

export interface Heading {
  readonly id: number
  readonly step: number
}

const kinds = {
  Compare: 1,
  Open: 2,
  News: 3,
  Tree: 4,
  Keys: 5,
  Invite: 6,
  Same: 17,
  Differs: 18,
  Opened: 19,
  Page: 20,
  Compared: 21,
  States: 22,
  Busy: 23,
  Gone: 24,
} as const

function writeHead(out: ByteWriter, kind: number, { id, step }: Heading): void {
  out.u8(kind)
  out.varint(id)
  out.varint(step)
}

export function writeQuestion(
  out: ByteWriter,
  heading: Heading,
  question: Question | Invite,
): void {
  writeHead(out, kinds[question._tag], heading)
  out.varint(question.namespace)
  switch (question._tag) {
    case "Compare":
      writeSlots(out, question.slots)
      writeSum(out, question.digest)
      break
    case "Open":
      writeSlots(out, question.slots)
      for (const digest of question.digests) writeSum(out, digest)
      break
    case "News":
      writePlaces(out, question.places)
      for (const { clock } of question.places) clock.write(out)
      writeOptional(out, question.after)
      break
    case "Tree":
      writePlaces(out, question.places)
      out.raw(question.question)
      break
    case "Keys":
      writePlaces(out, question.places)
      out.varint(question.keys.length)
      for (const key of question.keys) writeBytes(out, key)
      break
    case "Invite":
      writeSlots(out, question.slots)
      break
    default:
      question satisfies never
  }
}

/** `places`: of the question, by whose order a page names them. */
export function writeAnswer(
  out: ByteWriter,
  heading: Heading,
  answer: Answer,
  places: ReadonlyArray<Place>,
): void {
  writeHead(out, kinds[answer._tag], heading)
  switch (answer._tag) {
    case "Same":
      out.varint(answer.ringVersion)
      if (answer.refilling.length > 0) writeSlots(out, answer.refilling)
      break
    case "Opened":
      out.varint(answer.ringVersion)
      writePlaces(out, answer.places)
      for (const { clock } of answer.places) clock.write(out)
      if (answer.refilling.length > 0) writeSlots(out, answer.refilling)
      break
    case "Page":
      writePage(out, answer, places)
      break
    case "Compared":
      out.raw(answer.answer)
      break
    case "States":
      out.varint(answer.states.length)
      for (const state of answer.states) {
        if (state === undefined) out.varint(0)
        else writeBytes(out, state)
      }
      break
    case "Differs":
    case "Busy":
    case "Gone":
      break
    default:
      answer satisfies never
  }
}

function writePage(
  out: ByteWriter,
  page: Answer & { readonly _tag: "Page" },
  places: ReadonlyArray<Place>,
): void {
  const indexOf = (slot: Slot) => places.findIndex((place) => place.slot === slot)
  out.varint(page.entries.length)
  for (const { slot, key, state } of page.entries) {
    out.varint(indexOf(slot))
    writeBytes(out, key)
    writeBytes(out, state)
  }
  out.u8(page.next === undefined ? 0 : 1)
  if (page.next === undefined) return
  out.varint(indexOf(page.next.slot))
  writeOptional(out, page.next.after)
}

export interface Heard extends Heading {
  readonly message: Question | Invite | AnswerBody
}

/** An answer whose body has to be read by what was asked. */
export interface AnswerBody {
  readonly _tag: "AnswerBody"
  readonly kind: number
  readonly body: ByteReader
}

/** Byte strings are views. Throws `MalformedBytes`. */
export function readMessage(reader: ByteReader): Heard {
  const kind = reader.u8()
  const heading = { id: reader.varint(), step: reader.varint() }
  if (kind >= kinds.Same) {
    return { ...heading, message: { _tag: "AnswerBody", kind, body: reader } }
  }
  const message = readQuestion(kind, reader)
  reader.end()
  return { ...heading, message }
}

function readQuestion(kind: number, reader: ByteReader): Question | Invite {
  const namespace = reader.varint()
  switch (kind) {
    case kinds.Compare:
      return { _tag: "Compare", namespace, slots: readSlots(reader), digest: readSum(reader) }
    case kinds.Open: {
      const slots = readSlots(reader)
      return { _tag: "Open", namespace, slots, digests: slots.map(() => readSum(reader)) }
    }
    case kinds.News: {
      const places = readClockedPlaces(reader)
      return { _tag: "News", namespace, places, after: readOptional(reader) }
    }
    case kinds.Tree:
      return { _tag: "Tree", namespace, places: readPlaces(reader), question: reader.rest() }
    case kinds.Keys: {
      const places = readPlaces(reader)
      if (places.length !== 1) throw new MalformedBytes(`keys of ${places.length} slots`)
      return { _tag: "Keys", namespace, places, keys: readList(reader, () => readBytes(reader)) }
    }
    case kinds.Invite:
      return { _tag: "Invite", namespace, slots: readSlots(reader) }
    default:
      throw new MalformedBytes(`an exchange has no message of kind ${kind}`)
  }
}

/** `places`: of the question that this answers. Byte strings are views. Throws `MalformedBytes`. */
export function readAnswer({ kind, body }: AnswerBody, places: ReadonlyArray<Place>): Answer {
  const answer = readAnswerBody(kind, body, places)
  body.end()
  return answer
}

function readAnswerBody(kind: number, body: ByteReader, places: ReadonlyArray<Place>): Answer {
  switch (kind) {
    case kinds.Same:
      return { _tag: "Same", ringVersion: body.varint(), refilling: readRefilling(body) }
    case kinds.Differs:
      return { _tag: "Differs" }
    case kinds.Opened: {
      const ringVersion = body.varint()
      const places = readClockedPlaces(body)
      return { _tag: "Opened", ringVersion, places, refilling: readRefilling(body) }
    }
    case kinds.Page: {
      const entries = readList(body, (): PageEntry => {
        return { slot: readIndex(body, places), key: readBytes(body), state: readBytes(body) }
      })
      const hasNext = readFlag(body)
      if (!hasNext) return { _tag: "Page", entries, next: undefined }
      const slot = readIndex(body, places)
      return { _tag: "Page", entries, next: { slot, after: readOptional(body) } }
    }
    case kinds.Compared:
      return { _tag: "Compared", answer: body.rest() }
    case kinds.States: {
      const states = readList(body, () => {
        const state = readBytes(body)
        return state.length === 0 ? undefined : state
      })
      return { _tag: "States", states }
    }
    case kinds.Busy:
      return { _tag: "Busy" }
    case kinds.Gone:
      return { _tag: "Gone" }
    default:
      throw new MalformedBytes(`an exchange has no answer of kind ${kind}`)
  }
}

// ---- Parts

function writeSlots(out: ByteWriter, slots: ReadonlyArray<Slot>): void {
  let low = 0
  let high = 0
  for (const slot of slots) {
    const place = slot % slotsPerRun
    if (place < 32) low |= 1 << place
    else high |= 1 << (place - 32)
  }
  out.varint(Math.floor(slots[0] / slotsPerRun))
  out.u32(low >>> 0)
  out.u32(high >>> 0)
}

function readSlots(reader: ByteReader): ReadonlyArray<Slot> {
  const start = reader.varint() * slotsPerRun
  if (start >= slotCount) throw new MalformedBytes(`there is no slot ${start}`)
  const words = [reader.u32(), reader.u32()]
  const slots: Array<Slot> = []
  for (let place = 0; place < slotsPerRun; place++) {
    if ((words[place >> 5] >>> (place & 31)) & 1) slots.push(start + place)
  }
  if (slots.length === 0) throw new MalformedBytes("a message about no slot")
  return slots
}

function readRefilling(reader: ByteReader): ReadonlyArray<Slot> {
  return reader.remaining === 0 ? [] : readSlots(reader)
}

function writePlaces(out: ByteWriter, places: ReadonlyArray<Place>): void {
  const slots = places.map(({ slot }) => slot)
  writeSlots(out, slots)
  for (const { actor } of places) writeActor(out, actor)
}

function readPlaces(reader: ByteReader): ReadonlyArray<Place> {
  return readSlots(reader).map((slot) => ({ slot, actor: readActor(reader) }))
}

function readClockedPlaces(reader: ByteReader): ReadonlyArray<ClockedPlace> {
  return readPlaces(reader).map((place) => ({ ...place, clock: SlotClock.read(reader) }))
}

function readIndex(reader: ByteReader, places: ReadonlyArray<Place>): Slot {
  const index = reader.varint()
  if (index >= places.length) throw new MalformedBytes(`place ${index} of ${places.length}`)
  return places[index].slot
}

function writeSum(out: ByteWriter, { low, high }: Sum): void {
  out.u32(low)
  out.u32(high)
}

function readSum(reader: ByteReader): Sum {
  return { low: reader.u32(), high: reader.u32() }
}

function writeBytes(out: ByteWriter, bytes: Uint8Array): void {
  out.varint(bytes.length)
  out.raw(bytes)
}

function readBytes(reader: ByteReader): Uint8Array {
  return reader.raw(reader.varint())
}

function readFlag(reader: ByteReader): boolean {
  const flag = reader.u8()
  if (flag > 1) throw new MalformedBytes(`${flag} is neither yes nor no`)
  return flag === 1
}

function writeOptional(out: ByteWriter, bytes: Uint8Array | undefined): void {
  out.u8(bytes === undefined ? 0 : 1)
  if (bytes !== undefined) writeBytes(out, bytes)
}

function readOptional(reader: ByteReader): Uint8Array | undefined {
  return readFlag(reader) ? readBytes(reader) : undefined
}

/** Every item takes a byte at least, so a count that cannot be costs nothing. */
function readList<A>(reader: ByteReader, read: () => A): ReadonlyArray<A> {
  const count = reader.varint()
  if (count > reader.remaining) throw new MalformedBytes(`${count} items`)
  return Array.from({ length: count }, read)
}
