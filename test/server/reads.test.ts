import { describe, expect, test } from "bun:test"
import { Prng } from "../../src/lib/prng.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Receipt } from "../../src/server/requests.ts"
import { said, Trio } from "./trio.ts"

function raftTag(message: PeerMessage): string | undefined {
  return message._tag === "Raft" ? message.message._tag : undefined
}

function receiptOf(reply: ReturnType<Trio["answer"]>): Receipt {
  if (reply._tag === "Refused") throw new Error(said(reply))
  return reply.receipt
}

describe("reads at followers", () => {
  test("a linearizable read at a follower sees the last acknowledged write, and says who served it", () => {
    const trio = new Trio()
    for (let i = 0; i < 20; i++) {
      trio.put("a", `${i}`)
      const follower = trio.follower()
      const reply = trio.answer(follower, follower.read("a", { anyReplica: true }))
      expect(said(reply)).toBe(`${i}`)
      const { role, node, replica, level, staleBoundMs } = receiptOf(reply)
      expect({ role, node, replica, level, staleBoundMs }).toEqual({
        role: "follower",
        node: follower.id,
        replica: follower.id,
        level: "linearizable",
        staleBoundMs: 0,
      })
    }
    const follower = trio.follower()
    expect(said(trio.answer(follower, follower.read("a")))).toBe("NotLeader")
  })

  test("a follower that hears no leader makes reads wait, until it does or their deadline", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    trio.loses = (from, to) => from === follower.id || to === follower.id
    const late = follower.read("a", { anyReplica: true, deadlineMs: 400 })
    const patient = follower.read("a", { anyReplica: true, deadlineMs: 5000 })
    trio.pass(300)
    expect(trio.replyOf(follower, late)).toBeUndefined()
    trio.put("a", "2")
    trio.pass(400)
    expect(said(trio.replyOf(follower, late))).toBe("QuorumUnavailable")
    expect(trio.replyOf(follower, patient)).toBeUndefined()
    trio.loses = () => false
    expect(said(trio.answer(follower, patient))).toBe("2")
  })

  test("lost questions and answers are asked again", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    const prng = new Prng(3)
    let lost = 0
    trio.loses = (_, __, message) => {
      const isLost = raftTag(message)?.startsWith("ReadIndex") === true && prng.chance(0.6)
      if (isLost) lost++
      return isLost
    }
    for (let i = 0; i < 5; i++) {
      const token = follower.read("a", { anyReplica: true, deadlineMs: 20_000 })
      expect(said(trio.answer(follower, token))).toBe("1")
    }
    expect(lost).toBeGreaterThan(10)
  })
})

describe("bounded reads", () => {
  test("a follower that is fresh enough answers by itself, and says how old its state may be", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    const first = follower.read("a", { level: "bounded", maxStalenessMs: 1000 })
    expect(said(trio.answer(follower, first))).toBe("1")
    trio.loses = (from, to) => from === follower.id || to === follower.id
    trio.put("a", "2")
    trio.pass(300)
    const second = trio.answer(
      follower,
      follower.read("a", { level: "bounded", maxStalenessMs: 1000 }),
    )
    expect(said(second)).toBe("1")
    const { level, staleBoundMs } = receiptOf(second)
    expect(level).toBe("bounded")
    expect(staleBoundMs).toBeGreaterThanOrEqual(300)
    expect(staleBoundMs).toBeLessThanOrEqual(1000)
    expect(receiptOf(trio.answer(follower, follower.read("a", { level: "local" })))).toMatchObject({
      level: "local",
      staleBoundMs: -1,
    })
  })

  test("a follower that is too stale asks and waits; at the deadline it refuses rather than say what is too old", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    trio.answer(follower, follower.read("a", { level: "bounded", maxStalenessMs: 100 }))
    trio.loses = (from, to) => from === follower.id || to === follower.id
    trio.put("a", "2")
    trio.pass(200)
    const ask = (deadlineMs: number) =>
      follower.read("a", { level: "bounded", maxStalenessMs: 100, deadlineMs })
    const late = ask(300)
    const patient = ask(5000)
    trio.pass(500)
    expect(said(trio.replyOf(follower, late))).toBe("QuorumUnavailable")
    expect(trio.replyOf(follower, patient)).toBeUndefined()
    trio.loses = () => false
    expect(said(trio.answer(follower, patient))).toBe("2")
  })

  test("what a slow network brings is as old as the question, not as the answer", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    trio.delayMs = 100
    const tight = follower.read("a", { level: "bounded", maxStalenessMs: 150, deadlineMs: 2000 })
    expect(said(trio.answer(follower, tight))).toBe("QuorumUnavailable")
    const loose = trio.answer(
      follower,
      follower.read("a", { level: "bounded", maxStalenessMs: 500 }),
    )
    expect(said(loose)).toBe("1")
    // There and back, and a round of the leader's besides.
    expect(receiptOf(loose).staleBoundMs).toBeGreaterThanOrEqual(200)
  })

  test("a follower that is paused between reading and answering says nothing that has become too old", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    trio.answer(follower, follower.read("a", { level: "bounded", maxStalenessMs: 200 }))
    const token = follower.read("a", { level: "bounded", maxStalenessMs: 200, deadlineMs: 20_000 })
    follower.betweenTurnAndRelease = () => {
      follower.betweenTurnAndRelease = () => {}
      trio.paused.add(follower.id)
      trio.put("a", "2")
      trio.pass(1000)
      trio.paused.delete(follower.id)
      follower.nowMs = trio.nowMs
    }
    expect(said(trio.answer(follower, token))).toBe("2")
  })

  test("a bound that is none is refused", () => {
    const trio = new Trio()
    const leader = trio.leader()
    expect(said(trio.answer(leader, leader.read("a", { level: "bounded" })))).toBe("InvalidRequest")
  })
})

describe("session floors", () => {
  test("a follower behind its session's floor waits until it has caught up", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const follower = trio.follower()
    trio.loses = (from, to) => from === follower.id || to === follower.id
    const { version, receipt } = trio.put("a", "2")
    expect(receipt.stateTime).toBeGreaterThanOrEqual(version)
    for (const level of ["local", "bounded"] as const) {
      const freshness = { level, maxStalenessMs: level === "bounded" ? 60_000 : 0 }
      if (level === "local") {
        expect(said(trio.answer(follower, follower.read("a", freshness)))).toBe("1")
      }
      const token = follower.read("a", { ...freshness, atLeast: version, deadlineMs: 300 })
      expect(said(trio.answer(follower, token))).toBe("QuorumUnavailable")
    }
    const token = follower.read("a", { level: "local", atLeast: version })
    trio.pass(100)
    trio.loses = () => false
    expect(said(trio.answer(follower, token))).toBe("2")
    const again = follower.read("a", { level: "local", atLeast: version })
    trio.pass(5)
    expect(said(trio.replyOf(follower, again))).toBe("2")
  })
})

describe("who may answer a linearizable read", () => {
  test("pitfall 17: a new leader answers no read before an entry of its own term is committed", () => {
    for (const leaseMs of [0, 240]) {
      const trio = new Trio({ leaseMs })
      const old = trio.leader()
      trio.put("a", "1")
      trio.put("a", "2")
      trio.paused.add(old.id)
      // Its heartbeats are echoed, its appends get nowhere.
      trio.loses = (_, __, message) => raftTag(message) === "AppendRequest"
      const leader = trio.leader()
      const token = leader.read("a", { deadlineMs: 5000 })
      trio.pass(250)
      expect(leader.isLeader).toBe(true)
      expect(trio.replyOf(leader, token)).toBeUndefined()
      trio.loses = () => false
      expect(said(trio.answer(leader, token))).toBe("2")
    }
  })

  test("pitfall 18: a leader that is cut off answers no read that came after that", () => {
    const trio = new Trio({ leaseMs: 0 })
    const old = trio.leader()
    trio.put("a", "1")
    // The round of an earlier read must not confirm a later one.
    const early = old.read("a")
    trio.pass(5)
    trio.loses = (from, to) => from === old.id || to === old.id
    const token = old.read("a", { deadlineMs: 5000 })
    trio.pass(100)
    expect(trio.replyOf(old, token)).toBeUndefined()
    for (let i = 0; old.isLeader && i < 200; i++) trio.pass(10)
    trio.put("a", "2")
    expect(said(trio.replyOf(old, token))).toBe("NotLeader")
    expect(["1", "NotLeader", undefined]).toContain(said(trio.replyOf(old, early)))
  })

  test("pitfall 19: a leader that is paused between reading and answering answers nothing by its lease", () => {
    const trio = new Trio({ leaseMs: 240 })
    const old = trio.leader()
    trio.put("a", "1")
    trio.pass(300)
    // With the lease a read takes no round.
    const fast = old.read("a")
    trio.pass(5)
    expect(said(trio.replyOf(old, fast))).toBe("1")

    const token = old.read("a", { deadlineMs: 20_000 })
    old.betweenTurnAndRelease = () => {
      old.betweenTurnAndRelease = () => {}
      trio.paused.add(old.id)
      trio.pass(1500)
      trio.put("a", "2")
      trio.paused.delete(old.id)
      old.nowMs = trio.nowMs
    }
    trio.pass(5)
    expect(said(trio.replyOf(old, token))).not.toBe("1")
    expect(said(trio.answer(old, token))).toBe("NotLeader")
  })

  test("pitfall 19: a lease does not count time by a clock that stood still", () => {
    const trio = new Trio({ leaseMs: 240 })
    const old = trio.leader()
    trio.put("a", "1")
    trio.pass(300)
    trio.loses = (from, to) => from === old.id || to === old.id
    // The machine sleeps for two seconds: the monotonic clock does not notice, the wall clock does.
    const token = old.read("a", { deadlineMs: 20_000 })
    old.wallAheadMs += 2000
    trio.pass(5)
    expect(trio.replyOf(old, token)).toBeUndefined()
  })

  test("pitfall 20: a leader that hands over reads by no lease any more", () => {
    const trio = new Trio({ leaseMs: 240 })
    const old = trio.leader()
    trio.put("a", "1")
    trio.pass(300)
    // It is under way for long, and the old leader does not know whether it has come.
    trio.loses = (_, __, message) => raftTag(message) === "TimeoutNow"
    const heir = trio.nodes.find((node) => node !== old)?.id as number
    expect(old.loop.replicas.get(1)?.raft.transferLeadership(heir)).toBe(true)
    trio.pass(5)
    trio.loses = (from, to) => from === old.id || to === old.id
    const token = old.read("a", { deadlineMs: 20_000 })
    trio.pass(50)
    expect(trio.replyOf(old, token)).toBeUndefined()
  })
})

describe("reads and splits", () => {
  test("pitfall 37: a read whose index was taken before a split, and that comes up after it, is answered with the new bounds", () => {
    const trio = new Trio({ leaseMs: 0 })
    for (const key of ["a", "b", "c", "d"]) trio.put(key, key)
    const leader = trio.leader()
    trio.loses = (_, __, message) => raftTag(message) === "HeartbeatResponse"
    const tokens = ["a", "b", "c", "d"].map((key) => leader.read(key, { deadlineMs: 5000 }))
    trio.pass(30)
    const split = leader.split("c", 77)
    expect(said(trio.answer(leader, split))).toBe("Changed")
    for (const token of tokens) expect(trio.replyOf(leader, token)).toBeUndefined()
    trio.loses = () => false
    for (const token of tokens) {
      const reply = trio.answer(leader, token)
      expect(said(reply)).toBe("RangeMoved")
      if (reply._tag !== "Refused" || reply.refusal._tag !== "RangeMoved") continue
      expect(reply.refusal.descriptors.map(({ id }) => id)).toContain(1)
    }
  })

  test("pitfall 37: a follower's read too", () => {
    const trio = new Trio()
    for (const key of ["a", "b", "c", "d"]) trio.put(key, key)
    const leader = trio.leader()
    const follower = trio.follower()
    trio.loses = (_, __, message) => raftTag(message) === "ReadIndexResponse"
    const token = follower.read("a", { anyReplica: true, deadlineMs: 5000 })
    trio.pass(30)
    expect(said(trio.answer(leader, leader.split("c", 77)))).toBe("Changed")
    trio.pass(300)
    trio.loses = () => false
    expect(said(trio.answer(follower, token))).toBe("RangeMoved")
  })
})

describe("mutations that wait", () => {
  test("one that was never proposed is refused at its deadline without a trace, not as unknown", () => {
    const trio = new Trio()
    trio.put("a", "0")
    const leader = trio.leader()
    trio.writeMs.set(leader.id, 600)
    const first = leader.mutate("a", { put: "1" })
    trio.pass(20)
    const second = leader.mutate("a", { put: "2" }, 200)
    trio.pass(400)
    expect(said(trio.replyOf(leader, second))).toBe("QuorumUnavailable")
    expect(said(trio.answer(leader, first))).toBe("Mutated")
    trio.writeMs.clear()
    trio.pass(1000)
    const now = trio.leader()
    expect(said(trio.answer(now, now.read("a")))).toBe("1")
  })
})

describe("disks that stand still, or are slow", () => {
  test("pitfall 34: a leader whose disk hangs is replaced, and takes nothing back while it hangs", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const old = trio.leader()
    trio.writeMs.set(old.id, 60_000)
    old.mutate("a", { put: "2" })
    const beganMs = trio.nowMs
    while (old.isLeader && trio.nowMs - beganMs < 5000) trio.pass(5)
    const leader = trio.leader()
    expect(leader).not.toBe(old)
    // Noticed after a second, and then by transfer: an election would take another 300 ms and more.
    expect(trio.nowMs - beganMs).toBeLessThan(1250)
    for (let i = 0; i < 50; i++) {
      trio.put("a", `after ${i}`)
      trio.pass(100)
      expect(old.isLeader).toBe(false)
    }
  })

  test("pitfall 34: a leader whose disk is slow hands over within five seconds, and comes back slowly", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const old = trio.leader()
    trio.writeMs.set(old.id, 400)
    const beganMs = trio.nowMs
    for (let i = 0; old.isLeader && trio.nowMs - beganMs < 10_000; i++) {
      old.mutate("a", { put: `${i}` })
      trio.pass(50)
    }
    expect(trio.nowMs - beganMs).toBeLessThan(5000)
    const leader = trio.leader()
    expect(leader).not.toBe(old)
    for (let i = 0; i < 30; i++) {
      trio.put("a", `after ${i}`)
      trio.pass(200)
      expect(trio.leader()).toBe(leader)
    }
  })

  test("a machine that slept does not blame its disks for it", () => {
    const trio = new Trio()
    trio.put("a", "1")
    const leader = trio.leader()
    trio.writeMs.set(leader.id, 100)
    const token = leader.mutate("a", { put: "2" })
    trio.pass(20)
    expect(leader.journalWrite).toBeDefined()
    for (const node of trio.nodes) node.nowMs += 60_000
    trio.nowMs += 60_000
    for (let i = 0; i < 100; i++) {
      trio.pass(10)
      expect(leader.isLeader).toBe(true)
    }
    expect(said(trio.replyOf(leader, token))).toBe("Mutated")
  })

  test("where all disks are slow somebody leads nevertheless, and leadership seldom moves", () => {
    const trio = new Trio()
    trio.put("a", "1")
    for (const node of trio.nodes) trio.writeMs.set(node.id, 400)
    let leader = trio.leader()
    let moves = 0
    let done = 0
    for (let i = 0; i < 40; i++) {
      const token = trio.leader().mutate("a", { put: `${i}` })
      trio.pass(1500)
      if (trio.nodes.some((node) => said(trio.replyOf(node, token)) === "Mutated")) done++
      if (trio.leader() !== leader) moves++
      leader = trio.leader()
    }
    expect(done).toBeGreaterThan(30)
    expect(moves).toBeLessThanOrEqual(6)
  })
})
