import { acknowledgeBeforeSync } from "./acknowledgeBeforeSync.ts"
import { addForgetsExpiry, batchInPieces, expiredDroppedEarly, tickNotInFloor } from "./commands.ts"
import { commitBeyondMatch } from "./commitBeyondMatch.ts"
import { commitOldTerm } from "./commitOldTerm.ts"
import { damageNotNoticed, directoryNotSynced, tableNotSynced, voteBeforeSync } from "./disks.ts"
import { ingestWithoutBarrier } from "./ingestWithoutBarrier.ts"
import {
  lateTimeoutNow,
  leaseByOldReading,
  leaseByOneClock,
  leaseFromArrival,
  leaseWithoutSilence,
  transferForEver,
  transferKeepsLease,
  voteAfterRestart,
} from "./leases.ts"
import { lostSync } from "./lostSync.ts"
import {
  learnerCounts,
  membersAtCommit,
  membersNotRolledBack,
  newMajorityOnly,
  oldMajorityOnly,
  snapshotKeepsMembers,
  withoutJoint,
} from "./members.ts"
import {
  buriedTooEarly,
  childOfOthers,
  confirmedByQuorum,
  fenceLeavesVersions,
  heldCommands,
  noTombstone,
  readsAfterPrepare,
  resumesWithoutAbort,
  sessionsLostAtMerge,
  sourceLogDropped,
  sourceTakenAsItIs,
  stampedBelowSource,
  thawedUnasked,
} from "./merges.ts"
import { middleSegmentFirst } from "./middleSegmentFirst.ts"
import type { Mutant } from "./mutant.ts"
import { oldAppendResponse } from "./oldAppendResponse.ts"
import { oldVoteResponse } from "./oldVoteResponse.ts"
import {
  emptiedVotesAgain,
  firstTermForAnyone,
  graveOpened,
  lateGone,
  replayedSplitResets,
  retryAppliedAgain,
  sessionsLostAtSplit,
  sessionsLostInSnapshot,
} from "./ranges.ts"
import {
  expiryByLocalClock,
  floorIgnored,
  followerReadNotConfirmed,
  freshFromArrival,
  readBeforeApplied,
  readBeforeOwnCommit,
  readByOldRound,
  readNotConfirmed,
  readWithoutBounds,
} from "./reads.ts"
import { rewriteAsAppend } from "./rewriteAsAppend.ts"
import { sessionEvictedByCount } from "./sessionEvictedByCount.ts"
import { beatConfirmsLater, sumNotCompared } from "./sleep.ts"
import { truncateAlways } from "./truncateAlways.ts"
import { voteForAnyLog } from "./voteForAnyLog.ts"
import { voteNotDurable } from "./voteNotDurable.ts"
import { oldAcknowledgement, voteForgotten } from "./votes.ts"

/** A to H are those of RELIABILITY section 0; pitfalls are those of its section 3. */
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
  voteAfterRestart,
  leaseWithoutSilence,
  leaseFromArrival,
  leaseByOneClock,
  transferKeepsLease,
  lateTimeoutNow,
  transferForEver,
  leaseByOldReading,
  withoutJoint,
  learnerCounts,
  membersNotRolledBack,
  snapshotKeepsMembers,
  newMajorityOnly,
  oldMajorityOnly,
  membersAtCommit,
  readNotConfirmed,
  readByOldRound,
  readBeforeOwnCommit,
  followerReadNotConfirmed,
  freshFromArrival,
  readBeforeApplied,
  floorIgnored,
  readWithoutBounds,
  expiryByLocalClock,
  sessionsLostAtSplit,
  sessionsLostInSnapshot,
  retryAppliedAgain,
  replayedSplitResets,
  graveOpened,
  emptiedVotesAgain,
  lateGone,
  directoryNotSynced,
  tableNotSynced,
  voteBeforeSync,
  voteForgotten,
  oldAcknowledgement,
  damageNotNoticed,
  expiredDroppedEarly,
  tickNotInFloor,
  addForgetsExpiry,
  batchInPieces,
  sumNotCompared,
  beatConfirmsLater,
  firstTermForAnyone,
  resumesWithoutAbort,
  readsAfterPrepare,
  childOfOthers,
  confirmedByQuorum,
  stampedBelowSource,
  sessionsLostAtMerge,
  sourceLogDropped,
  sourceTakenAsItIs,
  buriedTooEarly,
  fenceLeavesVersions,
  thawedUnasked,
  noTombstone,
  heldCommands,
]

/** `undefined` = the build as it ships. Throws for a name that is none. */
export function mutantNamed(name: string | undefined): Mutant | undefined {
  if (name === undefined) return undefined
  const mutant = mutants.find((candidate) => candidate.name === name)
  if (mutant !== undefined) return mutant
  throw new Error(`no mutant ${name}; there are ${mutants.map((each) => each.name).join(" ")}`)
}
