import { describe, expect, test } from "bun:test"
import { SetState } from "../../src/dynamo/crdt/set.ts"
import { actorOf, nodeOf } from "../../src/dynamo/dot.ts"
import { ElementCursor } from "../../src/dynamo/elements.ts"
import { opCodes } from "../../src/dynamo/node/opCodes.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { putSibling } from "../../src/dynamo/siblings.ts"
import { emptyVector, VersionVector } from "../../src/dynamo/versionVector.ts"
import { toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { add, codesIn, EventualCluster, put, seenIn, set, siblings } from "./eventualCluster.ts"
import { damageTable, eventualTables, flushAll, untilWhole } from "./eventualDamage.ts"

const ids = [1, 2, 3, 4, 5]
const slot = slotOf(utf8("a"))
const windowMs = 1000
const quietMs = 1000

function clusterOf(count: number): EventualCluster {
  const base = new EventualCluster(1).settings.eventual
  const reap = { ...base.reap, windowMs, passMs: 300 }
  const exchange = { ...base.exchange, passMs: 500 }
  const endings = { ...base.endings, passMs: 300, quietMs }
  return new EventualCluster(count, { eventual: { ...base, reap, exchange, endings } })
}

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

const half = (cluster: EventualCluster, id: number) => cluster.node(id).loop.eventual.machine
const clockAt = (cluster: EventualCluster, id: number, namespace = siblings) =>
  half(cluster, id).owner.copyClock(namespace, slot)

/** Actors of nodes that own nothing of the key. */
function strangersAt(cluster: EventualCluster, id: number, namespace = siblings) {
  const owners = cluster.owners("a")
  return half(cluster, id)
    .owner.actorsIn(namespace, slot)
    .filter((actor) => !owners.includes(nodeOf(actor)))
}

function contextAt(cluster: EventualCluster, id: number, namespace = siblings): VersionVector {
  const state = half(cluster, id).owner.state(namespace, slot, utf8("a"))
  const vector = new VersionVector()
  if (state === undefined) return vector
  if (namespace === set) return SetState.read(state).vector
  const cursor = new ElementCursor().open(state)
  while (cursor.next()) cursor.joinContext(vector)
  return vector
}

function changedAt(cluster: EventualCluster, id: number): number {
  let at = 0
  half(cluster, id).owner.forEachState(siblings, slot, (_, __, changedMs) => {
    at = changedMs
    return true
  })
  return at
}

function writeInTenure(cluster: EventualCluster, write: (standIn: number) => EventualReply) {
  const owners = cluster.owners("a")
  const standIn = ids.find((id) => !owners.includes(id)) as number
  for (const owner of owners) cluster.crash(owner)
  cluster.pass(1500)
  written(write(standIn))
  for (const owner of owners) cluster.start(owner)
  cluster.until("the tenure is over", () => {
    const { hints, tenures } = half(cluster, standIn)
    return hints.count + tenures.counts.lasting + tenures.counts.ended === 0
  })
  return standIn
}

describe("epochs that have ended", () => {
  test("leave clocks and contexts, however many tenures there were", () => {
    const cluster = clusterOf(5)
    const owners = cluster.owners("a")
    const first = owners[0] as number
    for (let round = 0; round < 8; round++) {
      const place = { namespace: siblings, key: "a" }
      const standIn = writeInTenure(cluster, (id) => cluster.write(id, place, put(`${round}`)))
      expect(standIn).toBeGreaterThan(0)
      const { values, context } = seenIn(cluster.read(first, place, "all"), siblings, "a")
      expect(values).toContain(`${round}`)
      written(cluster.write(first, place, put("all of it"), { context, level: "all" }))
    }
    const changed = owners.map((id) => changedAt(cluster, id))
    cluster.until("no epoch of a tenure is left in a clock", () =>
      owners.every((id) => strangersAt(cluster, id).length === 0),
    )
    cluster.until("nor in a context", () =>
      owners.every((id) => {
        let strangers = 0
        contextAt(cluster, id).forEach((actor) => {
          if (!owners.includes(nodeOf(actor))) strangers++
        })
        return strangers === 0
      }),
    )
    // What is left has not changed with that: the next epoch that ends need not wait for another window.
    expect(owners.map((id) => changedAt(cluster, id))).toEqual(changed)
    for (const id of owners) {
      const clock = clockAt(cluster, id)
      expect(clock.hasNoGaps).toBe(true)
      let numbers = 0
      clock.forEach(
        () => {},
        () => numbers++,
      )
      expect(numbers).toBeLessThanOrEqual(2)
    }
    expect(
      seenIn(cluster.read(first, { namespace: siblings, key: "a" }, "all"), siblings, "a").values,
    ).toEqual(["all of it"])
    // Another tenure begins behind them.
    writeInTenure(cluster, (id) =>
      cluster.write(id, { namespace: siblings, key: "a" }, put("later")),
    )
    expect(
      seenIn(cluster.read(first, { namespace: siblings, key: "a" }, "all"), siblings, "a").values,
    ).toEqual(["all of it", "later"])
  })

  test("leave sets as well, and no read brings them back", () => {
    const cluster = clusterOf(5)
    const place = { namespace: set, key: "a" }
    const owners = cluster.owners("a")
    const first = owners[0] as number
    writeInTenure(cluster, (id) => cluster.write(id, place, add("x")))
    const { context } = seenIn(cluster.read(first, place, "all"), set, "a")
    written(cluster.write(first, place, { _tag: "Delete" }, { context, level: "all" }))
    written(cluster.write(first, place, add("y"), { level: "all" }))
    const standIns = ids.filter((id) => !owners.includes(id))
    const named = (id: number) => {
      let found = false
      contextAt(cluster, id, set).forEach((actor) => {
        found ||= standIns.includes(nodeOf(actor))
      })
      return found
    }
    expect(owners.some(named)).toBe(true)
    cluster.until("one owner has pruned", () => owners.some((id) => !named(id)))
    const pruned = owners.filter((id) => !named(id))
    for (const id of owners) cluster.read(id, place, "all")
    cluster.pass(200)
    for (const id of pruned) expect(named(id)).toBe(false)
    cluster.until("all have", () => !owners.some(named))
  })

  test("stay while a member is away", () => {
    const cluster = clusterOf(5)
    const place = { namespace: siblings, key: "a" }
    const owners = cluster.owners("a")
    const others = ids.filter((id) => !owners.includes(id))
    writeInTenure(cluster, (id) => cluster.write(id, place, put("one")))
    cluster.crash(others[1] as number)
    cluster.pass(5 * quietMs)
    for (const id of owners) expect(strangersAt(cluster, id).length).toBe(1)
    cluster.start(others[1] as number)
    cluster.until("they end", () => owners.every((id) => strangersAt(cluster, id).length === 0))
  })

  test("stay while a member holds a hint", () => {
    const cluster = clusterOf(5)
    const place = { namespace: siblings, key: "a" }
    const owners = cluster.owners("a")
    const [first, , third] = owners as [number, number, number]
    const others = ids.filter((id) => !owners.includes(id))
    writeInTenure(cluster, (id) => cluster.write(id, place, put("one")))
    cluster.crash(third)
    cluster.pass(1500)
    written(cluster.write(first, place, put("two"), { level: "all" }))
    const hinted = () => others.reduce((sum, id) => sum + half(cluster, id).hints.count, 0)
    expect(hinted()).toBe(1)
    cluster.loses = (_, to, message) => to === third && codesIn(message).includes(opCodes.hint)
    cluster.start(third)
    cluster.pass(5 * quietMs)
    expect(new Set(cluster.held(siblings, "a")).size).toBe(1)
    expect(hinted()).toBe(1)
    for (const id of owners) expect(strangersAt(cluster, id).length).toBe(1)
    cluster.loses = () => false
    cluster.until("they end", () => owners.every((id) => strangersAt(cluster, id).length === 0))
    expect(hinted()).toBe(0)
  })

  test("stay while their stand-in has more of them, and nothing is lost", () => {
    const cluster = clusterOf(5)
    const [place, other] = [
      { namespace: siblings, key: "a" },
      { namespace: siblings, key: "{a}b" },
    ]
    const owners = cluster.owners("a")
    const standIn = ids.find((id) => !owners.includes(id)) as number
    for (const owner of owners) cluster.crash(owner)
    cluster.pass(1500)
    written(cluster.write(standIn, place, put("one")))
    written(cluster.write(standIn, other, put("two")))
    const name = toHex(utf8("{a}b"))
    cluster.loses = (from, _, message) =>
      from === standIn && message._tag === "Eventual" && toHex(message.bytes).includes(name)
    for (const owner of owners) cluster.start(owner)
    cluster.until(
      "the owners have the first write",
      () => !cluster.held(siblings, "a").includes(""),
    )
    cluster.pass(5 * quietMs)
    for (const id of owners) expect(strangersAt(cluster, id).length).toBe(1)
    cluster.loses = () => false
    cluster.until("they end", () => owners.every((id) => strangersAt(cluster, id).length === 0))
    const read = cluster.read(owners[0] as number, other, "all")
    expect(seenIn(read, siblings, "{a}b").values).toEqual(["two"])
  })

  test("stay while one owner has more of them than another, and nothing is lost", () => {
    const cluster = clusterOf(5)
    const owners = cluster.owners("a")
    const [first, second, third] = owners as [number, number, number]
    const other = ids.find((id) => !owners.includes(id)) as number
    const take = (id: number, key: string, counter: number) => {
      const out = new ByteWriter()
      const dot = { actor: actorOf(other, 1), counter }
      const rest = { context: emptyVector, stamp: 0, expiryMs: 0, value: utf8(`${counter}`) }
      putSibling(out, undefined, { ...dot, ...rest })
      half(cluster, id).owner.merge(siblings, slot, utf8(key), out.take())
    }
    cluster.pass(100)
    cluster.loses = (_, __, message) => codesIn(message).includes(opCodes.exchange)
    for (const id of [first, second, third]) take(id, "a", 1)
    take(third, "{a}b", 2)
    cluster.pass(5 * quietMs)
    for (const id of owners) expect(strangersAt(cluster, id).length).toBe(1)
    cluster.loses = () => false
    cluster.until("they end", () => owners.every((id) => strangersAt(cluster, id).length === 0))
    const read = cluster.read(first, { namespace: siblings, key: "{a}b" }, "all")
    expect(seenIn(read, siblings, "{a}b").values).toEqual(["2"])
  })

  test("of a node that lost data end with what it had minted and nobody else has", () => {
    const cluster = clusterOf(5)
    const place = { namespace: siblings, key: "a" }
    const owners = cluster.owners("a")
    const [first, second, third] = owners as [number, number, number]
    written(cluster.write(first, place, put("one"), { level: "all" }))
    cluster.pass(1000)
    // One write that nobody else hears of, and one that the others get: a gap in their clocks.
    const mutes = (from: number) => from === first
    cluster.loses = mutes
    written(cluster.write(first, { namespace: siblings, key: "{a}" }, put("x"), { level: "one" }))
    cluster.loses = () => false
    written(cluster.write(first, place, put("kept"), { level: "all" }))
    cluster.loses = mutes
    flushAll(cluster)
    for (const id of [second, third]) expect(clockAt(cluster, id).hasNoGaps).toBe(false)
    const disk = cluster.disks.get(first)
    if (disk === undefined) throw new Error("no disk")
    const before = half(cluster, first).owner.actorOf(siblings, slot)
    cluster.crash(first)
    for (const table of eventualTables(disk)) damageTable(disk, table)
    cluster.loses = () => false
    cluster.start(first)
    untilWhole(cluster)
    expect(half(cluster, first).owner.actorOf(siblings, slot)).not.toBe(before)
    // It can be seen to have ended when there is a later one.
    written(cluster.write(first, place, put("more"), { level: "all" }))
    cluster.until("the epoch has ended everywhere", () =>
      owners.every((id) => clockAt(cluster, id).hasEnded(before as number)),
    )
    for (const id of [second, third]) expect(clockAt(cluster, id).hasNoGaps).toBe(true)
    expect(seenIn(cluster.read(second, place, "all"), siblings, "a").values).toContain("kept")
  })
})
