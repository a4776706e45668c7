import { describe, expect, test } from "bun:test"
import { changeBody, mutatePlan } from "../../src/client/mutationPlans.ts"
import { mergeReports } from "../../src/client/reports.ts"
import {
  heardLeader,
  heardNotLeader,
  heardTime,
  type Route,
  RoutingTable,
  timeOf,
} from "../../src/client/routes.ts"
import {
  expiresAt,
  RangeSessions,
  Session,
  sessionsMax,
  sessionWindowMax,
} from "../../src/client/session.ts"
import { compareBytes, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { CommandView } from "../../src/wire/command.ts"

const range = (
  id: number,
  start: string,
  end: string,
  versions: readonly [number, number] = [1, 1],
): RangeDescriptor => ({
  id,
  namespace: 1,
  start: utf8(start),
  end: utf8(end),
  boundsVersion: versions[0],
  membersVersion: versions[1],
  replicas: [1, 2, 3].map((node) => ({ node, replica: node, role: "voter" as const })),
})

const ids = (table: RoutingTable) => table.all.map((route) => route.descriptor.id)

describe("routing table", () => {
  test("a key belongs to the half-open interval that holds it, or to a gap", () => {
    const table = new RoutingTable()
    for (const each of [range(2, "m", "t"), range(1, "a", "m"), range(3, "x", "")]) {
      table.learn(each)
    }
    const find = (key: string) => table.find(utf8(key))?.descriptor.id
    expect([find("a"), find("lz"), find("m"), find("s"), find("t"), find("x"), find("zz")]).toEqual(
      [1, 1, 2, 2, undefined, 3, 3],
    )
    expect(find("A")).toBeUndefined()
  })

  test("a descriptor is taken only if it is newer than all it overlaps", () => {
    const table = new RoutingTable()
    table.learn(range(1, "a", "z", [4, 2]))
    expect(table.learn(range(1, "a", "z", [4, 2]))).toBe(false)
    expect(table.learn(range(1, "a", "m", [3, 9]))).toBe(false)
    expect(table.learn(range(2, "c", "d", [4, 1]))).toBe(false)
    expect(table.learn(range(1, "a", "z", [4, 3]))).toBe(true)
    expect(table.learn(range(2, "m", "z", [5, 1]))).toBe(true)
    expect(ids(table)).toEqual([2])
    expect(table.learn(range(1, "a", "m", [5, 1]))).toBe(true)
    expect(ids(table)).toEqual([1, 2])
  })

  test("an interval that is empty or upside down is not taken", () => {
    const table = new RoutingTable()
    expect(table.learn(range(1, "m", "a"))).toBe(false)
    expect(table.learn(range(1, "m", "m"))).toBe(false)
  })

  test("whatever is told in whatever order, intervals stay disjoint and sorted", () => {
    const prng = new Prng(11)
    for (let round = 0; round < 200; round++) {
      const table = new RoutingTable()
      for (let i = 0; i < 30; i++) {
        const [low, high] = [prng.int(0, 25), prng.int(0, 26)]
        const end = high === 26 ? "" : String.fromCharCode(97 + high)
        const versions = [prng.int(1, 6), prng.int(1, 3)] as const
        table.learn(range(prng.int(1, 6), String.fromCharCode(97 + low), end, versions))
        for (let j = 1; j < table.all.length; j++) {
          const left = (table.all[j - 1] as Route).descriptor.end
          expect(left.length).toBeGreaterThan(0)
          const right = (table.all[j] as Route).descriptor.start
          expect(compareBytes(left, right)).toBeLessThanOrEqual(0)
        }
      }
    }
  })

  test("the time told of an interval survives a split, and moves on with the client's own clock", () => {
    const table = new RoutingTable()
    table.learn(range(1, "a", "z"))
    const route = table.find(utf8("b")) as Route
    expect(timeOf(route, 5)).toBe(0)
    heardTime(route, { rangeTime: 1_000_000, fromLeader: true, nowMs: 100 })
    table.learn(range(2, "m", "z", [2, 1]))
    table.learn(range(1, "a", "m", [2, 1]))
    expect(timeOf(table.find(utf8("p")) as Route, 110)).toBe(1_010_000)
    const child = table.find(utf8("p")) as Route
    heardTime(child, { rangeTime: 900_000, fromLeader: false, nowMs: 110 })
    expect(timeOf(child, 110)).toBe(1_010_000)
    heardTime(child, { rangeTime: 1_005_000, fromLeader: true, nowMs: 110 })
    expect(timeOf(child, 110)).toBe(1_005_000)
  })

  test("a leader of an earlier term does not displace a later one; a refusal forgets only its sender", () => {
    const table = new RoutingTable()
    table.report({ descriptor: range(1, "a", "z"), leader: 1, term: 4, index: 0 })
    const route = table.find(utf8("b")) as Route
    table.report({ descriptor: range(1, "a", "z"), leader: 2, term: 3, index: 0 })
    expect(route.leader).toBe(1)
    heardLeader(route, 3, 5)
    heardLeader(route, 1, 4)
    expect(route.leader).toBe(3)
    heardNotLeader(route, 2, undefined)
    expect(route.leader).toBe(3)
    heardNotLeader(route, 3, undefined)
    expect(route.leader).toBeUndefined()
    heardNotLeader(route, 3, 2)
    expect(route.leader).toBe(2)
  })

  test("of several reports of a range the newest counts, then the one that knows most", () => {
    const descriptor = range(1, "a", "z")
    const report = (term: number, leader: number | undefined, index: number) => ({
      descriptor,
      term,
      leader,
      index,
    })
    const merged = mergeReports([
      report(3, undefined, 9),
      report(3, 2, 0),
      report(3, 2, 7),
      report(2, 1, 50),
    ])
    expect(merged).toEqual([report(3, 2, 7)])
  })
})

describe("session", () => {
  test("ackedBelow is the lowest sequence still open, whatever order calls end in", () => {
    const prng = new Prng(5)
    const session = new Session(1)
    const open = new Set<number>()
    for (let i = 0; i < 5000; i++) {
      if (open.size === 0 || prng.chance(0.5)) {
        const { sequence, ackedBelow } = session.begin()
        expect(ackedBelow).toBe(open.size === 0 ? sequence : Math.min(...open))
        open.add(sequence)
      } else {
        const sequence = prng.pick([...open])
        open.delete(sequence)
        session.settle(sequence)
      }
      if (open.size > 0) expect(session.window).toBeGreaterThanOrEqual(open.size)
    }
  })

  test("a sequence is settled once", () => {
    const session = new Session(1)
    const { sequence } = session.begin()
    session.settle(sequence)
    expect(() => session.settle(sequence)).toThrow()
    expect(() => session.settle(99)).toThrow()
  })

  test("one that a long call holds back gets company, and is used again once that call has ended, so that its range forgets its results", () => {
    let drawn = 0
    const own = new RangeSessions()
    const take = () => own.take(() => new Session(++drawn))
    const first = take()
    const { sequence: long } = first.begin()
    for (let i = 1; i < sessionWindowMax; i++) {
      expect(take()).toBe(first)
      first.settle(first.begin().sequence)
    }
    const second = take()
    expect([second.clientId, take().clientId]).toEqual([2, 2])
    first.settle(long)
    const both = [take(), take()]
    expect(both).toContain(first)
    expect(both).toContain(second)
    expect(first.begin()).toEqual({
      sequence: sessionWindowMax + 1,
      ackedBelow: sessionWindowMax + 1,
    })
  })

  test("there is an end to its company: then the session with the smallest window goes on", () => {
    let drawn = 0
    const own = new RangeSessions()
    const take = () => own.take(() => new Session(++drawn))
    for (let i = 0; i < sessionsMax * sessionWindowMax; i++) take().begin()
    expect(drawn).toBe(sessionsMax)
    for (let i = 0; i < 100; i++) take().begin()
    expect(drawn).toBe(sessionsMax)
  })

  test("copies of a mutation say what has been answered since the first: where nothing else comes, they make room in a full table", () => {
    const session = new Session(7)
    const body = changeBody({
      operation: "put",
      position: utf8("a"),
      value: utf8("1"),
      condition: { _tag: "None" },
      ttl: 0,
    })
    const { sequence: earlier } = session.begin()
    const route = { descriptor: { id: 1, boundsVersion: 1 } } as unknown as Route
    const identities = { session: () => session, expiresAt: () => 50 }
    const plan = mutatePlan({ body, deadlineMs: 1000, identities, floors: undefined })
    const fields = () => {
      const request = plan.request(route, 1000)
      if (request._tag !== "Mutate") throw new Error(request._tag)
      const view = new CommandView()
      view.at(request.command, 0)
      const { clientId, sequence, ackedBelow, expiresAt } = view
      return { clientId, sequence, ackedBelow, expiresAt }
    }
    const first = fields()
    expect(first).toEqual({ clientId: 7, sequence: 2, ackedBelow: 1, expiresAt: 50 })
    session.settle(earlier)
    for (let i = 0; i < 5; i++) session.settle(session.begin().sequence)
    expect(fields()).toEqual({ ...first, ackedBelow: 2 })
  })

  test("a command expires after its deadline and ten seconds, at most two minutes on", () => {
    expect(expiresAt(1000, 10_000)).toBe(1000 + 20_000_000)
    expect(expiresAt(1000, 110_000)).toBe(1000 + 120_000_000)
    expect(expiresAt(1000, 500_000)).toBe(1000 + 120_000_000)
  })
})
