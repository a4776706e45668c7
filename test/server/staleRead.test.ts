import { describe, expect, test } from "bun:test"
import type { EventualReceipt, EventualReply } from "../../src/dynamo/node/requests.ts"
import { text } from "../../src/lib/bytes.ts"
import type { Reply } from "../../src/server/requests.ts"
import { violationsOf } from "../jepsen/check.ts"
import { type HistoryEvent, Recorder, validate } from "../jepsen/history.ts"
import { lww, put, seenIn, unmended } from "./eventualCluster.ts"

const place = { namespace: lww, key: "a" }

/** What one client at one node does to a register: `undefined` when it was refused. */
interface Register {
  readonly write: (node: number, value: number) => boolean
  readonly read: (node: number) => number | null | undefined
}

/**
 * Five nodes, three owners a, b, c of a key, and two that stand in. What is written and read, in turn, before the cut, while it parts a and both stand-ins from b and c, and after it,
 * and what every operation came to, as a history.
 */
function story(mode: "strong" | "eventual" | "strict") {
  const cluster = unmended(5)
  const [a, b, c] = cluster.owners(place.key) as [number, number, number]
  let isCut = false
  const isApart = (from: number, to: number) =>
    isCut && [b, c].includes(from) !== [b, c].includes(to)
  cluster.loses = isApart
  const recorder = new Recorder({ concurrency: 2, nowNs: () => cluster.node(a).nowMs * 1e6 })
  const receipts: Array<EventualReceipt> = []

  const strong: Register = {
    // The client finds the leader, if it can be reached.
    write: (node, value) => {
      const reached = [...cluster.nodes.values()].filter(({ id }) => !isApart(node, id))
      const leader = reached.find(({ isLeader }) => isLeader)
      if (leader === undefined) return false
      const reply = cluster.answer(leader, leader.mutate(place.key, { put: `${value}` }))
      if (reply?._tag !== "Mutated") throw new Error(JSON.stringify(reply))
      return true
    },
    read: (node) => {
      const at = cluster.node(node)
      return answered(
        cluster.answer(at, at.read(place.key, { anyReplica: true, deadlineMs: 1500 })),
      )
    },
  }
  const eventual: Register = {
    write: (node, value) => {
      const strict = mode === "strict"
      const reply = cluster.write(node, place, put(`${value}`), { level: "quorum", strict })
      if (reply._tag === "EventualWritten") receipts.push(reply.receipt)
      return reply._tag === "EventualWritten"
    },
    read: (node) => shownBy(cluster.read(node, place, "quorum")),
  }
  const register = mode === "strong" ? strong : eventual

  const write = (worker: number, node: number, value: number) => {
    const call = recorder.invoke(worker, { f: "write", key: place.key, value })
    cluster.pass(10)
    // Refused is not written: there is no leader to send it to, or too few nodes for the level.
    recorder.complete(call, { type: register.write(node, value) ? "ok" : "fail" })
    cluster.pass(10)
  }
  const read = (worker: number, node: number) => {
    const call = recorder.invoke(worker, { f: "read", key: place.key, value: null })
    cluster.pass(10)
    const value = register.read(node)
    if (value === undefined) recorder.complete(call, { type: "fail" })
    else recorder.complete(call, { type: "ok", value })
    cluster.pass(10)
  }
  cluster.untilLeader(1)
  write(0, a, 1)
  read(1, b)
  recorder.nemesis("cut", [b, c])
  isCut = true
  cluster.pass(3000)
  write(0, a, 2)
  read(1, b)
  write(1, b, 3)
  recorder.nemesis("heal", null)
  isCut = false
  cluster.pass(3000)
  read(1, b)
  validate(recorder.events)
  return { events: recorder.events, receipts }
}

function answered(reply: Reply | undefined): number | null | undefined {
  if (reply?._tag !== "Value") return undefined
  return reply.value === undefined ? null : Number(text(reply.value))
}

function shownBy(reply: EventualReply): number | null | undefined {
  if (reply._tag !== "EventualValue") return undefined
  const [value] = seenIn(reply, place.namespace, place.key).values
  return value === undefined ? null : Number(value)
}

const endings = (events: ReadonlyArray<HistoryEvent>) =>
  events
    .filter(({ type, process }) => type !== "invoke" && process !== "nemesis")
    .map(({ type, f, value }) => (type === "ok" ? `${f} ${value}` : `${f} refused`))

describe("a read at a quorum after a write at a quorum, R + W > N, on two sides of a cut", () => {
  test("AP pitfall 11: is stale where stand-ins make up the quorum: the receipt says so, and the checker finds no order for it", () => {
    const { events, receipts } = story("eventual")
    expect(endings(events)).toEqual(["write 1", "read 1", "write 2", "read 1", "write 3", "read 3"])
    expect(receipts.map(({ sloppy, overlap }) => ({ sloppy, overlap }))).toEqual([
      { sloppy: false, overlap: true },
      { sloppy: true, overlap: false },
      { sloppy: false, overlap: true },
    ])
    const problems = violationsOf(events)
    expect(problems.length).toBe(1)
    expect(problems[0]).toContain("no place for get 1")
  })

  test("the same in a strong namespace: the side without a majority refuses, the other goes on, and the history is linearizable", () => {
    const { events } = story("strong")
    expect(endings(events)).toEqual([
      "write 1",
      "read 1",
      "write refused",
      "read 1",
      "write 3",
      "read 3",
    ])
    expect(violationsOf(events)).toEqual([])
  })

  test("the same without stand-ins: the side with one owner refuses, and nothing is stale", () => {
    const { events } = story("strict")
    expect(endings(events)).toEqual([
      "write 1",
      "read 1",
      "write refused",
      "read 1",
      "write 3",
      "read 3",
    ])
    expect(violationsOf(events)).toEqual([])
  })
})
