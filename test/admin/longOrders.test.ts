import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { LongOrder } from "../../src/admin/LongOrders.ts"
import type { ClientShape } from "../../src/client/Client.ts"
import type { RangeDescriptor } from "../../src/types.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const order = <A>(client: ClientShape, verb: string, args: unknown, deadlineMs = 60_000) =>
  run(client.admin(verb, args, { deadlineMs })) as Promise<A>
const isDone = ({ replicas }: RangeDescriptor) => replicas.every(({ node }) => node !== 2)
const known = (client: ClientShape, id: string) =>
  run(Effect.result(client.admin("order.show", { order: id }, { deadlineMs: 3000 }))).then(
    (result) => (result._tag === "Success" ? (result.success as LongOrder) : undefined),
  )

describe("an order that takes long", () => {
  test("says how far it is, is there to be asked about afterwards, and a second one of the same name waits for the first", async () => {
    await withNodes(4, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await order(client, "namespace.create", { name: "more", ranges: 12 })
      const args = { node: 2, order: "drain-of-n2" }
      const given = [order(client, "node.drain", args), order(client, "node.drain", args)]
      const seen: Array<number> = []
      let state = "running"
      while (state === "running") {
        const found = await known(client, args.order)
        state = found?.state ?? "running"
        const { done = 0, total = 0 } = found?.progress ?? {}
        if (done !== seen.at(-1) && total > 0) seen.push(done)
        await Bun.sleep(100)
      }
      const [first, second] = await Promise.all(given)
      expect(second).toEqual(first)
      expect(await known(client, args.order)).toMatchObject({ state: "done", result: first })
      expect(seen.length).toBeGreaterThan(1)
      expect([...seen].sort((one, other) => one - other)).toEqual(seen)
    })
  }, 120_000)

  test("outlives the node that carries it out: another one goes on with it to its end", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      await order(await nodes.client(), "namespace.create", { name: "more", ranges: 24 })
      await nodes.join("n4")
      const place = await nodes.join("n5")
      // Given to n5 alone, which dies on the way, with the answer.
      const alone = await nodes.client(false, [5])
      const client = await nodes.client(false, [1, 3, 4])
      const id = "drain-of-n2-again"
      const given = run(
        Effect.result(
          alone.admin("node.drain", { node: 2, order: id }, { deadlineMs: 60_000, node: 5 }),
        ),
      )
      await until(
        "it is on its way",
        async () => ((await known(client, id))?.progress?.done ?? 0) > 1,
      )
      expect((await known(client, id))?.node).toBe(5)
      await nodes.stop("n5")
      expect((await given)._tag).toBe("Failure")
      await until("another one goes on", async () => (await known(client, id))?.node !== 5)
      await until("no range is left there", () => nodes.ranges().every(isDone), 60_000)
      // Slots of the ring wait for each of their owners.
      await nodes.join("n5", place)
      await until("it has ended", async () => (await known(client, id))?.state === "done", 60_000)
      for (const { replicas } of nodes.ranges()) {
        expect(replicas.map(({ node }) => node)).not.toContain(2)
        expect(replicas.filter(({ role }) => role === "voter").length).toBe(3)
      }
    })
  }, 240_000)

  test("one that is refused says so afterwards, too", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const args = { node: 9, order: "drain-of-n9" }
      const refusal = await run(Effect.flip(client.admin("node.drain", args)))
      expect(refusal._tag).toBe("InvalidRequest")
      expect(await known(client, args.order)).toMatchObject({
        state: "failed",
        error: { invalid: true, message: refusal.message },
      })
    })
  }, 60_000)
})

describe("a node that is replaced", () => {
  test("running or dead, gives its place to the one that has joined, with as many copies as before; without a newcomer it is refused", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      for (let i = 0; i < 20; i++) await run(client.put("default", `key:${i}`, `${i}`))
      const refusal = await run(Effect.flip(client.admin("node.replace", { node: 2 })))
      expect(refusal.message).toContain("let a new node join first")
      await nodes.join("fourth")
      const live = await order(client, "node.replace", { node: 2 })
      expect(live).toEqual({ moved: nodes.ranges().length, by: 4 })
      const others = await nodes.client(false, [1, 3])
      await nodes.join("fifth")
      await nodes.stop("n1")
      const last = await nodes.client(false, [3])
      const dead = await order(last, "node.replace", { node: 1 }, 110_000)
      expect(dead).toMatchObject({ by: 5 })
      for (const { replicas } of nodes.ranges()) {
        expect(replicas.map(({ node }) => node).sort()).toEqual([3, 4, 5])
      }
      for (let i = 0; i < 20; i++) {
        expect((await run(others.get("default", `key:${i}`))).found).toBe(true)
      }
    })
  }, 240_000)
})
