import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import type { SleepingPair } from "../../src/server/beatMessages.ts"
import { PeerBeats, Sum } from "../../src/server/peerBeats.ts"

const seed = Number(process.env.KVORUM_SEED ?? Date.now() % 1e8)

function drawPair(prng: Prng): SleepingPair {
  const draw = () => prng.pick([prng.int(0, 4), prng.int(0, 2 ** 33)])
  return { range: draw(), leader: draw(), follower: draw(), term: draw(), index: draw() }
}

describe("a sum over sleeping groups", () => {
  test("does not depend on the order, and forgets what went", () => {
    const prng = new Prng(seed)
    for (let round = 0; round < 200; round++) {
      const pairs = Array.from({ length: prng.int(0, 12) }, () => drawPair(prng))
      const passing = Array.from({ length: 4 }, () => drawPair(prng))
      const [one, other] = [new Sum(), new Sum()]
      for (const pair of pairs) one.add(pair)
      for (const pair of [...passing, ...pairs.toReversed()]) other.add(pair)
      for (const pair of passing.toReversed()) other.remove(pair)
      expect(one.equals(other.take()), `KVORUM_SEED=${seed}`).toBe(true)
    }
  })

  test("tells apart what differs in any one number, and numbers that changed places", () => {
    const prng = new Prng(seed)
    for (let round = 0; round < 2000; round++) {
      const pair = drawPair(prng)
      const field = prng.pick(["range", "leader", "follower", "term", "index"] as const)
      const other = { ...pair, [field]: pair[field] + prng.pick([1, 2, 256, 2 ** 32]) }
      const swapped = { ...pair, leader: pair.follower, follower: pair.leader }
      const sums = [pair, other, swapped].map((each) => {
        const sum = new Sum()
        sum.add(each)
        return sum
      }) as [Sum, Sum, Sum]
      expect(sums[0].equals(sums[1].take()), `KVORUM_SEED=${seed}`).toBe(false)
      const isSame = pair.leader === pair.follower
      expect(sums[0].equals(sums[2].take()), `KVORUM_SEED=${seed}`).toBe(isSame)
    }
  })
})

describe("rounds of beats", () => {
  test("an echo confirms its own round, once, and never an earlier one after a later", () => {
    const peer = new PeerBeats()
    for (const round of [1, 2, 3]) peer.sent(round, { monotonicMs: round * 10, wallMs: 0 })
    peer.confirmed(2)
    expect([peer.equalRound, peer.equalMark?.monotonicMs]).toEqual([2, 20])
    peer.confirmed(1)
    expect(peer.equalRound).toBe(2)
    peer.confirmed(7)
    expect(peer.equalRound).toBe(2)
    peer.confirmed(3)
    expect([peer.equalRound, peer.equalMark?.monotonicMs]).toEqual([3, 30])
  })
})
