import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

/** Gives the order again and again, cut off a little later each time, until it is carried out. Returns how often it was cut off. */
async function insist(
  client: ClientShape,
  verb: string,
  args: unknown,
  lastWord: string,
): Promise<number> {
  for (let cut = 0; ; cut++) {
    const order = client.admin(verb, args, { deadlineMs: 10 + 15 * cut })
    const failure = await run(
      Effect.match(order, { onSuccess: () => undefined, onFailure: (error) => error }),
    )
    // Cut off after its last step: it was carried out, and there is nothing to go on with.
    if (failure === undefined || failure.message.includes(lastWord)) return cut
    expect(["OutcomeUnknown", "Overloaded", "QuorumUnavailable"]).toContain(failure._tag)
    if (cut > 200) throw failure
  }
}

/** Every range begins where the one before it ends, from the beginning of the space to its end. */
function expectTiling(nodes: Nodes): void {
  const ranges = nodes.node("n1").store.ranges()
  let end = ""
  for (const { descriptor } of ranges) {
    expect(toHex(descriptor.start)).toBe(end)
    end = toHex(descriptor.end)
  }
  expect(end).toBe("")
}

describe("procedures that are cut off anywhere", () => {
  test("a namespace is made and deleted in as many pieces as it takes", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const wanted = { name: "pieces", partitioning: "hash", ranges: 4, replicas: 2 }
      const cuts = await insist(client, "namespace.create", wanted, "exists already")
      expect(cuts).toBeGreaterThan(0)
      await run(client.put("pieces", "a", "1"))
      const { namespaces } = (await run(client.admin("namespace.list", {}))) as {
        namespaces: ReadonlyArray<Record<string, unknown>>
      }
      const made = namespaces.find(({ name }) => name === "pieces")
      expect(made).toMatchObject({ state: "ready", ranges: 4 })
      const id = made?.id
      await until("every range has two voters", () => {
        const own = nodes
          .node("n1")
          .store.ranges()
          .filter(({ descriptor }) => descriptor.namespace === id)
        return own.length === 4 && own.every(({ descriptor }) => descriptor.replicas.length === 2)
      })
      expectTiling(nodes)
      await insist(client, "namespace.delete", { name: "pieces" }, "there is no namespace")
      const again = (await run(client.admin("namespace.create", wanted))) as { id: number }
      expect(again.id).toBeGreaterThan(id as number)
      expect((await run(client.get("pieces", "a"))).found).toBe(false)
      expectTiling(nodes)
    })
  }, 60_000)

  test("the node that moves a range goes down on the way, and another one finishes it", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await nodes.join("joiner")
      const value = "v".repeat(10_000)
      for (let i = 0; i < 300; i++) await run(client.put("default", `key-${i}`, value))
      const move = { range: 1, from: 3, to: 4 }
      const first = run(
        Effect.exit(client.admin("range.move", move, { node: 3, deadlineMs: 30_000 })),
      )
      await Bun.sleep(30)
      await nodes.stop("n3")
      await first
      await run(client.admin("range.move", move, { node: 1, deadlineMs: 60_000 }))
      await until("n4 has it and n3 has not", () => {
        const found = nodes
          .node("n1")
          .store.ranges()
          .find(({ descriptor }) => descriptor.id === 1)
        return (
          `${found?.descriptor.replicas.map(({ node, role }) => `${node} ${role}`)}` ===
          "1 voter,2 voter,4 voter"
        )
      })
      expectTiling(nodes)
    })
  }, 60_000)
})
