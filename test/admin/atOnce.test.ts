import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import { text } from "../../src/lib/bytes.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

/** Waits until the first node sees these voters and nobody else. */
function voters(nodes: Nodes, expected: ReadonlyArray<number>): Promise<void> {
  return until(`the voters are ${expected}`, () => {
    const ranges = nodes.node("n1").store.ranges()
    const found = ranges.find(({ descriptor }) => descriptor.id === 1)
    const seen = found?.descriptor.replicas.map(({ node, role }) => `${node} ${role}`)
    return `${seen?.sort()}` === `${expected.map((node) => `${node} voter`)}`
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

  test("a node that asks two others to let it in, because one is slow to answer, becomes one node", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const asking = { incarnation: "same", host: "h", peer: "127.0.0.1:1", client: "127.0.0.1:2" }
      const ids = await Promise.all(
        [1, 2, 3, 1, 2, 3].map(async (via) => {
          const answer = client.admin("node.join", asking, { node: via, deadlineMs: 30_000 })
          return ((await run(answer)) as { node: number }).node
        }),
      )
      expect(new Set(ids).size).toBe(1)
      await run(client.admin("directory.refresh", {}, { node: 1 }))
      const { directory } = nodes.node("n1").control
      expect(directory().nodes.filter(({ incarnation }) => incarnation === "same").length).toBe(1)
    })
  }, 60_000)

  test("a replica that came to a node while it was being removed goes by the same order, given again", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const internal = await nodes.client(true)
      const found = await run(internal.get("system", "node/3"))
      if (!found.found) throw new Error("n3 has no record")
      const record = JSON.parse(text(found.value))
      await run(internal.put("system", "node/3", JSON.stringify({ ...record, state: "removed" })))
      await run(client.admin("node.remove", { node: 3 }, { node: 1, deadlineMs: 30_000 }))
      await voters(nodes, [1, 2])
    })
  }, 60_000)
})
