import { describe, expect, test } from "bun:test"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotOf } from "../../src/lib/slot.ts"
import { EventualCluster, put, siblings } from "./eventualCluster.ts"

const slot = slotOf(utf8("{a}"))

function written(reply: EventualReply): void {
  if (reply._tag !== "EventualWritten") throw new Error(JSON.stringify(reply))
}

/** What stands for a slot on a node, in memory: its tree and its clock. */
function tablesOf(cluster: EventualCluster, node: number) {
  const { owner } = cluster.node(node).loop.eventual.machine
  const sum = owner.view(siblings).sumOf({ start: slot, slots: 1, bits: 0, prefix: 0 })
  return { ...sum, clock: owner.copyClock(siblings, slot).describe() }
}

describe("a memtable that is full in the middle of a turn", () => {
  test("is sealed with tables as old as its keys: nothing is reckoned up twice when the log is replayed", () => {
    const cluster = new EventualCluster(3)
    for (let round = 0; round < 40; round++) {
      const key = `{a}${round}`
      written(
        cluster.write(1, { namespace: siblings, key }, put("v".repeat(3000)), { level: "all" }),
      )
      const before = [1, 2, 3].map((node) => tablesOf(cluster, node))
      expect(before[1], key).toEqual(before[0])
      for (const node of [1, 2, 3]) {
        cluster.restart(node)
        expect(tablesOf(cluster, node), `${key} at n${node}`).toEqual(before[node - 1])
      }
    }
  })
})
