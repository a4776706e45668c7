import { describe, expect, test } from "bun:test"
import { counterValue } from "../../src/dynamo/crdt/counter.ts"
import { SetState } from "../../src/dynamo/crdt/set.ts"
import { contextOf } from "../../src/dynamo/keyState.ts"
import { pruneState } from "../../src/dynamo/pruning.ts"
import { add, Replica, remove, stable } from "./replica.ts"

function pruned(replica: Replica, ...owners: ReadonlyArray<Replica>): Uint8Array | undefined {
  return pruneState(replica.state as Uint8Array, stable(...owners))
}

describe("reaping sets", () => {
  test("an empty set goes when every owner has every removal, not before", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.change(add("x"))
    b.receive(a.state)
    a.change({ _tag: "Clear" })
    expect(pruned(a, a, b)).toBe(a.state as Uint8Array)
    b.exchange(a)
    a.exchange(b)
    const old = a.state as Uint8Array
    expect(pruned(a, a, b)).toBeUndefined()
    // Reaped here, not yet there: what the other has brings nothing back, not even the removal.
    a.state = undefined
    a.receive(old)
    expect(a.state).toBeUndefined()
    // To one who has not seen it the removal is news.
    const late = new Replica(3)
    late.receive(old)
    expect(late.state).toBe(old)
  })

  test("a removal that waits for what its caller read stays until that has come", () => {
    const [a, b, elsewhere] = [new Replica(1), new Replica(2), new Replica(4)]
    elsewhere.change(add("x"))
    a.change(remove("x", elsewhere.context()))
    b.exchange(a)
    expect(SetState.read(a.state).pending).toHaveLength(1)
    expect(pruned(a, a, b)).toBe(a.state as Uint8Array)
    a.receive(elsewhere.state)
    expect(a.members()).toEqual([])
    expect(SetState.read(a.state).pending).toEqual([])
  })

  test("a removal by one who read what has long been reaped does not wait for ever", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.change(add("x"))
    const context = a.context()
    a.change({ _tag: "Clear" })
    b.exchange(a)
    a.exchange(b)
    for (const owner of [a, b]) owner.state = undefined
    b.change(add("y"))
    b.change(remove("x", context))
    expect(SetState.read(b.state).pending).toHaveLength(1)
    a.exchange(b)
    b.state = pruned(b, a, b)
    expect(SetState.read(b.state).pending).toEqual([])
    expect(b.members()).toEqual(["y"])
    expect(SetState.read(b.state).vector.describe()).toBe("[n2.1:1]")
  })

  test("AP pitfall 2: a set in use loses the entries of ended epochs and keeps its members", () => {
    const owners = [new Replica(1), new Replica(2)]
    const standIn = new Replica(4)
    standIn.change(add("from a tenure"))
    for (const owner of owners) owner.receive(standIn.state)
    const [a, b] = owners
    a.change(add("from an owner"))
    a.change(remove("from a tenure"))
    b.exchange(a)
    a.exchange(b)
    for (const { clock } of owners) clock.endBelow(4, 2, new Map([[standIn.actor, 1]]))
    a.state = pruned(a, ...owners)
    expect(SetState.read(a.state).vector.describe()).toBe("[n1.1:1]")
    expect(a.members()).toEqual(["from an owner"])
    a.receive(standIn.state)
    expect(a.members()).toEqual(["from an owner"])
  })
})

describe("reaping counters", () => {
  test("a counter goes when every owner has its deletes", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.add(3)
    a.deleteCounter()
    expect(pruned(a, a, b)).toBe(a.state as Uint8Array)
    b.exchange(a)
    a.exchange(b)
    expect(pruned(a, a, b)).toBeUndefined()
  })

  test("not while an owner has yet to hear of the delete", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.add(3)
    b.receive(a.state)
    b.deleteCounter()
    expect(pruned(b, a, b)).toBe(b.state as Uint8Array)
    a.receive(b.state)
    expect(pruned(b, a, b)).toBeUndefined()
  })

  test("not while an owner's increments from before it knew of the delete are on their way", () => {
    const [a, b, c] = [new Replica(1), new Replica(2), new Replica(3)]
    a.add(5)
    for (const owner of [b, c]) owner.receive(a.state)
    // The total of this one holds what the delete subtracts.
    a.add(1)
    const onItsWay = a.state
    b.deleteCounter()
    for (const owner of [a, c]) owner.receive(b.state)
    expect(counterValue(b.state)).toBeUndefined()
    // The deleter's own entry has told everyone; the one that says what was subtracted stays.
    b.state = pruned(b, a, b, c)
    expect(b.state).toBeDefined()
    b.receive(onItsWay)
    expect(counterValue(b.state)).toBe(1n)
  })

  test("an owner that deletes again does not let in what it had deleted and reaped", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.add(6)
    const old = a.state
    a.deleteCounter()
    b.exchange(a)
    a.exchange(b)
    b.state = undefined
    b.add(3)
    a.state = pruned(a, a, b)
    expect(a.state).toBeUndefined()
    a.receive(b.state)
    a.deleteCounter()
    a.receive(old)
    expect(counterValue(a.state)).toBeUndefined()
  })

  test("a delete by one who read long ago brings back no entry that was reaped since", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    a.add(6)
    const old = contextOf(a.state as Uint8Array)
    a.add(7)
    const onItsWay = a.state
    a.deleteCounter()
    b.exchange(a)
    a.exchange(b)
    b.state = pruned(b, a, b)
    expect(b.state).toBeUndefined()
    b.deleteCounter(old)
    b.receive(onItsWay)
    expect(counterValue(b.state)).toBeUndefined()
  })

  test("entries of ended epochs go once nothing of them is left to count", () => {
    const [a, b] = [new Replica(1), new Replica(2)]
    const standIn = new Replica(4)
    standIn.add(2)
    for (const owner of [a, b]) {
      owner.receive(standIn.state)
      owner.clock.endBelow(4, 2, new Map([[standIn.actor, 1]]))
    }
    a.add(1)
    b.exchange(a)
    expect(pruned(a, a, b)).toBe(a.state as Uint8Array)
    expect(counterValue(a.state)).toBe(3n)
    const standInAgain = a.state
    a.deleteCounter()
    a.add(1)
    b.exchange(a)
    a.exchange(b)
    a.state = pruned(a, a, b)
    expect(counterValue(a.state)).toBe(1n)
    expect((a.state as Uint8Array).length).toBeLessThan((standInAgain as Uint8Array).length)
    a.receive(standIn.state)
    expect(counterValue(a.state)).toBe(1n)
  })
})
