import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import type { Cursor } from "./cursor.ts"
import { compareRanges } from "./cursor.ts"

/**
 * Several sources as one, newest source first: where two hold the same key the newer one's entry is
 * shown and the older one's is passed over. Choosing is linear: there are at most eight sources,
 * and usually fewer than four.
 *
 * Invariant, asserted: a newer source's version of a key has the higher sequence.
 */
export class MergeCursor implements Cursor {
  keyBytes: Uint8Array = emptyBytes
  keyOffset = 0
  keyLength = 0
  sequence = 0
  kind = 0
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  private readonly sources: ReadonlyArray<Cursor>
  private readonly direction: number
  private current: Cursor | undefined

  constructor(sources: ReadonlyArray<Cursor>, options: { reverse: boolean }) {
    this.sources = sources
    this.direction = options.reverse ? -1 : 1
  }

  get valid(): boolean {
    return this.current !== undefined
  }

  seek(key: Uint8Array | undefined): void {
    for (const source of this.sources) source.seek(key)
    this.choose()
  }

  advance(): void {
    const current = this.current
    assert(current !== undefined, "a cursor moves only from a valid position")
    current.advance()
    this.choose()
  }

  private choose(): void {
    let best: Cursor | undefined
    const sources = this.sources
    for (let i = 0; i < sources.length; i++) {
      const source = sources[i]
      if (!source.valid) continue
      if (best === undefined) {
        best = source
        continue
      }
      const order = compareRanges(
        source.keyBytes,
        source.keyOffset,
        source.keyLength,
        best.keyBytes,
        best.keyOffset,
        best.keyLength,
      )
      if (order === 0) {
        const { sequence } = source
        const newer = best.sequence
        assert(newer > sequence, () => `sequence ${newer} lies over ${sequence}`)
        source.advance()
      } else if (order * this.direction < 0) best = source
    }
    this.current = best
    if (best === undefined) return
    this.keyBytes = best.keyBytes
    this.keyOffset = best.keyOffset
    this.keyLength = best.keyLength
    this.sequence = best.sequence
    this.kind = best.kind
    this.valueBytes = best.valueBytes
    this.valueOffset = best.valueOffset
    this.valueLength = best.valueLength
  }
}
