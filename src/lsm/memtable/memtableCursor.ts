import { assert } from "../../lib/assert.ts"
import { emptyBytes } from "../../lib/bytes.ts"
import type { Cursor } from "../read/cursor.ts"
import { compareKey } from "../read/cursor.ts"
import { kinds } from "../table/format.ts"
import type { Memtable } from "./memtable.ts"

/** A position in a memtable: of each key in bounds the newest version up to a sequence. */
export class MemtableCursor implements Cursor {
  reverse: boolean
  valid = false
  keyBytes: Uint8Array = emptyBytes
  keyOffset = 0
  keyLength = 0
  sequence = 0
  kind: number = kinds.delete
  valueBytes: Uint8Array = emptyBytes
  valueOffset = 0
  valueLength = 0
  private readonly memtable: Memtable
  private readonly visibleSequence: number
  private readonly lower: Uint8Array | undefined
  private readonly upper: Uint8Array | undefined
  private node = 0

  constructor(
    memtable: Memtable,
    options: {
      sequence: number
      reverse: boolean
      lower?: Uint8Array | undefined
      upper?: Uint8Array | undefined
    },
  ) {
    this.memtable = memtable
    this.visibleSequence = options.sequence
    this.reverse = options.reverse
    this.lower = options.lower
    this.upper = options.upper
  }

  /** `key` lies within the bounds; `undefined` is where they begin. */
  seek(key: Uint8Array | undefined): void {
    const { memtable, lower, upper } = this
    if (this.reverse) {
      const end = key ?? upper
      this.settleBackward(
        end === undefined ? memtable.last() : memtable.lastBefore(end, 0, end.length),
      )
    } else {
      const start = key ?? lower
      this.settleForward(
        start === undefined ? memtable.first() : memtable.lowerBound(start, 0, start.length),
      )
    }
  }

  advance(): void {
    assert(this.valid, "a cursor moves only from a valid position")
    const memtable = this.memtable
    if (this.reverse) {
      this.settleBackward(memtable.lastBefore(this.keyBytes, this.keyOffset, this.keyLength))
      return
    }
    let node = memtable.next(this.node)
    while (node !== 0 && memtable.sameKey(node, this.keyBytes, this.keyOffset, this.keyLength)) {
      node = memtable.next(node)
    }
    this.settleForward(node)
  }

  private settleForward(from: number): void {
    const memtable = this.memtable
    let node = from
    while (node !== 0 && memtable.sequenceOf(node) > this.visibleSequence)
      node = memtable.next(node)
    this.show(node)
    if (this.valid && this.upper !== undefined) this.valid = compareKey(this, this.upper) < 0
  }

  /**
   * `from` is the oldest version of its key: the one to show is the newest that may be seen, if
   * there is one.
   */
  private settleBackward(from: number): void {
    const memtable = this.memtable
    let node = from
    while (node !== 0) {
      const offset = memtable.keyOffset(node)
      const length = memtable.keyLength(node)
      const shown = memtable.visible(memtable.bytes, offset, length, this.visibleSequence)
      if (shown !== 0) {
        node = shown
        break
      }
      node = memtable.lastBefore(memtable.bytes, offset, length)
    }
    this.show(node)
    if (this.valid && this.lower !== undefined) this.valid = compareKey(this, this.lower) >= 0
  }

  private show(node: number): void {
    this.node = node
    this.valid = node !== 0
    if (node === 0) return
    const memtable = this.memtable
    this.keyBytes = memtable.bytes
    this.keyOffset = memtable.keyOffset(node)
    this.keyLength = memtable.keyLength(node)
    this.sequence = memtable.sequenceOf(node)
    this.kind = memtable.kindOf(node)
    this.valueBytes = memtable.bytes
    this.valueOffset = memtable.valueOffset(node)
    this.valueLength = memtable.valueLength(node)
  }
}
