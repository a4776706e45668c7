import { assert } from "../lib/assert.ts"
import { ByteWriter } from "../lib/byteWriter.ts"
import type { Engine, EngineSnapshot } from "../lsm/engine.ts"
import type { RangeId } from "../types.ts"
import { sessionKey } from "./engineKeys.ts"
import { writePair, writeStretches } from "./spill.ts"

/** A frame that is being read. */
interface Draft {
  readonly sequence: number
  readonly writer: ByteWriter
  /** Where the data goes on that is not in it yet. */
  from: Uint8Array
  isWhole: boolean
}

const leastCapacityBytes = 1 << 16

/**
 * The pairs of one snapshot, cut into frames: sessions first, then the data interval, from frame 1 on. A frame can be read a slice at a time, ahead of the
 * moment in which it is to leave: whoever else waits for the loop then waits for a slice and not for a frame. One frame at most is read ahead.
 */
export class SnapshotFrames {
  private readonly range: RangeId
  private readonly engine: Engine
  private readonly snapshot: EngineSnapshot
  private readonly sessions: ReadonlyArray<{ clientId: number; record: Uint8Array }>
  private readonly upper: Uint8Array
  private readonly frameBytes: number
  /** Where the data of each frame from 1 on begins, as far as it was read; `undefined` stands for the end. */
  private readonly starts: Array<Uint8Array | undefined>
  private draft: Draft | undefined
  /** Of the last frame: the next one is likely to be as long. */
  private capacityBytes = leastCapacityBytes

  constructor(options: {
    readonly range: RangeId
    readonly engine: Engine
    readonly snapshot: EngineSnapshot
    readonly sessions: ReadonlyArray<{ clientId: number; record: Uint8Array }>
    readonly lower: Uint8Array
    readonly upper: Uint8Array
    readonly frameBytes: number
  }) {
    this.range = options.range
    this.engine = options.engine
    this.snapshot = options.snapshot
    this.sessions = options.sessions
    this.upper = options.upper
    this.frameBytes = options.frameBytes
    this.starts = [undefined, options.lower]
  }

  /** Reads on in a frame, about `bytes` of it. True once all of it is read. */
  readAhead(sequence: number, bytes: number): boolean {
    const draft = this.draft?.sequence === sequence ? this.draft : this.begin(sequence)
    if (!draft.isWhole) this.read(draft, bytes)
    return draft.isWhole
  }

  /** A frame, of which is read what was not read ahead. Each frame before it was taken once. */
  take(sequence: number): { readonly bytes: Uint8Array; readonly last: boolean } {
    this.readAhead(sequence, Number.POSITIVE_INFINITY)
    const { writer } = this.draft as Draft
    this.draft = undefined
    this.capacityBytes = Math.max(leastCapacityBytes, writer.length)
    return { bytes: writer.bytes(), last: this.starts[sequence + 1] === undefined }
  }

  private begin(sequence: number): Draft {
    const from = this.starts[sequence]
    assert(from !== undefined, () => `frame ${sequence} has a beginning`)
    const writer = new ByteWriter(Math.min(this.frameBytes, this.capacityBytes))
    if (sequence === 1) {
      for (const { clientId, record } of this.sessions) {
        writePair(writer, sessionKey(this.range, clientId), record)
      }
    }
    const draft = { sequence, writer, from, isWhole: false }
    if (writer.length >= this.frameBytes) this.end(draft, from)
    this.draft = draft
    return draft
  }

  /** `next`: where the next frame begins. */
  private end(draft: Draft, next: Uint8Array | undefined): void {
    draft.isWhole = true
    this.starts[draft.sequence + 1] = next
  }

  private read(draft: Draft, bytes: number): void {
    const { upper, snapshot, frameBytes } = this
    const { writer, from: lower } = draft
    const sliceEnd = writer.length + bytes
    const iterator = this.engine.iterator({ lower, upper, snapshot })
    try {
      while (iterator.next()) {
        const { pair } = iterator
        const length = writer.length + 8 + pair.keyLength + pair.valueLength
        if (writer.length > 0 && length > frameBytes) return this.end(draft, iterator.key)
        if (writer.length >= sliceEnd) {
          draft.from = iterator.key
          return
        }
        writeStretches(writer, pair)
      }
      this.end(draft, undefined)
    } finally {
      iterator.close()
    }
  }
}
