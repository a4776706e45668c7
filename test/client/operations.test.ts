import { describe, expect, test } from "bun:test"
import { Effect, Stream } from "effect"
import type { AtomicOperation } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text } from "../../src/lib/bytes.ts"
import { hashPosition, positionIn } from "../../src/lib/position.ts"
import { withDoors } from "../doors/harness.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))
const utf8 = (word: string) => new TextEncoder().encode(word)

describe("add", () => {
  test("begins at 0, goes both ways, and is exact beyond what a double holds", () =>
    withDoors({ nodes: 3 }, async ({ client }) => {
      const kv = await client()
      expect((await run(kv.add("default", "n", 5))).value).toBe(5n)
      expect((await run(kv.add("default", "n", -7))).value).toBe(-2n)
      const big = await run(kv.add("default", "n", 2n ** 62n))
      expect(big.value).toBe(2n ** 62n - 2n)
      const got = await run(kv.get("default", "n"))
      expect(got.found && text(got.value)).toBe(`${2n ** 62n - 2n}`)
      expect(got.found && got.version).toBe(big.version)
    }))

  test("what is no number, or would become none, is refused and stays", () =>
    withDoors({ nodes: 1 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "word", "hello"))
      await run(kv.put("default", "most", `${2n ** 63n - 1n}`))
      for (const key of ["word", "most"]) {
        const error = await failure(kv.add("default", key, 1))
        expect(error).toMatchObject({ _tag: "InvalidRequest" })
        expect(error.message).toContain("not a decimal number")
      }
      for (const delta of [0.5, 2 ** 53, 2n ** 63n, Number.NaN]) {
        expect((await failure(kv.add("default", "n", delta))).message).toContain("whole numbers")
      }
      expect(cluster.applied.length).toBe(2)
    }))
})

describe("put", () => {
  test("with ifAbsent, writes once and then tells the version that is there", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      const first = await run(kv.put("default", "a", "1", { ifAbsent: true }))
      expect(first.written).toBe(true)
      const second = await run(kv.put("default", "a", "2", { ifAbsent: true }))
      expect(second).toMatchObject({ written: false, version: first.version })
      expect((await run(kv.put("default", "a", "3"))).written).toBe(true)
    }))

  test("with a ttl, the key is absent once its time has come; a put without one ends that", () =>
    withDoors({ nodes: 1 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1", { ttlMs: 50 }))
      await run(kv.put("default", "kept", "1", { ttlMs: 50 }))
      await run(kv.put("default", "kept", "2"))
      cluster.advance(49_000)
      expect((await run(kv.get("default", "a"))).found).toBe(true)
      cluster.advance(1_000)
      expect((await run(kv.get("default", "a"))).found).toBe(false)
      expect((await run(kv.get("default", "kept"))).found).toBe(true)
      expect((await run(kv.put("default", "a", "3", { ifAbsent: true }))).written).toBe(true)
      for (const ttlMs of [0, -1, Number.NaN, 1e18]) {
        expect((await failure(kv.put("default", "a", "1", { ttlMs }))).message).toContain("ttlMs")
      }
    }))
})

describe("an atomic batch", () => {
  const operations: ReadonlyArray<AtomicOperation> = [
    { op: "put", key: "{u}:name", value: "Ada", expect: { absent: true } },
    { op: "add", key: "{u}:count", delta: 2 },
    { op: "delete", key: "{u}:old" },
  ]

  test("is carried out as a whole, at one version, as one command", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "{u}:old", "1"))
      const result = await run(kv.atomicBatch("default", operations))
      expect(result.applied).toBe(true)
      expect(cluster.applied.length).toBe(2)
      const name = await run(kv.get("default", "{u}:name"))
      const count = await run(kv.get("default", "{u}:count"))
      expect(name.found && name.version).toBe(result.version)
      expect(count.found && [text(count.value), count.version]).toEqual(["2", result.version])
      expect((await run(kv.get("default", "{u}:old"))).found).toBe(false)
    }))

  test("does nothing at all when one condition does not hold, and says which", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      const { version } = await run(kv.put("default", "{u}:name", "Bob"))
      expect(await run(kv.atomicBatch("default", [...operations].reverse()))).toMatchObject({
        applied: false,
        failed: 2,
        reason: "condition",
        version,
      })
      await run(kv.put("default", "{u}:count", "many"))
      const checked = { op: "put", key: "{u}:name", value: "C", expect: { version } } as const
      const result = await run(
        kv.atomicBatch("default", [checked, operations[1] as AtomicOperation]),
      )
      expect(result).toMatchObject({ applied: false, failed: 1, reason: "notNumber" })
      expect(cluster.applied.length).toBe(2)
    }))

  test("of keys in several ranges is refused by name before anything is sent, also after a split", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      await run(kv.put("default", "a", "1"))
      const before = cluster.requests
      const spread = ["a", "b", "c", "d"].map((key) => ({ op: "put", key, value: "1" }) as const)
      const error = await failure(kv.atomicBatch("default", spread))
      expect(error._tag).toBe("InvalidRequest")
      expect(error.message).toContain("hash tag")
      expect(cluster.requests).toBe(before)
      // A range is cut between two keys of one slot: the client learns of it by the refusal.
      expect((await run(kv.atomicBatch("default", operations))).applied).toBe(true)
      const at = hashPosition(1, utf8("{u}:name"))
      const range = cluster.descriptors.findLast(({ start }) => Buffer.compare(start, at) <= 0)
      cluster.split(range?.id as number, at)
      expect((await failure(kv.atomicBatch("default", operations))).message).toContain("hash tag")
    }))

  test("takes one operation for each key, at least one, and no more than a batch may hold", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      const put = { op: "put", key: "k", value: "v" } as const
      expect((await failure(kv.atomicBatch("default", [put, put]))).message).toContain("second one")
      expect((await failure(kv.atomicBatch("default", []))).message).toContain("at least one")
      expect((await failure(kv.atomicBatch("default", Array(1001).fill(put)))).message).toContain(
        "1000 operations",
      )
    }))
})

describe("an ordered namespace", () => {
  test("is scanned in order of key, through its ranges, pages and prefixes", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const namespace = cluster.addNamespace("sorted", "ordered")
      const range = cluster.descriptors.find((each) => each.namespace === namespace.id)
      cluster.split(range?.id as number, positionIn(namespace, utf8("m")))
      const kv = await client()
      const keys = Array.from({ length: 26 }, (_, i) => String.fromCharCode(122 - i))
      for (const key of keys) await run(kv.put("sorted", `${key}1`, key))
      for (const key of keys) await run(kv.put("sorted", key, key))
      const all = await run(Stream.runCollect(kv.scan("sorted")))
      const names = all.map(({ key }) => text(key))
      expect(names).toEqual([...names].sort())
      expect(names.length).toBe(52)
      const before = cluster.requests
      const first = await run(kv.scanPage("sorted", { prefix: "a" }))
      expect(first.entries.map(({ key }) => text(key))).toEqual(["a", "a1"])
      expect(cluster.requests - before).toBe(1)
      const some = await run(Stream.runCollect(kv.scan("sorted", { prefix: "m" })))
      expect(some.map(({ key }) => text(key))).toEqual(["m", "m1"])
      // A hash tag is nothing special here.
      await run(kv.put("sorted", "{m}x", "1"))
      const tagged = await run(kv.scanPage("sorted", { prefix: "{" }))
      expect(tagged.entries.map(({ key }) => text(key))).toEqual(["{m}x"])
      const page = await run(kv.scanPage("sorted", { limit: 30 }))
      const rest = await run(kv.scanPage("sorted", { cursor: page.cursor as string }))
      expect(page.entries.length + rest.entries.length).toBe(53)
      expect((await run(kv.scanPage("default"))).entries).toEqual([])
      const bytes = Uint8Array.from([255, 255])
      await run(kv.put("sorted", bytes, "last"))
      const last = await run(kv.scanPage("sorted", { prefix: bytes }))
      expect(last.entries.length).toBe(1)
    }))

  test("a namespace that one node has not heard of yet is found by another", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const leader = cluster.leaders.get(cluster.descriptors.at(-1)?.id as number)
      for (const node of cluster.nodes) if (node !== leader) cluster.unaware.add(node)
      for (let i = 0; i < 8; i++) {
        const kv = await client()
        await run(kv.put("default", "a", "1"))
        cluster.addNamespace(`n${i}`, "ordered")
        await run(kv.put(`n${i}`, "a", "1"))
      }
      const kv = await client()
      expect(await failure(kv.put("nowhere", "a", "1"))).toMatchObject({
        _tag: "NamespaceNotFound",
      })
    }))

  test("a name whose namespace was deleted and made anew leads to the new one", () =>
    withDoors({ nodes: 1 }, async ({ client, cluster }) => {
      cluster.addNamespace("sorted", "ordered")
      const kv = await client()
      await run(kv.put("sorted", "a", "old"))
      const other = await client()
      await run(other.get("sorted", "a"))
      cluster.namespaces = cluster.namespaces.filter(({ name }) => name !== "sorted")
      expect((await failure(other.put("sorted", "a", "x")))._tag).toBe("NamespaceNotFound")
      const again = await client()
      cluster.addNamespace("sorted", "hash")
      await run(again.put("sorted", "b", "1"))
      await run(kv.put("sorted", "a", "new"))
      const got = await run(again.get("sorted", "a"))
      expect(got.found && text(got.value)).toBe("new")
    }))
})

describe("orders to the cluster", () => {
  test("an order goes to one node, once, and its result or refusal comes back", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      const orders: Array<unknown> = []
      cluster.administer = ({ verb, args }, reply) => {
        orders.push([verb, args])
        reply({ _tag: "Done", result: { made: true } })
      }
      expect(await run(kv.admin("namespace.create", { name: "x" }))).toEqual({ made: true })
      expect(orders).toEqual([["namespace.create", { name: "x" }]])
      cluster.administer = (_, reply) =>
        reply({ _tag: "Refused", refusal: { _tag: "InvalidRequest", message: "not so" } })
      expect(await failure(kv.admin("x", {}))).toMatchObject({
        _tag: "InvalidRequest",
        message: "not so",
      })
      expect(await run(Effect.flip(kv.admin("x", {}, { node: 9 })))).toMatchObject({
        _tag: "QuorumUnavailable",
      })
    }))

  test("an order whose answer is lost is not given again: its outcome is unknown", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      let orders = 0
      doors.cluster.administer = () => {
        orders++
        for (const node of [1, 2, 3]) void doors.stop(node)
      }
      expect((await failure(kv.admin("node.remove", { node: 3 })))._tag).toBe("OutcomeUnknown")
      expect(orders).toBe(1)
      expect((await failure(kv.admin("x", {}, { deadlineMs: 200 })))._tag).toBe("QuorumUnavailable")
    }))

  test("an order that may take long is not waited for when no node is there to take it", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client({ endpoints: ["127.0.0.1:1"], deadlineMs: 150 })
      const error = await failure(kv.admin("x", {}, { deadlineMs: 600_000 }))
      expect(error._tag).toBe("QuorumUnavailable")
    }))

  test("a node's own client changes a range; one that has changed already says so", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client({ internal: true })
      const at = hashPosition(1, utf8("k"))
      const found = cluster.descriptors.findLast(({ start }) => Buffer.compare(start, at) <= 0)
      const { id, boundsVersion } = found as (typeof cluster.descriptors)[number]
      const split = { _tag: "Split", boundsVersion, at, child: 77 } as const
      const { descriptor } = await run(kv.changeRange(id, split))
      expect(descriptor).toMatchObject({ id, boundsVersion: (boundsVersion as number) + 1 })
      expect((await failure(kv.changeRange(id, split)))._tag).toBe("RangeMoved")
      expect((await failure(kv.changeRange(999, split)))._tag).toBe("InvalidRequest")
      await run(kv.put("default", "k", "1"))
      expect(cluster.applied.at(-1)?.range).toBe(77)
      const stranger = await client()
      const error = await failure(stranger.changeRange(id, { _tag: "Transfer", to: 2 }))
      expect(error._tag).toBe("InvalidRequest")
    }))
})
