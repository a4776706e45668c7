import { describe, expect, test } from "bun:test"
import { missingTests, type Pitfall, titlesOf } from "../pitfallTable.ts"

/**
 * The ways in which implementations of Raft, and of ranges on top of it, have failed, by their numbers in the list of this project, and for each the tests that
 * fail when we do so too. Every one of those says the number, in its title or at the head of its script, so that who breaks it learns which mistake it is.
 *
 * Two numbers are missing: 39 is about merges and 41 about sizes that change by themselves, which this code does not do.
 */
const pitfalls: ReadonlyArray<Pitfall> = [
  {
    number: 1,
    pitfall: "an entry of an earlier term is committed by counting",
    tests: [
      ["raft/golden/figure8.txt", "Figure 8 of the Raft paper"],
      ["raft/golden/figure8Overwritten.txt", "Figure 8 (d) of the Raft paper"],
    ],
  },
  {
    number: 2,
    pitfall: "a follower commits beyond the entries that are known to be the leader's",
    tests: [["raft/golden/commitBeyondNew.txt", "an append that carries no entries over a tail"]],
  },
  {
    number: 3,
    pitfall: "term and vote are not durable, or in two steps",
    tests: [["raft/golden/restart.txt", "all replicas lose power and come back"]],
  },
  {
    number: 4,
    pitfall: "an answer or a vote leaves before it is durable",
    tests: [["raft/golden/voteIsDurable.txt", "a vote that did not reach the disk"]],
  },
  {
    number: 5,
    pitfall: "stepping down in the same term forgets the vote",
    tests: [["raft/golden/stepDownKeepsVote.txt", "a candidate that meets the leader of its own"]],
  },
  {
    number: 6,
    pitfall: "votes of an earlier term are counted",
    tests: [["raft/golden/staleVotes.txt", "votes given in an earlier term"]],
  },
  {
    number: 7,
    pitfall: "late answers to appends move what the leader knows of a follower back",
    tests: [["raft/golden/staleAnswers.txt", "a refusal that comes again"]],
  },
  {
    number: 8,
    pitfall: "an append cuts off what agrees, or leaves what does not",
    tests: [
      ["raft/golden/duplicateAppend.txt", "an append that comes a second time"],
      ["raft/golden/divergence.txt", "a deposed leader's entries that nobody else has"],
    ],
  },
  {
    number: 9,
    pitfall:
      "what is durable is not lowered by a truncation, or an entry written again is taken for the first",
    tests: [
      ["raft/golden/asyncPersistAba.txt", "the ABA problem of writes under way"],
      ["raft/takenBack.test.ts", "entries that the next leader truncates"],
    ],
  },
  {
    number: 10,
    pitfall: "success is reported for an entry that another took the place of",
    tests: [
      ["raft/golden/divergence.txt", "a deposed leader's entries that nobody else has"],
      [
        "server/cutOff.test.ts",
        "what another leader's entry took the place of is never answered as done",
      ],
    ],
  },
  {
    number: 11,
    pitfall: "who leads no more appends, under the new term",
    tests: [["raft/golden/deposed.txt", "a leader that does not know yet that it is deposed"]],
  },
  {
    number: 12,
    pitfall: "with pre-votes, one of a lower term never elects or is elected",
    tests: [["raft/golden/preVoteLowerTerm.txt", "a replica of an earlier term is told"]],
  },
  {
    number: 13,
    pitfall: "a pre-candidate goes on believing in a dead leader",
    tests: [["raft/golden/preVoteElection.txt", "the leader dies"]],
  },
  {
    number: 14,
    pitfall: "pre-votes and a membership change stop each other for ever",
    tests: [["raft/golden/jointLaterTerm.txt", "while the group is joint"]],
  },
  {
    number: 15,
    pitfall: "one that was cut off or removed drives the term up and disturbs the others",
    tests: [
      ["raft/golden/preVote.txt", "a replica that was cut off comes back"],
      ["raft/golden/removedIsQuiet.txt", "a voter that was removed while it was cut off"],
    ],
  },
  {
    number: 16,
    pitfall: "terms and indexes beyond what a number holds, or bit operations on them",
    tests: [
      ["raft/limits.test.ts", "a group works on past term and index"],
      ["raft/limits.test.ts", "a replica whose terms are used up stops"],
    ],
  },
  {
    number: 17,
    pitfall: "a new leader serves reads before it knows what is committed",
    tests: [
      ["raft/golden/readBeforeCommit.txt", "a new leader does not know what is committed"],
      ["server/reads.test.ts", "a new leader answers no read before an entry of its own term"],
    ],
  },
  {
    number: 18,
    pitfall: "leadership is confirmed before the read's index is taken, or not at all",
    tests: [
      ["raft/golden/readIndex.txt", "a read waits for a heartbeat round that begins after"],
      ["raft/golden/readPartitioned.txt", "a leader that was cut off confirms no read"],
      ["server/reads.test.ts", "a leader that is cut off answers no read"],
    ],
  },
  {
    number: 19,
    pitfall:
      "a lease goes by a clock that jumps or stands still, or is not looked at again before the answer",
    tests: [
      ["raft/leaseRules.ts", "a lease lasts from the sending of a round"],
      ["raft/golden/leaseClocks.txt", "the machine slept, or its clock was set"],
      ["server/reads.test.ts", "a leader that is paused between reading and answering"],
      ["processes/faults.test.ts", "a leader that was paused serves nothing old"],
    ],
  },
  {
    number: 20,
    pitfall: "a lease outlives the transfer of leadership, or the word to campaign comes late",
    tests: [
      ["raft/golden/transferLease.txt", "whoever was told to campaign may do so at any time"],
      ["raft/golden/transferLate.txt", "a TimeoutNow that arrives when another already leads"],
      ["server/reads.test.ts", "a leader that hands over reads by no lease"],
    ],
  },
  {
    number: 21,
    pitfall: "a transfer that fails never ends",
    tests: [
      ["raft/golden/transferDead.txt", "the target of a transfer dies"],
      ["raft/membershipRules.ts", "a transfer that fails is given up"],
    ],
  },
  {
    number: 22,
    pitfall: "a membership change before an entry of the leader's own term is committed",
    tests: [
      ["raft/membershipRules.ts", "no change before an entry of the leader's own term"],
      ["raft/golden/membershipTwoAdds.txt", "the schedule"],
      ["raft/golden/membershipTwoRemoves.txt", "the schedule"],
      ["raft/golden/membershipAddRemove.txt", "the schedule"],
    ],
  },
  {
    number: 23,
    pitfall: "a membership stays in force though its entry was cut off",
    tests: [
      ["raft/membershipRules.ts", "a membership is in force when appended"],
      ["raft/golden/membershipRolledBack.txt", "a membership is in force from when"],
    ],
  },
  {
    number: 24,
    pitfall: "a snapshot has the wrong membership, or an older one survives it",
    tests: [
      ["raft/membershipRules.ts", "after a snapshot its membership is in force"],
      ["raft/golden/snapshotMembership.txt", "a snapshot brings its own membership"],
    ],
  },
  {
    number: 25,
    pitfall: "a group is left joint for ever",
    tests: [
      ["raft/membershipRules.ts", "joint is left only when the joint entry is committed"],
      ["raft/golden/jointLeaderDies.txt", "the leader dies while the group is joint"],
    ],
  },
  {
    number: 26,
    pitfall: "a learner that is a voter by now, and does not know it, refuses its vote",
    tests: [
      ["raft/membershipRules.ts", "who does not know yet that it votes gives its vote"],
      ["raft/golden/learnerVotes.txt", "n3 was made a voter and does not know it yet"],
    ],
  },
  {
    number: 27,
    pitfall: "a learner becomes a voter before it has caught up",
    tests: [
      ["raft/membershipRules.ts", "a learner becomes a voter when it has caught up"],
      ["raft/golden/promoteCaughtUp.txt", "a replica becomes a voter only after"],
      ["server/members.test.ts", "what can't be had is refused"],
    ],
  },
  {
    number: 28,
    pitfall: "one that comes back with an empty disk votes a second time",
    tests: [
      ["raft/golden/newIdentity.txt", "n3's disk is lost"],
      ["server/members.test.ts", "a wiped node comes back under a new replica id only"],
      ["admin/joining.test.ts", "an emptied directory does not come back"],
    ],
  },
  {
    number: 29,
    pitfall: "a leader that is removed stops too early or too late",
    tests: [
      ["raft/golden/removedLeader.txt", "a leader that the change leaves out goes on"],
      ["raft/golden/leftOutMustLead.txt", "the leader that a change leaves out dies"],
      ["server/members.test.ts", "a learner is added, becomes a voter"],
    ],
  },
  {
    number: 30,
    pitfall: "a snapshot that is broken off, or that the log overtakes, never ends",
    tests: [
      ["raft/golden/snapshotFailed.txt", "a snapshot that did not arrive is wanted again"],
      ["raft/golden/snapshotNotNeeded.txt", "an offer of a snapshot whose last entry"],
      ["server/snapshotResume.test.ts", "a snapshot that was cut off goes on where it was"],
    ],
  },
  {
    number: 31,
    pitfall: "a crash amid the installing of a snapshot leaves a mixture",
    tests: [["server/crashSweepLoop.test.ts", "crashes amid snapshot, split and destruction"]],
  },
  {
    number: 32,
    pitfall: "a command that is tried again is applied twice",
    tests: [
      ["server/exactlyOnce.test.ts", "10,000 adds end at 10,000"],
      ["server/rangeChanges.test.ts", "both halves get all sessions"],
      ["client/retries.test.ts", "a range that splits between two copies of an add"],
    ],
  },
  {
    number: 33,
    pitfall: "replicas apply the same log to different ends",
    tests: [
      ["server/machine.test.ts", "every answer, every key and the chain"],
      ["server/rangeChanges.test.ts", "what makes replicas differ shows in the chain"],
      ["server/comparison.test.ts", "replicas are compared by the chain of their writes"],
    ],
  },
  {
    number: 34,
    pitfall: "a leader whose disk stands still keeps leading",
    tests: [
      ["server/reads.test.ts", "a leader whose disk hangs is replaced"],
      ["processes/faults.test.ts", "a leader whose disk stands still gives its ranges away"],
    ],
  },
  {
    number: 35,
    pitfall: "a sync that failed is tried again, or passed over",
    tests: [
      ["server/failedSync.test.ts", "the store loop over a disk whose syncs fail"],
      ["processes/strace.test.ts", "a node whose kernel fails"],
    ],
  },
  {
    number: 36,
    pitfall: "damage in the middle of the log is taken for its end",
    tests: [
      ["journal/holes.test.ts", "one damaged record in what was durable"],
      ["server/holes.test.ts", "a torn tail is not damage in the middle"],
      ["raft/lostLog.test.ts", "who lost what it may have acknowledged does not campaign"],
    ],
  },
  {
    number: 37,
    pitfall: "a read whose index was taken before a split is served after it",
    tests: [
      ["server/reads.test.ts", "a read whose index was taken before a split"],
      ["server/reads.test.ts", "a follower's read too"],
    ],
  },
  {
    number: 38,
    pitfall:
      "a split amid other changes leaves halves with the wrong members, or elects before its time",
    tests: [["server/split.test.ts", "a split that replicas apply at different times"]],
  },
  {
    number: 40,
    pitfall: "routes flap or go in circles, and a former owner takes a write",
    tests: [
      ["server/directory.test.ts", "whatever reports of a history of splits come"],
      ["server/split.test.ts", "a command that was on its way is refused with both halves"],
      ["client/retries.test.ts", "two nodes that point at each other are not asked in a loop"],
    ],
  },
  {
    number: 42,
    pitfall: "a log that cannot be committed grows without end",
    tests: [
      ["raft/golden/overload.txt", "a leader that cannot commit takes only so much"],
      ["raft/limits.test.ts", "a leader cut off takes only so much"],
      ["server/cutOff.test.ts", "a leader that is cut off holds only so much"],
    ],
  },
]

const elsewhere = [39, 41]

describe("of the pitfalls of consensus and of ranges", () => {
  test("each has a test", () => {
    const all = Array.from({ length: 42 }, (_, i) => i + 1)
    expect(pitfalls.map(({ number }) => number)).toEqual(
      all.filter((number) => !elsewhere.includes(number)),
    )
    for (const { tests } of pitfalls) expect(tests.length).toBeGreaterThan(0)
  })

  test("every test that is named exists, and says the number", () => {
    expect(missingTests(pitfalls, says)).toEqual([])
  })

  test("the look at titles can fail", () => {
    expect(says("pitfalls 12, 13: it works", 13, "it works")).toBe(true)
    expect(says("pitfalls 32 and 33: it works", 33, "it works")).toBe(true)
    expect(says("pitfalls 12, 13: it works", 1, "it works")).toBe(false)
    expect(says("pitfall 1: another", 1, "it works")).toBe(false)
    expect(titlesOf("a.test.ts", "// pitfall 1: it works\n")).toEqual([])
    expect(titlesOf("a.txt", "pitfall 1: it works\n---\nmore")).toEqual(["pitfall 1: it works"])
  })
})

/** True when a title holds the words and the number, as in "pitfall 5: ...", "pitfalls 17, 19: ..." or "... (pitfall 33)". */
function says(found: string, number: number, words: string): boolean {
  if (!found.includes(words)) return false
  const numbers = found.match(/pitfalls? (\d+(?:(?:, | and )\d+)*)/)?.[1]
  return numbers?.split(/, | and /).includes(String(number)) ?? false
}
