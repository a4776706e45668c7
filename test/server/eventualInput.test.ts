import { describe, expect, test } from "bun:test"
import { encodeToken } from "../../src/dynamo/contextToken.ts"
import { increment as count } from "../../src/dynamo/crdt/counter.ts"
import { actorOf } from "../../src/dynamo/dot.ts"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import { writeStore } from "../../src/dynamo/node/requestOps.ts"
import { putSibling } from "../../src/dynamo/siblings.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector, VersionVector } from "../../src/dynamo/versionVector.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { add, counter, EventualCluster, increment, set, siblings } from "./eventualCluster.ts"

function answer(reply: { readonly _tag: string; readonly refusal?: { readonly _tag: string } }) {
  return reply.refusal?._tag ?? reply._tag
}

/** Deletes the counter at node 1 with what a caller may say to have read: node `actor` has counted 77 up to its dot `dots`. */
function deleteSeeing(actor: number, dots: number, expected = "BadContext"): EventualCluster {
  const cluster = new EventualCluster(3)
  const place = { namespace: counter, key: "a" }
  for (const id of [1, 2, 3]) {
    const reply = cluster.write(id, place, increment(1), { level: "all" })
    expect(answer(reply)).toBe("EventualWritten")
  }
  const out = new ByteWriter()
  count(out, undefined, { actor: actorOf(actor, 1), counter: dots }, 77n)
  const token = { rule: "counter", stamp: 0, seen: out.take() } as const
  const context = encodeToken(token, counter, utf8("a"))
  const reply = cluster.write(1, place, { _tag: "Delete" }, { context, level: "all" })
  expect(answer(reply)).toBe(expected)
  return cluster
}

function expectCounting(cluster: EventualCluster): void {
  for (const id of [1, 2, 3]) {
    for (const key of ["a", "{a}b"]) {
      const reply = cluster.write(id, { namespace: counter, key }, increment(1))
      expect(answer(reply)).toBe("EventualWritten")
    }
  }
}

/**
 * Whoever coordinates can't tell whether dots of others that he has not seen exist, and takes them into the state; from there they go into the slot's clocks, that of the node which they
 * are of among them. It then goes on as another actor.
 */
describe("a context that somebody made up", () => {
  test("of a set does not keep the node from writing whose dot it names", () => {
    const cluster = new EventualCluster(3)
    const place = { namespace: set, key: "a" }
    expect(answer(cluster.write(1, place, add("one"), { level: "all" }))).toBe("EventualWritten")
    const seen = new VersionVector()
    seen.add(actorOf(2, 1), 1_000_000)
    const out = new ByteWriter()
    seen.write(out)
    const context = encodeToken({ rule: "set", stamp: 0, seen: out.take() }, set, utf8("a"))
    cluster.write(1, place, { _tag: "Delete" }, { context, level: "all" })
    for (const key of ["a", "{a}b"]) {
      expect(answer(cluster.write(2, { namespace: set, key }, add("two")))).toBe("EventualWritten")
    }
    cluster.restart(2)
    expect(answer(cluster.write(2, place, add("three")))).toBe("EventualWritten")
  })

  test("of a counter, with a dot that is not used yet, ends no node", () => {
    expectCounting(deleteSeeing(2, 1_000_000, "EventualWritten"))
  })

  test("of a counter, with another total of a dot, is refused", () => {
    expectCounting(deleteSeeing(2, 1))
  })

  test("of a counter, with a dot that the node that is asked has yet to use, is refused", () => {
    expectCounting(deleteSeeing(1, 1_000_000))
  })
})

describe("a message of another node that no version of this program sends", () => {
  const parcel = (code: number, ...numbers: ReadonlyArray<number>) => {
    const [out, body] = [new ByteWriter(), new ByteWriter()]
    for (const number of numbers) body.varint(number)
    // An empty clock.
    if (code === opCodes.parting) new SlotClock().write(body)
    out.u8(code)
    out.u32(body.length)
    out.raw(body.bytes())
    return out.take()
  }

  test.each([
    ["the end of a tenure in epoch 0", parcel(opCodes.tenureEnded, set, 5, 0, 9, 1)],
    [
      "the end of a tenure in an epoch beyond all",
      parcel(opCodes.tenureEnded, set, 5, 2 ** 40, 9, 1),
    ],
    ["the end of a tenure of no slot", parcel(opCodes.tenureEnded, set, 70_000, 1, 9, 1)],
    ["a question about epochs of no slot", parcel(opCodes.endingWanted, 1, set, 1, 1, 70_000)],
    ["a parting from no slot", parcel(opCodes.parting, set, 70_000, 1, 1)],
    ["a question about clocks of no slot", parcel(opCodes.clocksWanted, 1, set, 1, 1, 70_000)],
    ["a question about the cover of no slot", parcel(opCodes.coverWanted, 1, set, 1, 1, 70_000)],
  ])("%s ends nothing", (_, bytes) => {
    const cluster = new EventualCluster(3)
    cluster.pass(100)
    const { eventual } = cluster.node(1).loop
    eventual.receive(2, bytes)
    cluster.pass(100)
    expect(answer(cluster.write(1, { namespace: set, key: "a" }, add("one")))).toBe(
      "EventualWritten",
    )
  })

  test("about a namespace that there is not makes no tables of it", () => {
    const { eventual } = new EventualCluster(3).node(1).loop
    const { tables } = eventual.machine.owner as never as { readonly tables: Map<number, unknown> }
    const before = tables.size
    expect(before).toBeGreaterThan(0)
    for (let i = 0; i < 50; i++) eventual.receive(2, parcel(opCodes.parting, 1000 + i, 5, 1, 1))
    expect(tables.size).toBe(before)
  })
})

describe("what waits while the journal writes", () => {
  test("has a limit in bytes; what is beyond is dropped, as by a network", () => {
    const cluster = new EventualCluster(3)
    cluster.pass(100)
    const { machine } = cluster.node(1).loop.eventual
    const [state, body, out] = [new ByteWriter(), new ByteWriter(), new ByteWriter()]
    const write = { actor: actorOf(2, 1), context: emptyVector, stamp: 0, expiryMs: 0 }
    putSibling(state, undefined, { ...write, counter: 1, value: new Uint8Array(1024 * 1024) })
    const op = { id: 0, namespace: siblings, ringVersion: 1, hintFor: 0, copies: 1 }
    writeStore(body, { ...op, key: utf8("a"), state: state.bytes() })
    out.u8(opCodes.store)
    out.u32(body.length)
    out.raw(body.bytes())
    const bytes = out.take()
    machine.isWriting = true
    for (let i = 0; i < 60; i++) machine.receive(2, bytes)
    expect(machine.droppedStores).toBe(0)
    for (let i = 0; i < 10; i++) machine.receive(2, bytes)
    expect(machine.droppedStores).toBeGreaterThan(5)
    machine.isWriting = false
    machine.serve()
    expect(machine.owner.state(siblings, slotOf(utf8("a")), utf8("a"))).toBeDefined()
  })
})

test("a hint for this node itself stays as long as it is too large for what the node holds", () => {
  const cluster = new EventualCluster(3)
  cluster.pass(100)
  const { machine } = cluster.node(1).loop.eventual
  const place = { namespace: siblings, slot: slotOf(utf8("a")), key: utf8("a") }
  const half = (counter: number) => {
    const out = new ByteWriter()
    const write = { actor: actorOf(2, 1), context: emptyVector, stamp: 0, expiryMs: 0 }
    putSibling(out, undefined, { ...write, counter, value: new Uint8Array(8 * 1024 * 1024) })
    return out.take()
  }
  expect(machine.owner.merge(siblings, place.slot, place.key, half(1))).toBe(true)
  expect(machine.hints.hold(place, { state: half(2), owners: [1], copies: 1 })).toBe(true)
  cluster.pass(1000)
  expect(machine.hints.count).toBe(1)
})
