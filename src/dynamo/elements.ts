import { assert } from "../lib/assert.ts"
import { ByteReader, MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { loadU64 } from "../lib/littleEndian.ts"
import { readVarint, varintEnd } from "../lib/varint.ts"
import {
  type Actor,
  actorUnsafe,
  compareDots,
  describeDot,
  readActor,
  readCounter,
  writeActor,
} from "./dot.ts"
import { checkVector, VersionVector, vectorCovers, vectorEnd } from "./versionVector.ts"

/**
 * The bytes of a key under the rules `siblings`, `lww` and `register`: one element for each write that no other covers.
 *
 *     state   = head u8 ‖ count varint (>= 1) ‖ element*       by dot, ascending
 *     head    = format (1) * 16 + rule
 *     element = flags u8 ‖ dot ‖ [vector] ‖ [stamp u64] ‖ [expiry u64] ‖ [value length varint ‖ value]
 *     flags   = 1 a delete (no expiry, no value) ‖ 2 has a context, not empty ‖ 4 has a stamp ‖ 8 has an expiry
 *
 * Stored and sent: do not change. A set of elements has one form only, so replicas that converged are equal byte by byte.
 * Each element has its dot in full: counters run through all keys of a slot, so no dot follows from another's.
 */
export const formatVersion = 1

export const ruleNumbers = {
  siblings: 1,
  lww: 2,
  register: 3,
  set: 4,
  flag: 5,
  counter: 6,
} as const

/** The conflict rule of a namespace, as the first byte of a state tells it. */
export type ConflictRule = keyof typeof ruleNumbers

export function headOf(rule: ConflictRule): number {
  return formatVersion * 16 + ruleNumbers[rule]
}

const isDelete = 1
const hasContext = 2
const hasStamp = 4
const hasExpiry = 8

/** What is to become an element. */
export interface Write {
  readonly actor: Actor
  readonly counter: number
  /** Bytes of the vector that the writer had seen; `emptyVector` for a blind write. */
  readonly context: Uint8Array
  /** Under `lww` and `register`, from 1; 0 else. */
  readonly stamp: number
  /** Wall clock in milliseconds since 1970, or 0: never. */
  readonly expiryMs: number
  /** `undefined` deletes. */
  readonly value: Uint8Array | undefined
}

/**
 * Goes through the elements of a state without an object for any. Requires bytes that `checkElements` took, or that
 * were made here. One cursor is one place: fields hold until the next `next`.
 */
export class ElementCursor {
  bytes: Uint8Array = new Uint8Array(0)
  /** Of the state. */
  count = 0
  /** Of the present element: its bytes are from `start` to `end`. */
  start = 0
  end = 0
  flags = 0
  actor: Actor = 0
  counter = 0
  contextStart = 0
  contextEnd = 0
  stamp = 0
  expiryMs = 0
  valueStart = 0
  private left = 0

  open(bytes: Uint8Array): this {
    this.bytes = bytes
    this.count = readVarint(bytes, 1)
    this.left = this.count
    this.end = varintEnd
    return this
  }

  next(): boolean {
    const bytes = this.bytes
    if (this.left === 0) {
      assert(this.end === bytes.length, () => `elements end at ${this.end} of ${bytes.length}`)
      return false
    }
    this.left--
    this.start = this.end
    const flags = bytes[this.start]
    this.flags = flags
    const node = readVarint(bytes, this.start + 1)
    this.actor = actorUnsafe(node, readVarint(bytes, varintEnd))
    this.counter = readVarint(bytes, varintEnd)
    let at = varintEnd
    this.contextStart = at
    if (flags & hasContext) at = vectorEnd(bytes, at)
    this.contextEnd = at
    this.stamp = 0
    if (flags & hasStamp) {
      this.stamp = loadU64(bytes, at)
      at += 8
    }
    this.expiryMs = 0
    if (flags & hasExpiry) {
      this.expiryMs = loadU64(bytes, at)
      at += 8
    }
    if (!(flags & isDelete)) {
      const length = readVarint(bytes, at)
      at = varintEnd + length
      this.valueStart = varintEnd
    } else this.valueStart = at
    this.end = at
    return true
  }

  get deleted(): boolean {
    return (this.flags & isDelete) !== 0
  }

  /** Whether a reader at `nowMs` sees a value here. */
  liveAt(nowMs: number): boolean {
    return !this.deleted && (this.expiryMs === 0 || this.expiryMs > nowMs)
  }

  /** A view; empty for a delete. */
  get value(): Uint8Array {
    return this.bytes.subarray(this.valueStart, this.end)
  }

  /** Whether the context of the present element covers a dot. */
  covers(actor: Actor, counter: number): boolean {
    if (!(this.flags & hasContext)) return false
    return vectorCovers(this.bytes, this.contextStart, actor, counter)
  }

  /** Joins the context of the present element into `vector`. */
  joinContext(vector: VersionVector): void {
    if (this.flags & hasContext) vector.joinBytes(this.bytes, this.contextStart)
  }

  /** Copies the present element as it is. */
  copyTo(out: ByteWriter): void {
    out.stretch(this.bytes, this.start, this.end - this.start)
  }
}

export function writeHead(out: ByteWriter, rule: ConflictRule, count: number): void {
  out.u8(headOf(rule))
  out.varint(count)
}

export function writeElement(out: ByteWriter, write: Write): void {
  const { context, stamp, expiryMs, value } = write
  const deletes = value === undefined
  const context0 = context[0] === 0
  out.u8(
    (deletes ? isDelete : 0) |
      (context0 ? 0 : hasContext) |
      (stamp === 0 ? 0 : hasStamp) |
      (expiryMs === 0 || deletes ? 0 : hasExpiry),
  )
  writeActor(out, write.actor)
  out.varint(write.counter)
  if (!context0) out.raw(context)
  if (stamp !== 0) out.u64(stamp)
  if (deletes) return
  if (expiryMs !== 0) out.u64(expiryMs)
  out.varint(value.length)
  out.raw(value)
}

/**
 * The element of `cursor` with another context, and deleted if `deletes`: its dot and stamp stay. An expired value becomes a
 * delete this way, so that it keeps covering what it covered.
 */
export function writeChanged(
  out: ByteWriter,
  cursor: ElementCursor,
  context: Uint8Array,
  deletes: boolean,
): void {
  writeElement(out, {
    actor: cursor.actor,
    counter: cursor.counter,
    context,
    stamp: cursor.stamp,
    expiryMs: cursor.expiryMs,
    value: deletes ? undefined : cursor.value,
  })
}

/**
 * Throws `MalformedBytes` unless `bytes` are a state of elements in its only form: as the head says, in order, each number
 * in its shortest form, no element covered by another.
 */
export function checkElements(bytes: Uint8Array, rule: ConflictRule): void {
  const reader = new ByteReader(bytes, 1)
  const stamped = rule !== "siblings"
  const count = reader.varint()
  if (count === 0) throw new MalformedBytes("a state without elements")
  if (rule === "lww" && count > 1) throw new MalformedBytes(`${count} elements where one wins`)
  const contexts = new VersionVector()
  let lastActor = 0
  let lastCounter = 0
  for (let i = 0; i < count; i++) {
    const flags = reader.u8()
    const known = isDelete | hasContext | hasStamp | hasExpiry
    if ((flags & ~known) !== 0 || ((flags & isDelete) !== 0 && (flags & hasExpiry) !== 0)) {
      throw new MalformedBytes(`no element has the flags ${flags}`)
    }
    if (((flags & hasStamp) !== 0) !== stamped) {
      throw new MalformedBytes(`an element under ${rule} ${stamped ? "lacks" : "has"} a stamp`)
    }
    const actor = readActor(reader)
    const counter = readCounter(reader)
    if (compareDots(lastActor, lastCounter, actor, counter) >= 0) {
      throw new MalformedBytes(`${describeDot(actor, counter)} is out of order`)
    }
    lastActor = actor
    lastCounter = counter
    if (flags & hasContext) checkContext(reader, contexts)
    if (stamped && reader.u64() === 0) throw new MalformedBytes("a stamp is 1 or more")
    if (flags & hasExpiry && reader.u64() === 0) throw new MalformedBytes("an expiry is above 0")
    if (!(flags & isDelete)) reader.raw(reader.varint())
  }
  reader.end()
  checkUncovered(bytes, contexts)
}

function checkContext(reader: ByteReader, contexts: VersionVector): void {
  const vector = new VersionVector()
  checkVector(reader, vector)
  if (vector.size === 0) throw new MalformedBytes("an empty context is left out")
  contexts.join(vector)
}

function checkUncovered(bytes: Uint8Array, contexts: VersionVector): void {
  const cursor = new ElementCursor().open(bytes)
  while (cursor.next()) {
    if (contexts.covers(cursor.actor, cursor.counter)) {
      throw new MalformedBytes(`${describeDot(cursor.actor, cursor.counter)} is covered`)
    }
  }
}
