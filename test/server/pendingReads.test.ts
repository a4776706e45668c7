import { describe, expect, test } from "bun:test"
import { emptyBytes } from "../../src/lib/bytes.ts"
import { PendingReads, type TimedRead, timedRead } from "../../src/server/pendingReads.ts"
import { type GetRequest, plainRead } from "../../src/server/requests.ts"

const retryMs = 100

/** The reads of one replica, and the questions that it has asked. */
class Asker {
  readonly reads = new PendingReads({ readRetryMs: retryMs, clockSlipMs: 20 })
  nowMs = 1000
  /** By how much the wall clock has moved apart from the monotonic one. */
  wallAheadMs = 0
  appliedIndex = 5
  rangeTime = 100
  asked: Array<number> = []
  hasLeader = true
  readonly served: Array<number> = []
  readonly refused: Array<number> = []
  private token = 0

  get clock() {
    return { monotonicMs: this.nowMs, wallMs: 1e12 + this.nowMs + this.wallAheadMs }
  }

  read(fields: Partial<GetRequest> = {}): TimedRead {
    const token = ++this.token
    const place = { token, range: 1, deadlineMs: 1000, boundsVersion: 1, position: emptyBytes }
    const request = { _tag: "Get", ...place, ...plainRead, level: "linearizable" } as const
    return timedRead({ ...request, ...fields }, this.nowMs)
  }

  add(fields: Partial<GetRequest> = {}): number {
    const read = this.read(fields)
    if (this.reads.isServable(read, this)) this.served.push(read.request.token)
    else this.reads.add(read)
    return read.request.token
  }

  /** One turn. */
  turn(): void {
    this.reads.ask(this.clock, (context) => {
      if (this.hasLeader) this.asked.push(context)
      return this.hasLeader
    })
    this.reads.take(this, ({ request }) => this.served.push(request.token))
  }

  answer(context: number, index = this.appliedIndex): void {
    this.reads.confirmed(context, index, false)
    this.turn()
  }

  expire(): void {
    this.reads.expire(this.nowMs, ({ request }) => this.refused.push(request.token))
  }
}

describe("reads that wait", () => {
  test("all reads of a turn share one question, and are served when its index is applied", () => {
    const asker = new Asker()
    const tokens = [asker.add(), asker.add(), asker.add()]
    asker.turn()
    expect(asker.asked).toEqual([1])
    asker.answer(1, 7)
    expect(asker.served).toEqual([])
    asker.appliedIndex = 7
    asker.turn()
    expect(asker.served).toEqual(tokens)
    expect(asker.reads.count).toBe(0)
  })

  test("a read that came after a question was asked waits for the next one", () => {
    const asker = new Asker()
    const first = asker.add()
    asker.turn()
    const second = asker.add()
    asker.answer(1)
    expect(asker.served).toEqual([first])
    asker.answer(2)
    expect(asker.served).toEqual([first, second])
    // However fresh the state is: whether this is still the last word nobody has said.
    asker.add()
    asker.turn()
    expect(asker.served).toEqual([first, second])
  })

  test("a question that nobody answered is asked again, and either answer will do", () => {
    for (const answered of [1, 2]) {
      const asker = new Asker()
      const token = asker.add()
      asker.turn()
      asker.nowMs += retryMs - 1
      asker.turn()
      expect(asker.asked).toEqual([1])
      asker.nowMs += 1
      asker.turn()
      expect(asker.asked).toEqual([1, 2])
      asker.answer(answered)
      expect(asker.served).toEqual([token])
      asker.answer(3 - answered)
      expect(asker.served).toEqual([token])
    }
  })

  test("without a leader reads wait for one, and at their deadline are refused", () => {
    const asker = new Asker()
    asker.hasLeader = false
    const patient = asker.add({ deadlineMs: 500 })
    const hasty = asker.add({ deadlineMs: 100 })
    asker.turn()
    asker.nowMs += 100
    asker.expire()
    expect(asker.refused).toEqual([hasty])
    asker.hasLeader = true
    asker.turn()
    asker.answer(1)
    expect(asker.served).toEqual([patient])
  })

  test("deadlines hold in every state: queued, asked, answered and not applied, early", () => {
    const asker = new Asker()
    const answered = asker.add()
    asker.turn()
    asker.answer(1, 99)
    const asked = asker.add()
    asker.turn()
    asker.hasLeader = false
    const queued = asker.add()
    const early = asker.read()
    asker.reads.addEarly(early, 10_000)
    expect(asker.reads.count).toBe(4)
    asker.nowMs += 1000
    asker.expire()
    expect(new Set(asker.refused)).toEqual(new Set([answered, asked, queued, early.request.token]))
    expect(asker.reads.count).toBe(0)
    asker.answer(2)
    expect(asker.served).toEqual([])
  })

  test("freshness counts from when the question was SENT, not from when its answer came", () => {
    const asker = new Asker()
    const first = asker.add({ level: "bounded", maxStalenessMs: 50 })
    asker.turn()
    asker.nowMs += 60
    asker.answer(1)
    // What the leader said 60 ms ago is too old already: asked again.
    expect(asker.served).toEqual([])
    asker.turn()
    asker.nowMs += 50
    asker.answer(2)
    expect(asker.served).toEqual([first])
    expect(asker.reads.ageMs(asker.clock)).toBe(50)
  })

  test("freshness ends when the clocks move apart, and counts by the one that shows more", () => {
    for (const [apartMs, ageMs] of [
      [0, 40],
      [19, 59],
      [-19, 40],
      [20, Number.POSITIVE_INFINITY],
      [-5000, Number.POSITIVE_INFINITY],
    ] as const) {
      const asker = new Asker()
      asker.add({ level: "bounded", maxStalenessMs: 500 })
      asker.turn()
      asker.nowMs += 40
      asker.wallAheadMs = apartMs
      asker.answer(1)
      expect(asker.reads.ageMs(asker.clock)).toBe(ageMs)
      expect(asker.served.length).toBe(Number.isFinite(ageMs) ? 1 : 0)
    }
  })

  test("freshness counts only once the index is applied", () => {
    const asker = new Asker()
    asker.add({ level: "bounded", maxStalenessMs: 500 })
    asker.turn()
    asker.answer(1, 9)
    expect(asker.reads.ageMs(asker.clock)).toBe(Number.POSITIVE_INFINITY)
    expect(asker.served).toEqual([])
    asker.appliedIndex = 9
    asker.turn()
    expect(asker.served).toHaveLength(1)
  })

  test("a fresh replica serves bounded reads without a question, and an aged one asks", () => {
    const asker = new Asker()
    asker.add({ level: "bounded", maxStalenessMs: 100 })
    asker.turn()
    asker.answer(1)
    asker.nowMs += 100
    const second = asker.add({ level: "bounded", maxStalenessMs: 100 })
    asker.turn()
    expect(asker.served.at(-1)).toBe(second)
    expect(asker.asked).toEqual([1])
    asker.nowMs += 1
    asker.add({ level: "bounded", maxStalenessMs: 100 })
    asker.turn()
    expect(asker.asked).toEqual([1, 2])
  })

  test("a session's floor: served at once by a state that has reached it, else after an index", () => {
    const asker = new Asker()
    const reached = asker.add({ level: "local", atLeast: 100 })
    expect(asker.served).toEqual([reached])
    const ahead = asker.add({ level: "local", atLeast: 101 })
    asker.turn()
    expect(asker.served).toEqual([reached])
    asker.answer(1, 6)
    expect(asker.served).toEqual([reached])
    asker.appliedIndex = 6
    asker.turn()
    expect(asker.served).toEqual([reached, ahead])
  })

  test("a leader that is one no more refuses what it alone could serve, and asks the next for the rest", () => {
    const asker = new Asker()
    const strict = asker.add()
    const anywhere = asker.add({ anyReplica: true })
    const bounded = asker.add({ level: "bounded", maxStalenessMs: 100 })
    asker.turn()
    const refuse = ({ request }: TimedRead) => void asker.refused.push(request.token)
    asker.reads.lost(1, refuse)
    asker.reads.dropLeadership(refuse)
    expect(asker.refused).toEqual([strict])
    asker.turn()
    expect(asker.asked).toEqual([1, 2])
    asker.answer(1)
    expect(asker.served).toEqual([])
    asker.answer(2)
    expect(asker.served).toEqual([anywhere, bounded])
  })

  test("questions under way are limited; reads gather for the next", () => {
    const asker = new Asker()
    for (let i = 0; i < 1000; i++) {
      asker.add({ deadlineMs: 100_000 })
      asker.turn()
    }
    expect(asker.asked.length).toBe(64)
    expect(asker.reads.count).toBe(1000)
    for (const context of asker.asked.splice(0)) asker.answer(context)
    for (const context of asker.asked.splice(0)) asker.answer(context)
    expect(asker.served.length).toBe(1000)
    expect(asker.reads.count).toBe(0)
  })
})
