import { expect, test } from "bun:test"
import { Effect } from "effect"
import { type TendingPolicy, tendingDefaults } from "../../src/admin/Tending.ts"
import type { ClientShape } from "../../src/client/Client.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const order = <A>(client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 120_000 })) as Promise<A>

/** As it ships, but smaller and sooner. */
function policy(sizing: Partial<TendingPolicy["sizing"]>, more: Partial<TendingPolicy> = {}) {
  const never = { splitHoldMs: 3_600_000, mergeHoldMs: 3_600_000 }
  return {
    ...tendingDefaults,
    ...{ everyMs: 500, unevenLooks: 1_000_000 },
    ...more,
    sizing: { ...tendingDefaults.sizing, ...never, ...sizing },
  }
}

const rangesOf = (nodes: Nodes, namespace: number) =>
  nodes.ranges().filter((range) => range.namespace === namespace)

async function fill(client: ClientShape, namespace: string, count: number): Promise<void> {
  const value = new Uint8Array(500)
  await run(
    Effect.forEach(
      Array.from({ length: count }, (_, i) => `key:${String(i).padStart(5, "0")}`),
      (key) => client.put(namespace, key, value),
      { concurrency: 64, discard: true },
    ),
  )
}

test("a range that grows past its size is cut by itself, and nothing is lost; small and quiet it is merged again, down to what the namespace began with and cuts that were ordered", async () => {
  await withNodes(
    3,
    async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await order(client, "namespace.create", { name: "grown", partitioning: "ordered" })
      await fill(client, "grown", 2400)
      await until("five ranges at least", () => rangesOf(nodes, 2).length >= 5, 60_000)
      // An order that names a range must find it as it was seen.
      let [count, sinceMs] = [0, performance.now()]
      await until(
        "no range is cut any more",
        () => {
          const present = rangesOf(nodes, 2).length
          if (present !== count) [count, sinceMs] = [present, performance.now()]
          return performance.now() - sinceMs > 3000
        },
        60_000,
      )
      const counted = await run(client.count("grown", {}))
      expect(counted.count).toBe(2400)
      const at = `00000002${toHex(Buffer.from("key:01234"))}`
      const inside = rangesOf(nodes, 2).find(
        ({ start, end }) => toHex(start) < at && (toHex(end) === "" || at < toHex(end)),
      )
      await order(client, "range.split", { range: inside?.id, at })
      // The same data under other limits: as if most of it had been deleted, and compacted away.
      for (const id of nodes.founders) await nodes.stop(`n${id}`)
      nodes.tending = policy({ mergeHoldMs: 2000 })
      await nodes.startAll()
      await until(
        "two ranges, cut where it was ordered",
        () => {
          const left = rangesOf(nodes, 2)
          return left.length === 2 && left.some(({ start }) => toHex(start) === at)
        },
        90_000,
      )
      expect(rangesOf(nodes, 1).length).toBe(4)
      const [left, right] = rangesOf(nodes, 2)
      await order(client, "range.merge", { range: left?.id, with: right?.id })
      expect(rangesOf(nodes, 2).length).toBe(1)
      expect((await run(client.count("grown", {}))).count).toBe(2400)
    },
    policy({ splitBytes: 300_000 }),
  )
}, 240_000)

test("load cuts a range where it is halved; a hot key is told of and not cut", async () => {
  const sizing = { splitRequestsPerSecond: 200, splitHoldMs: 2000 }
  await withNodes(
    1,
    async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await order(client, "namespace.create", { name: "busy", partitioning: "ordered" })
      await order(client, "namespace.create", { name: "hot", partitioning: "ordered" })
      await fill(client, "busy", 100)
      await fill(client, "hot", 100)
      let isOver = false
      const ask = async (namespace: string, key: (i: number) => string) => {
        for (let i = 0; !isOver; i++) await run(client.get(namespace, key(i)))
      }
      const even = (i: number) => `key:${String(i % 100).padStart(5, "0")}`
      const hot = (i: number) => (i % 5 === 0 ? even(i) : "key:00042")
      const askers = Promise.all([
        ...[1, 2, 3, 4].map(() => ask("busy", even)),
        ...[1, 2, 3, 4].map(() => ask("hot", hot)),
      ])
      await until("a cut for load", () => rangesOf(nodes, 2).length >= 2, 60_000)
      const [, second] = rangesOf(nodes, 2)
      const key = Buffer.from(second?.start as Uint8Array)
        .subarray(4)
        .toString()
      expect(key > "key:00020" && key < "key:00080").toBe(true)
      const hotRange = rangesOf(nodes, 3)[0]?.id
      await until(
        "the hot key is named",
        async () => {
          const { ranges } = await order<{ ranges: ReadonlyArray<Reported> }>(
            client,
            "node.report",
            {},
          )
          const found = ranges.find(({ range }) => range === hotRange)
          return (
            found?.hot.some(({ position }) =>
              position.endsWith(toHex(Buffer.from("key:00042"))),
            ) === true
          )
        },
        60_000,
      )
      expect(rangesOf(nodes, 3).length).toBe(1)
      isOver = true
      await askers
    },
    policy(sizing),
  )
}, 180_000)

interface Reported {
  readonly range: number
  readonly hot: ReadonlyArray<{ readonly position: string }>
}

test("a node that joins is given its share by itself; one that is down for long is replaced, and comes back to be given something again", async () => {
  await withNodes(
    3,
    async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await order(client, "namespace.create", { name: "more", ranges: 6 })
      const on = (node: number) =>
        nodes.ranges().filter(({ replicas }) => replicas.some((place) => place.node === node))
      await nodes.join("fourth")
      await until("n4 has its share", () => on(4).length >= 8, 90_000)
      await nodes.stop("n2")
      await until(
        "nothing is left on n2, and every range has three",
        () =>
          on(2).length === 0 &&
          nodes.ranges().every(({ replicas }) => replicas.filter(isVoter).length === 3),
        120_000,
      )
      const { nodes: listed } = await order<{
        nodes: ReadonlyArray<{ id: number; state: string }>
      }>(client, "node.list", {})
      expect(listed.map(({ state }) => state)).toEqual(["up", "down", "up", "up"])
      await nodes.start(2)
      await until("n2 is given something", () => on(2).length >= 6, 90_000)
    },
    policy({}, { unevenLooks: 2, deadAfterMs: 2000 }),
  )
}, 360_000)

const isVoter = ({ role }: { readonly role: string }) => role === "voter"
