import { describe, expect, test } from "bun:test"
import { actorOf } from "../../src/dynamo/dot.ts"
import {
  checkState,
  contextOf,
  expireState,
  forEachLiveDot,
  mergeStates,
} from "../../src/dynamo/keyState.ts"
import { pruneState } from "../../src/dynamo/pruning.ts"
import { putSibling, siblingsMax } from "../../src/dynamo/siblings.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector, VersionVector } from "../../src/dynamo/versionVector.ts"
import { ByteReader } from "../../src/lib/byteReader.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { add, Replica, remove, stable } from "./replica.ts"

const out = new ByteWriter()

describe("siblings", () => {
  test("the shopping cart: what both sides of a partition added is on every replica after it", () => {
    const carts = [1, 2, 3].map((node) => new Replica(node))
    const [left, right, third] = carts
    for (const item of ["iPhone", "AirPods"]) left.change(add(item))
    for (const item of ["iPad", "MacBook"]) right.change(add(item))
    third.receive(right.state)
    third.receive(left.state)
    left.receive(third.state)
    right.receive(left.state)
    for (const cart of carts) {
      expect(cart.members()).toEqual(["AirPods", "MacBook", "iPad", "iPhone"])
      expect(cart.state).toEqual(left.state as Uint8Array)
    }
    // And the same with siblings, where the one who reads merges.
    const notes = [new Replica(1), new Replica(2)]
    notes[0].put("iPhone AirPods")
    notes[1].put("iPad MacBook")
    notes[0].receive(notes[1].state)
    expect(notes[0].values()).toEqual(["iPhone AirPods", "iPad MacBook"])
    notes[0].put(notes[0].values().join(" "), notes[0].context())
    notes[1].receive(notes[0].state)
    expect(notes[1].values()).toEqual(["iPhone AirPods iPad MacBook"])
  })

  test("AP pitfall 3: two writers with stale contexts, a thousand times in turn: never more than two siblings", () => {
    const node = new Replica(1)
    node.put("first")
    let contexts = [node.context(), node.context()]
    for (let i = 0; i < 1000; i++) {
      // Each writes with what he saw after his own last write, which the other has written over since.
      node.put(`${i}`, contexts[0])
      contexts = [contexts[1], node.context()]
      expect(node.values().length).toBeLessThanOrEqual(2)
    }
  })

  test("AP pitfall 1: a hundred thousand clients leave one entry for each replica in the context", () => {
    const nodes = [1, 2, 3].map((node) => new Replica(node))
    for (let client = 0; client < 100_000; client++) {
      const node = nodes[client % 3]
      node.receive(nodes[(client + 1) % 3].state)
      node.put(`${client}`, node.context())
    }
    const vector = new VersionVector()
    vector.joinBytes(nodes[0].context(), 0)
    expect(vector.size).toBe(3)
    expect((nodes[0].state as Uint8Array).length).toBeLessThan(64)
  })

  test("above the limit a write that covers none is refused, one that covers any is taken", () => {
    const node = new Replica(1)
    for (let i = 0; i < siblingsMax; i++) expect(node.put(`${i}`)).toBe("written")
    const first = new VersionVector()
    first.add(node.actor, 1)
    const before = node.state
    expect(node.put("one more")).toBe("tooManySiblings")
    expect(node.state).toBe(before)
    first.write(out)
    expect(node.put("in place of the first", out.take())).toBe("written")
    expect(node.values()).toHaveLength(siblingsMax)
    // What replicas took apart is merged all the same: nothing that was acknowledged is thrown away.
    const other = new Replica(2)
    for (let i = 0; i < siblingsMax; i++) other.put(`other ${i}`)
    node.receive(other.state)
    expect(node.values()).toHaveLength(2 * siblingsMax)
    first.add(node.actor, 2)
    first.write(out)
    expect(node.put("in place of the second", out.take())).toBe("written")
    expect(node.values()).toHaveLength(2 * siblingsMax)
    expect(node.put(undefined, node.context())).toBe("written")
    expect(node.values()).toEqual([])
  })

  test("a context that covers the write's own dot is refused", () => {
    const node = new Replica(1)
    const ahead = new VersionVector()
    ahead.add(node.actor, 9)
    ahead.write(out)
    expect(node.put("x", out.take())).toBe("contextAhead")
    expect(node.state).toBeUndefined()
  })

  test("AP pitfall 4: a dot is not used twice", () => {
    const write = { actor: actorOf(1, 1), counter: 2, context: emptyVector, stamp: 0, expiryMs: 0 }
    putSibling(out, undefined, { ...write, value: utf8("one") })
    const state = out.take()
    expect(() => putSibling(out, state, { ...write, value: utf8("two") })).toThrow("a second time")
    out.reset()
  })

  test("the one written and the one replaced are handed through, not copied", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.put("v1")
    other.receive(one.state)
    expect(other.state).toBe(one.state)
    one.put("v2", one.context())
    const before = other.state
    other.receive(one.state)
    expect(other.state).toBe(one.state)
    other.receive(before)
    expect(other.state).toBe(one.state)
  })

  test("AP pitfall 15: an expired value becomes a delete on every replica alike, and goes on covering", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.put("old")
    const old = one.state
    const { actor } = one
    putSibling(out, old, {
      actor,
      counter: one.clock.mint(actor),
      context: one.context(),
      stamp: 0,
      expiryMs: 500,
      value: utf8("short"),
    })
    one.state = out.take()
    other.receive(one.state)
    const state = one.state
    expect(expireState(state, 499)).toBe(state)
    const dots: Array<number> = []
    forEachLiveDot(state, 500, (_, counter) => dots.push(counter))
    expect(dots).toEqual([])
    one.state = expireState(state, 500)
    expect(one.values()).toEqual([])
    one.receive(old)
    expect(one.values()).toEqual([])
    // The other one's clock is behind; it learns of the expiry by merging, in any order.
    other.receive(one.state)
    expect(other.state).toEqual(one.state)
    one.receive(state)
    expect(other.state).toEqual(one.state)
    expect(expireState(state, 9000)).toEqual(one.state)
  })
})

describe("what clocks are for", () => {
  test("an obsolete write still covers what it covered, and does not itself come in", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.put("covered")
    const covered = a.state
    a.put("obsolete", a.context())
    b.clock.adopt(a.clock)
    b.state = covered
    b.receive(a.state)
    expect(b.state).toBeUndefined()
  })

  test("AP pitfall 8: a hint in flight while the key is deleted, confirmed and reaped brings nothing back", () => {
    const owners = [1, 2, 3].map((node) => new Replica(node))
    const [a, b, c] = owners
    const standIn = new Replica(4)
    standIn.put("held for c")
    const hint = standIn.state
    a.receive(hint)
    a.put(undefined, a.context())
    for (const owner of [b, c]) owner.receive(a.state)
    // The stand-in's dot is not in every clock: the delete stays.
    expect(pruneState(a.state as Uint8Array, stable(...owners))).toBe(a.state as Uint8Array)
    for (const owner of [b, c]) owner.exchange(a)
    for (const owner of owners) {
      expect(pruneState(owner.state as Uint8Array, stable(...owners))).toBeUndefined()
    }
    for (const owner of owners) {
      owner.state = undefined
      owner.receive(hint)
      expect(owner.state).toBeUndefined()
    }
  })

  test("a delete waits for owners that were given only the newest of what it covers", () => {
    const owners = [1, 2].map((node) => new Replica(node))
    const [a, b] = owners
    a.put("first")
    const late = a.state
    a.put("second", a.context())
    a.put(undefined, a.context())
    // Of the actor's three dots the other owner has the third alone.
    b.receive(a.state)
    expect(b.clock.contains(a.actor, 3)).toBe(true)
    expect(pruneState(a.state as Uint8Array, stable(...owners))).toBe(a.state as Uint8Array)
    b.exchange(a)
    expect(pruneState(a.state as Uint8Array, stable(...owners))).toBeUndefined()
    b.state = undefined
    b.receive(late)
    expect(b.values()).toEqual([])
  })

  test("a pending owner that was streamed a value and missed its delete loses it when it is filled", () => {
    const a = new Replica(1)
    a.put("deleted")
    const old = a.state
    a.put(undefined, a.context())
    expect(pruneState(a.state as Uint8Array, stable(a))).toBeUndefined()
    a.state = undefined
    const pending = new Replica(2)
    pending.receive(old)
    expect(pending.values()).toEqual(["deleted"])
    // A one-way merge would keep it, under a clock that then vouches for it.
    pending.exchange(a)
    expect(pending.state).toBeUndefined()
    expect(pending.clock.covers(a.actor, 2)).toBe(true)
    pending.receive(old)
    expect(pending.state).toBeUndefined()
  })

  test("AP pitfall 5: an old delete handed off late does not kill the key that was made again", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.put("once")
    a.put(undefined, a.context())
    const doomstone = a.state
    b.receive(a.state)
    b.exchange(a)
    a.exchange(b)
    a.state = undefined
    b.state = undefined
    a.put("again")
    a.receive(doomstone)
    b.receive(a.state)
    b.receive(doomstone)
    expect(a.values()).toEqual(["again"])
    expect(b.values()).toEqual(["again"])
  })

  test("AP pitfall 2: entries of an ended epoch leave the contexts of writes that every owner has, and of no others", () => {
    const owners = [1, 2].map((node) => new Replica(node))
    const [a, b] = owners
    const standIn = new Replica(4)
    standIn.put("from a tenure")
    for (const owner of owners) {
      owner.receive(standIn.state)
      expect(owner.clock.endBelow(4, 2, new Map([[standIn.actor, 1]]))).toBe(true)
    }
    a.put("newer", a.context())
    const written = a.state as Uint8Array
    // The other owner still shows what the write covers: the entry must stay, or both would stand side by side.
    expect(pruneState(written, stable(...owners))).toBe(written)
    b.receive(written)
    expect(b.values()).toEqual(["newer"])
    const pruned = pruneState(written, stable(...owners)) as Uint8Array
    expect(pruned.length).toBeLessThan(written.length)
    const vector = new VersionVector()
    vector.joinBytes(contextOf(pruned), 0)
    expect(vector.describe()).toBe("[n1.1:1]")
    checkState(pruned)
    // One who has not pruned keeps the entry, whoever merges with whom.
    expect(mergeStates(pruned, written)).toBe(written)
    expect(mergeStates(written, pruned)).toBe(written)
    b.receive(pruned)
    expect(b.values()).toEqual(["newer"])
    // What the tenure wrote is obsolete wherever it turns up.
    a.state = pruned
    a.receive(standIn.state)
    expect(a.state).toBe(pruned)
  })

  test("a stand-in's second tenure has an epoch of its own, so what it wrote in the first is not covered unseen", () => {
    const owner = new Replica(1)
    const first = new Replica(4, 1)
    first.put("first tenure")
    const second = new Replica(4, 2)
    second.put("second tenure")
    const reader = second.context()
    second.put("has read the second", reader)
    owner.receive(first.state)
    owner.receive(second.state)
    expect(owner.values()).toEqual(["first tenure", "has read the second"])
  })

  test("a clock goes through bytes and says the same of an old delivery", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.put("x")
    const old = a.state
    b.receive(old)
    b.put(undefined, b.context())
    b.clock.write(out)
    const clock = SlotClock.read(new ByteReader(out.take()))
    expect(clock.describe()).toBe("n1.1:1 n2.1:1")
    b.clock = clock
    b.state = undefined
    b.receive(old)
    expect(b.state).toBeUndefined()
  })
})

test("AP pitfall 19: a removal of a member that the caller never saw removes nothing", () => {
  const [a, b] = [new Replica(1), new Replica(2)]
  a.change(add("x"))
  b.change(remove("x", b.context()))
  b.receive(a.state)
  expect(b.members()).toEqual(["x"])
})
