import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import {
  type Ballot,
  jointQuorumIndex,
  jointVoteResult,
  majority,
  quorumIndex,
  voteResult,
} from "../../src/raft/quorum.ts"

/** Dumb twins: the definition, tried on everything. */
function everyMajority(count: number): ReadonlyArray<ReadonlyArray<number>> {
  const result: Array<Array<number>> = []
  for (let set = 0; set < 2 ** count; set++) {
    const members = Array.from({ length: count }, (_, i) => i).filter((i) => (set >> i) & 1)
    if (members.length * 2 > count) result.push(members)
  }
  return result
}

function dumbQuorumIndex(values: ReadonlyArray<number>): number {
  const reached = everyMajority(values.length).map((members) =>
    Math.min(...members.map((member) => values[member] as number)),
  )
  return Math.max(...reached)
}

function dumbVoteResult(ballots: ReadonlyArray<Ballot>): string {
  const majorities = everyMajority(ballots.length)
  const all = (members: ReadonlyArray<number>, allowed: ReadonlyArray<Ballot>) =>
    members.every((member) => allowed.includes(ballots[member]))
  if (majorities.some((members) => all(members, ["granted"]))) return "won"
  return majorities.some((members) => all(members, ["granted", undefined])) ? "pending" : "lost"
}

describe("quorums", () => {
  test("two majorities always share a voter, and no smaller number is one", () => {
    for (let voters = 1; voters <= 9; voters++) {
      expect(2 * majority(voters)).toBeGreaterThan(voters)
      expect(2 * (majority(voters) - 1)).toBeLessThanOrEqual(voters)
    }
  })

  test("the quorum index is what its definition says, for random values of 1 to 9 voters", () => {
    const prng = new Prng(1)
    for (let run = 0; run < 1500; run++) {
      const largest = prng.pick([1, 3, 2 ** 40])
      const values = Array.from({ length: prng.int(1, 9) }, () => prng.int(0, largest))
      expect(quorumIndex(values)).toBe(dumbQuorumIndex(values))
    }
  })

  test("a joint quorum index is reached by a majority of every set, and no larger number is", () => {
    const prng = new Prng(2)
    for (let run = 0; run < 500; run++) {
      const sets = Array.from({ length: prng.int(1, 2) }, () =>
        Array.from({ length: prng.int(1, 5) }, () => prng.int(0, 5)),
      )
      const reached = [5, 4, 3, 2, 1].find((index) =>
        sets.every((values) => dumbQuorumIndex(values) >= index),
      )
      expect(jointQuorumIndex(sets)).toBe(reached ?? 0)
    }
  })

  test("a joint vote is won in all sets, and lost in any", () => {
    const kinds: ReadonlyArray<Ballot> = ["granted", "refused", undefined]
    const prng = new Prng(3)
    for (let run = 0; run < 1000; run++) {
      const sets = Array.from({ length: prng.int(1, 2) }, () =>
        Array.from({ length: prng.int(1, 5) }, () => prng.pick(kinds)),
      )
      const results = sets.map(dumbVoteResult)
      const expected = results.includes("lost")
        ? "lost"
        : results.every((result) => result === "won")
          ? "won"
          : "pending"
      expect(jointVoteResult(sets)).toBe(expected)
    }
  })

  test("a vote's result is what its definition says, for all ballots of 1 to 6 voters", () => {
    const kinds: ReadonlyArray<Ballot> = ["granted", "refused", undefined]
    for (let voters = 1; voters <= 6; voters++) {
      for (let code = 0; code < 3 ** voters; code++) {
        const ballots = Array.from(
          { length: voters },
          (_, i) => kinds[Math.floor(code / 3 ** i) % 3] as Ballot,
        )
        expect(voteResult(ballots)).toBe(dumbVoteResult(ballots) as "won")
      }
    }
  })
})
