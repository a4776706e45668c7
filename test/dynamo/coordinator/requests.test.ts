import { describe, expect, test } from "bun:test"
import { ReadRequest } from "../../../src/dynamo/coordinator/readRequest.ts"
import type { Level, SlotPlan } from "../../../src/dynamo/coordinator/slotPlan.ts"
import { WriteRequest } from "../../../src/dynamo/coordinator/writeRequest.ts"
import { actorOf } from "../../../src/dynamo/dot.ts"
import { stateBytesMax } from "../../../src/dynamo/keyState.ts"
import { putSibling } from "../../../src/dynamo/siblings.ts"
import { emptyVector } from "../../../src/dynamo/versionVector.ts"
import { ByteWriter } from "../../../src/lib/byteWriter.ts"
import { hash64 } from "../../../src/lib/checksum.ts"
import { SlotOwners } from "../../../src/topology/slotOwners.ts"

function ownersOf(...nodes: ReadonlyArray<number>): SlotOwners {
  const owners = new SlotOwners()
  owners.nodes.set(nodes)
  owners.count = nodes.length
  owners.oldMask = (1 << nodes.length) - 1
  owners.newMask = owners.oldMask
  return owners
}

const plan: SlotPlan = {
  ringVersion: 1,
  copies: 3,
  owners: ownersOf(1, 2, 3),
  localMask: 0b111,
  readOrder: [0, 1, 2],
  standIns: [
    { node: 8, isLocal: true },
    { node: 9, isLocal: true },
  ],
}

function writing(level: Level, strict = false): WriteRequest {
  const start = { plan, self: 1, level, strict, lsn: 7, patienceMs: 10, deadlineMs: 100 }
  const request = new WriteRequest(start)
  request.durable(7, 0)
  return request
}

function reading(level: Level): ReadRequest {
  return new ReadRequest({ plan, level, patienceMs: 10, startedAtMs: 0, deadlineMs: 100 })
}

function stateOf(node: number, bytes = 1): Uint8Array {
  const out = new ByteWriter()
  const write = {
    actor: actorOf(node, 1),
    counter: 1,
    context: emptyVector,
    value: new Uint8Array(bytes).fill(node),
    expiryMs: 0,
    stamp: 0,
  }
  putSibling(out, undefined, write)
  return out.take()
}

describe("a write", () => {
  test("goes to all owners, answers at its level, once, and goes on to the last owner", () => {
    const request = writing("quorum")
    const { messages, reply } = request.take()
    expect(messages.map(({ target }) => target)).toEqual([2, 3])
    expect(reply).toBeUndefined()
    request.storedBy(3)
    const answered = request.take()
    expect(answered.reply?._tag).toBe("written")
    expect(answered.reply?.receipt.stored).toEqual([1, 3])
    expect(answered.done).toBe(false)
    request.storedBy(2)
    expect(request.take()).toEqual({ messages: [], reply: undefined, done: true })
  })

  test("gives a hint for a silent owner to the first stand-in, and to the next when that fails", () => {
    const request = writing("all")
    request.storedBy(2)
    request.take()
    request.tick(9)
    expect(request.take().messages).toEqual([])
    request.tick(10)
    expect(request.take().messages).toEqual([{ target: 8, hintFor: 3 }])
    request.failedAt(8)
    expect(request.take().messages).toEqual([{ target: 9, hintFor: 3 }])
    request.storedBy(9)
    const { reply } = request.take()
    expect(reply?._tag).toBe("written")
    expect(reply?.receipt.sloppy).toBe(true)
    expect(reply?.receipt.standIns).toEqual([{ node: 9, owner: 3 }])
  })

  test("that is strict asks no stand-in, and says at its deadline that nobody knows", () => {
    const request = writing("quorum", true)
    request.take()
    request.failedAt(2)
    request.tick(50)
    expect(request.take().messages).toEqual([])
    request.tick(100)
    const { reply, done } = request.take()
    expect(reply?._tag).toBe("OutcomeUnknown")
    expect(reply?.receipt.stored).toEqual([1])
    expect(done).toBe(true)
  })
})

describe("a write whose slot moves", () => {
  test("waits for a newer plan, and then has the owner keep it for whoever owns the slot", () => {
    const request = writing("quorum")
    request.take()
    request.movedAt(2)
    request.movedAt(3)
    expect(request.take()).toEqual({ messages: [], reply: undefined, done: false })
    request.tick(9)
    expect(request.take().messages).toEqual([])
    request.tick(10)
    expect(request.take().messages).toEqual([
      { target: 2, hintFor: 2 },
      { target: 3, hintFor: 3 },
    ])
    request.storedBy(2)
    const { reply } = request.take()
    expect(reply).toMatchObject({ _tag: "written", receipt: { stored: [1], sloppy: true } })
    expect(reply?.receipt.standIns).toEqual([{ node: 2, owner: 2 }])
  })

  test("gives the hint to another where the owner has no room for it", () => {
    const request = writing("quorum")
    request.take()
    request.movedAt(2)
    request.storedBy(3)
    request.tick(10)
    request.take()
    request.failedAt(2)
    expect(request.take().messages).toEqual([{ target: 8, hintFor: 2 }])
  })

  test("and that is strict waits until its deadline, though all owners have answered", () => {
    const request = writing("quorum", true)
    request.take()
    request.movedAt(2)
    request.movedAt(3)
    request.tick(99)
    expect(request.take()).toEqual({ messages: [], reply: undefined, done: false })
    request.tick(100)
    expect(request.take().reply?._tag).toBe("OutcomeUnknown")
  })

  test("counts nobody by the old plan once it has a newer one, and answers once", () => {
    const next = { ...plan, ringVersion: 2, owners: ownersOf(1, 2, 4) }
    const open = writing("all", true)
    open.storedBy(2)
    open.movedAt(3)
    open.replan(next, { lsn: 9, holds: true })
    open.durable(8, 20)
    expect(open.take().messages).toEqual([])
    open.durable(9, 20)
    expect(open.take().messages.map(({ target }) => target)).toEqual([2, 4])
    open.storedBy(4)
    expect(open.take().reply).toBeUndefined()
    open.storedBy(2)
    expect(open.take()).toMatchObject({ reply: { _tag: "written" }, done: true })
  })

  test("does not count its coordinator where that lost the slot", () => {
    const request = writing("quorum", true)
    request.take()
    request.replan({ ...plan, ringVersion: 2, owners: ownersOf(4, 2, 3) }, { lsn: 7, holds: true })
    request.durable(7, 20)
    expect(request.take().messages.map(({ target }) => target)).toEqual([4, 2, 3])
    request.storedBy(4)
    expect(request.take().reply).toBeUndefined()
    request.storedBy(3)
    expect(request.take().reply?.receipt.stored).toEqual([4, 3])
  })

  test("asks an owner again that has yet to learn the ring, after longer and longer", () => {
    const request = writing("all", true)
    request.take()
    const again: Array<number> = []
    request.storedBy(3)
    for (let nowMs = 1; nowMs < 100; nowMs++) {
      if (nowMs === 1) request.behindAt(2, nowMs)
      request.tick(nowMs)
      for (const { target } of request.take().messages) {
        expect(target).toBe(2)
        again.push(nowMs)
        request.behindAt(2, nowMs)
      }
    }
    expect(again).toEqual([21, 61])
    request.storedBy(2)
    expect(request.take().reply?._tag).toBe("written")
  })
})

describe("a read", () => {
  test("asks as many owners as it needs, and a spare when one is slow", () => {
    const request = reading("quorum")
    expect(request.take()).toMatchObject({ asks: [1], digestAsks: [2] })
    request.answeredBy(1, undefined, 1)
    request.tick(9)
    expect(request.take().digestAsks).toEqual([])
    request.tick(10)
    expect(request.take()).toMatchObject({ asks: [], digestAsks: [3] })
    request.answeredBy(3, undefined, 11)
    expect(request.take().reply).toMatchObject({ _tag: "read", answered: [1, 3], repairs: [] })
  })

  test("merges what it was told, and is answered at once where all is equal", () => {
    const equal = reading("quorum")
    equal.answeredBy(1, stateOf(1), 1)
    equal.answeredBy(2, stateOf(1), 1)
    expect(equal.take()).toMatchObject({ reply: { state: stateOf(1), repairs: [] }, done: true })
  })

  test("answers QuorumUnavailable at its deadline, and counts no node twice and no other node", () => {
    const request = reading("quorum")
    request.answeredBy(1, undefined, 1)
    request.answeredBy(1, undefined, 2)
    request.answeredBy(8, undefined, 2)
    request.answeredBy(3, stateOf(3), 2)
    expect(request.take().reply).toBeUndefined()
    request.tick(100)
    expect(request.take().reply).toEqual({ _tag: "QuorumUnavailable", answered: [1] })
  })
})

describe("a read by digests", () => {
  test("counts a digest of a state that has come, whichever comes first", () => {
    const request = reading("all")
    request.take()
    request.digestedBy(2, hash64(stateOf(1)), 1)
    expect(request.take()).toMatchObject({ asks: [], digestAsks: [], reply: undefined })
    request.answeredBy(1, stateOf(1), 2)
    request.digestedBy(3, hash64(stateOf(1)), 3)
    expect(request.take()).toMatchObject({
      reply: { _tag: "read", state: stateOf(1), answered: [1, 2, 3], repairs: [] },
      done: true,
    })
  })

  test("names those alone as having answered whose states are in what it shows", () => {
    const request = reading("quorum")
    const [state, other] = [stateOf(1), stateOf(2)]
    expect(request.take()).toMatchObject({ asks: [1], digestAsks: [2] })
    request.tick(10)
    expect(request.take().asks).toEqual([3])
    request.digestedBy(2, hash64(other), 11)
    request.answeredBy(1, state, 12)
    request.answeredBy(3, state, 13)
    const { reply, repairs } = request.take()
    expect(repairs).toEqual([2])
    expect(reply).toMatchObject({ state, answered: [1, 3], repairs: [2] })
  })

  test("asks for the state of any other digest, once", () => {
    const request = reading("quorum")
    request.take()
    request.answeredBy(1, stateOf(1), 1)
    request.digestedBy(2, hash64(stateOf(2)), 1)
    expect(request.take()).toMatchObject({ asks: [2], reply: undefined })
    request.digestedBy(2, hash64(stateOf(1)), 2)
    expect(request.take()).toMatchObject({ asks: [], reply: undefined })
    request.answeredBy(2, stateOf(2), 3)
    expect(request.take().repairs).toEqual([1, 2])
  })

  test("asks for a state where only digests come", () => {
    const request = reading("quorum")
    request.take()
    request.digestedBy(2, hash64(stateOf(1)), 1)
    request.failedAt(1, 2)
    const { asks, digestAsks } = request.take()
    expect([asks, digestAsks]).toEqual([[2], [3]])
    request.digestedBy(3, hash64(stateOf(1)), 3)
    request.failedAt(2, 4)
    expect(request.take().asks).toEqual([3])
    expect(request.take().reply).toBeUndefined()
  })
})

describe("a read of answers that differ", () => {
  test("is answered when owners that make up the level hold what it shows", () => {
    const request = reading("quorum")
    request.take()
    request.answeredBy(1, stateOf(1), 1)
    request.answeredBy(2, undefined, 1)
    expect(request.take()).toMatchObject({ repairs: [2], state: stateOf(1), reply: undefined })
    request.repairedBy(3, 2)
    expect(request.take().reply).toBeUndefined()
    request.repairedBy(2, 3)
    expect(request.take()).toMatchObject({ reply: { _tag: "read", repairs: [2] }, done: true })
  })

  test("has a spare repaired where one is slow or refuses, and is no level where none is left", () => {
    const request = reading("quorum")
    request.take()
    request.answeredBy(1, stateOf(1), 1)
    request.answeredBy(2, undefined, 1)
    request.take()
    request.tick(11)
    expect(request.take()).toMatchObject({ repairs: [3], reply: undefined })
    request.failedAt(3, 12)
    expect(request.take().reply).toBeUndefined()
    request.failedAt(2, 13)
    expect(request.take().reply).toEqual({ _tag: "QuorumUnavailable", answered: [1, 2] })
  })

  test("is no level at its deadline", () => {
    const request = reading("all")
    request.take()
    for (const node of [1, 2, 3]) request.answeredBy(node, stateOf(node), 1)
    expect(request.take().repairs).toEqual([1, 2, 3])
    for (const node of [1, 2]) request.repairedBy(node, 2)
    request.tick(100)
    const { reply, done } = request.take()
    expect(reply?._tag).toBe("QuorumUnavailable")
    expect(done).toBe(true)
  })

  test("shows what is too large to be sent, and sends it to nobody", () => {
    const request = reading("quorum")
    request.take()
    for (const node of [1, 2]) request.answeredBy(node, stateOf(node, stateBytesMax / 2), 1)
    const { reply, repairs } = request.take()
    expect(reply).toMatchObject({ _tag: "read", repairs: [] })
    expect(repairs).toEqual([])
  })

  test("sends the merged state to owners that answer late with anything else", () => {
    const late = () => {
      const request = reading("one")
      request.take()
      request.tick(10)
      request.take()
      request.answeredBy(2, stateOf(1), 11)
      const { reply, done } = request.take()
      expect(reply?._tag).toBe("read")
      expect(done).toBe(false)
      return request
    }
    const behind = late()
    behind.answeredBy(1, undefined, 12)
    expect(behind.take()).toMatchObject({ repairs: [1], state: stateOf(1), reply: undefined })
    const other = reading("quorum")
    other.tick(10)
    for (const node of [1, 3]) other.answeredBy(node, stateOf(1), 11)
    expect(other.take()).toMatchObject({ reply: { repairs: [] }, done: false })
    other.digestedBy(2, hash64(stateOf(2)), 12)
    expect(other.take()).toMatchObject({ repairs: [2], done: true })
    const equal = late()
    equal.answeredBy(1, stateOf(1), 12)
    expect(equal.take()).toMatchObject({ repairs: [], done: true })
    const silent = late()
    silent.tick(100)
    expect(silent.take()).toMatchObject({ repairs: [], reply: undefined, done: true })
  })
})

describe("a read whose slot moves", () => {
  test("goes on with other owners, and waits for a newer plan where these are too few", () => {
    const request = reading("quorum")
    request.take()
    request.movedAt(1, 1)
    expect(request.take().asks).toEqual([3])
    request.movedAt(2, 2)
    request.tick(99)
    expect(request.take().reply).toBeUndefined()
    request.tick(100)
    expect(request.take().reply?._tag).toBe("QuorumUnavailable")
  })

  test("asks an owner again that has yet to learn the ring, and a spare meanwhile", () => {
    const request = reading("quorum")
    request.take()
    request.answeredBy(1, undefined, 1)
    request.behindAt(2, 1)
    expect(request.take().digestAsks).toEqual([3])
    request.behindAt(3, 2)
    request.tick(20)
    expect(request.take().digestAsks).toEqual([])
    request.tick(21)
    expect(request.take().digestAsks).toEqual([2, 3])
    request.answeredBy(3, undefined, 22)
    expect(request.take().reply).toMatchObject({ _tag: "read", answered: [1, 3] })
  })
})
