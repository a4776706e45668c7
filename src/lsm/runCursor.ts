import { assert } from "../lib/assert.ts"
import { compareBytes, emptyBytes } from "../lib/bytes.ts"
import { BlockCursor } from "./block.ts"
import type { Cursor } from "./cursor.ts"
import { compareRanges } from "./cursor.ts"
import type { Table } from "./tableReader.ts"
import type { Fragment, Run } from "./version.ts"
import { firstFragmentAfter, firstFragmentFrom } from "./version.ts"

export interface RunCursorOptions {
  readonly tableOf: (fragment: Fragment) => Table
  readonly reverse: boolean
  /** Keys before it are not shown. */
  readonly lower?: Uint8Array | undefined
  /** Keys from it on are not shown. */
  readonly upper?: Uint8Array | undefined
}

/**
 * A position in a run: from block to block, from fragment to fragment, never outside a fragment's
 * bounds.
 */
export class RunCursor extends BlockCursor implements Cursor {
  private readonly run: Run
  private readonly options: RunCursorOptions
  private fragmentIndex = 0
  private table: Table | undefined
  private blockIndex = 0
  private blockCount = 0
  /** Bounds of the present fragment, and the blocks in which a key may lie outside of them. */
  private floor: Uint8Array = emptyBytes
  private ceiling: Uint8Array = emptyBytes
  private floorBlock = 0
  private ceilingBlock = 0

  constructor(run: Run, options: RunCursorOptions) {
    super()
    this.run = run
    this.options = options
  }

  seek(key: Uint8Array | undefined): void {
    this.valid = false
    const { reverse, lower, upper } = this.options
    if (reverse) {
      const end = key === undefined ? upper : upper === undefined ? key : least(key, upper)
      const index = end === undefined ? this.run.length : firstFragmentFrom(this.run, end)
      this.enterBackward(index - 1, end)
    } else {
      const start = key === undefined ? lower : lower === undefined ? key : greatest(key, lower)
      const index = start === undefined ? 0 : firstFragmentAfter(this.run, start)
      this.enterForward(index, start)
    }
  }

  advance(): void {
    assert(this.valid, "a cursor moves only from a valid position")
    if (this.options.reverse) this.retreat()
    else this.proceed()
  }

  private proceed(): void {
    if (!this.step()) {
      if (++this.blockIndex >= this.blockCount) {
        this.enterForward(this.fragmentIndex + 1, undefined)
        return
      }
      this.setBlock((this.table as Table).block(this.blockIndex))
      this.seekFirst()
    }
    if (this.blockIndex >= this.ceilingBlock && !this.isBelow(this.ceiling)) {
      this.enterForward(this.fragmentIndex + 1, undefined)
    }
  }

  private retreat(): void {
    if (!this.stepBack()) {
      if (--this.blockIndex < 0) {
        this.enterBackward(this.fragmentIndex - 1, undefined)
        return
      }
      this.setBlock((this.table as Table).block(this.blockIndex))
      this.seekLast()
    }
    if (this.blockIndex <= this.floorBlock && this.isBelow(this.floor)) {
      this.enterBackward(this.fragmentIndex - 1, undefined)
    }
  }

  /** To the first key at or after `start` in the fragments from `index` on. */
  private enterForward(index: number, start: Uint8Array | undefined): void {
    this.valid = false
    for (let i = index; i < this.run.length; i++) {
      if (!this.open(i)) return
      const table = this.table as Table
      const from = start === undefined ? this.floor : greatest(start, this.floor)
      this.blockIndex = table.firstBlockAtOrAfter(from)
      if (this.blockIndex === this.blockCount) continue
      this.ceilingBlock = table.firstBlockAtOrAfter(this.ceiling)
      this.setBlock(table.block(this.blockIndex))
      this.seekAtOrAfter(from)
      if (this.blockIndex < this.ceilingBlock || this.isBelow(this.ceiling)) return
      this.valid = false
    }
  }

  /** To the last key before `end` in the fragments up to `index`. */
  private enterBackward(index: number, end: Uint8Array | undefined): void {
    this.valid = false
    for (let i = index; i >= 0; i--) {
      if (!this.open(i)) return
      const table = this.table as Table
      const to = end === undefined ? this.ceiling : least(end, this.ceiling)
      this.floorBlock = table.firstBlockAtOrAfter(this.floor)
      this.blockIndex = table.firstBlockAtOrAfter(to)
      let found = false
      if (this.blockIndex < this.blockCount) {
        this.setBlock(table.block(this.blockIndex))
        found = this.seekBefore(to)
      }
      if (!found) {
        if (--this.blockIndex < 0) continue
        this.setBlock(table.block(this.blockIndex))
        this.seekLast()
      }
      if (this.blockIndex > this.floorBlock || !this.isBelow(this.floor)) return
      this.valid = false
    }
  }

  /**
   * Takes fragment `index`; false when it and all after it (in the cursor's direction) are out of
   * the bounds asked for.
   */
  private open(index: number): boolean {
    const { lower, upper, reverse, tableOf } = this.options
    const fragment = this.run[index]
    this.fragmentIndex = index
    const floor = lower === undefined ? fragment.lower : greatest(fragment.lower, lower)
    const ceiling = upper === undefined ? fragment.upper : least(fragment.upper, upper)
    if (compareBytes(floor, ceiling) >= 0) {
      // The run may begin before the bounds, when the seek was to a key before them.
      const beyond = reverse ? lower !== undefined && floor === lower : ceiling === upper
      if (beyond) return false
    }
    this.floor = floor
    this.ceiling = ceiling
    this.table = tableOf(fragment)
    this.blockCount = this.table.blockCount
    return true
  }

  private isBelow(key: Uint8Array): boolean {
    return compareRanges(this.keyBytes, 0, this.keyLength, key, 0, key.length) < 0
  }
}

function least(left: Uint8Array, right: Uint8Array): Uint8Array {
  return compareBytes(left, right) <= 0 ? left : right
}

function greatest(left: Uint8Array, right: Uint8Array): Uint8Array {
  return compareBytes(left, right) >= 0 ? left : right
}
