import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const order = (client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 90_000 }))
const refusal = async (client: ClientShape, verb: string, args: unknown) =>
  (await run(Effect.flip(client.admin(verb, args, { deadlineMs: 60_000 })))).message

describe("a node that is drained", () => {
  test("hands over all that it holds while writes go on, is given nothing, and can then be taken out", async () => {
    await withNodes(4, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      for (let i = 0; i < 20; i++) {
        await run(client.put("default", `key:${i}`, `${i}`))
        await run(client.eventual.put("eventual", `key:${i}`, `${i}`))
      }
      let isOver = false
      const errors: Array<string> = []
      const writer = (async () => {
        for (let i = 0; !isOver; i++) {
          const result = await run(
            Effect.result(client.put("default", `key:${i % 20}`, `${i % 20}`)),
          )
          if (result._tag === "Failure") errors.push(result.failure.message)
        }
      })()
      const held = nodes.ranges().filter(({ replicas }) => replicas.some(({ node }) => node === 2))
      expect(await order(client, "node.drain", { node: 2 })).toEqual({ moved: held.length })
      isOver = true
      await writer
      expect(errors).toEqual([])
      for (const { replicas } of nodes.ranges()) {
        expect(replicas.map(({ node }) => node)).not.toContain(2)
        expect(replicas.length).toBe(3)
      }
      const { nodes: known } = await run(client.status())
      expect(known.find(({ id }) => id === 2)?.state).toBe("draining")
      const members = (await order(client, "ring.show", {})) as {
        readonly members: ReadonlyArray<{ readonly node: number }>
      }
      expect(members.members.map(({ node }) => node)).not.toContain(2)
      // Nothing comes back, by order or by itself.
      const move = { range: 1, on: 2 }
      expect(await refusal(client, "range.addReplica", move)).toContain("n2 is drained")
      await order(client, "namespace.create", { name: "late", ranges: 4 })
      for (const { replicas } of nodes.ranges()) {
        expect(replicas.map(({ node }) => node)).not.toContain(2)
      }
      expect(await order(client, "node.drain", { node: 2 })).toEqual({ moved: 0 })
      expect(await order(client, "node.remove", { node: 2 })).toEqual({ moved: 0, fewer: 0 })
      await until("n2 stops by itself", () => nodes.node("n2").failure !== undefined)
      const others = await nodes.client(false, [1, 3, 4])
      for (let i = 0; i < 20; i++) {
        const found = await run(others.get("default", `key:${i}`))
        expect(found.found && text(found.value)).toBe(`${i}`)
        const { siblings } = await run(others.eventual.get("eventual", `key:${i}`))
        expect(siblings.map(text)).toEqual([`${i}`])
      }
    })
  }, 180_000)

  test("is refused where a range would have a replica fewer, and stays as it was", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      expect(await refusal(client, "node.drain", { node: 2 })).toContain(
        "that no other node is up to take: let one join first",
      )
      expect(await refusal(client, "node.drain", { node: 9 })).toContain("there is no node n9")
      const record = nodes
        .node("n1")
        .control.directory()
        .nodes.find(({ id }) => id === 2)
      expect(record?.state).toBe("member")
    })
  }, 60_000)
})
