import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

const order = (client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 60_000 })) as Promise<Record<string, unknown>>

describe("a node that joins", () => {
  test("has its own id for ever, known by all; asked twice for one incarnation, the cluster gives it once", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      const { identity } = nodes.node("joiner").store
      expect(identity.node).toBe(4)
      expect(identity.clusterId).toBe(nodes.node("n1").store.identity.clusterId)
      const recordAt = (id: number) =>
        nodes
          .node(`n${id}`)
          .control.directory()
          .nodes.find((node) => node.id === 4)
      for (const id of nodes.founders) {
        expect(recordAt(id)).toMatchObject({ incarnation: identity.incarnation })
      }
      // Let in, and then heard of as running.
      await until("n4 is a member", () => recordAt(1)?.state === "member")
      const record = nodes.node("n1").control.directory().nodes[3] as object
      const again = await order(client, "node.join", record)
      expect(again.node).toBe(4)
      await nodes.stop("joiner")
      await nodes.join("joiner", place)
      expect(nodes.node("joiner").store.identity.node).toBe(4)
      const other = { ...record, incarnation: "other", peer: "127.0.0.1:1", client: "127.0.0.1:2" }
      expect((await order(client, "node.join", other)).node).toBe(5)
    })
  }, 60_000)

  test("several join at once, by way of different nodes: each has an id, all are members, in the ring, and take replicas", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const names = ["a", "b", "c"]
      await Promise.all(names.map((name) => nodes.join(name)))
      const ids = names.map((name) => nodes.node(name).store.identity.node)
      expect([...ids].sort()).toEqual([4, 5, 6])
      const rows = async (verb: string, field: string) =>
        (await order(client, verb, {}))[field] as ReadonlyArray<Record<string, unknown>>
      await until("all are up", async () => {
        const shown = await rows("node.list", "nodes")
        return shown.length === 6 && shown.every(({ state }) => state === "up")
      })
      await until("all are in the ring", async () => {
        return (await rows("ring.show", "members")).length === 6
      })
      for (const [i, on] of ids.entries()) {
        await order(client, "range.addReplica", { range: i + 1, on })
      }
      for (const [i, on] of ids.entries()) {
        const range = nodes.ranges().find(({ id }) => id === i + 1)
        expect(range?.replicas.map(({ node }) => node)).toContain(on)
      }
      expect(await run(client.put("default", "key", "value"))).toBeDefined()
    })
  }, 120_000)

  test("a node says where it stands and what it can carry; it may bind elsewhere than where others call", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const standing = { zone: "z2", rack: "r1", host: "h7", capacity: 2 }
      // Others call a forwarder, as they would behind a translation of addresses.
      const place = await nodes.join("inside", { standing, forwarded: true })
      expect(place).toBe(4)
      await until("n4 is up", async () => {
        const listed = await order(client, "node.list", {})
        const shown = listed.nodes as ReadonlyArray<Record<string, unknown>>
        const { state, zone, rack, host, capacity } = shown[3] ?? {}
        return (
          JSON.stringify([state, zone, rack, host, capacity]) ===
          JSON.stringify(["up", "z2", "r1", "h7", 2])
        )
      })
      await order(client, "range.move", { range: 1, from: 1, to: 4 })
      await order(client, "range.transfer", { range: 1, to: 4 })
      const direct = await nodes.client(false, [4])
      expect(await run(direct.put("default", "key", "value"))).toBeDefined()
    })
  }, 120_000)

  test("pitfall 28: an emptied directory does not come back as the node that it was, joined or founder", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      await order(client, "range.addReplica", { range: 1, on: 4 })
      await nodes.stop("joiner")
      nodes.wipe("joiner")
      await expect(nodes.join("joiner", place)).rejects.toThrow(
        "is the address of n4, which has another data directory",
      )

      const before = nodes.node("n3").store.identity.incarnation
      await nodes.stop("n3")
      nodes.wipe("n3")
      await nodes.start(3)
      expect(nodes.node("n3").store.identity.incarnation).not.toBe(before)
      await until("the emptied n3 stops by itself", () => nodes.node("n3").failure !== undefined)
      expect(nodes.node("n3").failure).toContain("n3 is known to its cluster by another data")
      await run(client.put("default", "still", "here"))
    })
  }, 60_000)

  test("starts again, and serves, while the meta group is out of reach, by what it kept on disk", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      const place = await nodes.join("joiner")
      for (const range of [1, 2, 3, 4]) await order(client, "range.addReplica", { range, on: 4 })
      // The meta group on n3 alone, and n3 down.
      for (const on of [1, 2]) await order(client, "range.removeReplica", { range: 0, on })
      await until("n4 has heard of it", () => {
        const ranges = nodes.node("joiner").control.directory().ranges
        return ranges.find(({ id }) => id === 0)?.replicas.length === 1
      })
      await nodes.stop("n3")
      await nodes.stop("joiner")
      await nodes.join("joiner", place)
      expect(
        nodes
          .node("joiner")
          .store.nodes()
          .map(({ id }) => id),
      ).toEqual([1, 2, 3, 4])
      await run(client.put("default", "key", "value"))
      const found = await run(client.get("default", "key"))
      expect(found.found && text(found.value)).toBe("value")
      const waiting = client.admin("namespace.list", {}, { deadlineMs: 1000 })
      expect((await run(Effect.flip(waiting)))._tag).not.toBe("InvalidRequest")
    })
  }, 60_000)
})
