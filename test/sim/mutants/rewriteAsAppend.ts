import { Journal } from "../../../src/journal/journal.ts"
import { Replay } from "../../../src/journal/replay.ts"
import type { Mutant } from "./mutant.ts"

const recover: typeof Journal.recover = (...options) => {
  const { rewrite, append } = Replay.prototype
  Replay.prototype.rewrite = append
  try {
    return Journal.recover(...options)
  } finally {
    Replay.prototype.rewrite = rewrite
  }
}

export const rewriteAsAppend: Mutant = {
  name: "J",
  title: "recovery reads a rewritten entry as an append",
  parts: { Journal: { recover } as unknown as typeof Journal },
}
