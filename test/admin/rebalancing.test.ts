import { expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { founded, type Nodes, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const order = <A>(client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 120_000 })) as Promise<A>

interface Rebalanced {
  readonly moved: number
  readonly transferred: number
  readonly steps: ReadonlyArray<{ readonly _tag: string; readonly to: number }>
}

function replicasOn(nodes: Nodes): ReadonlyArray<number> {
  const counts = [0, 0, 0, 0]
  for (const { replicas } of nodes.ranges()) {
    for (const { node } of replicas) (counts[node - 1] as number)++
  }
  return counts
}

test("a node that has joined gets its share, while writes go on, and a second order finds nothing to do", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    await order(client, "namespace.create", { name: "more", ranges: 6 })
    expect(await order<Rebalanced>(client, "cluster.rebalance", { dryRun: true })).toMatchObject({
      moved: 0,
    })
    await nodes.join("fourth")
    const planned = await order<Rebalanced>(client, "cluster.rebalance", { dryRun: true })
    expect(planned.steps.some(({ _tag, to }) => _tag === "Move" && to === 4)).toBe(true)
    expect(replicasOn(nodes)[3]).toBe(0)
    let isOver = false
    const errors: Array<string> = []
    const writer = (async () => {
      for (let i = 0; !isOver; i++) {
        const result = await run(Effect.result(client.put("more", `key:${i % 20}`, `${i}`)))
        if (result._tag === "Failure") errors.push(result.failure.message)
      }
    })()
    const done = await order<Rebalanced>(client, "cluster.rebalance", {})
    isOver = true
    await writer
    expect(errors).toEqual([])
    const counts = replicasOn(nodes)
    const total = counts.reduce((sum, count) => sum + count, 0)
    expect(total).toBe(3 * nodes.ranges().length)
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1)
    // No more moves than the newcomer's share.
    expect(done.moved).toBeLessThanOrEqual(Math.ceil(total / 4) + 1)
    const again = await order<Rebalanced>(client, "cluster.rebalance", {})
    expect(again.moved).toBe(0)
  })
}, 180_000)
