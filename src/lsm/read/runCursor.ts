import { assert } from "../../lib/assert.ts"
import { compareBytes, emptyBytes } from "../../lib/bytes.ts"
import type { Fragment, Run } from "../manifest/version.ts"
import { firstFragmentAfter, firstFragmentFrom } from "../manifest/version.ts"
import { BlockCursor } from "../table/block.ts"
import type { Table } from "../table/tableReader.ts"
import type { Cursor } from "./cursor.ts"
import { compareRanges } from "./cursor.ts"

export interface RunCursorOptions {
  readonly tableOf: (fragment: Fragment) => Table
  readonly reverse: boolean
  /** Keys before it are not shown. */
  readonly lower?: Uint8Array | undefined
  /** Keys from it on are not shown. */
  readonly upper?: Uint8Array | undefined
}

/**
 * Blocks that are read one by one after a seek, into the cache: a short scan is likely to come
 * again. A longer one reads ahead and leaves the cache as it is.
 */
const shortScanBlocks = 2
const firstAheadBytes = 16 * 1024
const maxAheadBytes = 128 * 1024
const dontFill = { fill: false } as const
/** The block from which on keys must be compared with a bound, when it has not been looked up. */
const unknown = -2

/**
 * A position in a run: from block to block, from fragment to fragment, never outside a fragment's
 * bounds. `reverse` may be changed before a seek; it then goes the other way.
 */
export class RunCursor extends BlockCursor implements Cursor {
  reverse: boolean
  private run: Run
  private lower: Uint8Array | undefined
  private upper: Uint8Array | undefined
  private readonly tableOf: (fragment: Fragment) => Table
  private fragmentIndex = -1
  private table: Table | undefined
  private blockIndex = 0
  private blockCount = 0
  /** Bounds of the present fragment, and the blocks in which a key may lie outside of them. */
  private floor: Uint8Array = emptyBytes
  private ceiling: Uint8Array = emptyBytes
  private floorBlock = unknown
  private ceilingBlock = unknown
  /** Blocks entered one after the other since the last seek. */
  private streak = 0
  /** Stored bytes of the present table from `aheadStart` to `aheadEnd`. */
  private ahead: Uint8Array = emptyBytes
  private aheadStart = 0
  private aheadEnd = 0
  private aheadBytes = firstAheadBytes

  constructor(run: Run, options: RunCursorOptions) {
    super()
    this.run = run
    this.tableOf = options.tableOf
    this.reverse = options.reverse
    this.lower = options.lower
    this.upper = options.upper
  }

  /** Takes another run and other bounds, so that one cursor serves many short reads. */
  reset(run: Run, lower: Uint8Array | undefined, upper: Uint8Array | undefined): void {
    this.run = run
    this.lower = lower
    this.upper = upper
    this.forgetBlock()
    this.fragmentIndex = -1
    this.table = undefined
    this.forgetAhead()
    // It grew for a block with a large value: too much to keep for the next reader.
    if (this.ahead.length > maxAheadBytes) this.ahead = emptyBytes
  }

  seek(key: Uint8Array | undefined): void {
    this.valid = false
    this.streak = 0
    this.aheadBytes = firstAheadBytes
    const { lower, upper } = this
    if (this.reverse) {
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
    if (this.reverse) this.retreat()
    else this.proceed()
  }

  private proceed(): void {
    if (!this.step()) {
      if (++this.blockIndex >= this.blockCount) {
        this.enterForward(this.fragmentIndex + 1, undefined)
        return
      }
      this.enterBlock()
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
      this.enterBlock()
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
      if (this.ceilingBlock === unknown) this.ceilingBlock = firstOutside(table, this.ceiling)
      this.enterBlock()
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
      if (this.floorBlock === unknown) this.floorBlock = lastOutside(table, this.floor)
      this.blockIndex = table.firstBlockAtOrAfter(to)
      let found = false
      if (this.blockIndex < this.blockCount) {
        this.enterBlock()
        found = this.seekBefore(to)
      }
      if (!found) {
        if (--this.blockIndex < 0) continue
        this.enterBlock()
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
    const { lower, upper } = this
    const fragment = this.run[index]
    const floor = lower === undefined ? fragment.lower : greatest(fragment.lower, lower)
    const ceiling = upper === undefined ? fragment.upper : least(fragment.upper, upper)
    if (compareBytes(floor, ceiling) >= 0) {
      // The run may begin before the bounds, when the seek was to a key before them.
      const beyond = this.reverse ? lower !== undefined && floor === lower : ceiling === upper
      if (beyond) return false
    }
    if (this.fragmentIndex === index) return true
    this.fragmentIndex = index
    this.floor = floor
    this.ceiling = ceiling
    this.floorBlock = unknown
    this.ceilingBlock = unknown
    this.table = this.tableOf(fragment)
    this.blockCount = this.table.blockCount
    this.forgetAhead()
    return true
  }

  /** Takes the block at `blockIndex`. */
  private enterBlock(): void {
    const table = this.table as Table
    const index = this.blockIndex
    const isShort = table.isCached && this.streak++ < shortScanBlocks
    const content = isShort
      ? table.block(index)
      : this.reverse
        ? table.block(index, dontFill)
        : this.blockAhead(table, index)
    this.setBlock(content, table.identity.baseSequence, table, index)
  }

  /**
   * A block out of a larger piece of the file, which is read at once. What is not compressed is a
   * view of that piece, which the next one overwrites: by then the cursor has moved on.
   */
  private blockAhead(table: Table, index: number): Uint8Array {
    const held = table.heldBlock(index)
    if (held !== undefined) return held
    const place = table.checkedPlaceOf(index)
    const { offset, sizeBytes } = place
    if (offset < this.aheadStart || offset + sizeBytes > this.aheadEnd) {
      const wanted = Math.max(sizeBytes, Math.min(this.aheadBytes, table.dataEnd - offset))
      this.aheadBytes = Math.min(2 * this.aheadBytes, maxAheadBytes)
      if (this.ahead.length < wanted) this.ahead = new Uint8Array(wanted)
      this.forgetAhead()
      table.readStored(this.ahead.subarray(0, wanted), offset)
      this.aheadStart = offset
      this.aheadEnd = offset + wanted
    }
    return table.contentOf(this.ahead, offset - this.aheadStart, place)
  }

  private forgetAhead(): void {
    this.aheadStart = 0
    this.aheadEnd = 0
  }

  private isBelow(key: Uint8Array): boolean {
    return compareRanges(this.keyBytes, 0, this.keyLength, key, 0, key.length) < 0
  }
}

/** The first block that may hold a key at or after `ceiling`. */
function firstOutside(table: Table, ceiling: Uint8Array): number {
  if (compareBytes(table.properties.lastKey, ceiling) < 0) return table.blockCount
  return table.firstBlockAtOrAfter(ceiling)
}

/** The last block that may hold a key before `floor`. */
function lastOutside(table: Table, floor: Uint8Array): number {
  if (compareBytes(floor, table.properties.firstKey) <= 0) return -1
  return table.firstBlockAtOrAfter(floor)
}

function least(left: Uint8Array, right: Uint8Array): Uint8Array {
  return compareBytes(left, right) <= 0 ? left : right
}

function greatest(left: Uint8Array, right: Uint8Array): Uint8Array {
  return compareBytes(left, right) >= 0 ? left : right
}
