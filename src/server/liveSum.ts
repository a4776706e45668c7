import { compareBytes } from "../lib/bytes.ts"
import { crc32 } from "../lib/checksum.ts"
import type { Engine, EngineSnapshot } from "../lsm/engine.ts"
import type { LogIndex, Position, Version } from "../types.ts"
import type { RangeMachine } from "./apply.ts"
import { dataEnd, dataKey, dataPrefixBytes } from "./engineKeys.ts"
import { isExpired } from "./valueRecord.ts"

/** Where a sum begins, and after how many bytes of live keys and records it ends. */
export interface SumSlice {
  readonly from: Position
  readonly bytes: number
}

/** What a pair costs beside its bytes. */
const pairBytes = 32

/**
 * A checksum over a slice of a range's live keys as they were at one applied index, a few at a time. Replicas that are at the same index get the same sum
 * for the same slice, whatever their tables and compactions: what has expired by the range time of that index is left out, for each drops it when it likes.
 *
 * The engine's state is held from the constructor until `close`.
 */
export class LiveSum {
  readonly index: LogIndex
  readonly slice: SumSlice
  sum = 0
  isDone = false
  /** Where the next slice begins; `undefined` when this one reached the end of the range. */
  next: Position | undefined
  private readonly engine: Engine
  private readonly snapshot: EngineSnapshot
  private readonly rangeTime: Version
  private readonly upper: Uint8Array
  private lower: Uint8Array
  private liveBytes = 0

  constructor(engine: Engine, machine: RangeMachine, slice: SumSlice) {
    const { start, end } = machine.descriptor
    this.engine = engine
    this.slice = slice
    this.index = machine.appliedIndex
    this.rangeTime = machine.rangeTime
    this.lower = dataKey(compareBytes(slice.from, start) < 0 ? start : slice.from)
    this.upper = dataEnd(end)
    this.snapshot = engine.snapshot()
  }

  /** Reads on for about so many bytes, one pair at least, and returns how many it read. Throws `StorageCorruption`. */
  advance(budgetBytes: number): number {
    const { upper, lower, slice } = this
    // A range that was split since may end before the slice begins.
    if (compareBytes(lower, upper) >= 0) {
      this.isDone = true
      return 0
    }
    let read = 0
    const iterator = this.engine.iterator({ lower, upper, snapshot: this.snapshot })
    try {
      while (iterator.next()) {
        const { key, value } = iterator
        if (read > 0 && read >= budgetBytes) {
          this.lower = key.slice()
          return read
        }
        read += key.length + value.length + pairBytes
        if (isExpired(value, this.rangeTime)) continue
        if (this.liveBytes >= slice.bytes) {
          this.next = key.slice(dataPrefixBytes)
          this.isDone = true
          return read
        }
        this.liveBytes += key.length + value.length
        this.sum = crc32(value, crc32(key, this.sum))
      }
    } finally {
      iterator.close()
    }
    this.isDone = true
    return read
  }

  close(): void {
    this.snapshot.release()
  }
}
