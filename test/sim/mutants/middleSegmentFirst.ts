import type { Segments } from "../../../src/journal/segments.ts"
import { journalWith, type Mutant } from "./mutant.ts"

export const middleSegmentFirst: Mutant = {
  name: "I",
  title: "a middle segment of the journal is deleted before the oldest",
  parts: {
    Journal: journalWith((journal) => {
      const inside = journal as unknown as { segments: Segments; deletable: () => unknown }
      const deletable = inside.deletable.bind(journal)
      inside.deletable = () => {
        const middle = inside.segments.count > 2 ? inside.segments.at(1) : undefined
        return middle?.liveCount === 0 ? middle : deletable()
      }
    }),
  },
}
