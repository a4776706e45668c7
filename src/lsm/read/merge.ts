import { assert } from "../../lib/assert.ts"
import type { Cursor } from "./cursor.ts"
import { compareRanges } from "./cursor.ts"

/**
 * Several sources as one, newest source first: where two hold the same key the newer one's entry is
 * shown and the older one's is passed over.
 *
 * The sources stand in a list, ordered by their keys, which are all different: where two would be
 * equal the older one has moved on already. So a step compares the source that moved with its
 * runner-up, and with nobody else as long as it stays in front; when it falls behind it walks to
 * its place. A tree of losers would save comparisons only for more sources than there are.
 *
 * Invariant, asserted: a newer source's version of a key has the higher sequence.
 */
export class MergeCursor implements Cursor {
  /** The source in front; its fields are the cursor's. */
  top: Cursor
  private backward: boolean
  private readonly sources: ReadonlyArray<Cursor>
  /** The first `count` are valid and in order; `ranks` says how old each is, 0 = newest. */
  private readonly order: Array<Cursor>
  private readonly ranks: Array<number>
  private count = 0

  constructor(sources: ReadonlyArray<Cursor>, options: { reverse: boolean }) {
    assert(sources.length > 0, "there is something to merge")
    this.sources = sources
    this.backward = options.reverse
    this.order = sources.slice()
    this.ranks = sources.map((_, i) => i)
    this.top = sources[0]
  }

  get reverse(): boolean {
    return this.backward
  }

  set reverse(reverse: boolean) {
    this.backward = reverse
    for (const source of this.sources) source.reverse = reverse
  }

  get valid(): boolean {
    return this.count > 0
  }

  get keyBytes(): Uint8Array {
    return this.top.keyBytes
  }

  get keyOffset(): number {
    return this.top.keyOffset
  }

  get keyLength(): number {
    return this.top.keyLength
  }

  get sequence(): number {
    return this.top.sequence
  }

  get kind(): number {
    return this.top.kind
  }

  get valueBytes(): Uint8Array {
    return this.top.valueBytes
  }

  get valueOffset(): number {
    return this.top.valueOffset
  }

  get valueLength(): number {
    return this.top.valueLength
  }

  /** Place among the sources of the one in front. */
  get rank(): number {
    return this.ranks[0]
  }

  seek(key: Uint8Array | undefined): void {
    const { sources, order, ranks } = this
    this.count = 0
    for (let i = 0; i < sources.length; i++) {
      const source = sources[i]
      source.seek(key)
      if (!source.valid) continue
      // In front of those that are in place, from where it walks to its own.
      for (let j = this.count; j > 0; j--) {
        order[j] = order[j - 1]
        ranks[j] = ranks[j - 1]
      }
      order[0] = source
      ranks[0] = i
      this.count++
      this.settle(0)
    }
    if (this.count > 0) this.top = order[0]
  }

  advance(): void {
    assert(this.count > 0, "a cursor moves only from a valid position")
    const top = this.top
    top.advance()
    if (top.valid && (this.count === 1 || this.isInFront(top))) return
    this.settle(0)
    if (this.count > 0) this.top = this.order[0]
  }

  /** Moves the source in front to where `seek` of it goes: no entry before that is wanted of it. */
  skip(key: Uint8Array): void {
    this.top.seek(key)
    this.settle(0)
    if (this.count > 0) this.top = this.order[0]
  }

  private isInFront(top: Cursor): boolean {
    const runnerUp = this.order[1]
    const order = compareRanges(
      top.keyBytes,
      top.keyOffset,
      top.keyLength,
      runnerUp.keyBytes,
      runnerUp.keyOffset,
      runnerUp.keyLength,
    )
    return this.backward ? order > 0 : order < 0
  }

  /** Puts the source at `from`, which has moved, where it belongs among those behind it. */
  private settle(from: number): void {
    const { order, ranks } = this
    let at = from
    for (;;) {
      const moved = order[at]
      if (!moved.valid) {
        this.remove(at)
        return
      }
      if (at + 1 >= this.count) return
      const next = order[at + 1]
      const difference = compareRanges(
        moved.keyBytes,
        moved.keyOffset,
        moved.keyLength,
        next.keyBytes,
        next.keyOffset,
        next.keyLength,
      )
      if (difference === 0) {
        const isNewer = ranks[at] < ranks[at + 1]
        const newer = isNewer ? moved : next
        const older = isNewer ? next : moved
        assert(
          newer.sequence > older.sequence,
          () => `sequence ${newer.sequence} lies over ${older.sequence}`,
        )
        older.advance()
        if (isNewer) {
          this.settle(at + 1)
          return
        }
        continue
      }
      if (this.backward ? difference > 0 : difference < 0) return
      const rank = ranks[at]
      order[at] = next
      ranks[at] = ranks[at + 1]
      at++
      order[at] = moved
      ranks[at] = rank
    }
  }

  /** Takes out the source at `at`, which is at its end. */
  private remove(at: number): void {
    const { order, ranks } = this
    this.count--
    for (let i = at; i < this.count; i++) {
      order[i] = order[i + 1]
      ranks[i] = ranks[i + 1]
    }
  }
}
