import { describe, expect, test } from "bun:test"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { emptyBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { int64Of } from "../../src/lib/int64.ts"
import {
  hashPosition,
  namespaceOfInterval,
  namespaceStart,
  slotStart,
} from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { entryKinds } from "../../src/raft/message.ts"
import { RangeMachine } from "../../src/server/apply.ts"
import { dataKey } from "../../src/server/engineKeys.ts"
import { encodeEntryData, entryLastVersion } from "../../src/server/entryData.ts"
import {
  checkTick,
  decodeClear,
  decodeMembersChange,
  decodeSplit,
  encodeClear,
  encodeMembersChange,
  encodeSplit,
  encodeTick,
  type SplitOrder,
} from "../../src/server/rangeEntries.ts"
import { noMerges, type RangeState } from "../../src/server/rangeState.ts"
import type { ReplicaPlace } from "../../src/types.ts"
import { operations } from "../../src/wire/command.ts"
import { command } from "./commands.ts"
import { MapValues } from "./mapValues.ts"

const voters: ReadonlyArray<ReplicaPlace> = [1, 2, 3].map((id) => ({
  node: id,
  replica: id,
  role: "voter",
}))
const limits = { results: 3, clients: 10 }

/** A machine of one range that holds all of namespaces 1 and 2, with version 4 of its bounds and 7 of its members. */
function machine(
  options: { state?: Partial<RangeState>; replicas?: typeof voters; id?: number } = {},
) {
  const engine = new MapValues()
  const descriptor = {
    id: options.id ?? 5,
    namespace: undefined,
    start: namespaceStart(1),
    end: namespaceStart(3),
    boundsVersion: 4,
    membersVersion: 7,
    replicas: options.replicas ?? voters,
  }
  const applied = { appliedIndex: 20, appliedTerm: 3, rangeTime: 500, chain: 99, lastReplica: 3 }
  const state = { descriptor, replica: 2, ...applied, ...noMerges, ...options.state }
  const range = new RangeMachine({ state, engine, limits })
  let base = 1000
  const apply = (kind: number, data: (base: number) => Uint8Array) => {
    range.apply({ index: range.appliedIndex + 1, term: 3, kind, data: data(base) })
    base += 100
  }
  const put = (fields: Parameters<typeof command>[1] = {}) => {
    const bytes = command("a", { boundsVersion: range.descriptor.boundsVersion, ...fields })
    apply(entryKinds.commands, (stamp) => encodeEntryData(stamp, [bytes]))
    return range.outcomes.statuses[0]
  }
  return { range, engine, apply, put }
}

const order: SplitOrder = { boundsVersion: 4, membersVersion: 7, child: 9, at: namespaceStart(2) }
const splitBy = (changed: Partial<SplitOrder>) => (base: number) =>
  encodeSplit(base, { ...order, ...changed })

describe("a split", () => {
  test("both halves follow from the entry alone: bounds, versions, namespaces, time, chain and replicas", () => {
    const { range, apply } = machine()
    apply(entryKinds.split, splitBy({}))
    expect(range.changed).toBe("split")
    const shared = { boundsVersion: 5, membersVersion: 7, replicas: voters }
    const left = { id: 5, namespace: 1, start: namespaceStart(1), end: namespaceStart(2) }
    const right = { id: 9, namespace: 2, start: namespaceStart(2), end: namespaceStart(3) }
    const child = range.child!
    expect(range.state()).toMatchObject({ appliedIndex: 21, appliedTerm: 3, rangeTime: 1000 })
    expect(range.descriptor).toEqual({ ...left, ...shared })
    expect(child.state()).toEqual({
      descriptor: { ...right, ...shared },
      replica: 2,
      appliedIndex: 1,
      appliedTerm: 1,
      rangeTime: 1000,
      chain: range.chain,
      lastReplica: 3,
      ...noMerges,
    })
    // Nothing of it is flushed, so no compaction may go by its time.
    expect(child.flushedTime).toBe(0)
  })

  test("pitfall 32: both halves get all sessions, to be written by each, and go on alone", () => {
    const { range, apply, put } = machine()
    put({ sequence: 1, operation: operations.add, value: int64Of(5n) })
    put({ sequence: 2, clientId: 8 })
    range.sessions.takeDirty()
    apply(entryKinds.split, splitBy({}))
    const { sessions } = range.child!
    expect(sessions.find(7, 1)).toEqual({ status: 0, version: 1000, value: int64Of(5n) })
    expect(sessions.takeDirty()).toEqual([...sessions.all()])
    expect(sessions.all()).toEqual([...range.sessions.all()])
    expect(sessions.results).toBe(2)
    put({ sequence: 3 })
    expect(put({ sequence: 4 })).toBe(5)
    expect(sessions.isFull(7)).toBe(false)
    expect(sessions.find(7, 3)).toBeUndefined()
  })

  test("it does nothing when bounds, members or the place no longer fit, and says so", () => {
    const joint = voters.map((place, i) =>
      i === 2 ? { ...place, role: "outgoing" as const } : place,
    )
    const cases: ReadonlyArray<readonly [ReturnType<typeof machine>, Partial<SplitOrder>]> = [
      [machine(), { boundsVersion: 3 }],
      [machine(), { membersVersion: 8 }],
      [machine(), { at: namespaceStart(1) }],
      [machine(), { at: namespaceStart(3) }],
      [machine(), { at: emptyBytes }],
      [machine(), { child: 5 }],
      [machine({ replicas: joint }), {}],
      [machine({ id: 0 }), {}],
    ]
    for (const [{ range, apply }, changed] of cases) {
      const { descriptor } = range
      apply(entryKinds.split, splitBy(changed))
      expect(range.changed).toBe("refused")
      expect(range.child).toBeUndefined()
      expect(range.descriptor).toBe(descriptor)
      expect(range.rangeTime).toBe(1000)
    }
  })

  test("a replica that is no member when it applies one begins no other half", () => {
    const { range, apply } = machine({ state: { replica: 12 } })
    apply(entryKinds.split, splitBy({}))
    expect(range.changed).toBe("split")
    expect(range.child).toBeUndefined()
  })

  test("a command that was made for the whole is refused by both halves, and one for the other half too", () => {
    const { range, apply, put } = machine()
    apply(entryKinds.split, splitBy({ at: hashPosition(1, utf8("a")) }))
    expect(put({ boundsVersion: 4 })).toBe(3)
    expect(put({ boundsVersion: 5 })).toBe(3)
    const child = range.child
    expect(child).toBeUndefined()
  })

  test("a namespace is that of a half only when it holds all of it", () => {
    const at = (namespace: number, slot = 0) =>
      slot === 0 ? namespaceStart(namespace) : slotStart(namespace, slot)
    expect(namespaceOfInterval(at(1), at(2))).toBe(1)
    expect(namespaceOfInterval(at(1, 7), at(1, 9))).toBe(1)
    expect(namespaceOfInterval(at(1, 7), at(2))).toBe(1)
    expect(namespaceOfInterval(at(1, 7), at(2, 1))).toBeUndefined()
    expect(namespaceOfInterval(at(1), emptyBytes)).toBeUndefined()
    expect(namespaceOfInterval(Uint8Array.of(0, 0, 1), at(2))).toBeUndefined()
    expect(namespaceOfInterval(new Uint8Array(4).fill(255), emptyBytes)).toBeUndefined()
  })
})

describe("other entries of a range", () => {
  test("a clear empties the range and nothing beside it; sessions stay", () => {
    const { range, engine, apply, put } = machine()
    put()
    const outside = dataKey(namespaceStart(3))
    engine.putParts(outside, new Uint8Array(9), utf8("x"))
    apply(entryKinds.clear, (base) => encodeClear(base, { boundsVersion: 4 }))
    expect(range.changed).toBe("clear")
    expect([...engine.records.keys()]).toEqual([toHex(outside)])
    expect(range.sessions.find(7, 1)).toBeDefined()
  })

  test("members say who is there now, with a newer version only; ids that were ever there are remembered", () => {
    const { range, apply } = machine()
    const membership = { voters: [1, 2, 4], outgoing: [1, 2, 3], learners: [] }
    const replicas: ReadonlyArray<ReplicaPlace> = [
      { node: 1, replica: 1, role: "voter" },
      { node: 2, replica: 2, role: "voter" },
      { node: 3, replica: 3, role: "outgoing" },
      { node: 9, replica: 4, role: "incoming" },
    ]
    const change = { membersVersion: 8, replicas }
    apply(entryKinds.members, (base) => encodeMembersChange(base, membership, change))
    expect(range.changed).toBe("members")
    expect(range.descriptor).toMatchObject({ membersVersion: 8, replicas, boundsVersion: 4 })
    expect(range.state().lastReplica).toBe(4)
    const again = () =>
      apply(entryKinds.members, (base) => encodeMembersChange(base, membership, change))
    expect(again).toThrow("members version 8 after 8")
  })

  test("every kind but an empty entry moves range time to its stamp, and forgets sessions by it", () => {
    const { range, apply, put } = machine()
    put({ expiresAt: 5000 })
    apply(entryKinds.tick, () => encodeTick(40_000_000))
    expect(range.rangeTime).toBe(40_000_000)
    expect(range.sessions.clients).toBe(0)
    apply(entryKinds.empty, () => emptyBytes)
    expect(range.rangeTime).toBe(40_000_000)
    expect(() => apply(entryKinds.tick, () => encodeTick(40_000_000))).toThrow("stamped 40000000")
    expect(() => apply(7, () => encodeTick(50_000_000))).toThrow("kind 7")
  })

  test("the last version of an entry is that of its last command, or its base", () => {
    const commands = encodeEntryData(70, [command("a"), command("b")])
    expect(entryLastVersion({ kind: entryKinds.commands, data: commands })).toBe(71)
    expect(entryLastVersion({ kind: entryKinds.tick, data: encodeTick(70) })).toBe(70)
    expect(entryLastVersion({ kind: entryKinds.split, data: encodeSplit(70, order) })).toBe(70)
    expect(entryLastVersion({ kind: entryKinds.empty, data: emptyBytes })).toBeUndefined()
  })

  test("pitfall 33: what makes replicas differ shows in the chain: values, expiries, sums, clears, splits", () => {
    const chainOf = (steps: (subject: ReturnType<typeof machine>) => void) => {
      const subject = machine()
      steps(subject)
      return subject.range.chain
    }
    const add = (delta: bigint) => ({ operation: operations.add, value: int64Of(delta) })
    const chains = [
      chainOf(({ put }) => put({ text: "1" })),
      chainOf(({ put }) => put({ text: "2" })),
      chainOf(({ put }) => put({ text: "1", ttl: 5 })),
      chainOf(({ put }) => put({ text: "1", ttl: 6 })),
      chainOf(({ put }) => put(add(1n))),
      chainOf(({ put }) => put(add(2n))),
      chainOf(({ apply }) => apply(entryKinds.tick, encodeTick)),
      chainOf(({ apply }) =>
        apply(entryKinds.clear, (base) => encodeClear(base, { boundsVersion: 4 })),
      ),
      chainOf(({ apply }) => apply(entryKinds.split, splitBy({}))),
      chainOf(({ apply }) => apply(entryKinds.split, splitBy({ at: slotStart(2, 5) }))),
    ]
    expect(new Set(chains).size).toBe(chains.length)
  })

  test("damage is met before the first command of an entry: all that will be read is probed", () => {
    const { range, engine } = machine()
    const asked: Array<string> = []
    engine.get = (key) => {
      asked.push(toHex(key.subarray(8)))
      return undefined
    }
    const data = encodeEntryData(1000, [
      command("put", { text: "1" }),
      command("add", { operation: operations.add, value: int64Of(1n) }),
      command("delete", { operation: operations.delete }),
    ])
    range.probe({ kind: entryKinds.commands, data })
    expect(asked).toEqual([toHex(utf8("add")), toHex(utf8("delete"))])
  })
})

describe("layouts of entries", () => {
  const membership = { voters: [1, 2], outgoing: [2, 3], learners: [4] }
  const change = { membersVersion: 8, replicas: voters }
  const samples = [
    encodeMembersChange(2 ** 52, membership, change),
    encodeSplit(2 ** 52, order),
    encodeTick(2 ** 52),
    encodeClear(2 ** 52, { boundsVersion: 3 }),
  ]

  test("they come back as they were", () => {
    expect(decodeMembersChange(samples[0]!)).toEqual(change)
    expect(decodeSplit(samples[1]!)).toEqual(order)
    expect(() => checkTick(samples[2]!)).not.toThrow()
    expect(decodeClear(samples[3]!)).toEqual({ boundsVersion: 3 })
  })

  test("damaged ones are refused by name, never by another error", () => {
    const prng = new Prng(9)
    const decoders = [decodeMembersChange, decodeSplit, checkTick, decodeClear]
    let refused = 0
    for (let i = 0; i < 20_000; i++) {
      const at = i % samples.length
      const bytes = samples[at]!.slice(0, prng.int(8, samples[at]!.length))
      for (let k = prng.int(0, 3); k > 0; k--)
        bytes[prng.int(0, bytes.length - 1)] = prng.int(0, 255)
      try {
        decoders[at]!(bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedBytes)
        refused++
      }
    }
    expect(refused).toBeGreaterThan(5000)
  })
})
