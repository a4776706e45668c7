import { describe, expect, test } from "bun:test"
import { SetState } from "../../src/dynamo/crdt/set.ts"
import { contextOf } from "../../src/dynamo/keyState.ts"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { VersionVector } from "../../src/dynamo/versionVector.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { add, EventualCluster, put, seenIn, set, siblings } from "./eventualCluster.ts"

function written(reply: EventualReply) {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
  return reply
}

/** What a node holds of a key, whoever else has what. */
function stateAt(cluster: EventualCluster, node: number, namespace: number, key: string) {
  const { owner } = cluster.node(node).loop.eventual.machine
  return owner.state(namespace, slotOf(utf8(key)), utf8(key))
}

/** Node 1 on one side, 2 and 3 on the other. */
function cutInTwo(): EventualCluster {
  const cluster = new EventualCluster(3)
  cluster.loses = (from, to) => (from === 1) !== (to === 1)
  return cluster
}

describe("on three nodes that a partition cuts in two", () => {
  test("the shopping cart: iPhone and AirPods on one side, iPad and MacBook on the other, are four items on all replicas after it", () => {
    const cluster = cutInTwo()
    const cart = { namespace: set, key: "cart" }
    const items = (node: number) =>
      SetState.read(stateAt(cluster, node, set, "cart")).members.map(({ value }) => text(value))
    for (const item of ["iPhone", "AirPods"]) {
      written(cluster.write(1, cart, add(item), { level: "one" }))
    }
    for (const item of ["iPad", "MacBook"]) {
      written(cluster.write(2, cart, add(item), { level: "one" }))
    }
    cluster.pass(100)
    expect([1, 2, 3].map(items)).toEqual([
      ["AirPods", "iPhone"],
      ["MacBook", "iPad"],
      ["MacBook", "iPad"],
    ])
    cluster.loses = () => false
    // Nobody reads it: the owners find out by themselves.
    const four = ["AirPods", "MacBook", "iPad", "iPhone"]
    cluster.until(
      "all have all",
      () => [1, 2, 3].every((node) => `${items(node)}` === `${four}`),
      60_000,
    )
    expect(new Set(cluster.held(set, "cart")).size).toBe(1)
  })

  test("two writes made apart have the clocks [A:1] and [B:1], which are concurrent; one that has read both has [A:2, B:1], which covers both", () => {
    const cluster = cutInTwo()
    const place = { namespace: siblings, key: "a" }
    const clockAt = (node: number) => {
      const vector = new VersionVector()
      vector.joinBytes(contextOf(stateAt(cluster, node, siblings, "a") as Uint8Array), 0)
      return vector
    }
    written(cluster.write(1, place, put("v1"), { level: "one" }))
    written(cluster.write(2, place, put("v2"), { level: "one" }))
    const [v1, v2] = [clockAt(1), clockAt(2)]
    expect([v1, v2].map((clock) => clock.describe())).toEqual(["[n1.1:1]", "[n2.1:1]"])
    expect(v1.compare(v2)).toBe("concurrent")
    cluster.loses = () => false
    cluster.pass(1500)
    const { values, context } = seenIn(cluster.read(1, place, "all"), siblings, "a")
    expect(values).toEqual(["v1", "v2"])
    written(cluster.write(1, place, put("v3"), { context, level: "all" }))
    const v3 = clockAt(3)
    expect(v3.describe()).toBe("[n1.1:2, n2.1:1]")
    expect([v3.compare(v1), v3.compare(v2)]).toEqual(["after", "after"])
    for (const node of [1, 2, 3]) {
      expect(seenIn(cluster.read(node, place, "one"), siblings, "a").values).toEqual(["v3"])
    }
  })
})
