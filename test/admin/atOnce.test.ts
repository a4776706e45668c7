import { describe, test } from "bun:test"
import { Effect } from "effect"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

/** Waits until the first node sees these voters and nobody else. */
function voters(nodes: Nodes, expected: ReadonlyArray<number>): Promise<void> {
  return until(`the voters are ${expected}`, () => {
    const ranges = nodes.node("n1").store.ranges()
    const found = ranges.find(({ descriptor }) => descriptor.id === 1)
    const seen = found?.descriptor.replicas.map(({ node, role }) => `${node} ${role}`)
    console.log("SEEN", `${seen}`)
    return `${seen}` === `${expected.map((node) => `${node} voter`)}`
  })
}

describe("orders about one range that are carried out at once", () => {
  test("neither undoes what the other has done", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await nodes.join("fourth")
      await nodes.join("fifth")
      const order = (verb: string, node: number, via: number) =>
        run(client.admin(verb, { range: 1, on: node }, { node: via, deadlineMs: 30_000 }))
      await Promise.all([order("range.addReplica", 4, 1), order("range.addReplica", 5, 2)])
      await voters(nodes, [1, 2, 3, 4, 5])
      await Promise.all([order("range.removeReplica", 2, 1), order("range.removeReplica", 3, 3)])
      await voters(nodes, [1, 4, 5])
    })
  }, 60_000)
})
