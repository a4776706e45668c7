import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { entryKinds } from "../../src/raft/message.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import { defaultSettings } from "../../src/server/settings.ts"
import type { LoopNode } from "./loopNode.ts"
import { said, Trio } from "./trio.ts"

const ttlMs = 1000

/** Three nodes with a key that lives for a second, and a reader at a follower. */
class Expiring {
  readonly trio = new Trio()
  readonly leader: LoopNode
  readonly follower: LoopNode
  readonly sent: Array<PeerMessage["_tag"]> = []
  ticks = 0
  loses: (message: PeerMessage) => boolean = () => false

  constructor() {
    const { trio } = this
    this.leader = trio.leader()
    this.follower = trio.follower()
    trio.loses = (_, to, message) => {
      if (message._tag.startsWith("Tick")) this.sent.push(message._tag)
      const ticks = ticksIn(message)
      if (to === this.follower.id) this.ticks += ticks
      return this.loses(message)
    }
    trio.answer(this.leader, this.leader.mutate("a", { put: "1", ttlMs }))
    trio.pass(100)
  }

  read(options: Parameters<LoopNode["read"]>[1] = {}): number {
    return this.follower.read("a", { anyReplica: true, ...options })
  }

  answer(token: number): string | undefined {
    return said(this.trio.answer(this.follower, token))
  }
}

function ticksIn(message: PeerMessage): number {
  if (message._tag !== "Raft" || message.message._tag !== "AppendRequest") return 0
  return message.message.entries.filter(({ kind }) => kind === entryKinds.tick).length
}

describe("a linearizable read at a follower that meets an expiry which range time has not reached", () => {
  test("gets it from the leader, whose clock has passed it too: one tick serves all reads that wait", () => {
    const world = new Expiring()
    expect(world.answer(world.read())).toBe("1")
    world.trio.pass(ttlMs)
    const askedMs = world.trio.nowMs
    const tokens = Array.from({ length: 5 }, () => world.read())
    expect(tokens.map((token) => world.answer(token))).toEqual(Array(5).fill("absent"))
    expect(world.sent).toEqual(["TickWanted"])
    expect(world.ticks).toBe(1)
    // The leader says at once that the tick is committed: nobody waits for a heartbeat.
    expect(world.trio.nowMs - askedMs).toBeLessThan(
      defaultSettings.heartbeatTicks * defaultSettings.tickMs,
    )
    // Range time has passed it for good: no more is asked.
    expect(world.answer(world.read())).toBe("absent")
    expect(world.sent).toEqual(["TickWanted"])
  })

  test("finds the key where the leader's clock has not passed it, however far its own runs ahead; and in a scan, each for itself", () => {
    const world = new Expiring()
    world.follower.wallAheadMs = 5000
    expect(world.answer(world.read())).toBe("1")
    expect(world.sent).toEqual(["TickWanted", "TickRefused"])
    expect(world.ticks).toBe(0)
    world.trio.answer(world.leader, world.leader.mutate("b", { put: "2", ttlMs: 3 * ttlMs }))
    world.trio.pass(ttlMs)
    const [lower, upper] = ["a", "b"].map((key) => hashPosition(1, utf8(key))).sort(Buffer.compare)
    const token = 900_000
    const place = { range: 1, boundsVersion: 1, token, deadlineMs: 3000, limit: 10 }
    const freshness = { anyReplica: true, atLeast: 0, maxStalenessMs: 0 }
    world.follower.loop.request({
      ...{ _tag: "Scan", level: "linearizable", ...place, ...freshness },
      ...{ lower: lower as Uint8Array, upper: Uint8Array.of(...(upper as Uint8Array), 0) },
    })
    const page = world.trio.answer(world.follower, token)
    if (page._tag !== "Page") throw new Error(said(page))
    expect(page.entries.map(({ value }) => Buffer.from(value).toString())).toEqual(["2"])
  })

  test("asks again when question, answer or tick was lost", () => {
    for (const lost of ["TickWanted", "TickRefused", "tick"] as const) {
      const world = new Expiring()
      if (lost === "TickRefused") world.follower.wallAheadMs = 5000
      else world.trio.pass(ttlMs)
      let left = 2
      world.loses = (message) => {
        const isLost = lost === "tick" ? ticksIn(message) > 0 : message._tag === lost
        return isLost && left-- > 0
      }
      expect(world.answer(world.read({ deadlineMs: 20_000 }))).toBe(
        lost === "TickRefused" ? "1" : "absent",
      )
      expect(left).toBeLessThan(1)
    }
  })

  test("asks whoever leads by then", () => {
    const world = new Expiring()
    const { trio, leader } = world
    // The read's index is known; then the leader is gone before it hears of the expiry.
    world.loses = (message) => message._tag === "TickWanted"
    trio.pass(ttlMs)
    const token = world.read({ deadlineMs: 20_000 })
    trio.pass(200)
    expect(world.sent).toContain("TickWanted")
    trio.paused.add(leader.id)
    world.loses = () => false
    expect(world.answer(token)).toBe("absent")
  })

  test("an answer to a question from before the read came says nothing about it", () => {
    const world = new Expiring()
    const { trio, follower } = world
    follower.wallAheadMs = 2 * ttlMs
    let kept: PeerMessage | undefined
    world.loses = (message) => {
      if (message._tag !== "TickRefused" || kept !== undefined) return false
      kept = message
      return true
    }
    expect(world.answer(world.read())).toBe("1")
    trio.pass(ttlMs)
    // From now on the key has expired; the late answer is of a time when it had not.
    const token = world.read()
    world.loses = (message) => message._tag === "TickWanted"
    trio.pass(50)
    follower.loop.receive(world.leader.id, kept as PeerMessage)
    trio.pass(50)
    expect(trio.replyOf(follower, token)).toBeUndefined()
    world.loses = () => false
    expect(world.answer(token)).toBe("absent")
  })

  test("is refused at its deadline where no leader answers", () => {
    const world = new Expiring()
    world.trio.pass(ttlMs)
    world.loses = (message) => message._tag === "TickWanted"
    expect(world.answer(world.read({ deadlineMs: 500 }))).toBe("QuorumUnavailable")
  })
})
