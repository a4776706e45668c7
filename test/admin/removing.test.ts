import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

const order = (client: ClientShape, verb: string, args: unknown) =>
  client.admin(verb, args, { deadlineMs: 60_000 })
const refusal = async (client: ClientShape, verb: string, args: unknown) =>
  (await run(Effect.flip(order(client, verb, args)))).message

describe("taking replicas and nodes away", () => {
  test("the last replica and the last node stay, by name", async () => {
    await withNodes(1, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      expect(await refusal(client, "range.removeReplica", { range: 1, on: 1 })).toContain(
        "n1 has the only replica of range 1",
      )
      expect(await refusal(client, "node.remove", { node: 1 })).toContain(
        "n1 has the only replica of range 0, and no other node is up to take it",
      )
      expect(await refusal(client, "node.remove", { node: 7 })).toContain("there is no node n7")
      expect(await refusal(client, "range.move", { range: 1, from: 1, to: 9 })).toContain(
        "there is no node n9",
      )
      expect(await refusal(client, "range.split", { range: 0 })).toContain("it stays whole")
      expect(await refusal(client, "no.such", {})).toContain("this node knows no such order")
    })
  }, 60_000)

  test("a replica without which no majority is up stays; with the node back it goes", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await nodes.stop("n3")
      // The leader still counts on n3 for as long as an election takes.
      await Bun.sleep(1500)
      const left = () =>
        nodes
          .node("n1")
          .store.ranges()
          .find(({ descriptor }) => descriptor.id === 1)?.descriptor.replicas.length
      expect(await refusal(client, "range.removeReplica", { range: 1, on: 2 })).toContain("range 1")
      expect(left()).toBe(3)
      await nodes.start(3)
      await run(order(client, "range.removeReplica", { range: 1, on: 2 }))
      await until("two replicas are left", () => left() === 2)
    })
  }, 60_000)

  test("a node that is down can be removed, and its directory never comes back", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await nodes.stop("n3")
      await run(order(client, "node.remove", { node: 3 }))
      const ranges = nodes.ranges()
      expect(ranges.map(({ replicas }) => replicas.map(({ node }) => node))).toEqual(
        ranges.map(() => [1, 2]),
      )
      await nodes.start(3)
      await until("n3 stops by itself", () => nodes.node("n3").failure !== undefined)
      expect(nodes.node("n3").failure).toContain("n3 was removed from its cluster")
      const known = nodes.node("n1").control.directory().nodes
      const { incarnation } = known.find(({ id }) => id === 3) as { incarnation: string }
      const address = { host: "h", peer: "127.0.0.1:1", client: "127.0.0.1:2" }
      expect(await refusal(client, "node.join", { incarnation, ...address })).toContain(
        "this data directory was n3, which was removed",
      )
      await run(order(client, "node.remove", { node: 3 }))
    })
  }, 60_000)
})
