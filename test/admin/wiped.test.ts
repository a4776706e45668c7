import { expect, test } from "bun:test"
import { Effect } from "effect"
import type { EventualReply, EventualRequest } from "../../src/dynamo/node/requests.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { firstEventualNamespace } from "../../src/server/directory.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"
import {
  expectAll,
  isAtRest,
  keys,
  oneOwnerSet,
  order,
  ownedBy,
  ringAt,
  takesWrites,
  writeAll,
} from "./rings.ts"

const run = Effect.runPromise

const namespace = firstEventualNamespace + 1
const base = { token: 0, namespace, level: "one", deadlineMs: 300, key: utf8("key-1") } as const
const fields = { context: undefined, strict: false, requestId: 0 }
const change = { _tag: "Put", value: utf8("lost"), ttlMs: 0 } as const
const write: EventualRequest = { _tag: "EventualWrite", ...base, ...fields, change }
const read: EventualRequest = { _tag: "EventualRead", ...base }

/** All that one node answers until it stops. A client would ask another one. */
async function answersOf(nodes: Nodes, name: string): Promise<ReadonlySet<string>> {
  const node = nodes.node(name)
  const answers = new Set<string>()
  const note = (reply: EventualReply) =>
    void answers.add(reply._tag === "EventualRefused" ? reply.refusal._tag : reply._tag)
  await until(`${name} stops by itself`, () => {
    if (node.failure !== undefined) return true
    for (const request of [write, read]) node.store.eventual(request, note)
    return false
  })
  return answers
}

/**
 * The eventual half counts its epochs in its own journal: one that begins with an empty one would give out dots that others have seen, and owners would take its writes for old ones. What keeps that
 * from happening is the node's incarnation: no peer listens to it, so that it learns of no ring and no namespace, until it is told to stop.
 */
test("AP pitfall 4: a node whose directory was emptied takes no eventual requests, and comes back as another one that is filled first", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    await takesWrites(nodes, ["n1", "n2", "n3"], client)
    await writeAll(client, "one")
    await nodes.stop("n3")
    nodes.wipe("n3")
    await nodes.start(3)
    const emptied = nodes.node("n3")
    const answers = await answersOf(nodes, "n3")
    expect([...answers]).toContain("Overloaded")
    for (const answer of answers) expect(["Overloaded", "InvalidRequest"]).toContain(answer)
    expect(emptied.failure).toContain("n3 is known to its cluster by another data directory")
    for (const key of keys) {
      const { siblings } = await run(
        client.eventual.get("eventual", key, { consistency: "quorum" }),
      )
      expect(siblings.map(text)).toEqual([`${key} one`])
    }

    // Two owners are left of three, and a quorum is both: levels go by the copies that the namespace asks for.
    await order(client, "node.remove", { node: 3 })
    await oneOwnerSet(nodes, ["n1", "n2"])
    await expectAll(client, "one", "quorum")
    await writeAll(client, "two", "quorum")
    const all = client.eventual.get("eventual", "key-1", { consistency: "all", deadlineMs: 1000 })
    expect((await run(Effect.flip(all)))._tag).toBe("QuorumUnavailable")
    nodes.wipe("n3")
    await nodes.join("n3")
    expect(nodes.node("n3").store.identity.node).toBe(4)
    await until("n4 owns its share", () => {
      const ring = ringAt(nodes, "n1")
      return isAtRest(ring) && ownedBy(ring, 4) > 0
    })
    await oneOwnerSet(nodes, ["n1", "n2", "n3"])
    await expectAll(client, "two")
    await writeAll(client, "three")
    await expectAll(client, "three")
  })
}, 120_000)
