import type { Lsn } from "../types.ts"
import type { Batch } from "./batch.ts"
import { segmentHeaderBytes } from "./format.ts"
import type { Segment, Segments } from "./segments.ts"

/** A segment that is no longer written to, and where the one after it lies. */
export interface ClosedSegment {
  readonly number: number
  readonly path: string
  readonly baseLsn: Lsn
  readonly nextPath: string
  readonly nextBaseLsn: Lsn
}

/** Which segments are closed, and which may go: always the oldest, and only when nothing that recovery needs is in it alone. */
export class Turnover {
  private readonly segments: Segments

  constructor(segments: Segments) {
    this.segments = segments
  }

  /** The oldest segment that is no longer written to and has a number above `after`; everything in it is durable. */
  closedSegment(after: number, durableLsn: Lsn): ClosedSegment | undefined {
    for (let i = 0; i < this.segments.count - 1; i++) {
      const { number, path, baseLsn } = this.segments.at(i) as Segment
      const next = this.segments.at(i + 1) as Segment
      // The batch after the checkpoint's is durable only if the checkpoint is.
      if (durableLsn <= next.baseLsn + segmentHeaderBytes) return undefined
      if (number > after) {
        return { number, path, baseLsn, nextPath: next.path, nextBaseLsn: next.baseLsn }
      }
    }
    return undefined
  }

  /** Forgets the segments that nothing needs any more, and returns their paths, oldest first. */
  takeDeletable(durableLsn: Lsn): ReadonlyArray<string> {
    const paths: Array<string> = []
    for (;;) {
      const segment = this.deletable(durableLsn)
      if (segment === undefined) return paths
      this.segments.drop(segment)
      paths.push(segment.path)
    }
  }

  /** The segment that may go next: only ever the oldest. */
  private deletable(durableLsn: Lsn): Segment | undefined {
    const oldest = this.segments.at(0)
    const next = this.segments.at(1)
    if (oldest === undefined || next === undefined || oldest.liveCount > 0) return undefined
    // The batch after the checkpoint's is durable only if the checkpoint is.
    return durableLsn > next.baseLsn + segmentHeaderBytes ? oldest : undefined
  }

  /** Whether the oldest segment may go as soon as `batch` is durable. */
  waitsFor(batch: Batch): boolean {
    const oldest = this.segments.at(0) as Segment
    if (this.segments.count < 2 || oldest.liveCount === 0) return false
    const freed = batch.freed.get(oldest)
    return freed !== undefined && freed.count === oldest.liveCount
  }
}
