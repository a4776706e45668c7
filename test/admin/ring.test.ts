import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"
import type { Ring } from "../../src/topology/ring.ts"
import { slotsToMove } from "../../src/topology/ringChange.ts"
import { founded, type Nodes, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise
const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`)

const order = (client: ClientShape, verb: string, args: unknown) =>
  run(client.admin(verb, args, { deadlineMs: 60_000 })) as Promise<Record<string, unknown>>

/** As a node knows it. */
function ringAt(nodes: Nodes, name: string): Ring {
  const { ring } = nodes.node(name).control.directory()
  if (ring === undefined) throw new Error(`${name} knows no ring`)
  return ring.ring
}

function isAtRest(ring: Ring): boolean {
  return ring.changes().length === 0 && slotsToMove(ring, ring.goal()) === 0
}

const owns = (ring: Ring, slot: number, node: number) => ring.isOwner(slot, 3, node)

/** Slots of which a node is an owner, now or soon. */
function ownedBy(ring: Ring, node: number): number {
  let count = 0
  for (let slot = 0; slot < slotCount; slot++) if (owns(ring, slot, node)) count++
  return count
}

async function writeAll(client: ClientShape, round: string): Promise<void> {
  for (const key of keys) {
    const options = { consistency: "quorum" } as const
    const { context } = await run(client.eventual.get("eventual", key, options))
    await run(client.eventual.put("eventual", key, `${key} ${round}`, { ...options, context }))
  }
}

/** Every owner that counts answers, and none has anything else. */
async function expectAll(client: ClientShape, round: string): Promise<void> {
  for (const key of keys) {
    const found = await run(client.eventual.get("eventual", key, { consistency: "all" }))
    expect(found.siblings.map(text)).toEqual([`${key} ${round}`])
  }
}

describe("the ring", () => {
  test("takes in a node that joins and lets one go that is removed, and every key is with its owners", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await until("there is a ring", () => {
        return nodes.node("n1").control.directory().ring !== undefined
      })
      await writeAll(client, "one")
      await nodes.join("joiner")
      const during = writeAll(client, "two")
      await until("n4 owns its share", () => {
        const ring = ringAt(nodes, "n1")
        return isAtRest(ring) && ownedBy(ring, 4) > 0
      })
      await during
      const ring = ringAt(nodes, "n1")
      // Three of four own each slot.
      expect(ownedBy(ring, 4) / slotCount).toBeCloseTo(0.75, 1)
      await expectAll(client, "two")
      expect(keys.some((key) => owns(ring, slotOf(utf8(key)), 4))).toBe(true)

      await order(client, "node.remove", { node: 2 })
      const gone = () => {
        const now = ringAt(nodes, "n1")
        return isAtRest(now) && ownedBy(now, 2) === 0
      }
      await until("n2 owns nothing", gone, 40_000)
      await writeAll(client, "three")
      await expectAll(client, "three")
    })
  }, 120_000)

  test("goes on where it was when the node that joins and the one that leads start again in the middle", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await writeAll(client, "one")
      const place = await nodes.join("joiner")
      const isChanging = () => ringAt(nodes, "joiner").changes().length > 0
      await until("slots are on their way to n4", isChanging)
      await nodes.stop("joiner")
      const leader = nodes.founders.find((id) =>
        nodes
          .node(`n${id}`)
          .control.led()
          .some((r) => r.id === 0),
      )
      if (leader === undefined) throw new Error("nobody leads the meta group")
      await nodes.stop(`n${leader}`)
      await nodes.join("joiner", place)
      await nodes.start(leader)
      await until(
        "the ring rests",
        () => {
          const ring = ringAt(nodes, "joiner")
          return isAtRest(ring) && ownedBy(ring, 4) > 0
        },
        40_000,
      )
      await until("all know the same ring", () => {
        const versions = ["n1", "n2", "n3", "joiner"].map((name) => ringAt(nodes, name).version)
        return new Set(versions).size === 1
      })
      await expectAll(client, "one")
      await writeAll(client, "two")
      await expectAll(client, "two")
    })
  }, 120_000)
})
