import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import { utf8 } from "../../src/lib/bytes.ts"
import { slotCount, slotOf } from "../../src/lib/slot.ts"
import { memberOf } from "../../src/topology/member.ts"
import { founded, until, withNodes } from "./nodes.ts"
import {
  expectAll,
  expectShown,
  isAtRest,
  keys,
  oneOwnerSet,
  order,
  ownedBy,
  owns,
  ringAt,
  takesWrites,
  writeAll,
} from "./rings.ts"

describe("the ring", () => {
  test("takes in a node that joins and lets one go that is removed, and every key is with its owners", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await takesWrites(nodes, ["n1", "n2", "n3"], client)
      await writeAll(client, "one")
      await nodes.join("joiner")
      // Nodes that have not yet heard of the ring or of each other may not reach all owners.
      const during = writeAll(client, "two", "quorum")
      await until(
        "n4 owns its share",
        () => {
          const ring = ringAt(nodes, "n1")
          return isAtRest(ring) && ownedBy(ring, 4) > 0
        },
        60_000,
      )
      await during
      const ring = ringAt(nodes, "n1")
      // Three of four own each slot.
      expect(ownedBy(ring, 4) / slotCount).toBeCloseTo(0.75, 1)
      await expectShown(client, "two")
      await expectAll(client, "two")
      expect(keys.some((key) => owns(ring, slotOf(utf8(key)), 4))).toBe(true)

      // It leaves once: whoever keeps the ring must not take it for a newcomer as soon as it has no slot.
      const states: Array<string> = []
      const watch = setInterval(() => {
        const state = memberOf(ringAt(nodes, "n1").members, 2)?.state ?? "out"
        if (states.at(-1) !== state) states.push(state)
      }, 5)
      await order(client, "node.remove", { node: 2 }, 1)
      clearInterval(watch)
      expect(states.filter((state) => state !== "member")).toEqual(["leaving", "out"])
      expect(states.at(-1)).toBe("out")
      const gone = () => {
        const now = ringAt(nodes, "n1")
        return isAtRest(now) && ownedBy(now, 2) === 0
      }
      await until("n2 owns nothing", gone, 40_000)
      await oneOwnerSet(nodes, ["n1", "n3", "joiner"])
      await expectAll(client, "two")
      await until("n2 stops by itself", () => nodes.node("n2").failure !== undefined)
      expect(nodes.node("n2").failure).toContain("n2 was removed from its cluster")
      const late = await nodes.client(false, [2])
      const asked = late.eventual.put("eventual", keys[0] as string, "late", {
        consistency: "one",
        deadlineMs: 1000,
      })
      expect((await Effect.runPromise(Effect.flip(asked)))._tag).toBe("QuorumUnavailable")
      await writeAll(client, "three")
      await expectAll(client, "three")
    })
  }, 120_000)

  test("goes on where it was when the node that joins and the one that leads start again in the middle", async () => {
    await withNodes(3, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await takesWrites(nodes, ["n1", "n2", "n3"], client)
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
      await oneOwnerSet(nodes, ["n1", "n2", "n3", "joiner"])
      await expectAll(client, "one")
      await writeAll(client, "two")
      await expectAll(client, "two")
    })
  }, 120_000)

  test("lets a node go that falls while it hands its slots over", async () => {
    await withNodes(4, async (nodes) => {
      await founded(nodes)
      const client = await nodes.client()
      await takesWrites(nodes, ["n1", "n2", "n3", "n4"], client)
      await writeAll(client, "one")
      // By one that stays: from one that stops its client would not hear what became of it.
      const removed = order(client, "node.remove", { node: 4 }, 1)
      await until("n4 is half through", () => {
        const ring = ringAt(nodes, "n1")
        const owned = ownedBy(ring, 4)
        return memberOf(ring.members, 4)?.state === "leaving" && owned > 0 && owned < slotCount / 2
      })
      // Nothing new is given to it.
      const late = order(client, "range.addReplica", { range: 1, on: 4 }, 1)
      expect(((await late.catch((error: unknown) => error)) as Error).message).toContain(
        "n4 is being removed",
      )
      await nodes.stop("n4")
      await removed
      await oneOwnerSet(nodes, ["n1", "n2", "n3"])
      expect(ownedBy(ringAt(nodes, "n1"), 4)).toBe(0)
      await expectAll(client, "one")
    })
  }, 120_000)
})
