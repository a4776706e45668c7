import type { ByteReader } from "../lib/byteReader.ts"
import { MalformedBytes } from "../lib/byteReader.ts"
import type { ByteWriter } from "../lib/byteWriter.ts"
import { readVarint, varintEnd } from "../lib/varint.ts"
import { type Actor, actorUnsafe, describeDot, readActor, readCounter, writeActor } from "./dot.ts"

/**
 * A version vector: for each actor the highest counter of it that was seen *for one key*. It covers a dot of that key when
 * the counter is not above the entry. That is sound though counters run through all keys of a slot, and so skip numbers
 * for one key, because a key's state travels whole: who has a dot of an actor has, or has seen covered, all
 * earlier ones of that actor for that key. (Parker et al., 1983; "vector clock" in what users read)
 *
 *     vector = count varint ‖ (actor ‖ counter varint)*     by actor, ascending
 *
 * Stored and sent: do not change. Hot paths ask the bytes (`vectorCovers`); the class is for joining.
 */
export class VersionVector {
  private readonly actors: Array<Actor> = []
  private readonly counters: Array<number> = []

  get size(): number {
    return this.actors.length
  }

  clear(): void {
    this.actors.length = 0
    this.counters.length = 0
  }

  /** 0 for an actor of which nothing was seen. */
  counterOf(actor: Actor): number {
    const index = this.actors.indexOf(actor)
    return index < 0 ? 0 : this.counters[index]
  }

  covers(actor: Actor, counter: number): boolean {
    return this.counterOf(actor) >= counter
  }

  /** Raises the entry of `actor` to `counter`, if it is lower. */
  add(actor: Actor, counter: number): void {
    let index = 0
    while (index < this.actors.length && this.actors[index] < actor) index++
    if (this.actors[index] === actor) {
      if (this.counters[index] < counter) this.counters[index] = counter
      return
    }
    this.actors.splice(index, 0, actor)
    this.counters.splice(index, 0, counter)
  }

  join(other: VersionVector): void {
    other.forEach((actor, counter) => {
      this.add(actor, counter)
    })
  }

  /** Joins the vector that begins at `offset`; returns where it ends. */
  joinBytes(bytes: Uint8Array, offset: number): number {
    let count = readVarint(bytes, offset)
    for (; count > 0; count--) {
      const node = readVarint(bytes, varintEnd)
      const actor = actorUnsafe(node, readVarint(bytes, varintEnd))
      this.add(actor, readVarint(bytes, varintEnd))
    }
    return varintEnd
  }

  /** By actor, ascending. */
  forEach(visit: (actor: Actor, counter: number) => void): void {
    for (let i = 0; i < this.actors.length; i++) visit(this.actors[i], this.counters[i])
  }

  /** Whether every dot that `other` covers is covered here. */
  includes(other: VersionVector): boolean {
    for (let i = 0; i < other.actors.length; i++) {
      if (!this.covers(other.actors[i], other.counters[i])) return false
    }
    return true
  }

  compare(other: VersionVector): "equal" | "before" | "after" | "concurrent" {
    const notAfter = other.includes(this)
    const notBefore = this.includes(other)
    if (notAfter) return notBefore ? "equal" : "before"
    return notBefore ? "after" : "concurrent"
  }

  write(out: ByteWriter): void {
    out.varint(this.actors.length)
    for (let i = 0; i < this.actors.length; i++) {
      writeActor(out, this.actors[i])
      out.varint(this.counters[i])
    }
  }

  /** `[n1.1:4, n2.1:7]`. */
  describe(): string {
    return `[${this.actors.map((actor, i) => describeDot(actor, this.counters[i])).join(", ")}]`
  }
}

/** The bytes of the vector that has seen nothing. */
export const emptyVector: Uint8Array = new Uint8Array(1)

/** Whether the vector at `offset` covers a dot. Requires bytes that `checkVector` took, or that were made here. */
export function vectorCovers(
  bytes: Uint8Array,
  offset: number,
  actor: Actor,
  counter: number,
): boolean {
  let count = readVarint(bytes, offset)
  for (; count > 0; count--) {
    const node = readVarint(bytes, varintEnd)
    const entry = actorUnsafe(node, readVarint(bytes, varintEnd))
    const seen = readVarint(bytes, varintEnd)
    if (entry >= actor) return entry === actor && seen >= counter
  }
  return false
}

/** Where the vector at `offset` ends. */
export function vectorEnd(bytes: Uint8Array, offset: number): number {
  let count = readVarint(bytes, offset) * 3
  let at = varintEnd
  for (; count > 0; at++) if (!(bytes[at] >= 0x80)) count--
  return at
}

/** Reads past a vector from outside, into `vector` if given. Throws `MalformedBytes` unless it is one, in its only form. */
export function checkVector(reader: ByteReader, vector?: VersionVector): void {
  let last = 0
  for (let count = reader.varint(); count > 0; count--) {
    const actor = readActor(reader)
    if (actor <= last) throw new MalformedBytes("entries of a vector out of order")
    const counter = readCounter(reader)
    vector?.add(actor, counter)
    last = actor
  }
}
