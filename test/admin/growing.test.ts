import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text, toHex } from "../../src/lib/bytes.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

const order = (client: ClientShape, verb: string, args: unknown, node?: number) =>
  run(client.admin(verb, args, { deadlineMs: 60_000, ...(node === undefined ? {} : { node }) }))

function expectTiling(nodes: Nodes, name: string): void {
  let end = ""
  for (const { descriptor } of nodes.node(name).store.ranges()) {
    expect(toHex(descriptor.start)).toBe(end)
    end = toHex(descriptor.end)
  }
  expect(end).toBe("")
}

describe("a cluster that grows", () => {
  test("from one node to three; then its founder leaves, by its own hand, and the others live on and restart", async () => {
    await withNodes(1, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await run(client.put("default", "early", "1"))
      const places = [await nodes.join("second"), await nodes.join("third")]
      for (const range of [0, 1, 2, 3, 4, 5]) {
        await order(client, "range.addReplica", { range, on: 2 })
        await order(client, "range.addReplica", { range, on: 3 })
      }
      // Pitfall 27: with three voters that all caught up, any one may go at once.
      await nodes.stop("second")
      await run(client.put("default", "middle", "2"))
      await nodes.join("second", places[0])
      const result = await order(client, "node.remove", { node: 1 }, 1)
      expect(result).toEqual({ moved: 0, fewer: 6 })
      await until("the founder stops", () => nodes.node("n1").failure !== undefined)
      for (const name of ["second", "third"]) await nodes.stop(name)
      await nodes.join("second", places[0])
      await nodes.join("third", places[1])
      const others = await nodes.client(false, places)
      for (const [key, value] of [
        ["early", "1"],
        ["middle", "2"],
      ] as const) {
        const found = await run(others.get("default", key))
        expect(found.found && text(found.value)).toBe(value)
      }
      expect(
        nodes
          .node("third")
          .store.nodes()
          .map(({ id }) => id),
      ).toEqual([2, 3])
      await order(others, "namespace.create", { name: "late" })
      await run(others.put("late", "a", "1"))
      expectTiling(nodes, "third")
    })
  }, 90_000)

  test("orders given at once, to different nodes, do not undo each other", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const names = ["a", "b", "c", "d", "e", "f"]
      const made = (await Promise.all([
        ...names.map((name, i) =>
          order(client, "namespace.create", { name, ranges: 2 }, 1 + (i % 3)),
        ),
        order(client, "range.split", { range: 1, at: "000000010400" }, 1),
        order(client, "range.removeReplica", { range: 2, on: 3 }, 2),
      ])) as Array<{ id: number }>
      const ids = made.slice(0, names.length).map(({ id }) => id)
      expect(new Set(ids).size).toBe(names.length)
      await Promise.all(names.map((name) => run(client.put(name, "key", name))))
      for (const name of names) {
        const found = await run(client.get(name, "key"))
        expect(found.found && text(found.value)).toBe(name)
      }
      await until("n3 sees every range in its place", () => {
        const ranges = nodes.node("n3").store.ranges()
        const own = ranges.filter(({ descriptor }) => (descriptor.namespace ?? 0) > 1)
        return own.length === 2 * names.length
      })
      expectTiling(nodes, "n3")
    })
  }, 90_000)
})
