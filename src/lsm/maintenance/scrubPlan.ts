import type { Fragment, Version } from "../manifest/version.ts"
import type { TableIdentity } from "../table/tableReader.ts"

const leastBytes = 64 * 1024
const mostBytes = 4 * 1024 * 1024

/**
 * Which part of which table is read again next, and when: all tables in turn, by file number, at a
 * rate in bytes per second. Slices are a quarter of a second's worth, so that other work waits
 * little; time that the engine was too busy to scrub is not made up for.
 */
export class ScrubPlan {
  private readonly bytesPerSecond: number
  private readonly sliceBytes: number
  /** The table that is next, or the one after it if that is gone; and the block in it. */
  private fileNumber = 0
  private block = 0
  private dueMs = 0

  constructor(bytesPerSecond: number) {
    this.bytesPerSecond = bytesPerSecond
    this.sliceBytes = Math.min(mostBytes, Math.max(leastBytes, bytesPerSecond / 4))
  }

  /** What to read now, if anything. */
  next(
    version: Version,
    nowMs: number,
    isDamaged: (fileNumber: number) => boolean,
  ): { table: TableIdentity; fromBlock: number; budgetBytes: number } | undefined {
    if (this.bytesPerSecond === 0) return undefined
    const intervalMs = (1000 * this.sliceBytes) / this.bytesPerSecond
    // The second: the clock was set back. A millisecond for what such large numbers lose.
    if (nowMs < this.dueMs && this.dueMs - nowMs <= intervalMs + 1) return undefined
    const table = this.choose(version, isDamaged)
    if (table === undefined) return undefined
    if (table.fileNumber !== this.fileNumber) {
      this.fileNumber = table.fileNumber
      this.block = 0
    }
    this.dueMs = nowMs + intervalMs
    return { table: identityOf(table), fromBlock: this.block, budgetBytes: this.sliceBytes }
  }

  /** A part was read and is sound. */
  done(fileNumber: number, nextBlock: number | undefined): void {
    this.fileNumber = nextBlock === undefined ? fileNumber + 1 : fileNumber
    this.block = nextBlock ?? 0
  }

  private choose(
    version: Version,
    isDamaged: (fileNumber: number) => boolean,
  ): Fragment | undefined {
    let first: Fragment | undefined
    let next: Fragment | undefined
    for (const fragment of version.fragments) {
      const { fileNumber } = fragment
      if (isDamaged(fileNumber)) continue
      if (first === undefined || fileNumber < first.fileNumber) first = fragment
      if (fileNumber < this.fileNumber) continue
      if (next === undefined || fileNumber < next.fileNumber) next = fragment
    }
    return next ?? first
  }
}

function identityOf(fragment: Fragment): TableIdentity {
  const { fileNumber, tableId, sizeBytes, checksum, entries, baseSequence } = fragment
  return { fileNumber, tableId, sizeBytes, checksum, entries, baseSequence }
}
