import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import {
  isJoint,
  isVoter,
  leftJoint,
  type Membership,
  MembershipLog,
  membershipProblem,
  membersOf,
  sameMembership,
  stepTowards,
} from "../../src/raft/membership.ts"
import { type Entry, entryKinds } from "../../src/raft/message.ts"
import { membersData } from "./members.ts"
import { quorumsOverlap, stepProblem } from "./membershipChecks.ts"

function draw(prng: Prng): { voters: ReadonlyArray<number>; learners: ReadonlyArray<number> } {
  const ids = [1, 2, 3, 4, 5, 6]
  const voters = ids.filter(() => prng.chance(0.5))
  if (voters.length === 0) voters.push(prng.pick(ids))
  return { voters, learners: ids.filter((id) => !voters.includes(id) && prng.chance(0.5)) }
}

function membersEntry(index: number, membership: Membership): Entry {
  return { index, term: 1, kind: entryKinds.members, data: membersData(membership) }
}

describe("memberships", () => {
  test("any wanted one is reached by allowed steps, whose quorums overlap", () => {
    const prng = new Prng(1)
    for (let run = 0; run < 500; run++) {
      const before: Membership = { ...draw(prng), outgoing: [] }
      const wanted = draw(prng)
      const next = stepTowards(before, wanted)
      expect(membershipProblem(next)).toBeUndefined()
      expect(stepProblem(before, next)).toBeUndefined()
      if (isJoint(next)) {
        const last = leftJoint(next)
        expect(stepProblem(next, last)).toBeUndefined()
        expect(last.voters).toEqual(wanted.voters)
      } else {
        expect(next).toEqual({ ...wanted, outgoing: [] })
      }
      expect(membersOf(next)).toEqual([...membersOf(next)].sort((a, b) => a - b))
      expect(membersOf(next).filter((id) => isVoter(next, id))).toEqual(
        [...new Set([...next.voters, ...next.outgoing])].sort((a, b) => a - b),
      )
    }
  })

  test("the check that quorums overlap can fail", () => {
    const simple = (...voters: ReadonlyArray<number>) => ({ voters, outgoing: [], learners: [] })
    expect(quorumsOverlap(simple(1, 2, 3), simple(1, 2, 3, 4))).toBe(true)
    expect(quorumsOverlap(simple(1, 2, 3), simple(3, 4, 5))).toBe(false)
    expect(quorumsOverlap(simple(1, 2, 3), simple(1, 2, 3, 4, 5))).toBe(false)
  })

  test("along a log that grows, is cut and is replaced by a snapshot are what the entries say", () => {
    const prng = new Prng(2)
    for (let run = 0; run < 300; run++) {
      let first = {
        index: 0,
        membership: { voters: [9], outgoing: [], learners: [] } as Membership,
      }
      let entries: Array<Entry> = []
      let commit = 0
      const log = new MembershipLog(first)
      const lastIndex = () => entries.at(-1)?.index ?? first.index
      const upTo = (index: number): Membership => {
        const last = entries.findLast(
          (entry) => entry.kind === entryKinds.members && entry.index <= index,
        )
        return last === undefined ? first.membership : (memberships.get(last.index) as Membership)
      }
      const memberships = new Map<number, Membership>()
      for (let step = 0; step < 60; step++) {
        const action = prng.int(0, 9)
        if (action < 5) {
          const index = lastIndex() + 1
          const membership: Membership = { ...draw(prng), outgoing: [] }
          const isMembers = prng.chance(0.5)
          const entry: Entry = isMembers
            ? membersEntry(index, membership)
            : { index, term: 1, kind: entryKinds.commands, data: new Uint8Array(0) }
          if (isMembers) memberships.set(index, membership)
          entries.push(entry)
          log.appended(entry, commit)
        } else if (action < 7) {
          commit = prng.int(commit, lastIndex())
        } else if (action < 9 && lastIndex() > commit) {
          const from = prng.int(commit + 1, lastIndex())
          entries = entries.filter(({ index }) => index < from)
          log.truncated(from)
        } else if (prng.chance(0.2)) {
          first = { index: lastIndex() + 5, membership: { ...draw(prng), outgoing: [] } }
          commit = first.index
          entries = []
          log.reset(first)
        }
        expect(sameMembership(log.inForce.membership, upTo(lastIndex()))).toBe(true)
        expect(sameMembership(log.committed(commit).membership, upTo(commit))).toBe(true)
      }
    }
  })
})
