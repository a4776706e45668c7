import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

const order = (client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 60_000 })) as Promise<Record<string, unknown>>

describe("a node that joins", () => {
  test("has its own id for ever, known by all; asked twice for one incarnation, the cluster gives it once", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      const { identity } = nodes.node("joiner").store
      expect(identity.node).toBe(4)
      expect(identity.clusterId).toBe(nodes.node("n1").store.identity.clusterId)
      for (const id of nodes.founders) {
        const record = nodes
          .node(`n${id}`)
          .control.directory()
          .nodes.find((node) => node.id === 4)
        expect(record).toMatchObject({ state: "member", incarnation: identity.incarnation })
      }
      const record = nodes.node("n1").control.directory().nodes[3] as object
      const again = await order(client, "node.join", record)
      expect(again.node).toBe(4)
      await nodes.stop("joiner")
      await nodes.join("joiner", place)
      expect(nodes.node("joiner").store.identity.node).toBe(4)
      const other = { ...record, incarnation: "other", peer: "127.0.0.1:1", client: "127.0.0.1:2" }
      expect((await order(client, "node.join", other)).node).toBe(5)
    })
  }, 60_000)

  test("pitfall 28: an emptied directory does not come back as the node that it was, joined or founder", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      await order(client, "range.addReplica", { range: 1, on: 4 })
      await nodes.stop("joiner")
      nodes.wipe("joiner")
      await expect(nodes.join("joiner", place)).rejects.toThrow(
        "is the address of n4, which has another data directory",
      )

      const before = nodes.node("n3").store.identity.incarnation
      await nodes.stop("n3")
      nodes.wipe("n3")
      await nodes.start(3)
      expect(nodes.node("n3").store.identity.incarnation).not.toBe(before)
      await until("the emptied n3 stops by itself", () => nodes.node("n3").failure !== undefined)
      expect(nodes.node("n3").failure).toContain("n3 is known to its cluster by another data")
      await run(client.put("default", "still", "here"))
    })
  }, 60_000)

  test("starts again, and serves, while the meta group is out of reach, by what it kept on disk", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      for (const range of [1, 2, 3, 4]) await order(client, "range.addReplica", { range, on: 4 })
      // The meta group on n3 alone, and n3 down.
      for (const on of [1, 2]) await order(client, "range.removeReplica", { range: 0, on })
      await until("n4 has heard of it", () => {
        const ranges = nodes.node("joiner").control.directory().ranges
        return ranges.find(({ id }) => id === 0)?.replicas.length === 1
      })
      await nodes.stop("n3")
      await nodes.stop("joiner")
      await nodes.join("joiner", place)
      expect(
        nodes
          .node("joiner")
          .store.nodes()
          .map(({ id }) => id),
      ).toEqual([1, 2, 3, 4])
      await run(client.put("default", "key", "value"))
      const found = await run(client.get("default", "key"))
      expect(found.found && text(found.value)).toBe("value")
      const waiting = client.admin("namespace.list", {}, { deadlineMs: 1000 })
      expect((await run(Effect.flip(waiting)))._tag).not.toBe("InvalidRequest")
    })
  }, 60_000)
})
