import { assert } from "../../src/lib/assert.ts"
import type { LogStorage } from "../../src/raft/log.ts"
import type { Entry } from "../../src/raft/message.ts"
import type { LogIndex, Term } from "../../src/types.ts"

/** A log in an array, as strict about what it is asked as the port allows. */
export class MemoryLog implements LogStorage {
  private kept: Array<Entry>
  private before: { readonly index: LogIndex; readonly term: Term }

  constructor(entries: ReadonlyArray<Entry> = [], before = { index: 0, term: 0 }) {
    this.kept = [...entries]
    this.before = before
  }

  clone(): MemoryLog {
    return new MemoryLog(this.kept, this.before)
  }

  get firstIndex(): LogIndex {
    return this.before.index + 1
  }

  get lastIndex(): LogIndex {
    return this.before.index + this.kept.length
  }

  get all(): ReadonlyArray<Entry> {
    return this.kept
  }

  term(index: LogIndex): Term | undefined {
    if (index === this.before.index) return this.before.term
    return this.kept[index - this.firstIndex]?.term
  }

  entries(from: LogIndex, to: LogIndex, maxBytes: number): ReadonlyArray<Entry> {
    assert(
      this.firstIndex <= from && from < to && to <= this.lastIndex + 1,
      `entries ${from} to ${to} of ${this.firstIndex} to ${this.lastIndex}`,
    )
    const result: Array<Entry> = []
    let sizeBytes = 0
    for (let index = from; index < to; index++) {
      const entry = this.kept[index - this.firstIndex] as Entry
      sizeBytes += entry.data.length
      if (result.length > 0 && sizeBytes > maxBytes) break
      result.push(entry)
    }
    return result
  }

  append(entries: ReadonlyArray<Entry>): void {
    for (const entry of entries) {
      assert(entry.index >= this.firstIndex, `entry ${entry.index} before ${this.firstIndex}`)
      assert(entry.index <= this.lastIndex + 1, `entry ${entry.index} after ${this.lastIndex}`)
      this.kept.length = entry.index - this.firstIndex
      this.kept.push(entry)
    }
  }

  /** Forgets entries up to `index`, whose term stays known. */
  release(index: LogIndex): void {
    if (index <= this.before.index) return
    const term = this.term(index)
    assert(term !== undefined, `release of ${index}, beyond ${this.lastIndex}`)
    this.kept = this.kept.slice(index - this.before.index)
    this.before = { index, term }
  }

  resetTo(index: LogIndex, term: Term): void {
    this.kept = []
    this.before = { index, term }
  }
}
