import { assert } from "../lib/assert.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"

/**
 * Term of an entry that a checkpoint lists and whose record has not been met yet. Only recovery
 * sees it.
 */
export const termMissing = -1

/**
 * Where the entries of one group's log lie: index -> (term, LSN of the record, its size), in flat
 * arrays. The log begins after (baseIndex, baseTerm).
 *
 * An LSN below zero stands for an entry that has been gathered but not cut into a batch yet; `-1 -
 * lsn` is then its offset among the records gathered.
 */
export class GroupIndex {
  baseIndex: LogIndex = 0
  baseTerm: Term = 0
  /** Entries held. */
  count = 0
  /** Bytes of their records. */
  sizeBytes = 0
  private terms = new Float64Array(8)
  private lsns = new Float64Array(8)
  private sizes = new Uint32Array(8)
  /** Slot of the first entry. */
  private head = 0

  get lastIndex(): LogIndex {
    return this.baseIndex + this.count
  }

  private slot(index: LogIndex): number {
    assert(index > this.baseIndex && index <= this.lastIndex, () => `entry ${index} is held`)
    return this.head + (index - this.baseIndex - 1)
  }

  /** Term at `index`, the base included; `undefined` outside. */
  termAt(index: LogIndex): Term | undefined {
    if (index === this.baseIndex) return this.baseTerm
    if (!(index > this.baseIndex && index <= this.lastIndex)) return undefined
    return this.terms[this.head + (index - this.baseIndex - 1)]
  }

  lsnAt(index: LogIndex): Lsn {
    return this.lsns[this.slot(index)] as number
  }

  /** Bytes of the record, header included. */
  sizeAt(index: LogIndex): number {
    return this.sizes[this.slot(index)] as number
  }

  /** Adds the entry after the last. */
  push(term: Term, lsn: Lsn, sizeBytes: number): void {
    if (this.head + this.count === this.terms.length) this.makeRoom()
    const slot = this.head + this.count++
    this.terms[slot] = term
    this.lsns[slot] = lsn
    this.sizes[slot] = sizeBytes
    this.sizeBytes += sizeBytes
  }

  private makeRoom(): void {
    const capacity = this.count * 2 < this.terms.length ? this.terms.length : this.terms.length * 2
    const end = this.head + this.count
    const terms = new Float64Array(capacity)
    terms.set(this.terms.subarray(this.head, end))
    const lsns = new Float64Array(capacity)
    lsns.set(this.lsns.subarray(this.head, end))
    const sizes = new Uint32Array(capacity)
    sizes.set(this.sizes.subarray(this.head, end))
    this.terms = terms
    this.lsns = lsns
    this.sizes = sizes
    this.head = 0
  }

  /** Gives a known entry its place; also its term, if that was missing. */
  place(index: LogIndex, term: Term, lsn: Lsn, sizeBytes: number): void {
    const slot = this.slot(index)
    this.terms[slot] = term
    this.lsns[slot] = lsn
    this.sizeBytes += sizeBytes - (this.sizes[slot] as number)
    this.sizes[slot] = sizeBytes
  }

  /** Drops the entries from `index` on. */
  truncateFrom(index: LogIndex): void {
    assert(index > this.baseIndex, () => `${index} lies above ${this.baseIndex}`)
    for (let i = index; i <= this.lastIndex; i++) this.sizeBytes -= this.sizeAt(i)
    this.count = Math.min(this.count, index - this.baseIndex - 1)
  }

  /** Drops the entries up to and including `index`; the log then begins after it. */
  releaseThrough(index: LogIndex, term: Term): void {
    assert(index >= this.baseIndex && index <= this.lastIndex, () => `${index} is in the log`)
    for (let i = this.baseIndex + 1; i <= index; i++) this.sizeBytes -= this.sizeAt(i)
    this.head += index - this.baseIndex
    this.count -= index - this.baseIndex
    this.baseIndex = index
    this.baseTerm = term
    if (this.count === 0) this.head = 0
  }

  /** Drops everything; the log begins after (index, term). */
  reset(index: LogIndex, term: Term): void {
    this.baseIndex = index
    this.baseTerm = term
    this.head = 0
    this.count = 0
    this.sizeBytes = 0
  }

  /** The oldest entry whose record has not been met, or 0. Only recovery has any. */
  firstMissing(): LogIndex {
    for (let i = 0; i < this.count; i++) {
      if (this.terms[this.head + i] === termMissing) return this.baseIndex + 1 + i
    }
    return 0
  }
}
