import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const order = (client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 60_000 })) as Promise<{
    readonly descriptor: { readonly id: number; readonly start: string; readonly end: string }
  }>
const refusal = async (client: ClientShape, verb: string, args: unknown) => {
  const error: KvorumError = await run(Effect.flip(client.admin(verb, args)))
  return `${error._tag}: ${error.message}`
}

async function idsOf(client: ClientShape): Promise<ReadonlyArray<number>> {
  return (await run(client.ranges())).map(({ descriptor }) => descriptor.id)
}

describe("ranges that are merged by order", () => {
  test("are brought together first, and writers notice nothing but a moment's wait", async () => {
    await withNodes(4, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const keys = Array.from({ length: 40 }, (_, i) => `key:${i}`)
      // Its replicas are on other nodes than those of its neighbour.
      await order(client, "range.move", { range: 2, from: 1, to: 4 })
      let isOver = false
      const written = new Map<string, string>()
      const errors: Array<string> = []
      const writers = [0, 1, 2, 3].map(async (writer) => {
        for (let round = 0; !isOver; round++) {
          const key = `key:${(round * 4 + writer) % keys.length}`
          const value = `${writer}/${round}`
          const result = await run(Effect.result(client.put("default", key, value)))
          if (result._tag === "Success") written.set(key, value)
          else errors.push(`${result.failure._tag}: ${result.failure.message}`)
        }
      })
      const { descriptor } = await order(client, "range.merge", { range: 2, with: 1 })
      expect(descriptor.id).toBe(1)
      await order(client, "range.merge", { range: 3, with: 4 })
      await order(client, "range.merge", { range: 1, with: 3 })
      isOver = true
      await Promise.all(writers)
      expect(errors).toEqual([])
      expect(await idsOf(client)).toEqual([0, 1, 5])
      const counted = await run(client.count("default"))
      expect(counted.parts).toEqual([{ range: 1, entries: keys.length }])
      for (const [key, value] of written) {
        const found = await run(client.get("default", key))
        expect(found.found && text(found.value)).toBe(value)
      }
      // What is gone leaves the directory too, and stays away from a node that starts anew.
      await nodes.stop("n3")
      await nodes.start(3)
      await until("n3 knows the ranges that there are", () => {
        const { ranges } = nodes.node("n3").control.directory()
        return (
          ranges
            .map(({ id }) => id)
            .sort()
            .join() === "0,1,5"
        )
      })
      expect(await refusal(client, "range.merge", { range: 1, with: 3 })).toContain(
        "there is no range 3",
      )
    })
  }, 120_000)

  test("are refused where they can't be, in words that say why", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await order(client, "namespace.create", { name: "other", ranges: 1 })
      const ids = await idsOf(client)
      const own = ids.find((id) => ![0, 1, 2, 3, 4, 5].includes(id)) as number
      for (const [range, other, words] of [
        [1, 1, "range 1 is named twice"],
        [1, 3, "are no neighbours"],
        [0, 1, "stays alone"],
        [1, 99, "there is no range 99"],
      ] as const) {
        expect(await refusal(client, "range.merge", { range, with: other })).toContain(words)
      }
      const neighbours = await refusal(client, "range.merge", { range: 4, with: own })
      expect(neighbours).toMatch(/not of one namespace|are no neighbours/)
    })
  }, 60_000)
})

describe("a tag that is isolated", () => {
  test("has a range of its own, once, with all of its keys", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      for (let i = 0; i < 10; i++) {
        await run(client.put("default", `{tenant42}:${i}`, "1"))
        await run(client.put("default", `other:${i}`, "1"))
      }
      const args = { namespace: "default", prefix: toHex(utf8("{tenant42}")) }
      const { descriptor } = await order(client, "range.isolate", args)
      const counted = await run(client.count("default", { prefix: "{tenant42}" }))
      expect(counted.parts).toEqual([{ range: descriptor.id, entries: 10 }])
      const before = await idsOf(client)
      expect((await order(client, "range.isolate", args)).descriptor.id).toBe(descriptor.id)
      expect(await idsOf(client)).toEqual(before)
      const bad = { namespace: "default", prefix: toHex(utf8("tenant42")) }
      expect(await refusal(client, "range.isolate", bad)).toContain("holds no hash tag")
      const missing = { namespace: "none", prefix: toHex(utf8("{a}")) }
      expect(await refusal(client, "range.isolate", missing)).toContain("NamespaceNotFound")
      const eventual = { namespace: "eventual", prefix: toHex(utf8("{a}")) }
      expect(await refusal(client, "range.isolate", eventual)).toContain("its keys lie on the ring")
      await order(client, "namespace.create", { name: "sorted", partitioning: "ordered" })
      for (const key of ["a", "user:1", "user:2", "z"]) await run(client.put("sorted", key, "1"))
      const users = { namespace: "sorted", prefix: toHex(utf8("user:")) }
      const { descriptor: isolated } = await order(client, "range.isolate", users)
      const parts = (await run(client.count("sorted"))).parts
      expect(parts.find(({ range }) => range === isolated.id)?.entries).toBe(2)
      expect(parts.length).toBe(3)
    })
  }, 60_000)
})
