import { describe, expect, test } from "bun:test"
import { Effect, Stream } from "effect"
import type { BatchOperation } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text } from "../../src/lib/bytes.ts"
import { limits } from "../../src/wire/limits.ts"
import { withDoors } from "../doors/harness.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))

describe("the client's operations", () => {
  test("what was put is read back, with its version and a receipt of the leader", () =>
    withDoors({ nodes: 3 }, async ({ client }) => {
      const kv = await client()
      const put = await run(kv.put("default", "greeting", "hello"))
      const got = await run(kv.get("default", "greeting"))
      expect(got.found && text(got.value)).toBe("hello")
      expect(got.found && got.version).toBe(put.version)
      expect(got.receipt).toMatchObject({ role: "leader", level: "linearizable" })
      expect(await run(kv.get("default", "nothing"))).toMatchObject({ found: false })
      const bytes = Uint8Array.from([0, 255, 10, 13])
      await run(kv.put("default", bytes, bytes))
      const raw = await run(kv.get("default", bytes))
      expect(raw.found && [...raw.value]).toEqual([0, 255, 10, 13])
      expect(raw.found && raw.value.constructor).toBe(Uint8Array)
    }))

  test("a delete says whether there was something", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1"))
      expect((await run(kv.delete("default", "a"))).existed).toBe(true)
      expect((await run(kv.delete("default", "a"))).existed).toBe(false)
      expect((await run(kv.get("default", "a"))).found).toBe(false)
    }))

  test("compareAndSet swaps only if the key is as expected, and tells its version if not", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      const set = (value: string, expect: Parameters<typeof kv.compareAndSet>[2]["expect"]) =>
        run(kv.compareAndSet("default", "a", { expect, value }))
      expect(await set("1", { version: 7 })).toMatchObject({ swapped: false, version: 0 })
      const first = await set("1", { absent: true })
      expect(first.swapped).toBe(true)
      expect(await set("2", { absent: true })).toMatchObject({
        swapped: false,
        version: first.version,
      })
      expect((await set("2", { version: first.version })).swapped).toBe(true)
      expect((await set("3", { value: "1" })).swapped).toBe(false)
      expect((await set("3", { value: "2" })).swapped).toBe(true)
    }))

  test("a batch gives each operation its result, and keeps the order of one key", () =>
    withDoors({ nodes: 3 }, async ({ client }) => {
      const kv = await client()
      const operations: ReadonlyArray<BatchOperation> = [
        { op: "delete", key: "k0" },
        ...Array.from({ length: 200 }, (_, i) => ({
          op: "put" as const,
          key: `k${i % 50}`,
          value: `${i}`,
        })),
        { op: "delete", key: "k0" },
      ]
      const results = await run(kv.batch("default", operations))
      expect(results.length).toBe(202)
      expect(results.every((result) => result.ok)).toBe(true)
      expect(results[0]).toMatchObject({ existed: false })
      expect(results[201]).toMatchObject({ existed: true })
      for (let i = 1; i < 50; i++) {
        const got = await run(kv.get("default", `k${i}`))
        expect(got.found && text(got.value)).toBe(`${150 + i}`)
      }
    }))

  test("an operation of a batch that fails does not fail the others", () =>
    withDoors({ nodes: 1 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1"))
      let count = 0
      cluster.intercept = ({ reply }) => {
        if (++count !== 2) return false
        reply(cluster.refused({ _tag: "InvalidRequest", message: "not this one" }))
        return true
      }
      const results = await run(
        kv.batch(
          "default",
          ["x", "y", "z"].map((key) => ({ op: "put", key, value: "1" })),
        ),
      )
      expect(results.map((result) => result.ok)).toEqual([true, false, true])
    }))

  test("a scan gives every key once, in position order, through all ranges and pages", () =>
    withDoors({ nodes: 3 }, async ({ client }) => {
      const kv = await client()
      const keys = Array.from({ length: 60 }, (_, i) => `key:${i}`)
      for (const key of keys) await run(kv.put("default", key, `value of ${key}`))
      const all = await run(Stream.runCollect(kv.scan("default")))
      expect(all.map((entry) => text(entry.key)).sort()).toEqual([...keys].sort())
      expect(text(all[0]?.value as Uint8Array)).toBe(`value of ${text(all[0]?.key as Uint8Array)}`)
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
      const some = await run(Stream.runCollect(kv.scan("default", { limit: 11 })))
      expect(some.length).toBe(11)
    }))

  test("a prefix selects keys; with a whole hash tag it reads one slot, sorted by key", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      for (let i = 0; i < 20; i++) {
        await run(kv.put("default", `user:${i}`, "1"))
        await run(kv.put("default", `{user1}:${19 - i}`, "1"))
        await run(kv.put("default", `other:${i}`, "1"))
      }
      const users = await run(Stream.runCollect(kv.scan("default", { prefix: "user:" })))
      expect(users.length).toBe(20)
      const before = cluster.requests
      const tagged = await run(kv.scanPage("default", { prefix: "{user1}:" }))
      expect(cluster.requests - before).toBe(1)
      expect(tagged.entries.map((entry) => text(entry.key))).toEqual(
        Array.from({ length: 20 }, (_, i) => `{user1}:${i}`).sort(),
      )
      expect(tagged.cursor).toBeUndefined()
      expect((await run(kv.scanPage("default", { prefix: "{}x" }))).entries).toEqual([])
    }))

  test("what breaks a limit or makes no sense is refused by name before anything is sent", () =>
    withDoors({ nodes: 1 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1"))
      const before = cluster.requests
      const large = new Uint8Array(limits.valueBytes + 1)
      const put = { op: "put", key: "k", value: "v" } as const
      const half = new Uint8Array(limits.valueBytes)
      const cases: ReadonlyArray<readonly [Effect.Effect<unknown, KvorumError>, string]> = [
        [kv.get("default", ""), "key is empty"],
        [kv.put("default", "k".repeat(2049), "v"), "2048 bytes"],
        [kv.put("default", "k", large), "1048576 bytes"],
        [
          kv.compareAndSet("default", "k", { expect: { value: large }, value: "" }),
          "1048576 bytes",
        ],
        [kv.batch("default", Array(1001).fill(put)), "1000 operations"],
        [kv.batch("default", Array(5).fill({ ...put, value: half })), "4194304 bytes"],
        [kv.put("default", "k", "v", { deadlineMs: 0 }), "deadline"],
        [kv.put("default", "k", "v", { deadlineMs: 200_000 }), "deadline"],
        [kv.scanPage("default", { limit: 1001 }), "1000 entries"],
        [kv.scanPage("default", { limit: 0 }), "1 to 1000"],
        [kv.scanPage("default", { cursor: "nonsense" }), "cursor"],
        [kv.scanPage("default", { cursor: "ff" }), "cursor"],
      ]
      for (const [effect, words] of cases) {
        const error = await failure(effect)
        expect(error._tag).toBe("InvalidRequest")
        expect(error.message).toContain(words)
      }
      expect(cluster.requests).toBe(before)
      expect(await failure(kv.get("nowhere", "k"))).toMatchObject({
        _tag: "NamespaceNotFound",
        namespace: "nowhere",
      })
    }))

  test("a batch at its limits passes", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      const results = await run(
        kv.batch(
          "default",
          Array.from({ length: limits.batchOperations }, (_, i) => ({
            op: "put",
            key: `k${i}`,
            value: new Uint8Array(4000),
          })),
        ),
      )
      expect(results.filter((result) => result.ok).length).toBe(limits.batchOperations)
    }))

  test("a local read is answered by a follower too", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1"))
      const roles = new Set<string>()
      for (let i = 0; i < 60; i++) {
        const got = await run(kv.get("default", "a", { level: "local" }))
        expect(got).toMatchObject({ found: true, receipt: { level: "local" } })
        roles.add(got.receipt.role)
      }
      expect([...roles].sort()).toEqual(["follower", "leader"])
      expect(cluster.applied.length).toBe(1)
    }))

  test("several connections to a node share its calls", () =>
    withDoors({ nodes: 1 }, async ({ client, door }) => {
      const kv = await client({ connectionsPerNode: 4 })
      const puts = Array.from({ length: 400 }, (_, i) => kv.put("default", `k${i}`, "1"))
      await run(kv.put("default", "first", "1"))
      for (let i = 0; i < 4; i++) await run(kv.put("default", "first", "1"))
      await run(Effect.all(puts, { concurrency: "unbounded", discard: true }))
      expect(door(1).stats().connections).toBe(4)
    }))

  test("an endpoint that is no address is refused at once", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      for (const endpoint of ["localhost", "host:0", "host:99999", ":80", "a:b:c"]) {
        await expect(client({ endpoints: [endpoint] })).rejects.toThrow("HOST:PORT")
      }
    }))
})
