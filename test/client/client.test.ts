import { expect, test } from "bun:test"
import { Effect, Stream } from "effect"
import { text } from "../../src/lib/bytes.ts"
import { withDoors } from "../doors/harness.ts"

const run = Effect.runPromise

test("what was put is read back, with its version and a receipt of the leader", () =>
  withDoors({ nodes: 3 }, async ({ client }) => {
    const kv = await client()
    const put = await run(kv.put("default", "greeting", "hello"))
    const got = await run(kv.get("default", "greeting"))
    expect(got.found).toBe(true)
    if (!got.found) return
    expect(text(got.value)).toBe("hello")
    expect(got.version).toBe(put.version)
    expect(got.receipt.role).toBe("leader")
    expect(await run(kv.get("default", "nothing"))).toMatchObject({ found: false })
  }))

test("a scan gives every key once, in position order, through all ranges and pages", () =>
  withDoors({ nodes: 3 }, async ({ client }) => {
    const kv = await client()
    const keys = Array.from({ length: 60 }, (_, i) => `key:${i}`)
    for (const key of keys) await run(kv.put("default", key, `value of ${key}`))
    const all = await run(Stream.runCollect(kv.scan("default")))
    expect(all.map((entry) => text(entry.key)).sort()).toEqual([...keys].sort())
    const paged: Array<string> = []
    let cursor: string | undefined
    do {
      const page = await run(
        kv.scanPage("default", { limit: 7, ...(cursor === undefined ? {} : { cursor }) }),
      )
      expect(page.entries.length).toBeLessThanOrEqual(7)
      paged.push(...page.entries.map((entry) => text(entry.key)))
      cursor = page.cursor
    } while (cursor !== undefined)
    expect(paged).toEqual(all.map((entry) => text(entry.key)))
  }))
