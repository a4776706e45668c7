import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { RangeMachine } from "../../src/server/apply.ts"
import { dataKey } from "../../src/server/engineKeys.ts"
import { LiveSum } from "../../src/server/liveSum.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import {
  expiringHeaderBytes,
  valueHeaderBytes,
  writeExpiringHeader,
  writeValueHeader,
} from "../../src/server/valueRecord.ts"
import type { Position } from "../../src/types.ts"
import { settle } from "../lsm/harness.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { LoopCluster, voter } from "./loopCluster.ts"
import type { LoopNode } from "./loopNode.ts"
import { said, Trio } from "./trio.ts"

const settings = { sumMs: 50, sumSliceBytes: 100, sumBytesPerTick: 300 }
const replicaOf = (node: LoopNode) => node.loop.replicas.get(1)!
const keyOf = (name: string) => dataKey(hashPosition(1, utf8(name)))

/** Writes below the chain: another value behind a right checksum, as a mistake of the engine or rot in memory leaves it. */
function change(node: LoopNode, name: string): void {
  const { engine } = node.loop.storage
  const record = engine.get(keyOf(name))!.slice()
  record[record.length - 1]! ^= 1
  engine.put(keyOf(name), record)
}

function lose(node: LoopNode, name: string): void {
  node.loop.storage.engine.delete(keyOf(name))
}

function filled(): Trio {
  const trio = new Trio(settings)
  for (let i = 0; i < 30; i++) trio.put(`key ${i}`, "value")
  return trio
}

describe("replicas are compared by the sum over their live keys (pitfall 33)", () => {
  test("equal ones go on, under load and idle, and nobody says a word", () => {
    const trio = filled()
    for (let i = 0; i < 30; i++) {
      trio.put(`key ${i}`, "again")
      trio.pass(50)
    }
    trio.pass(3000)
    for (const node of trio.nodes) {
      expect(replicaOf(node).differs).toBeUndefined()
      expect(node.reports).toEqual([])
      expect(node.loop.oddReplicas()).toEqual([])
    }
  })

  for (const [what, harm] of [
    ["changed", change],
    ["lost", lose],
  ] as const) {
    test(`a key that is ${what} behind the engine's back in a follower is found, and the replica is to be replaced`, () => {
      const trio = filled()
      const odd = trio.follower()
      harm(odd, "key 17")
      trio.pass(5000)
      expect(replicaOf(odd).differs).toContain("other data")
      expect(said(trio.answer(odd, odd.read("key 3", { level: "local" })))).toBe("StorageCorrupt")
      const leader = trio.leader()
      expect(leader.loop.oddReplicas()).toEqual([{ range: 1, node: odd.id }])
      for (const node of trio.nodes) {
        if (node !== odd) expect(replicaOf(node).differs).toBeUndefined()
      }
      trio.put("after", "1")
    })
  }

  test("the replica that takes its place has what the others have", () => {
    const cluster = new LoopCluster({ settings })
    for (let i = 0; i < 30; i++) cluster.put(`key ${i}`, "value")
    cluster.until("a leader", () => cluster.leader(1) !== undefined)
    const leader = cluster.leader(1)!
    const odd = [...cluster.nodes.values()].find((node) => node !== leader)!
    change(odd, "key 17")
    lose(odd, "key 18")
    cluster.until("it is found", () => leader.loop.oddReplicas().length === 1)
    const others = [1, 2, 3].filter((id) => id !== odd.id).map((id) => voter(id))
    expect(cluster.members(1, others)?._tag).toBe("Changed")
    cluster.until("the odd one is gone", () => cluster.replica(odd.id, 1) === undefined)
    expect(cluster.members(1, [...others, voter(odd.id, 10)])?._tag).toBe("Changed")
    cluster.expectWhole()
    const engineOf = (id: number) => cluster.node(id).loop.storage.engine
    for (const key of ["key 17", "key 18"]) {
      expect(engineOf(odd.id).get(keyOf(key))).toEqual(engineOf(leader.id).get(keyOf(key))!)
    }
    for (const node of cluster.nodes.values()) expect(node.loop.oddReplicas()).toEqual([])
  })

  test("a key that one has too many is found", () => {
    const trio = filled()
    const odd = trio.follower()
    const { engine } = odd.loop.storage
    engine.put(keyOf("nobody else's"), engine.get(keyOf("key 3"))!.slice())
    trio.pass(5000)
    expect(replicaOf(odd).differs).toContain("other data")
  })

  test("a leader that differs gives up leading, and the next one learns that it is to be replaced", () => {
    const trio = filled()
    const odd = trio.leader()
    change(odd, "key 17")
    trio.pass(6000)
    expect(replicaOf(odd).differs).toBeDefined()
    const leader = trio.leader()
    expect(leader.id).not.toBe(odd.id)
    trio.pass(2000)
    expect(leader.loop.oddReplicas()).toEqual([{ range: 1, node: odd.id }])
  })

  test("where all three differ nobody is blamed, but it is said", () => {
    const trio = filled()
    const [first, second] = trio.nodes.filter((node) => !node.isLeader) as [LoopNode, LoopNode]
    change(first, "key 17")
    lose(second, "key 17")
    trio.pass(5000)
    for (const node of trio.nodes) expect(replicaOf(node).differs).toBeUndefined()
    expect(trio.leader().reports.some((line) => line.includes("no majority"))).toBe(true)
  })

  for (const [what, isBusy, sumSliceBytes] of [
    ["a slice of before", false, 100],
    ["an index of before", true, 1 << 20],
  ] as const) {
    test(`answers that come late, twice or never, and speak of ${what}, blame nobody`, () => {
      const trio = new Trio({ ...settings, sumSliceBytes })
      for (let i = 0; i < 30; i++) trio.put(`key ${i}`, "value")
      const prng = new Prng(5)
      const late: Array<{ from: number; to: number; message: PeerMessage }> = []
      let heardLate = 0
      trio.loses = (from, to, message) => {
        if (message._tag !== "Chain") return false
        late.push({ from, to, message })
        return prng.chance(0.3)
      }
      for (let i = 0; i < 100; i++) {
        if (isBusy) trio.leader().mutate(`key ${prng.int(0, 30)}`, { put: `${i}` })
        trio.pass(30)
        for (const { from, to, message } of late.splice(0, prng.int(0, late.length + 1))) {
          trio.node(to).loop.receive(from, message)
          heardLate++
        }
      }
      expect(heardLate).toBeGreaterThan(50)
      for (const node of trio.nodes) {
        expect(replicaOf(node).differs).toBeUndefined()
        expect(node.reports).toEqual([])
        expect(node.loop.oddReplicas()).toEqual([])
      }
    })
  }
})

/** What a sum reads of a machine. */
function machineAt(rangeTime: number, bounds: { start?: Position; end?: Position } = {}) {
  const { start = new Uint8Array(), end = new Uint8Array() } = bounds
  return { appliedIndex: 7, rangeTime, descriptor: { start, end } } as unknown as RangeMachine
}

describe("the sum over live keys", () => {
  const prng = new Prng(3)
  const positions = Array.from({ length: 40 }, (_, i) => Uint8Array.of(1, i, prng.int(0, 255)))
  const record = (i: number): Uint8Array => {
    const expires = i % 3 === 0
    const bytes = new Uint8Array((expires ? expiringHeaderBytes : valueHeaderBytes) + (i % 7))
    if (expires) writeExpiringHeader(bytes, 100 + i, 1000 + i)
    else writeValueHeader(bytes, 100 + i)
    return bytes
  }
  const isLive = (i: number, time: number) => i % 3 !== 0 || 1000 + i > time

  /** All slices from the start on, each summed by steps of a few bytes. */
  function sums(engine: Engine, machine: RangeMachine, bytes: number, step: number) {
    const found: Array<string> = []
    let from: Position | undefined = new Uint8Array()
    while (from !== undefined) {
      const sum: LiveSum = new LiveSum(engine, machine, { from, bytes })
      while (!sum.isDone) sum.advance(step)
      sum.close()
      found.push(`${from} ${sum.sum}`)
      from = sum.next
    }
    return found
  }

  function engineWith(has: (i: number) => boolean): { engine: Engine; disk: SimulatedDisk } {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", { memtableBytes: 2000 })
    positions.forEach((position, i) => {
      if (!has(i)) return
      if (engine.needsSeal(100)) engine.seal()
      engine.put(dataKey(position), record(i))
    })
    return { engine, disk }
  }

  test("is the same however it is sliced over turns, whatever lies in memory, and with or without what has expired", () => {
    for (const time of [0, 1010, 1020, 2000]) {
      const { engine, disk } = engineWith(() => true)
      const machine = machineAt(time)
      const expected = sums(engine, machine, 90, 1 << 20)
      expect(expected.length).toBeGreaterThan(3)
      expect(sums(engine, machine, 90, 1)).toEqual(expected)
      engine.seal()
      settle(engine, disk)
      expect(sums(engine, machine, 90, 60)).toEqual(expected)
      const without = engineWith((i) => isLive(i, time)).engine
      expect(sums(without, machine, 90, 60)).toEqual(expected)
    }
  })

  test("says when any live key is missing, or when it is read at another time", () => {
    const machine = machineAt(1010)
    const whole = sums(engineWith(() => true).engine, machine, 1 << 20, 100)
    for (let gone = 0; gone < positions.length; gone++) {
      const found = sums(engineWith((i) => i !== gone).engine, machine, 1 << 20, 100)
      expect(found.join() === whole.join()).toBe(!isLive(gone, 1010))
    }
    expect(sums(engineWith(() => true).engine, machineAt(1020), 1 << 20, 100)).not.toEqual(whole)
  })

  test("keeps to the bounds, also when the slice begins outside of them", () => {
    const { engine } = engineWith(() => true)
    const [low, middle, high] = [positions[5]!, positions[20]!, positions[30]!]
    const inside = machineAt(0, { start: middle, end: high })
    const expected = sums(engine, inside, 1 << 20, 100)
    const only = engineWith((i) => i >= 20 && i < 30).engine
    expect(sums(only, machineAt(0), 1 << 20, 100)).toEqual(expected)
    const below = new LiveSum(engine, inside, { from: low, bytes: 1 << 20 })
    below.advance(1 << 20)
    expect(`${new Uint8Array()} ${below.sum}`).toBe(expected[0]!)
    const behind = new LiveSum(engine, inside, { from: positions[35]!, bytes: 1 << 20 })
    behind.advance(1)
    expect([behind.isDone, behind.sum, behind.next]).toEqual([true, 0, undefined])
  })

  test("is that of the moment it began, whatever is written meanwhile", () => {
    const { engine } = engineWith(() => true)
    const expected = sums(engine, machineAt(0), 1 << 20, 100)
    const sum = new LiveSum(engine, machineAt(0), { from: new Uint8Array(), bytes: 1 << 20 })
    for (let i = 0; !sum.isDone; i++) {
      sum.advance(50)
      if (i < positions.length) engine.delete(dataKey(positions[i]!))
    }
    expect(`${new Uint8Array()} ${sum.sum}`).toBe(expected[0]!)
  })
})
