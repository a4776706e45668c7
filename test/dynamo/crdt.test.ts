import { describe, expect, test } from "bun:test"
import { counterValue } from "../../src/dynamo/crdt/counter.ts"
import { flagValue, putFlag } from "../../src/dynamo/crdt/flag.ts"
import { putRegister, registerValue } from "../../src/dynamo/crdt/register.ts"
import { putSet, SetState, setBytesMax } from "../../src/dynamo/crdt/set.ts"
import { actorOf, describeDot } from "../../src/dynamo/dot.ts"
import { contextOf, forEachLiveDot, mergeStates } from "../../src/dynamo/keyState.ts"
import { latestStamp, putLww } from "../../src/dynamo/lww.ts"
import { pruneState } from "../../src/dynamo/pruning.ts"
import { SlotClock } from "../../src/dynamo/slotClock.ts"
import { emptyVector, VersionVector } from "../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { HybridClock } from "../../src/lib/hybridClock.ts"
import { add, Replica, remove, valuesOf } from "./replica.ts"

const out = new ByteWriter()
const [a, b] = [actorOf(1, 1), actorOf(2, 1)]

function stamped(actor: number, counter: number, stamp: number, value?: string) {
  const bytes = value === undefined ? undefined : utf8(value)
  return { actor, counter, stamp, context: emptyVector, expiryMs: 0, value: bytes }
}

describe("lww", () => {
  const lww = (actor: number, stamp: number, value?: string) => {
    putLww(out, undefined, stamped(actor, 1, stamp, value))
    return out.take()
  }

  test("AP pitfall 17: the higher stamp wins, and at equal stamps the higher dot, whatever comes first", () => {
    const states = [lww(a, 5, "low"), lww(b, 5, "tie won"), lww(a, 4, "lowest")]
    for (const [x, y] of [
      [0, 1],
      [1, 0],
      [1, 2],
      [2, 1],
    ]) {
      expect(valuesOf(mergeStates(states[x], states[y]) as Uint8Array)).toEqual(["tie won"])
    }
    expect(latestStamp(states[1])).toBe(5)
  })

  test("a delete is a write: it loses to a higher stamp and wins over a lower", () => {
    const gone = lww(b, 7)
    expect(valuesOf(mergeStates(gone, lww(a, 6, "older")) as Uint8Array)).toEqual([])
    expect(valuesOf(mergeStates(gone, lww(a, 8, "newer")) as Uint8Array)).toEqual(["newer"])
  })

  test("what was reaped here does not come back, however high its stamp", () => {
    const old = lww(a, 9, "old")
    const clock = new SlotClock()
    clock.add(a, 1)
    expect(mergeStates(undefined, old, clock)).toBeUndefined()
    const present = lww(b, 3, "present")
    expect(mergeStates(present, old, clock)).toBe(present)
  })

  test("a write below the stamp that is there says so and changes nothing", () => {
    const there = lww(a, 9, "there")
    expect(putLww(out, there, stamped(b, 1, 8, "late"))).toBe(false)
    expect(out.take()).toEqual(there)
  })
})

describe("hybrid clock", () => {
  test("stamps rise, also above what was taken, and stay at the wall where it moves on", () => {
    const clock = new HybridClock()
    expect([clock.stamp(100), clock.stamp(100), clock.stamp(90)]).toEqual([100, 101, 102])
    expect(clock.take(500, 100, 1000)).toBe(true)
    expect(clock.take(50, 100, 1000)).toBe(true)
    expect(clock.stamp(100)).toBe(501)
    expect(clock.stamp(900)).toBe(900)
    expect(new HybridClock(clock.latest).stamp(0)).toBe(901)
  })

  test("AP pitfall 17: a stamp too far ahead is refused and drags nothing along", () => {
    const clock = new HybridClock()
    clock.stamp(100)
    expect(clock.take(1101, 100, 1000)).toBe(false)
    expect(clock.stamp(100)).toBe(101)
    expect(clock.take(1100, 100, 1000)).toBe(true)
  })
})

describe("register", () => {
  const put = (
    local: Uint8Array | undefined,
    actor: number,
    counter: number,
    stamp: number,
    v?: string,
  ) => {
    expect(putRegister(out, local, stamped(actor, counter, stamp, v))).toBe("written")
    return out.take()
  }
  const shown = (state: Uint8Array) => text(registerValue(state, 0) ?? utf8("(none)"))

  test("a write wins over what its coordinator held, though its clock is behind", () => {
    const first = put(undefined, a, 1, 1000, "first, by a clock ahead")
    expect(shown(put(first, b, 1, 5, "second"))).toBe("second")
  })

  test("of writes made apart the highest stamp shows; a delete of it lets the other show", () => {
    const left = put(undefined, a, 1, 10, "left")
    const right = put(undefined, b, 1, 20, "right")
    const both = mergeStates(left, right) as Uint8Array
    expect(shown(both)).toBe("right")
    expect(shown(mergeStates(left, put(right, b, 2, 30)) as Uint8Array)).toBe("left")
    expect(shown(put(both, b, 2, 30))).toBe("(none)")
  })
})

describe("set", () => {
  test("add wins over a removal that had not seen it, and only then", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.change(add("x"))
    other.receive(one.state)
    other.change(remove("x"))
    expect(other.members()).toEqual([])
    one.change(add("x"))
    one.receive(other.state)
    other.receive(one.state)
    expect(one.members()).toEqual(["x"])
    expect(other.state).toEqual(one.state)
    one.change(remove("x"))
    other.receive(one.state)
    expect(other.members()).toEqual([])
  })

  test("AP pitfall 19: no reset anomaly: clearing takes what was seen, an add made apart survives, nothing seen returns", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    for (const item of ["a", "b"]) one.change(add(item))
    other.receive(one.state)
    const before = other.state
    other.change(add("c"))
    one.change({ _tag: "Clear" })
    one.receive(other.state)
    expect(one.members()).toEqual(["c"])
    one.receive(before)
    expect(one.members()).toEqual(["c"])
  })

  test("a removal by one who read elsewhere waits for what he read, and touches nothing else of it", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.change(add("kept"))
    one.change(add("removed"))
    // The other replica has seen neither.
    expect(other.change(remove("removed", one.context()))).toBe("written")
    expect(other.members()).toEqual([])
    other.receive(one.state)
    expect(other.members()).toEqual(["kept"])
    expect(SetState.read(other.state).pending).toEqual([])
    one.receive(other.state)
    expect(one.state).toEqual(other.state as Uint8Array)
  })

  test("a context that covers the change's own dot is refused", () => {
    const ahead = new VersionVector()
    ahead.add(a, 5)
    ahead.write(out)
    const context = out.take()
    const dot = { actor: a, counter: 4 }
    expect(putSet(out, undefined, dot, { _tag: "Clear", context })).toBe("contextAhead")
    expect(out.length).toBe(0)
  })

  test("AP pitfall 19: a hundred thousand adds and removals leave no more than a few bytes", () => {
    const node = new Replica(1)
    for (let i = 0; i < 50_000; i++) {
      node.change(add(`member ${i}`))
      node.change(remove(`member ${i}`))
    }
    expect((node.state as Uint8Array).length).toBeLessThan(16)
  })

  test("an add past the size limit is refused, a removal never is", () => {
    const half = utf8("x".repeat(setBytesMax / 2))
    const dot = (counter: number) => ({ actor: a, counter })
    putSet(out, undefined, dot(1), { _tag: "Add", value: half })
    const state = out.take()
    const other = half.slice()
    other[0] = 0
    expect(putSet(out, state, dot(2), { _tag: "Add", value: other })).toBe("tooLarge")
    expect(out.length).toBe(0)
    expect(putSet(out, state, dot(2), { _tag: "Remove", value: half })).toBe("written")
    expect(out.take().length).toBeLessThan(16)
  })

  test("a flag: enabling wins over a disabling that had not seen it", () => {
    const flag = (local: Uint8Array | undefined, actor: number, counter: number, on: boolean) => {
      putFlag(out, local, { actor, counter }, on)
      return out.take()
    }
    const on = flag(undefined, a, 1, true)
    const off = flag(on, b, 1, false)
    expect([flagValue(on), flagValue(off), flagValue(undefined)]).toEqual([true, false, false])
    expect(flagValue(mergeStates(on, off))).toBe(false)
    expect(flagValue(mergeStates(off, flag(on, a, 2, true)))).toBe(true)
  })
})

describe("counter", () => {
  test("increments made apart all count, delivered in any order and repeatedly", () => {
    const nodes = [1, 2, 3].map((node) => new Replica(node))
    for (const [i, node] of nodes.entries()) for (let n = 0; n < 10; n++) node.add(i + 1)
    for (let round = 0; round < 3; round++) {
      for (const left of nodes) for (const right of nodes) left.receive(right.state)
    }
    for (const node of nodes) expect(counterValue(node.state)).toBe(60n)
  })

  test("a delete subtracts what it saw: increments made apart survive, and nothing seen returns", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.add(5)
    other.receive(one.state)
    const seen = other.state
    one.add(2)
    other.deleteCounter()
    expect(counterValue(other.state)).toBeUndefined()
    one.receive(other.state)
    expect(counterValue(one.state)).toBe(2n)
    other.receive(one.state)
    other.receive(seen)
    expect(other.state).toEqual(one.state as Uint8Array)
    expect(counterValue(other.state)).toBe(2n)
  })

  test("two deletes of the same increments subtract them once", () => {
    const nodes = [1, 2].map((node) => new Replica(node))
    nodes[0].add(7)
    nodes[1].receive(nodes[0].state)
    for (const node of nodes) node.deleteCounter()
    nodes[0].add(1)
    nodes[0].receive(nodes[1].state)
    nodes[1].receive(nodes[0].state)
    for (const node of nodes) expect(counterValue(node.state)).toBe(1n)
  })

  test("a delete by one who read elsewhere counts for a replica that is behind", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.add(3)
    other.receive(one.state)
    one.add(4)
    other.deleteCounter(contextOf(one.state as Uint8Array))
    expect(counterValue(other.state)).toBeUndefined()
    other.receive(one.state)
    expect(counterValue(other.state)).toBeUndefined()
  })

  test("a counter that was reaped begins again from 0, also beside what is left of the old one", () => {
    const node = new Replica(1)
    node.add(9)
    node.deleteCounter()
    const old = node.state as Uint8Array
    const minted = new VersionVector()
    minted.add(node.actor, node.clock.baseOf(node.actor))
    expect(pruneState(old, { clock: SlotClock.meet([node.clock]), minted })).toBeUndefined()
    const again = new Replica(1)
    again.clock = node.clock
    again.add(1)
    expect(counterValue(again.state)).toBe(1n)
    expect(counterValue(mergeStates(again.state, old))).toBe(1n)
    expect(counterValue(mergeStates(old, again.state as Uint8Array))).toBe(1n)
  })

  test("and where another's delete left the old one without a dot of its own in between", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    one.add(9)
    other.receive(one.state)
    other.deleteCounter()
    one.receive(other.state)
    const old = one.state as Uint8Array
    expect(counterValue(old)).toBeUndefined()
    const again = new Replica(1)
    again.clock = one.clock
    again.add(1)
    expect(counterValue(mergeStates(again.state, old))).toBe(1n)
    expect(counterValue(mergeStates(old, again.state as Uint8Array))).toBe(1n)
  })

  test("trees can tell a counter from the same one partly deleted", () => {
    const [one, other] = [new Replica(1), new Replica(2)]
    const dotsOf = (replica: Replica) => {
      const dots: Array<string> = []
      forEachLiveDot(replica.state as Uint8Array, 0, (...dot) => dots.push(describeDot(...dot)))
      return dots
    }
    one.add(9)
    other.receive(one.state)
    one.add(1)
    const before = dotsOf(one)
    other.deleteCounter()
    one.receive(other.state)
    expect(before).toEqual(["n1.1:2"])
    expect(dotsOf(one)).toEqual(["n1.1:2", "n1.1:1"])
    one.deleteCounter()
    expect(dotsOf(one)).toEqual([])
  })

  test("an increment that would leave 64 bits is refused", () => {
    const node = new Replica(1)
    node.add(2 ** 62)
    const before = node.state
    node.add(2 ** 62)
    expect(node.state).toBe(before)
    expect(counterValue(node.state)).toBe(2n ** 62n)
  })
})
