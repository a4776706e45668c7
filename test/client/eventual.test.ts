import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape, EventualFound } from "../../src/client/Client.ts"
import { putSibling } from "../../src/dynamo/siblings.ts"
import { emptyVector } from "../../src/dynamo/versionVector.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import type { NodeId } from "../../src/types.ts"
import { type Doors, withDoors } from "../doors/harness.ts"
import { eventualNamespaces } from "../doors/memoryEventual.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))
const words = ({ siblings }: Pick<EventualFound, "siblings">) => siblings.map(text)

function withEventual(
  body: (doors: Doors, kv: ClientShape["eventual"], all: ClientShape) => Promise<void>,
): Promise<void> {
  return withDoors({ nodes: 3 }, async (doors) => {
    doors.cluster.namespaces.push(...eventualNamespaces)
    const client = await doors.client()
    await body(doors, client.eventual, client)
  })
}

describe("values in an eventual namespace", () => {
  test("stay side by side until a write names both, by the context of a read", () =>
    withEventual(async (_, kv) => {
      expect(await run(kv.get("siblings", "a"))).toMatchObject({ siblings: [], context: undefined })
      await run(kv.put("siblings", "a", "one"))
      await run(kv.put("siblings", "a", "two"))
      const found = await run(kv.get("siblings", "a"))
      expect(found).toMatchObject({ kind: "values", receipt: { achieved: "quorum" } })
      expect(words(found).sort()).toEqual(["one", "two"])
      await run(kv.put("siblings", "a", "both", { context: found.context as string }))
      expect(words(await run(kv.get("siblings", "a")))).toEqual(["both"])
      // What was read before the last write covers nothing of it.
      await run(kv.put("siblings", "a", "late", { context: found.context as string }))
      expect(words(await run(kv.get("siblings", "a"))).sort()).toEqual(["both", "late"])
    }))

  test("are merged by a function, and its result stands in their place", () =>
    withEventual(async (_, kv) => {
      for (const word of ["b", "a"]) await run(kv.put("siblings", "k", word))
      const merge = (values: ReadonlyArray<Uint8Array>) => values.map(text).sort().join("+")
      await run(kv.update("siblings", "k", merge))
      expect(words(await run(kv.get("siblings", "k")))).toEqual(["a+b"])
      await run(kv.update("siblings", "fresh", (values) => `${values.length}`))
      expect(words(await run(kv.get("siblings", "fresh")))).toEqual(["0"])
    }))

  test("are deleted as far as they were read", () =>
    withEventual(async (_, kv) => {
      await run(kv.put("siblings", "a", "seen"))
      const { context } = await run(kv.get("siblings", "a"))
      await run(kv.put("siblings", "a", "unseen"))
      await run(kv.delete("siblings", "a", { context: context as string }))
      expect(words(await run(kv.get("siblings", "a")))).toEqual(["unseen"])
    }))

  test("expire, and a TTL that cannot be is refused", () =>
    withEventual(async ({ cluster }, kv) => {
      await run(kv.put("lww", "a", "short", { ttlMs: 1000 }))
      expect(words(await run(kv.get("lww", "a")))).toEqual(["short"])
      cluster.eventual.wallMs += 1000
      expect(words(await run(kv.get("lww", "a")))).toEqual([])
      for (const ttlMs of [-1, 0.5, Number.NaN, 2 ** 52]) {
        const error = await failure(kv.put("lww", "a", "x", { ttlMs }))
        expect(error).toMatchObject({ _tag: "InvalidRequest" })
        expect(error.message).toContain("ttlMs")
      }
      expect(cluster.eventual.applied.length).toBe(1)
    }))

  test("are written by a context of this very key alone", () =>
    withEventual(async ({ cluster }, kv) => {
      await run(kv.put("siblings", "a", "1"))
      const context = (await run(kv.get("siblings", "a"))).context as string
      for (const [key, token] of [
        ["b", context],
        ["a", "no token"],
        ["a", context.slice(0, -2)],
        ["a", "A".repeat(30_000)],
      ] as const) {
        const error = await failure(kv.put("siblings", key, "2", { context: token }))
        expect(error).toMatchObject({ _tag: "InvalidRequest" })
        expect(error.message).toContain("context")
      }
      expect(cluster.eventual.applied.length).toBe(1)
    }))
})

describe("sets, counters and flags", () => {
  test("a set has what was added and not removed, in order of bytes", () =>
    withEventual(async (_, kv) => {
      for (const item of ["iPhone", "AirPods", "iPad"]) await run(kv.add("set", "cart", item))
      await run(kv.remove("set", "cart", "iPhone"))
      const found = await run(kv.get("set", "cart"))
      expect(found.kind).toBe("set")
      expect(words(found)).toEqual(["AirPods", "iPad"])
      await run(kv.delete("set", "cart"))
      expect(words(await run(kv.get("set", "cart")))).toEqual([])
    }))

  test("a counter counts both ways and shows what it counts", () =>
    withEventual(async (_, kv) => {
      expect((await run(kv.increment("counter", "n", 5))).counter).toBe(5n)
      expect((await run(kv.increment("counter", "n", -7n))).counter).toBe(-2n)
      const found = await run(kv.get("counter", "n"))
      expect(found.kind).toBe("counter")
      expect(words(found)).toEqual(["-2"])
      for (const delta of [0.5, 2 ** 53, 2n ** 63n, Number.NaN]) {
        expect((await failure(kv.increment("counter", "n", delta))).message).toContain(
          "whole numbers",
        )
      }
    }))

  test("a flag is on or absent", () =>
    withEventual(async (_, kv) => {
      await run(kv.setFlag("flag", "f", true))
      expect(await run(kv.get("flag", "f"))).toMatchObject({
        kind: "flag",
        siblings: [utf8("true")],
      })
      await run(kv.setFlag("flag", "f", false))
      expect(words(await run(kv.get("flag", "f")))).toEqual([])
    }))
})

describe("what a mode does not have", () => {
  test("is no function of the client, and is refused by name where only the name of the namespace tells", () =>
    withEventual(async (_, kv, client) => {
      // @ts-expect-error: there is no compare-and-set among them.
      expect(kv.compareAndSet).toBeUndefined()
      // @ts-expect-error: nor a batch at one moment.
      expect(kv.atomicBatch).toBeUndefined()
      const cases: ReadonlyArray<Effect.Effect<unknown, KvorumError>> = [
        client.compareAndSet("siblings", "a", { expect: { absent: true }, value: "1" }),
        client.atomicBatch("siblings", [{ op: "put", key: "a", value: "1" }]),
        client.batch("siblings", [{ op: "put", key: "a", value: "1" }]),
        client.put("siblings", "a", "1"),
        client.get("siblings", "a"),
        client.scanPage("siblings"),
        kv.get("default", "a"),
        kv.put("default", "a", "1"),
        kv.scanPage("default"),
        kv.batch("default", [{ op: "put", key: "a", value: "1" }]),
        // A rule of the other kind.
        kv.put("set", "a", "1"),
        kv.increment("siblings", "a", 1),
      ]
      for (const each of cases) {
        expect((await run(Effect.result(each))) as unknown).toMatchObject({
          _tag: "Failure",
          failure: { _tag: "NotSupportedInMode" },
        })
      }
    }))
})

describe("a batch", () => {
  test("has a result for each operation, in the order given, and keeps the order of one key", () =>
    withEventual(async ({ cluster }, kv) => {
      // Whoever is asked first answers last.
      let waiting = 0
      cluster.eventual.intercept = ({ reply, carryOut }) => {
        setTimeout(() => reply(carryOut()), 60 - Math.min(50, 10 * waiting++))
        return true
      }
      const results = await run(
        kv.batch("lww", [
          { op: "put", key: "a", value: "1" },
          { op: "put", key: "b", value: "1", context: "no token" },
          { op: "put", key: "a", value: "2" },
          { op: "add", key: "c", member: "m" },
          { op: "put", key: "a", value: "3" },
        ]),
      )
      cluster.eventual.intercept = () => false
      expect(results.map((each) => (each.ok ? "done" : each.error._tag))).toEqual([
        "done",
        "InvalidRequest",
        "done",
        "NotSupportedInMode",
        "done",
      ])
      expect(words(await run(kv.get("lww", "a")))).toEqual(["3"])
    }))

  test("is refused as a whole when it is too large, or in no namespace", () =>
    withEventual(async ({ cluster }, kv) => {
      const value = new Uint8Array(2 ** 20)
      const large = Array.from(
        { length: 5 },
        (_, i) => ({ op: "put", key: `k${i}`, value }) as const,
      )
      expect((await failure(kv.batch("lww", large))).message).toContain("bytes: limit")
      const one = [{ op: "put", key: "a", value: "1" } as const]
      expect((await failure(kv.batch("nowhere", one)))._tag).toBe("NamespaceNotFound")
      expect(cluster.eventual.applied.length).toBe(0)
    }))
})

describe("a scan", () => {
  const keys = Array.from({ length: 50 }, (_, i) => `key:${i}`)

  async function pages(kv: ClientShape["eventual"], limit: number) {
    const found: Array<string> = []
    const byNode = new Map<NodeId, number>()
    let cursor: string | undefined
    do {
      const given = cursor === undefined ? {} : { cursor }
      const page = await run(kv.scanPage("siblings", { prefix: "key:", limit, ...given }))
      expect(page.entries.length).toBeLessThanOrEqual(limit)
      for (const { key } of page.entries) found.push(text(key))
      for (const { node, entries } of page.parts) {
        byNode.set(node, (byNode.get(node) ?? 0) + entries)
      }
      cursor = page.cursor
    } while (cursor !== undefined)
    return { found, byNode }
  }

  test("finds every key once, in pages, and its parts add up to it", () =>
    withEventual(async (_, kv) => {
      for (const key of [...keys, "other"]) await run(kv.put("siblings", key, key))
      for (const limit of [1, 7, 50, 1000]) {
        const { found, byNode } = await pages(kv, limit)
        expect(found.length).toBe(keys.length)
        expect(found.toSorted()).toEqual(keys.toSorted())
        expect([...byNode.values()].reduce((sum, count) => sum + count)).toBe(keys.length)
        expect(byNode.size).toBeGreaterThan(1)
      }
    }))

  test("goes on at other owners when a node has gone, and says so when a slot has none", () =>
    withEventual(async (doors, kv) => {
      for (const key of keys) await run(kv.put("siblings", key, key))
      await doors.stop(2)
      expect((await pages(kv, 10)).found.toSorted()).toEqual(keys.toSorted())
      await doors.stop(3)
      const error = await failure(kv.scanPage("siblings", { deadlineMs: 300 }))
      expect(error._tag).toBe("QuorumUnavailable")
    }))

  test("goes on at other owners when a node hangs, or owns the slots no more", () =>
    withEventual(async (doors) => {
      const client = await doors.client({ attemptTimeoutMs: 100 })
      const kv = client.eventual
      for (const key of keys) await run(kv.put("siblings", key, key))
      doors.cluster.eventual.intercept = ({ node, request, reply }) => {
        if (request._tag !== "EventualPage" || node === 1) return false
        if (node === 2) return true
        const refusal = { _tag: "RingMoved", ringVersion: 9 } as const
        reply({ _tag: "EventualRefused", token: request.token, refusal })
        return true
      }
      // Slots that nodes 2 and 3 own alone are not to be had.
      const error = await failure(kv.scanPage("siblings", { deadlineMs: 1000 }))
      expect(["QuorumUnavailable", "RangeMoved"]).toContain(error._tag)
      let pass = 0
      doors.cluster.eventual.intercept = ({ node, request }) =>
        request._tag === "EventualPage" && node === 2 && pass++ < 1
      expect((await pages(kv, 1000)).found.toSorted()).toEqual(keys.toSorted())
    }))

  test("is refused, not empty, while nobody knows the ring", () =>
    withEventual(async ({ cluster }, kv) => {
      for (const node of cluster.nodes) cluster.ringless.add(node)
      const error = await failure(kv.scanPage("siblings", { deadlineMs: 300 }))
      expect(error._tag).toBe("QuorumUnavailable")
      const learnt = run(kv.scanPage("siblings", { deadlineMs: 5000 }))
      cluster.ringless.clear()
      expect((await learnt).entries).toEqual([])
    }))

  test("takes no cursor but its own, and no limit beyond a page", () =>
    withEventual(async (_, kv) => {
      for (const options of [
        { cursor: "zz" },
        { cursor: "ffff00" },
        { limit: 0 },
        { limit: 1001 },
      ]) {
        expect((await failure(kv.scanPage("siblings", options)))._tag).toBe("InvalidRequest")
      }
    }))
})

describe("concurrent values of a key that are too many bytes for one answer", () => {
  test("are refused by the door, which goes on", () =>
    withEventual(async ({ cluster }, kv, all) => {
      const { id } = await run(all.namespace("siblings"))
      const state = new ByteWriter()
      const write = { actor: 1, counter: 1, context: emptyVector, stamp: 0, expiryMs: 0 }
      putSibling(state, undefined, { ...write, value: new Uint8Array(2 ** 24) })
      cluster.eventual.hold(id, utf8("big"), state.take())
      const error = await failure(kv.get("siblings", "big"))
      expect(error._tag).toBe("InvalidRequest")
      expect(error.message).toContain("more than an answer takes")
      expect(words(await run(kv.get("siblings", "other")))).toEqual([])
    }))
})
