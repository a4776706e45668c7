import { expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

/** Writers that count up keys of `default` for as long as they are let, each key by one writer only. */
class Load {
  readonly acknowledged = new Map<string, number>()
  readonly errors: Array<string> = []
  private stopped = false
  private readonly writers: ReadonlyArray<Promise<void>>

  constructor(client: ClientShape) {
    this.writers = Array.from({ length: 4 }, (_, writer) => this.write(client, writer))
  }

  private async write(client: ClientShape, writer: number): Promise<void> {
    for (let i = 1; !this.stopped; i++) {
      const key = `load-${writer}-${i % 50}`
      try {
        await run(client.put("default", key, `${i}`))
        this.acknowledged.set(key, i)
      } catch (error) {
        this.errors.push(String(error))
      }
    }
  }

  async stop(): Promise<void> {
    this.stopped = true
    await Promise.all(this.writers)
  }
}

async function expectAll(client: ClientShape, load: Load): Promise<void> {
  for (const [key, last] of load.acknowledged) {
    const found = await run(client.get("default", key))
    expect(found.found ? Number(text(found.value)) : undefined, key).toBe(last)
  }
}

test("a fourth node joins, a range is split and moved to it under load, a node is removed, namespaces come and go", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    const admin = (verb: string, args: unknown) =>
      run(client.admin(verb, args, { deadlineMs: 60_000 }))
    const load = new Load(client)
    await nodes.join("joiner")
    expect(nodes.node("joiner").store.identity.node).toBe(4)

    // Cut range 2 at the key of its middle, and move the right half to n4.
    const { left, right } = (await admin("range.split", { range: 2, at: "000000011800" })) as {
      left: number
      right: number
    }
    expect(left).toBe(2)
    await admin("range.move", { range: right, from: 2, to: 4 })
    await until("n4 has a replica of the new range", () =>
      nodes
        .node("joiner")
        .control.directory()
        .ranges.some(({ id, replicas }) => id === right && replicas.some(({ node }) => node === 4)),
    )

    await admin("namespace.create", { name: "users", ranges: 3, partitioning: "hash" })
    await admin("namespace.create", { name: "log", ranges: 2, partitioning: "ordered" })
    await run(client.put("users", "a", "1"))
    for (const key of ["b", "a", "c"]) await run(client.put("log", key, key))
    const page = await run(client.scanPage("log"))
    expect(page.entries.map(({ key }) => text(key))).toEqual(["a", "b", "c"])

    const removed = (await admin("node.remove", { node: 2 })) as { moved: number }
    expect(removed.moved).toBeGreaterThan(0)
    await until("n2 stops by itself", () => nodes.node("n2").failure !== undefined)
    expect(nodes.node("n2").failure).toContain("n2 was removed from its cluster")

    await admin("namespace.delete", { name: "users" })
    const gone = await run(Effect.flip(client.get("users", "a", { deadlineMs: 3000 })))
    expect(gone.message).toContain("users")
    const again = await run(Effect.flip(client.admin("namespace.delete", { name: "users" })))
    expect(again).toMatchObject({ _tag: "NamespaceNotFound", namespace: "users" })
    await load.stop()
    expect(load.errors).toEqual([])
    await expectAll(client, load)
    expect(load.acknowledged.size).toBe(200)
  })
}, 120_000)
