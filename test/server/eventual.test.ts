import { describe, expect, test } from "bun:test"
import { SetState } from "../../src/dynamo/crdt/set.ts"
import { stateBytesMax } from "../../src/dynamo/keyState.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { putSibling } from "../../src/dynamo/siblings.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector } from "../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"
import {
  add,
  counter,
  EventualCluster,
  increment,
  lww,
  put,
  seenIn,
  set,
  siblings,
} from "./eventualCluster.ts"

const a = { namespace: siblings, key: "a" }

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

function refusal(reply: EventualReply): string {
  return reply._tag === "EventualRefused" ? reply.refusal._tag : reply._tag
}

const members = (reply: EventualReply) =>
  reply._tag === "EventualValue"
    ? SetState.read(reply.state).members.map(({ value }) => text(value))
    : [refusal(reply)]

describe("an eventual namespace", () => {
  test("holds a write on all owners, and any of them answers for it", () => {
    const cluster = new EventualCluster(3)
    const { receipt } = written(cluster.write(1, a, put("one")))
    expect(receipt).toMatchObject({ coordinator: 1, asked: "quorum", sloppy: false, overlap: true })
    expect(receipt.answered.length).toBeGreaterThanOrEqual(2)
    cluster.pass(100)
    const held = cluster.held(siblings, "a")
    expect(new Set(held).size).toBe(1)
    for (const node of [1, 2, 3]) {
      expect(seenIn(cluster.read(node, a), siblings, "a").values).toEqual(["one"])
    }
  })

  test("is read by the node that was asked, where that owns the key, and then by those of its zone", () => {
    const cluster = new EventualCluster(3)
    written(cluster.write(1, a, put("one"), { level: "all" }))
    for (const node of [1, 2, 3]) {
      expect(cluster.read(node, a, "one")).toMatchObject({ receipt: { answered: [node] } })
      const reply = cluster.read(node, a, "quorum")
      if (reply._tag !== "EventualValue") throw new Error(reply._tag)
      expect(reply.receipt.answered).toContain(node)
    }
  })

  test("keeps what was written on both sides of a cut, until somebody has seen both", () => {
    const cluster = new EventualCluster(3)
    cluster.loses = (from, to) => (from === 1) !== (to === 1)
    written(cluster.write(1, a, put("left"), { level: "one" }))
    written(cluster.write(2, a, put("right"), { level: "one" }))
    cluster.loses = () => false
    cluster.pass(1500)
    const seen = seenIn(cluster.read(3, a, "all"), siblings, "a")
    expect(seen.values).toEqual(["left", "right"])
    written(cluster.write(2, a, put("both"), { context: seen.context, level: "all" }))
    expect(seenIn(cluster.read(1, a, "one"), siblings, "a").values).toEqual(["both"])
  })

  test("refuses to pile up more than 1 MiB that the writer has not seen, and takes what makes it less", () => {
    const cluster = new EventualCluster(3)
    const large = put("x".repeat(1_000_000))
    for (const node of [1, 2]) written(cluster.write(node, a, large))
    expect(refusal(cluster.write(3, a, put("one more")))).toBe("TooManySiblings")
    const seen = seenIn(cluster.read(3, a), siblings, "a")
    expect(seen.values.length).toBe(2)
    written(cluster.write(3, a, large, { context: seen.context }))
    cluster.pass(100)
    expect(seenIn(cluster.read(1, a), siblings, "a").values.length).toBe(1)
  })

  test("holds no state that fits no frame: what was written apart stays apart until somebody makes room", () => {
    const cluster = new EventualCluster(3)
    const { owner } = cluster.node(1).loop.eventual.machine
    const half = (actor: number) => {
      const out = new ByteWriter()
      const write = { actor, counter: 1, context: emptyVector, stamp: 0, expiryMs: 0 }
      putSibling(out, undefined, { ...write, value: new Uint8Array(stateBytesMax / 2) })
      return out.take()
    }
    const [key, slot] = [utf8("a"), slotOf(utf8("a"))]
    expect(owner.merge(siblings, slot, key, half(1001))).toBe(true)
    expect(owner.merge(siblings, slot, key, half(1002))).toBe(false)
    const before = owner.copyClock(siblings, slot).describe()
    const theirs = new SlotClock()
    expect(owner.mergeExchanged({ namespace: siblings, slot, key }, half(1002), theirs)).toBe(false)
    expect(owner.copyClock(siblings, slot).describe()).toBe(before)
  })

  test("repairs on a read what an owner has missed", () => {
    const cluster = new EventualCluster(3)
    cluster.loses = (_, to) => to === 3
    written(cluster.write(1, a, put("one")))
    cluster.loses = () => false
    const reply = cluster.read(2, a, "all")
    expect(reply).toMatchObject({ receipt: { repairs: [3] } })
    cluster.pass(100)
    expect(new Set(cluster.held(siblings, "a")).size).toBe(1)
  })

  test("becomes equal everywhere after a cut, though nobody reads it", () => {
    const cluster = new EventualCluster(3)
    const keys = Array.from({ length: 30 }, (_, i) => `key${i}`)
    cluster.loses = (from, to) => (from === 1) !== (to === 1)
    for (const [i, key] of keys.entries()) {
      const place = { namespace: siblings, key }
      written(cluster.write(1 + (i % 3), place, put(`${i}`), { level: "one" }))
    }
    expect(keys.some((key) => new Set(cluster.held(siblings, key)).size > 1)).toBe(true)
    cluster.loses = () => false
    const isEqual = () => keys.every((key) => new Set(cluster.held(siblings, key)).size === 1)
    cluster.until("all owners hold the same", isEqual, 60_000)
  })

  test("has every rule: the last write, a set that grows on both sides, a counter that counts a retry once", () => {
    const cluster = new EventualCluster(3)
    const key = "k"
    written(cluster.write(1, { namespace: lww, key }, put("first")))
    written(cluster.write(2, { namespace: lww, key }, put("second")))
    expect(seenIn(cluster.read(3, { namespace: lww, key }), lww, key).values).toEqual(["second"])
    cluster.loses = (from, to) => (from === 1) !== (to === 1)
    const cart = { namespace: set, key }
    for (const item of ["iPhone", "AirPods"]) cluster.write(1, cart, add(item), { level: "one" })
    for (const item of ["iPad", "MacBook"]) cluster.write(2, cart, add(item), { level: "one" })
    cluster.loses = () => false
    cluster.pass(1500)
    const items = ["AirPods", "MacBook", "iPad", "iPhone"]
    expect(members(cluster.read(3, cart, "all"))).toEqual(items)
    const count = { namespace: counter, key }
    expect(written(cluster.write(1, count, increment(2), { requestId: 7 })).counter).toBe(2n)
    expect(written(cluster.write(1, count, increment(2), { requestId: 7 })).counter).toBe(2n)
    expect(written(cluster.write(1, count, increment(3), { requestId: 8 })).counter).toBe(5n)
  })

  test("refuses by name: an unmet level, a change of another rule, a context of another key", () => {
    const cluster = new EventualCluster(3)
    written(cluster.write(1, a, put("one")))
    const seen = seenIn(cluster.read(1, a), siblings, "a")
    expect(refusal(cluster.write(1, { namespace: set, key: "a" }, put("x")))).toBe(
      "NotSupportedInMode",
    )
    const b = { namespace: siblings, key: "b" }
    expect(refusal(cluster.write(1, b, put("x"), { context: seen.context }))).toBe("BadContext")
    cluster.crash(2)
    cluster.crash(3)
    cluster.pass(1500)
    expect(refusal(cluster.write(1, a, put("two")))).toBe("LevelUnavailable")
    expect(refusal(cluster.read(1, a))).toBe("LevelUnavailable")
    expect(written(cluster.write(1, a, put("two"), { level: "one" })).receipt.achieved).toBe("one")
  })

  test("AP pitfall 4: forgets nothing that it has answered for, however often its nodes lose power", () => {
    const cluster = new EventualCluster(3)
    const acknowledged = new Set<string>()
    for (let round = 0; round < 60; round++) {
      const node = 1 + (round % 3)
      const key = `key${round % 7}`
      const reply = cluster.write(node, { namespace: set, key }, add(`${key}:${round}`))
      if (reply._tag === "EventualWritten") acknowledged.add(`${key}:${round}`)
      if (round % 4 === 3) cluster.restart(1 + cluster.prng.int(0, 2))
    }
    expect(acknowledged.size).toBeGreaterThan(40)
    cluster.pass(2000)
    const found = new Set<string>()
    for (let k = 0; k < 7; k++) {
      for (const item of members(cluster.read(1, { namespace: set, key: `key${k}` }, "all"))) {
        found.add(item)
      }
    }
    for (const item of acknowledged) expect(found).toContain(item)
  })

  test("AP pitfall 15: has the same clocks and trees after a restart, whether they are in tables or in the log", () => {
    const cluster = new EventualCluster(3)
    const tablesOf = (id: number) => {
      const { owner } = cluster.node(id).loop.eventual.machine
      const slots = Array.from({ length: slotCount }, (_, slot) => slot)
      const clocks = slots.map((slot) => owner.copyClock(siblings, slot).describe()).join()
      const view = owner.view(siblings)
      const sums = slots.map((start) => view.sumOf({ start, slots: 1, bits: 0, prefix: 0 }))
      return JSON.stringify({ clocks, sums })
    }
    for (let round = 0; round < 40; round++) {
      const place = { namespace: siblings, key: `key${round % 9}` }
      const { context } = seenIn(cluster.read(1, place), siblings, place.key)
      const change = round % 5 === 4 ? ({ _tag: "Delete" } as const) : put(`value ${round}`)
      written(cluster.write(1 + (round % 3), place, change, { context }))
      if (round % 10 !== 9) continue
      cluster.pass(200)
      const before = tablesOf(2)
      cluster.restart(2)
      expect(tablesOf(2)).toBe(before)
    }
    expect(cluster.node(2).loop.storage.engine.flushedThrough).toBeGreaterThan(0)
  })

  test("is gone for good once it was dropped, also after a restart", () => {
    const cluster = new EventualCluster(3)
    written(cluster.write(1, a, put("one"), { level: "all" }))
    const { eventual } = cluster.node(2).loop
    expect(eventual.drop(siblings)).toBe(false)
    cluster.until("it is durable", () => eventual.drop(siblings))
    cluster.restart(2)
    const { owner, store } = cluster.node(2).loop.eventual.machine
    expect(owner.state(siblings, slotOf(utf8("a")), utf8("a"))).toBe(undefined)
    expect(owner.copyClock(siblings, slotOf(utf8("a"))).describe()).not.toContain(":1")
    expect(store.durableMark).toBeGreaterThan(0)
  })

  test("is read a page at a time, of the slots that a node owns", () => {
    const cluster = new EventualCluster(3)
    const keys = Array.from({ length: 10 }, (_, i) => `key${i}`)
    for (const key of keys) written(cluster.write(1, { namespace: siblings, key }, put(key)))
    const found: Array<string> = []
    let after: unknown
    do {
      const reply = cluster.page(2, siblings, [0, 16384], after)
      if (reply._tag !== "EventualEntries") throw new Error(JSON.stringify(reply))
      expect(reply.entries.length).toBeLessThanOrEqual(3)
      for (const { key } of reply.entries) found.push(text(key))
      after = reply.next
    } while (after !== undefined)
    expect(found.sort()).toEqual(keys)
  })
})
