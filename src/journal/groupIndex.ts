import { assert } from "../lib/assert.ts"
import type { LogIndex, Lsn, Term } from "../types.ts"

/** Term of a missing entry of which nothing but the index is known. */
export const termMissing = -1

/**
 * Where the entries of one group's log lie: index -> (term, LSN of the record, its size), in flat
 * arrays. The log begins after (baseIndex, baseTerm).
 *
 * An entry of size 0 is missing: the log has it, but its record is damaged or was not met (yet). Its term may be known all the same.
 *
 * An LSN below zero stands for an entry that has been gathered but not cut into a batch yet; `-1 -
 * lsn` is then its offset among the records gathered.
 */
export class GroupIndex {
  baseIndex: LogIndex = 0
  baseTerm: Term = 0
  /** Entries held. */
  count = 0
  /** Entries among them that are missing. */
  missingCount = 0
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

  /** Bytes of the record, header included; 0 = missing. */
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
    if (sizeBytes === 0) this.missingCount++
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
    const before = this.sizes[slot] as number
    this.sizeBytes += sizeBytes - before
    this.missingCount += (sizeBytes === 0 ? 1 : 0) - (before === 0 ? 1 : 0)
    this.sizes[slot] = sizeBytes
  }

  /** The entry is missing, whatever was held of it. */
  lose(index: LogIndex, term: Term): void {
    this.place(index, term, 0, 0)
  }

  /** Adds entries that are missing, up to `last`, which has `term`. */
  pushMissing(last: LogIndex, term: Term): void {
    while (this.lastIndex < last) this.push(this.lastIndex + 1 === last ? term : termMissing, 0, 0)
  }

  private uncount(index: LogIndex): void {
    const sizeBytes = this.sizeAt(index)
    this.sizeBytes -= sizeBytes
    if (sizeBytes === 0) this.missingCount--
  }

  /** Drops the entries from `index` on. */
  truncateFrom(index: LogIndex): void {
    assert(index > this.baseIndex, () => `${index} lies above ${this.baseIndex}`)
    for (let i = index; i <= this.lastIndex; i++) this.uncount(i)
    this.count = Math.min(this.count, index - this.baseIndex - 1)
  }

  /** Drops the entries up to and including `index`; the log then begins after it. */
  releaseThrough(index: LogIndex, term: Term): void {
    assert(index >= this.baseIndex && index <= this.lastIndex, () => `${index} is in the log`)
    for (let i = this.baseIndex + 1; i <= index; i++) this.uncount(i)
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
    this.missingCount = 0
    this.sizeBytes = 0
  }

  /** The oldest missing entry from `from` on. */
  firstMissing(from: LogIndex = 0): LogIndex | undefined {
    if (this.missingCount === 0) return undefined
    for (let i = Math.max(from, this.baseIndex + 1); i <= this.lastIndex; i++) {
      if (this.sizeAt(i) === 0) return i
    }
    return undefined
  }

  /** The newest entry of the run of missing ones that begins with `from`. */
  endOfMissing(from: LogIndex): LogIndex {
    let end = from
    while (end < this.lastIndex && this.sizeAt(end + 1) === 0) end++
    return end
  }
}
