import { expect, test } from "bun:test"
import type { EventualReply } from "../../src/dynamo/node/requests.ts"
import { EventualCluster, put, seenIn, siblings } from "./eventualCluster.ts"

const place = { namespace: siblings, key: "a" }

const told = (reply: EventualReply | undefined) =>
  reply?._tag === "EventualRefused" ? reply.refusal._tag : reply?._tag

test("AP pitfall 4: a node that is not of its cluster answers what is under way, refuses the rest, and speaks to nobody, also after a new ring", () => {
  const cluster = new EventualCluster(3)
  expect(told(cluster.write(1, place, put("one"), { level: "all" }))).toBe("EventualWritten")
  cluster.pass(100)
  const before = cluster.held(siblings, "a")[cluster.owners("a").indexOf(1)]
  const answer = cluster.beginWrite(3, place, put("two"), { level: "all", strict: true })
  cluster.node(3).loop.eventual.resign()
  cluster.until("what was under way is answered", () => answer() !== undefined)
  expect(told(answer())).toMatch(/WriteUnknown|Overloaded/)
  for (const round of ["first", "later"]) {
    const write = cluster.write(3, place, put(`lost ${round}`), { level: "one" })
    expect(told(write)).toBe("Overloaded")
    expect(told(cluster.read(3, place, "one"))).toBe("Overloaded")
    cluster.teach(3)
    cluster.pass(1000)
  }
  const others = [1, 2].map((id) => cluster.held(siblings, "a")[cluster.owners("a").indexOf(id)])
  expect(others).toEqual([before, before])
  expect(seenIn(cluster.read(1, place, "quorum"), siblings, "a").values).toEqual(["one"])
  expect(told(cluster.write(1, place, put("all"), { level: "all", strict: true }))).not.toBe(
    "EventualWritten",
  )
})
