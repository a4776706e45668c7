import { assert } from "../lib/assert.ts"
import { emptyBytes } from "../lib/bytes.ts"
import type { Cursor } from "./cursor.ts"
import { kinds } from "./format.ts"
import type { Memtable } from "./memtable.ts"

/** A position in a memtable: of each key the newest version up to a sequence. */
export class MemtableCursor implements Cursor {
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
  private readonly reverse: boolean
  private node = 0

  constructor(memtable: Memtable, options: { sequence: number; reverse: boolean }) {
    this.memtable = memtable
    this.visibleSequence = options.sequence
    this.reverse = options.reverse
  }

  get valid(): boolean {
    return this.node !== 0
  }

  seek(key: Uint8Array | undefined): void {
    const memtable = this.memtable
    if (this.reverse) {
      this.settleBackward(
        key === undefined ? memtable.last() : memtable.lastBefore(key, 0, key.length),
      )
    } else {
      this.settleForward(
        key === undefined ? memtable.first() : memtable.lowerBound(key, 0, key.length),
      )
    }
  }

  advance(): void {
    assert(this.node !== 0, "a cursor moves only from a valid position")
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
  }

  private show(node: number): void {
    this.node = node
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
