import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import { containsPosition } from "../../src/server/directory.ts"
import { plainRead, type Reply } from "../../src/server/requests.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { founded, until, withNodes } from "./nodes.ts"

describe("the directory of a new cluster", () => {
  test("its founders, namespaces, ranges and counters are written once, and are known to every node", async () => {
    await withNodes(3, async (nodes) => {
      const client = await nodes.client()
      await until("every node knows all founders", () =>
        nodes.founders.every((id) => {
          const { founded, nodes: known } = nodes.node(`n${id}`).control.directory()
          return founded && known.length === 3
        }),
      )
      await until("there is a ring", () => nodes.node("n1").control.directory().ring !== undefined)
      const page = await Effect.runPromise(client.scanPage("system"))
      expect(page.entries.map(({ key }) => text(key))).toEqual([
        "counter/eventual",
        "counter/namespace",
        "counter/node",
        "counter/range",
        "counter/replica",
        "namespace/default",
        "namespace/eventual",
        "node/1",
        "node/2",
        "node/3",
        ...[0, 1, 2, 3, 4, 5].map((id) => `range/${id}`),
        "ring/current",
      ])
      const found = page.entries.find(({ key }) => text(key) === "node/1")
      const record = JSON.parse(text(found?.value as Uint8Array))
      expect(record).toMatchObject({
        id: 1,
        state: "member",
        host: "127.0.0.1",
        incarnation: nodes.node("n1").store.identity.incarnation,
      })
    })
  }, 60_000)

  test("namespace default, once deleted, does not come back, and takes nothing on its way out", async () => {
    await withNodes(1, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await Effect.runPromise(client.put("default", "a", "1"))
      await Effect.runPromise(client.admin("namespace.delete", { name: "eventual" }))
      await Effect.runPromise(client.admin("namespace.delete", { name: "default" }))
      const { namespaces } = nodes.node("n1").control.directory()
      expect(namespaces.every(({ state }) => state === "dropping")).toBe(true)
      expect(
        nodes
          .node("n1")
          .store.namespaces()
          .map(({ name }) => name),
      ).toEqual(["system"])
      await until("the record is gone", async () => {
        const page = await Effect.runPromise(client.scanPage("system", { prefix: "namespace/" }))
        return page.entries.length === 0
      })
      const position = hashPosition(1, utf8("a"))
      const { store } = nodes.node("n1")
      const ranges = store.ranges().map(({ descriptor }) => descriptor)
      const holder = ranges.find((each) => containsPosition(each, position)) as RangeDescriptor
      const { id: range, boundsVersion } = holder
      const get = { _tag: "Get", token: 0, range, boundsVersion, deadlineMs: 5000 } as const
      const behindTheDoor = await new Promise<Reply>((resolve) =>
        store.request({ ...get, ...plainRead, position, level: "linearizable" }, resolve),
      )
      expect(behindTheDoor).toMatchObject({ _tag: "Value", value: undefined })
      await Bun.sleep(2500)
      expect(nodes.node("n1").control.directory().namespaces).toEqual([])
      const refused = await Effect.runPromise(Effect.flip(client.put("default", "a", "2")))
      expect(refused.message).toContain("default")
    })
  }, 60_000)

  test("namespace system is read by anyone, and written by nodes alone", async () => {
    await withNodes(1, async (nodes) => {
      const client = await nodes.client()
      await until("founded", () => nodes.node("n1").control.directory().founded)
      const found = await Effect.runPromise(client.get("system", "counter/range"))
      expect(found.found && text(found.value)).toBe("5")
      const refused = await Effect.runPromise(Effect.flip(client.put("system", "node/1", "{}")))
      expect(refused.message).toContain("written by the cluster itself")
      const order = client.changeRange(1, { _tag: "Clear", boundsVersion: 1 })
      expect((await Effect.runPromise(Effect.flip(order))).message).toContain(
        "changed by the cluster itself",
      )
    })
  }, 60_000)
})
