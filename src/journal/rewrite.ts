import type { JournalGroup } from "./group.ts"
import { compareKeys } from "./logged.ts"
import type { Segment, Segments } from "./segments.ts"

/**
 * Entries looked at in one slice; a few milliseconds' worth, so that a long log does not hold the
 * loop.
 */
const lookedMax = 65_536

/**
 * Copies live entries out of the oldest segment, a slice at a time, so that it can go. Only when
 * more than a number of segments is held, and only while at least half of what is held is dead:
 * else copying would go round and round without end, and what is held is held for a reason that
 * only a release ends.
 */
export class Rewriter {
  private readonly thresholdSegments: number
  private readonly sliceBytes: number
  /** The segment under way and the groups still to look through; their next index. */
  private segment: Segment | undefined
  private groups: Array<JournalGroup> = []
  private index = 0

  constructor(options: { thresholdSegments: number; sliceBytes: number }) {
    this.thresholdSegments = options.thresholdSegments
    this.sliceBytes = options.sliceBytes
  }

  /**
   * Gathers at most a slice of rewrite records. `groups` are all groups of the journal, in any
   * order.
   */
  slice(segments: Segments, groups: Iterable<JournalGroup>): void {
    if (segments.count <= this.thresholdSegments || segments.count < 2) return
    const oldest = segments.at(0) as Segment
    if (oldest.liveCount === 0 || segments.liveBytes * 2 > segments.heldBytes) return
    if (this.segment !== oldest) {
      this.segment = oldest
      this.groups = [...groups].sort((left, right) => compareKeys(right.key, left.key))
      this.index = 0
    }
    let gatheredBytes = 0
    for (let looked = 0; gatheredBytes < this.sliceBytes && looked < lookedMax; looked++) {
      const group = this.groups[this.groups.length - 1]
      if (group === undefined) return
      this.index = Math.max(this.index, group.firstIndex)
      if (group.isDestroyed || this.index > group.lastIndex) {
        this.groups.pop()
        this.index = 0
        continue
      }
      gatheredBytes += group.rewrite(this.index++, oldest)
    }
  }
}
