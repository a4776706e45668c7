import { describe, expect, test } from "bun:test"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import type { PeerMessage } from "../../src/server/peerMessage.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { withParting } from "../../src/topology/ringMembers.ts"
import { SlotOwners } from "../../src/topology/slotOwners.ts"
import { ringFrom, versionsToRest } from "../topology/harness.ts"
import {
  codesIn,
  EventualCluster,
  lww,
  put,
  seenIn,
  siblings,
  unmended,
} from "./eventualCluster.ts"

const place = { namespace: siblings, key: "a" }
const base = new EventualCluster(1).settings.eventual

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

const heldAlike = (cluster: EventualCluster, key = "a", namespace = siblings) => {
  const held = cluster.held(namespace, key)
  return held[0] !== "" && new Set(held).size === 1
}

const hintsLeft = (cluster: EventualCluster) =>
  [...cluster.nodes.values()].reduce((sum, { loop }) => sum + loop.eventual.machine.hints.count, 0)

/** Writes other keys until every node has flushed: what was there before is in tables. */
function flushAll(cluster: EventualCluster, round: string): void {
  const engines = [...cluster.nodes.values()].map(({ loop }) => loop.storage.engine)
  const before = engines.map((engine) => engine.flushedThrough)
  for (let i = 0; engines.some((engine, at) => engine.flushedThrough === before[at]); i++) {
    if (i === 200) throw new Error("nothing is flushed")
    const other = { namespace: lww, key: `${round} ${i}` }
    written(cluster.write(1, other, put("x".repeat(500)), { level: "all" }))
  }
}

describe("an owner", () => {
  test("AP pitfall 7: that has reaped a delete does not show what a table holds beneath it, whatever is flushed when", () => {
    const reap = { ...base.reap, windowMs: 500, passMs: 200 }
    const cluster = new EventualCluster(3, { eventual: { ...base, reap } })
    const shown = () => seenIn(cluster.read(2, place, "all"), siblings, "a")
    written(cluster.write(1, place, put("one"), { level: "all" }))
    flushAll(cluster, "the value is in a table")
    written(cluster.write(1, place, put("two"), { context: shown().context, level: "all" }))
    flushAll(cluster, "and another one over it")
    const { context } = shown()
    written(cluster.write(1, place, { _tag: "Delete" }, { context, level: "all" }))
    const isReaped = () => cluster.held(siblings, "a").every((state) => state === "")
    cluster.until("it is reaped", isReaped)
    for (const moment of ["in the memtable", "in a table", "compacted"]) {
      for (const id of [1, 2, 3]) cluster.restart(id)
      cluster.until("it is reaped again", isReaped)
      expect(`${moment}: ${shown().values}`).toBe(`${moment}: `)
      flushAll(cluster, moment)
    }
    expect(isReaped()).toBe(true)
  }, 20_000)

  test.each([
    ["siblings", siblings],
    ["lww", lww],
  ])(
    "AP pitfall 13: that is brought a repair after a newer write keeps the newer one, under %s",
    (_, namespace) => {
      const cluster = unmended(3)
      const at = { namespace, key: "a" }
      cluster.loses = (_, to) => to === 3
      written(cluster.write(1, at, put("old")))
      const kept: Array<PeerMessage> = []
      cluster.loses = (_, to, message) => {
        const isRepair = to === 3 && codesIn(message).includes(opCodes.store)
        if (isRepair) kept.push(message)
        return isRepair
      }
      cluster.beginRead(2, at, "all")
      cluster.until("a repair is on its way", () => kept.length > 0)
      // Answers at a quorum do without the third.
      const { context } = seenIn(cluster.read(1, at, "one"), namespace, "a")
      cluster.loses = () => false
      written(cluster.write(1, at, put("new"), { context, level: "all" }))
      const before = cluster.held(namespace, "a")
      for (const message of [...kept, ...kept]) cluster.node(3).loop.receive(2, message)
      cluster.pass(100)
      expect(seenIn(cluster.read(3, at, "one"), namespace, "a").values).toEqual(["new"])
      expect(cluster.held(namespace, "a")).toEqual(before)
      expect(heldAlike(cluster, "a", namespace)).toBe(true)
    },
  )

  test("AP pitfall 20: that is pending, was streamed a value and missed its delete, shows nothing of it once it owns the slot", () => {
    const slotsAtOnce = 16
    const cluster = new EventualCluster(3)
    cluster.pass(200)
    cluster.join(4)
    cluster.pass(100)
    cluster.stepRing(slotsAtOnce)
    const keys = Array.from({ length: 20_000 }, (_, i) => `key${i}`)
    const key = keys.find((each) => {
      const change = cluster.ring.changeOf(slotOf(utf8(each)))
      return change?.state === "pending" && cluster.owners(each).length === 4
    }) as string
    const place = { namespace: siblings, key }
    const pendingHas = () => {
      const { owner } = cluster.node(4).loop.eventual.machine
      return owner.state(siblings, slotOf(utf8(key)), utf8(key))
    }
    const [owner] = cluster.owners(key) as [number]
    written(cluster.write(owner, place, put("one"), { level: "all" }))
    expect(pendingHas()).toBeDefined()
    cluster.loses = (from, to) => from === 4 || to === 4
    const { context } = seenIn(cluster.read(owner, place, "all"), siblings, key)
    // All old owners have it, so that two of the new ones do.
    written(cluster.write(owner, place, { _tag: "Delete" }, { context, strict: true }))
    expect(pendingHas()).toBeDefined()
    cluster.loses = () => false
    for (let i = 0; cluster.ring.changeOf(slotOf(utf8(key))) !== undefined; i++) {
      if (i === 200) throw new Error("the slot stays")
      cluster.stepRing(slotsAtOnce)
      cluster.pass(200)
    }
    expect(cluster.owners(key)).toContain(4)
    expect(seenIn(cluster.read(4, place, "one"), siblings, key).values).toEqual([])
  })
})

describe("hints", () => {
  test("AP pitfall 9: for an owner that has left are brought to whoever owns the slot instead", () => {
    const cluster = unmended(5)
    const owners = cluster.owners("a")
    const leaving = owners[2] as number
    const parted = ringFrom(withParting(cluster.ring, leaving, "gone"))
    const later = versionsToRest(parted, 16_384).at(-1) as Ring
    const newOwners = new SlotOwners()
    later.owners(slotOf(utf8("a")), 3, newOwners)
    const isOwner = (id: number) => owners.includes(id) || newOwners.nodes.indexOf(id) >= 0
    const standIn = [1, 2, 3, 4, 5].find((id) => !isOwner(id)) as number
    cluster.pass(200)
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    written(cluster.write(standIn, place, put("one"), { level: "one" }))
    const { hints } = cluster.node(standIn).loop.eventual.machine
    expect(hints.owed().map(({ node }) => node)).toEqual([...owners].sort((x, y) => x - y))
    cluster.ring = later
    for (const owner of owners.slice(0, 2)) cluster.start(owner)
    for (const id of cluster.nodes.keys()) cluster.teach(id)
    expect(cluster.owners("a")).not.toContain(leaving)
    cluster.until("no hint is left", () => hintsLeft(cluster) === 0)
    expect(heldAlike(cluster)).toBe(true)
    expect(seenIn(cluster.read(owners[0] as number, place, "all"), siblings, "a").values).toEqual([
      "one",
    ])
  })

  test("AP pitfall 8: past their window, that have taken another write meanwhile, are not dropped by the word of who holds the first one only", () => {
    const exchange = { ...base.exchange, bytesPerSecond: 0 }
    const hints = { ...base.hints, windowMs: 1000 }
    const cluster = new EventualCluster(4, { eventual: { ...base, hints, exchange } })
    const [first, second, third] = cluster.owners("a") as [number, number, number]
    const standIn = 10 - first - second - third
    cluster.crash(third)
    cluster.pass(1500)
    written(cluster.write(first, place, put("one")))
    expect(hintsLeft(cluster)).toBe(1)
    // The hint grows old, and one owner says that it holds it.
    cluster.loses = (from, to, message) =>
      from === standIn && to === second && codesIn(message).includes(opCodes.hint)
    cluster.pass(3000)
    cluster.crash(first)
    cluster.pass(1500)
    expect(hintsLeft(cluster)).toBe(1)
    const { receipt } = written(cluster.write(second, place, put("two")))
    expect(receipt.standIns.map(({ node }) => node)).toEqual([standIn])
    // The other one holds both. Only the two nodes that made up the level have the second write.
    cluster.loses = () => false
    cluster.pass(3000)
    cluster.crash(second)
    cluster.start(first)
    cluster.start(third)
    cluster.until("no hint is left", () => hintsLeft(cluster) === 0)
    const { values } = seenIn(cluster.read(first, place), siblings, "a")
    expect(values).toEqual(["one", "two"])
  })

  /** A cluster of four in which one node holds a hint of `place` for an owner that is down. */
  function withHint() {
    const cluster = unmended(4)
    const [first, second, third] = cluster.owners("a") as [number, number, number]
    const standIn = 10 - first - second - third
    cluster.crash(third)
    cluster.pass(1500)
    written(cluster.write(first, place, put("one"), { level: "all" }))
    const hints = () => cluster.node(standIn).loop.eventual.machine.hints
    expect(hints().count).toBe(1)
    return { cluster, standIn, hints, absent: third }
  }

  test("outlive a start by an old directory, that knows nothing of their namespace yet", () => {
    const { cluster, standIn, hints, absent } = withHint()
    cluster.hears = () => false
    cluster.restart(standIn)
    cluster.node(standIn).loop.eventual.learn(cluster.ring, [])
    cluster.pass(1000)
    expect(hints().count).toBe(1)
    cluster.hears = () => true
    cluster.teach(standIn)
    cluster.start(absent)
    cluster.until("no hint is left", () => hints().count === 0)
    expect(heldAlike(cluster)).toBe(true)
  })

  test("go with their namespace when that is dropped, and so do tenures, also after a restart", () => {
    const cluster = unmended(4)
    const owners = cluster.owners("a")
    const standIn = [1, 2, 3, 4].find((id) => !owners.includes(id)) as number
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    written(cluster.write(standIn, place, put("one"), { level: "one" }))
    const machine = () => cluster.node(standIn).loop.eventual.machine
    expect(machine().hints.count).toBe(1)
    const { eventual } = cluster.node(standIn).loop
    cluster.until("it is dropped", () => eventual.drop(siblings))
    for (let start = 0; start < 2; start++) {
      expect(machine().hints.count).toBe(0)
      expect(machine().hints.owed()).toEqual([])
      expect(machine().tenures.counts).toEqual({ lasting: 0, ended: 0 })
      cluster.restart(standIn)
    }
  })

  test("AP pitfall 10: are brought to one that is back a few at a time, so many bytes a second, while requests are answered", () => {
    const [valueBytes, count, bytesPerSecond, inFlightMax] = [1000, 60, 10_000, 4]
    const hints = { ...base.hints, bytesPerSecond, inFlightMax }
    const exchange = { ...base.exchange, bytesPerSecond: 0 }
    const cluster = new EventualCluster(4, { eventual: { ...base, hints, exchange } })
    const standIn = 4
    const keys = Array.from({ length: 1000 }, (_, i) => `key${i}`)
      .filter((key) => !cluster.owners(key).includes(standIn))
      .slice(0, count)
    const absent = 3
    cluster.crash(absent)
    cluster.pass(1500)
    for (const key of keys) {
      const value = put("x".repeat(valueBytes))
      written(cluster.write(1, { namespace: siblings, key }, value, { level: "all" }))
    }
    expect(hintsLeft(cluster)).toBe(count)
    let bytes = 0
    let most = 0
    cluster.loses = (from, to, message) => {
      const sent = codesIn(message).filter((code) => code === opCodes.hint).length
      if (to === absent && sent > 0 && message._tag === "Eventual") bytes += message.bytes.length
      if (from === standIn) most = Math.max(most, sent)
      return false
    }
    cluster.start(absent)
    // What was saved up is a second's worth; the last hint of an allowance is sent whole.
    for (let second = 1; hintsLeft(cluster) > 0; second++) {
      const answer = cluster.beginWrite(1, place, put(`${second}`), { context: undefined })
      cluster.pass(1000)
      expect(answer()?._tag).toBe("EventualWritten")
      expect(bytes).toBeLessThan((second + 1) * bytesPerSecond + inFlightMax * 2 * valueBytes)
      if (second > 60) throw new Error("the hints do not end")
    }
    expect(bytes).toBeGreaterThan(count * valueBytes)
    expect(most).toBeLessThanOrEqual(inFlightMax)
    for (const key of keys) expect(heldAlike(cluster, key)).toBe(true)
  })
})

describe("exchanges", () => {
  const [seconds, nodes, messageBytes, leastBytesPerSecond] = [4, 3, 2048, 20_000]

  /** Messages of three owners that compare without a pause, while each request takes so long. */
  function messagesWhile(latencyMs: (isPulling: boolean) => number): number {
    const rates = { bytesPerSecond: 2_000_000, leastBytesPerSecond, messageBytes }
    const exchange = { ...base.exchange, ...rates, passMs: 100 }
    const cluster = new EventualCluster(nodes, { eventual: { ...base, exchange } })
    let messages = 0
    cluster.loses = (_, __, message) => {
      messages += codesIn(message).filter((code) => code === opCodes.exchange).length
      return false
    }
    for (let passed = 0; passed < seconds * 1000; passed += 10) {
      for (const { loop } of cluster.nodes.values()) {
        loop.eventual.noteForeground()
        loop.eventual.noticeLatency(latencyMs(loop.eventual.machine.exchanges.isPulling))
      }
      cluster.pass(10)
    }
    return messages
  }

  test("AP pitfall 21: fall back to their least rate when requests feel them, never stand still, and take what is free when none do", () => {
    const felt = messagesWhile((isPulling) => (isPulling ? 50 : 1))
    const free = messagesWhile(() => 1)
    // Either side counts a message; one that was begun is sent, and a tenth of a second is saved up.
    const allowed = (nodes * leastBytesPerSecond * (seconds + 0.1)) / (2 * messageBytes)
    expect(felt).toBeGreaterThan(seconds)
    expect(felt).toBeLessThan(1.5 * allowed)
    expect(free).toBeGreaterThan(3 * felt)
  })
})
