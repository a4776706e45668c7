import { expect, test } from "bun:test"
import { Effect } from "effect"
import type { ControlShape } from "../../src/server/StoreService.ts"
import { founded, until, withNodes } from "./nodes.ts"

test("a replica that differs from its peers is replaced by a new one on the same node, with all that the range holds", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    for (let i = 0; i < 50; i++) await Effect.runPromise(client.put("default", `key-${i}`, "v"))
    const rangeOf = (id: number) =>
      nodes
        .node(`n${id}`)
        .store.ranges()
        .find(({ descriptor }) => descriptor.id === 1)
    await until("range 1 has a leader", () => rangeOf(1)?.leader !== undefined)
    const leader = rangeOf(1)?.leader as number
    const odd = nodes.founders.find((id) => id !== leader) as number
    const replicaOn = (node: number) =>
      rangeOf(leader)?.descriptor.replicas.find((place) => place.node === node)
    const before = replicaOn(odd)
    expect(before?.role).toBe("voter")
    // What the comparison of replicas says there once it has found one.
    const control = nodes.node(`n${leader}`).control as { odd: ControlShape["odd"] }
    control.odd = () =>
      replicaOn(odd)?.replica === before?.replica ? [{ range: 1, node: odd }] : []
    await until("another replica stands there", () => {
      const now = replicaOn(odd)
      return now?.role === "voter" && now.replica > (before?.replica as number)
    })
    await until("it has caught up", () => {
      const [own, others] = [rangeOf(odd), rangeOf(leader)]
      return own !== undefined && own.index === others?.index
    })
    const local = await Effect.runPromise(client.get("default", "key-1", { level: "local" }))
    expect(local.found).toBe(true)
  })
}, 60_000)

test("a replacement that stopped half-way is gone on with by whoever leads the range", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client(true)
    await Effect.runPromise(client.admin("range.removeReplica", { range: 1, on: 3 }))
    const isVoter = () =>
      nodes
        .node("n1")
        .store.ranges()
        .some(
          ({ descriptor }) =>
            descriptor.id === 1 &&
            descriptor.replicas.some(({ node, role }) => node === 3 && role === "voter"),
        )
    await until("it is removed", () => !isVoter())
    // What was written down before the removal, and not struck out after it.
    await Effect.runPromise(client.put("system", "replacing/1/3", "odd"))
    await until("it is there again", isVoter)
    await until("it is struck out", async () => {
      const found = await Effect.runPromise(client.get("system", "replacing/1/3"))
      return !found.found
    })
  })
}, 60_000)

test("a replica that an order placed on a node while another removed that node goes by itself", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    await nodes.join("n4")
    const client = await nodes.client(true)
    await Effect.runPromise(client.admin("range.addReplica", { range: 1, on: 4 }))
    const isThere = () =>
      nodes.founders.some((id) =>
        nodes
          .node(`n${id}`)
          .store.ranges()
          .some(
            ({ descriptor }) =>
              descriptor.id === 1 && descriptor.replicas.some(({ node }) => node === 4),
          ),
      )
    await until("it is there", isThere)
    // The order to remove n4 has looked before, and writes down now that it is done.
    const found = await Effect.runPromise(client.get("system", "node/4"))
    const record = JSON.parse(found.found ? new TextDecoder().decode(found.value) : "")
    const gone = JSON.stringify({ ...record, state: "removed" })
    await Effect.runPromise(client.put("system", "node/4", gone))
    await until("it is gone", () => !isThere())
  })
}, 60_000)
