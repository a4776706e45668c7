import { describe, expect, test } from "bun:test"
import { LoopCluster } from "./loopCluster.ts"

const keys = (count: number) => Array.from({ length: count }, (_, i) => `key${i}`)

describe("a range that takes in its neighbour", () => {
  test("has all of its keys, and goes on with them", () => {
    const cluster = new LoopCluster({})
    for (const key of keys(40)) cluster.put(key, `${key} before`.padEnd(150, "."))
    expect(cluster.split(1, 20)?._tag).toBe("Changed")
    for (const key of keys(40)) cluster.put(key, `${key} between`.padEnd(150, "."))
    const reply = cluster.merge(1, 20)
    expect(reply?._tag).toBe("Changed")
    expect(cluster.descriptor(1).boundsVersion).toBe(3)
    for (const key of keys(40)) cluster.put(key, `${key} after`.padEnd(150, "."))
    cluster.expectWhole()
    for (const node of cluster.nodes.values()) expect(node.loop.replicas.has(20)).toBe(false)
  })
})
