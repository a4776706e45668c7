import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { stepTowards } from "../../src/raft/membership.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import { isJoint } from "../../src/server/descriptors.ts"
import { HeldMessages, holdMs } from "../../src/server/heldMessages.ts"
import { leftPlaces, nextPlaces, problemOf } from "../../src/server/memberSteps.ts"
import { membershipOf } from "../../src/server/membershipOf.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { buries, decodeTombstone, encodeTombstone, united } from "../../src/server/tombstone.ts"
import type { RangeDescriptor, ReplicaPlace } from "../../src/types.ts"

const descriptor = bootstrapDescriptors([1, 2, 3], 1)[1] as RangeDescriptor

describe("steps of a change of members", () => {
  test("any wanted replicas are reached, each step being one that the core takes", () => {
    const prng = new Prng(7)
    for (let round = 0; round < 2000; round++) {
      const wanted = drawWanted(prng)
      if (problemOf(descriptor, 3, wanted) !== undefined) continue
      let places = descriptor.replicas
      for (let step = 0; step < 10; step++) {
        if (isJoint(places)) {
          places = leftPlaces(places)
          continue
        }
        const next = nextPlaces(places, wanted)
        if (next === undefined) break
        const { voters, outgoing, learners } = membershipOf(next)
        const now = membershipOf(places)
        if (outgoing.length > 0) expect(outgoing).toEqual(now.voters)
        else expect(voters).toEqual(now.voters)
        // Whoever becomes a voter was a learner in the step before.
        for (const voter of voters) {
          expect(now.voters.includes(voter) || now.learners.includes(voter)).toBe(true)
        }
        if (outgoing.length === 0)
          expect(stepTowards(now, { voters, learners }).learners).toEqual(learners)
        places = next
      }
      const sorted = [...wanted].sort((left, right) => left.replica - right.replica)
      expect(places).toEqual(sorted)
    }
  })

  test("a replica id that the range has had is never given again", () => {
    const again: ReplicaPlace = { node: 4, replica: 5, role: "learner" }
    expect(problemOf(descriptor, 5, [...descriptor.replicas, again])).toContain("not above 5")
    expect(problemOf(descriptor, 4, [...descriptor.replicas, again])).toBeUndefined()
    expect(problemOf(descriptor, 4, [{ ...again, replica: 2 ** 32, role: "voter" }])).toBeDefined()
  })
})

function drawWanted(prng: Prng): ReadonlyArray<ReplicaPlace> {
  const old = descriptor.replicas.filter(() => prng.chance(0.6))
  const added = [4, 5, 6]
    .filter(() => prng.chance(0.4))
    .map((node) => ({ node, replica: node + 10, role: prng.pick(["voter", "learner"] as const) }))
  return [...old, ...added]
}

describe("tombstones", () => {
  const tombstone = {
    replica: 12,
    lastReplica: 13,
    descriptor: { ...descriptor, membersVersion: 4 },
    absorbedBy: undefined,
  }

  test("come back as they were", () => {
    expect(decodeTombstone(encodeTombstone(tombstone))).toEqual(tombstone)
  })

  test("forbid all ids up to theirs but those of members", () => {
    expect([1, 2, 3, 4, 11, 12, 13].map((id) => buries(tombstone, id))).toEqual([
      false,
      false,
      false,
      true,
      true,
      true,
      false,
    ])
  })

  test("of one range unite to the larger id and the later word", () => {
    const later = { ...descriptor, membersVersion: 9, replicas: [] }
    const other = { replica: 7, lastReplica: 20, descriptor: later, absorbedBy: undefined }
    for (const both of [united(tombstone, other), united(other, tombstone)]) {
      expect(both).toEqual({ ...other, replica: 12 })
    }
    expect(united(undefined, other)).toBe(other)
  })
})

describe("messages for ranges that are not here yet", () => {
  const message = (range: number): PeerMessage => ({
    _tag: "Gone",
    range,
    replica: 1,
    lastReplica: 1,
    absorbedBy: undefined,
    descriptor: { ...descriptor, id: range, start: utf8("a") },
  })

  test("are held for a while, in order, then the range has expired", () => {
    const held = new HeldMessages()
    expect(held.hold(1, message(5), 0)).toBe("held")
    expect(held.hold(2, message(5), holdMs - 1)).toBe("held")
    expect(held.take(5).map(({ from }) => from)).toEqual([1, 2])
    expect(held.take(5)).toEqual([])
    expect(held.hold(1, message(5), 0)).toBe("held")
    held.tick(holdMs)
    expect(held.hold(1, message(5), holdMs)).toBe("expired")
    expect(held.take(5)).toEqual([])
    held.tick(10 * holdMs)
    expect(held.hold(1, message(5), 10 * holdMs)).toBe("held")
  })

  test("are bounded in ranges and in number", () => {
    const held = new HeldMessages()
    for (let range = 0; range < 64; range++) expect(held.hold(1, message(range), 0)).toBe("held")
    expect(held.hold(1, message(64), 0)).toBe("dropped")
    for (let i = 64; i < 1024; i++) expect(held.hold(1, message(0), 0)).toBe("held")
    expect(held.hold(1, message(0), 0)).toBe("dropped")
    held.tick(holdMs)
    held.tick(10 * holdMs)
    expect(held.hold(1, message(64), 10 * holdMs)).toBe("held")
  })
})
