import { journalWith, type Mutant } from "./mutant.ts"

export const voteNotDurable: Mutant = {
  name: "B",
  title: "the vote is not written",
  parts: {
    Journal: journalWith((journal) => {
      const group = journal.group.bind(journal)
      journal.group = (key) => {
        const result = group(key)
        const { setHardState } = Object.getPrototypeOf(result)
        result.setHardState = (state) => setHardState.call(result, { ...state, vote: 0 })
        return result
      }
    }),
  },
}
