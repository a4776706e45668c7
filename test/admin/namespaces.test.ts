import { expect, test } from "bun:test"
import { Cause, Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

const create = (client: ClientShape, args: { name: string; ranges?: number; replicas?: number }) =>
  client.admin("namespace.create", args, { deadlineMs: 60_000, node: 1 })

/** Nodes that vote for each range of the cluster's namespace with the largest id. */
function votersOfLatest(nodes: Nodes): ReadonlyArray<ReadonlyArray<number>> {
  const ranges = nodes.ranges()
  const latest = Math.max(...ranges.map(({ namespace }) => namespace ?? 0))
  return ranges
    .filter(({ namespace }) => namespace === latest)
    .map(({ replicas }) => replicas.map(({ node }) => node).sort())
}

async function refusalOf(order: Effect.Effect<unknown, unknown>): Promise<string> {
  const exit = await Effect.runPromiseExit(order)
  return exit._tag === "Failure" ? Cause.pretty(exit.cause) : "done"
}

test("a namespace that is made while a node is down has as many voters as if it were up, where the node has them already, and where others are up elsewhere", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    await nodes.stop("n3")
    await run(create(client, { name: "early", ranges: 2 }))
    expect(votersOfLatest(nodes)).toEqual([
      [1, 2, 3],
      [1, 2, 3],
    ])
    await run(client.put("early", "key", "value"))
    await nodes.start(3)
    await until("n3 has a replica of each of them", () => {
      const held = nodes.node("n3").store.ranges()
      return held.filter(({ descriptor }) => (descriptor.namespace ?? 0) > 1).length === 2
    })
    await nodes.join("fourth")
    await nodes.stop("n3")
    await run(create(client, { name: "late", ranges: 2 }))
    expect(votersOfLatest(nodes)).toEqual([
      [1, 2, 4],
      [1, 2, 4],
    ])
    // Three are up, and the fourth replica would be on one that is not.
    await nodes.stop("fourth")
    await nodes.start(3)
    const refusal = await refusalOf(create(client, { name: "wide", replicas: 4 }))
    expect(refusal).toContain("n4 is down: start it, and give the order again")
    expect(await refusalOf(create(client, { name: "wider", replicas: 5 }))).toContain(
      "5 replicas need as many nodes: the cluster has 4",
    )
    await nodes.join("fourth", 4)
    await run(create(client, { name: "wide", replicas: 4 }))
    expect(votersOfLatest(nodes)).toEqual([[1, 2, 3, 4]])
  })
}, 90_000)
