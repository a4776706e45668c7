import { expect, test } from "bun:test"
import { Effect } from "effect"
import { founded, until, withNodes } from "./nodes.ts"

const run = Effect.runPromise

test("a range is handed to a node that is silent for a moment, and not to one that stays silent", async () => {
  await withNodes(3, async (nodes) => {
    await founded(nodes)
    const client = await nodes.client()
    const leaderOf = () =>
      nodes
        .node("n1")
        .store.ranges()
        .find(({ descriptor }) => descriptor.id === 1)?.leader
    const transfer = (to: number) =>
      client.admin("range.transfer", { range: 1, to }, { deadlineMs: 30_000 })
    await run(transfer(1))
    await until("n1 leads", () => leaderOf() === 1)
    await nodes.stop("n3")
    // Until the leader has missed it.
    await Bun.sleep(1500)
    const given = run(transfer(3))
    await Bun.sleep(1000)
    await nodes.start(3)
    await given
    await until("n3 leads", () => leaderOf() === 3)
    await run(transfer(1))
    await nodes.stop("n2")
    await Bun.sleep(1500)
    const refused = await run(Effect.flip(transfer(2)))
    expect(refused.message).toContain("node 2 was not heard of lately")
  })
}, 60_000)
