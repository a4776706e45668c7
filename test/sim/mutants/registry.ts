import { acknowledgeBeforeSync } from "./acknowledgeBeforeSync.ts"
import { commitBeyondMatch } from "./commitBeyondMatch.ts"
import { commitOldTerm } from "./commitOldTerm.ts"
import { ingestWithoutBarrier } from "./ingestWithoutBarrier.ts"
import { lostSync } from "./lostSync.ts"
import { middleSegmentFirst } from "./middleSegmentFirst.ts"
import type { Mutant } from "./mutant.ts"
import { oldAppendResponse } from "./oldAppendResponse.ts"
import { oldVoteResponse } from "./oldVoteResponse.ts"
import { rewriteAsAppend } from "./rewriteAsAppend.ts"
import { sessionEvictedByCount } from "./sessionEvictedByCount.ts"
import { truncateAlways } from "./truncateAlways.ts"
import { voteForAnyLog } from "./voteForAnyLog.ts"
import { voteNotDurable } from "./voteNotDurable.ts"

/**
 * A to H are those of RELIABILITY section 0. L is kept for a vote within 300 ms of a restart under a lease: without leases such a vote is
 * harmless, so that it waits for them.
 */
export const mutants: ReadonlyArray<Mutant> = [
  commitOldTerm,
  voteNotDurable,
  truncateAlways,
  voteForAnyLog,
  lostSync,
  oldAppendResponse,
  oldVoteResponse,
  commitBeyondMatch,
  middleSegmentFirst,
  rewriteAsAppend,
  ingestWithoutBarrier,
  sessionEvictedByCount,
  acknowledgeBeforeSync,
]

/** `undefined` = the build as it ships. Throws for a name that is none. */
export function mutantNamed(name: string | undefined): Mutant | undefined {
  if (name === undefined) return undefined
  const mutant = mutants.find((candidate) => candidate.name === name)
  if (mutant !== undefined) return mutant
  throw new Error(`no mutant ${name}; there are ${mutants.map((each) => each.name).join(" ")}`)
}
