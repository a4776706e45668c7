import { describe, expect, test } from "bun:test"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { EventualCluster, put, seenIn, siblings } from "./eventualCluster.ts"

const dayMs = 86_400_000
const hourMs = 3_600_000

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

/** Only the passes over the data are quicker: of each half day that goes by the wall clocks, nodes live through 50 ms. */
function clusterOf(count: number): EventualCluster {
  const base = new EventualCluster(1).settings.eventual
  const reap = { ...base.reap, passMs: 200 }
  const exchange = { ...base.exchange, passMs: 500 }
  return new EventualCluster(count, { eventual: { ...base, reap, exchange } })
}

const keys = {
  deleted: { namespace: siblings, key: "{a}deleted" },
  again: { namespace: siblings, key: "{a}made again" },
  expired: { namespace: siblings, key: "{a}expired" },
  kept: { namespace: siblings, key: "{a}kept" },
  own: { namespace: siblings, key: "{a}of the one away" },
}

describe("with the windows that ship", () => {
  test("AP pitfall 6: a node away for 30 simulated days brings nothing back, and loses nothing", () => {
    const cluster = clusterOf(5)
    const owners = cluster.owners("{a}")
    const [first, second, away] = owners as [number, number, number]
    const shown = (node: number, place: (typeof keys)["own"], level: "one" | "all" = "all") =>
      seenIn(cluster.read(node, place, level), siblings, place.key)
    const held = (node: number, { key }: (typeof keys)["own"]) =>
      cluster.node(node).loop.eventual.machine.owner.state(siblings, slotOf(utf8(key)), utf8(key))
    for (const place of [keys.deleted, keys.again, keys.kept]) {
      written(cluster.write(first, place, put("old"), { level: "all" }))
    }
    written(cluster.write(first, keys.expired, put("short", 10 * dayMs), { level: "all" }))
    cluster.loses = (from, to) => from === away || to === away
    written(cluster.write(away, keys.own, put("mine"), { level: "one" }))
    cluster.pass(100)
    cluster.crash(away)
    cluster.loses = () => false
    cluster.pass(1500)
    for (const place of [keys.deleted, keys.again]) {
      const { context } = shown(first, place, "one")
      written(cluster.write(first, place, { _tag: "Delete" }, { context }))
    }
    const hints = () =>
      [...cluster.nodes.values()].reduce((sum, node) => {
        return sum + node.loop.eventual.machine.hints.count
      }, 0)
    expect(hints()).toBeGreaterThan(0)
    // Nothing waits longer than a few hours, but deletes.
    for (let passed = 0; passed < 30 * dayMs; passed += 12 * hourMs) {
      cluster.leap(12 * hourMs)
      cluster.pass(50)
      if (passed === 5 * dayMs) {
        written(cluster.write(second, keys.again, put("new"), { strict: true }))
      }
    }
    expect(hints()).toBe(0)
    for (const node of [first, second]) {
      expect(held(node, keys.deleted)).toBeDefined()
      expect(shown(node, keys.expired, "one").values).toEqual([])
    }
    cluster.start(away)
    const clocks = () => {
      const slot = slotOf(utf8("{a}"))
      return owners.map((node) => {
        return cluster.node(node).loop.eventual.machine.owner.copyClock(siblings, slot).describe()
      })
    }
    cluster.until("the clocks are equal", () => new Set(clocks()).size === 1)
    // The one that was away has heard of the deletes now, and keeps them for as long as the others did.
    expect(held(away, keys.deleted)).toBeDefined()
    cluster.leap(6 * hourMs)
    cluster.until("all hold the same", () =>
      Object.values(keys).every(({ key }) => new Set(cluster.held(siblings, key)).size === 1),
    )
    cluster.leap(dayMs)
    cluster.pass(1000)
    for (const node of owners) expect(held(node, keys.deleted)).toBe(undefined)
    for (const node of owners) {
      expect(shown(node, keys.deleted).values).toEqual([])
      expect(shown(node, keys.expired).values).toEqual([])
      expect(shown(node, keys.again).values).toEqual(["new"])
      expect(shown(node, keys.kept).values).toEqual(["old"])
      expect(shown(node, keys.own).values).toEqual(["mine"])
    }
  }, 20_000)
})
