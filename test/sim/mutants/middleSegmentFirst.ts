import type { Segment, Segments } from "../../../src/journal/segments.ts"
import { Turnover } from "../../../src/journal/turnover.ts"
import { type Mutant, withMethod } from "./mutant.ts"

interface Holding {
  readonly segments: Segments
}

export const middleSegmentFirst: Mutant = {
  name: "I",
  title: "a middle segment of the journal is deleted before the oldest",
  plant: withMethod<Holding, [number], Segment | undefined>(
    Turnover,
    "deletable",
    (deletable) =>
      function (durableLsn) {
        const middle = this.segments.count > 2 ? this.segments.at(1) : undefined
        return middle?.liveCount === 0 ? middle : deletable.call(this, durableLsn)
      },
  ),
}
