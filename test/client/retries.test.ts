import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { KvorumError } from "../../src/Errors.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { NodeId } from "../../src/types.ts"
import { CommandView } from "../../src/wire/command.ts"
import { type Doors, withDoors } from "../doors/harness.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))

function rangeOf(doors: Doors, key: string) {
  const position = hashPosition(1, utf8(key))
  const found = doors.cluster.descriptors.filter((r) => Buffer.compare(r.start, position) <= 0)
  return found.at(-1) as (typeof found)[number]
}

function identityOf(command: Uint8Array) {
  const view = new CommandView()
  view.at(command, 0)
  const { clientId, sequence, ackedBelow, expiresAt } = view
  return { clientId, sequence, ackedBelow, expiresAt }
}

describe("the client's retries", () => {
  test("a hint leads to the new leader, which is asked first from then on", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      const range = rangeOf(doors, "a").id
      const leader = doors.cluster.leaders.get(range) as NodeId
      const next = (leader % 3) + 1
      doors.cluster.leaders.set(range, next)
      const asked: Array<NodeId> = []
      doors.cluster.intercept = ({ node }) => {
        asked.push(node)
        return false
      }
      expect((await run(kv.get("default", "a"))).receipt.node).toBe(next)
      expect((await run(kv.get("default", "a"))).receipt.node).toBe(next)
      expect(asked).toEqual([leader, next, next])
    }))

  test("with a node gone, calls go on at the others", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      for (let i = 0; i < 20; i++) await run(kv.put("default", `k${i}`, "1"))
      await doors.stop(2)
      for (const [range, leader] of doors.cluster.leaders) {
        if (leader === 2) doors.cluster.leaders.set(range, 3)
      }
      for (let i = 0; i < 20; i++) await run(kv.put("default", `k${i}`, "2"))
      expect(doors.cluster.applied.length).toBe(40)
      const { nodes, unreachable } = await run(kv.status())
      expect(nodes.map((node) => node.id)).toEqual([1, 3])
      expect(unreachable).toEqual([2])
      await doors.start(2)
      expect((await run(kv.status())).unreachable).toEqual([])
    }))

  test("a client whose first endpoints are dead finds the cluster by another", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const endpoints = ["127.0.0.1:1", "127.0.0.1:2", doors.endpoint(1)]
      const kv = await doors.client({ endpoints })
      expect((await run(kv.put("default", "a", "1"))).receipt.node).toBe(1)
    }))

  test("a mutation whose answer was lost is sent again as the same one, and applied once", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      const before = doors.cluster.applied.length
      const copies: Array<ReturnType<typeof identityOf>> = []
      doors.cluster.intercept = ({ node, request, carryOut }) => {
        if (request._tag !== "Mutate") return false
        copies.push(identityOf(request.command))
        if (copies.length > 2) return false
        // It is carried out, but the connection breaks before the answer leaves.
        carryOut(() => {})
        void doors.stop(node).then(() => doors.start(node))
        return true
      }
      const written = await run(kv.put("default", "a", "1"))
      expect(copies.length).toBeGreaterThanOrEqual(3)
      for (const copy of copies) expect(copy).toEqual(copies[0] as (typeof copies)[number])
      expect(doors.cluster.applied.length).toBe(before + 1)
      doors.cluster.intercept = () => false
      expect(await run(kv.get("default", "a"))).toMatchObject({ version: written.version })
    }))

  test("a lost answer and then only refusals: the outcome is unknown", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      let copies = 0
      doors.cluster.intercept = ({ node, request, reply }) => {
        if (request._tag !== "Mutate") return false
        if (++copies === 1) void doors.stop(node).then(() => doors.start(node))
        else reply(doors.cluster.refused({ _tag: "QuorumUnavailable", range: request.range }))
        return true
      }
      const error = await failure(kv.put("default", "a", "1", { deadlineMs: 300 }))
      expect(error._tag).toBe("OutcomeUnknown")
      expect(copies).toBeGreaterThan(2)
    }))

  test("an answer that never comes: the outcome of a put is unknown, a get had no quorum", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      doors.cluster.intercept = () => true
      expect((await failure(kv.put("default", "a", "1", { deadlineMs: 100 })))._tag).toBe(
        "OutcomeUnknown",
      )
      expect((await failure(kv.get("default", "a", { deadlineMs: 100 })))._tag).toBe(
        "QuorumUnavailable",
      )
    }))

  test("refusals only, however many: the refusal is reported, since no copy left a trace", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      let copies = 0
      doors.cluster.intercept = ({ request, reply }) => {
        copies++
        reply(doors.cluster.refused({ _tag: "NotLeader", range: request.range, leader: undefined }))
        return true
      }
      const error = await failure(kv.put("default", "a", "1", { deadlineMs: 200 }))
      expect(error._tag).toBe("QuorumUnavailable")
      expect(error.message).toContain("no leader")
      expect(copies).toBeGreaterThan(3)
      const what = "a queue"
      doors.cluster.intercept = ({ reply }) => {
        reply(doors.cluster.refused({ _tag: "Overloaded", what }))
        return true
      }
      const full = await failure(kv.put("default", "a", "1", { deadlineMs: 100 }))
      expect(full).toMatchObject({ _tag: "Overloaded", what })
    }))

  test("pitfall 40: two nodes that point at each other are not asked in a loop", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      let copies = 0
      doors.cluster.intercept = ({ node, request, reply }) => {
        copies++
        const leader = node === 1 ? 2 : 1
        reply(doors.cluster.refused({ _tag: "NotLeader", range: request.range, leader }))
        return true
      }
      const error = await failure(kv.get("default", "a", { deadlineMs: 300 }))
      expect(error._tag).toBe("NotLeader")
      expect(copies).toBeLessThan(60)
    }))

  test("a node that hangs is given up, and its connection closed, so that calls go elsewhere", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client({ attemptTimeoutMs: 60 })
      await run(kv.put("default", "a", "0"))
      const range = rangeOf(doors, "a").id
      const hung = doors.cluster.leaders.get(range) as NodeId
      doors.cluster.leaders.set(range, (hung % 3) + 1)
      doors.cluster.intercept = ({ node }) => node === hung
      const written = await run(kv.put("default", "a", "1", { deadlineMs: 5000 }))
      expect(written.receipt.node).toBe((hung % 3) + 1)
      expect(doors.door(hung).stats().connections).toBe(0)
    }))

  test("a range that was split is found again by what the refusal tells", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      const keys = Array.from({ length: 40 }, (_, i) => `k${i}`)
      for (const key of keys) await run(kv.put("default", key, "1"))
      for (const key of ["k1", "k2", "k3"]) {
        doors.cluster.split(rangeOf(doors, key).id, hashPosition(1, utf8(key)))
      }
      for (const key of keys) await run(kv.put("default", key, "2"))
      for (const key of keys) expect((await run(kv.get("default", key))).found).toBe(true)
      expect(doors.cluster.applied.length).toBe(80)
      const { entries } = await run(kv.scanPage("default"))
      expect(entries.length).toBe(40)
      expect((await run(kv.ranges())).length).toBe(9)
    }))

  test("pitfall 32: a range that splits between two copies of an add applies it once, in the half of its key", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      const expected = new Map<string, bigint>()
      const copies = new Map<string, Set<string>>()
      let lost = 0
      doors.cluster.intercept = ({ request, carryOut, reply }) => {
        if (request._tag !== "Mutate") return false
        const { clientId, sequence } = identityOf(request.command)
        const view = new CommandView()
        view.at(request.command, 0)
        const key = Buffer.from(view.position).toString("latin1")
        const name = `${clientId}/${sequence}`
        copies.set(name, (copies.get(name) ?? new Set()).add(`${request.range}`))
        if (++lost % 3 !== 0) return false
        // It is carried out, its range is split right there, and the answer is lost.
        carryOut(() => {})
        const { id, start } = doors.cluster.descriptors.find(
          ({ id }) => id === request.range,
        ) as ReturnType<typeof rangeOf>
        const at = Uint8Array.from(Buffer.from(key, "latin1"))
        if (Buffer.compare(start, at) < 0) doors.cluster.split(id, at)
        // As a node that stops leading and does not know what became of it.
        reply(doors.cluster.refused({ _tag: "OutcomeUnknown", range: request.range }))
        return true
      }
      for (let i = 0; i < 120; i++) {
        const key = `k${i % 30}`
        const sum = (expected.get(key) ?? 0n) + 1n
        expected.set(key, sum)
        expect((await run(kv.add("default", key, 1))).value).toBe(sum)
      }
      expect(doors.cluster.applied.length).toBe(120)
      expect(doors.cluster.descriptors.length).toBeGreaterThan(20)
      // Copies of one and the same command did go to a range and to its half.
      expect([...copies.values()].some((ranges) => ranges.size > 1)).toBe(true)
    }))

  test("a command that may have happened is never reported refused, and not given up before its deadline", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "0"))
      for (const refusal of [
        { _tag: "DiskFull", node: 1 },
        { _tag: "InvalidRequest", message: "no" },
        { _tag: "StorageCorrupt", message: "bytes" },
      ] as const) {
        let copies = 0
        doors.cluster.intercept = ({ request, carryOut, reply }) => {
          if (request._tag !== "Mutate") return false
          copies++
          if (copies === 1) {
            carryOut(() => {})
            reply(doors.cluster.refused({ _tag: "OutcomeUnknown", range: request.range }))
          } else if (copies < 4) reply(doors.cluster.refused(refusal))
          else return false
          return true
        }
        const before = doors.cluster.applied.length
        await run(kv.put("default", "a", "1"))
        expect(doors.cluster.applied.length).toBe(before + 1)
        expect(copies).toBe(4)
      }
      let copies = 0
      doors.cluster.intercept = ({ request, reply }) => {
        if (request._tag !== "Mutate") return false
        if (++copies > 1) reply(doors.cluster.refused({ _tag: "DiskFull", node: 1 }))
        else reply(doors.cluster.refused({ _tag: "OutcomeUnknown", range: request.range }))
        return true
      }
      const startedAt = performance.now()
      const error = await failure(kv.put("default", "a", "2", { deadlineMs: 250 }))
      expect(error._tag).toBe("OutcomeUnknown")
      expect(performance.now() - startedAt).toBeGreaterThan(240)
      // With no copy uncertain, it is said at once.
      doors.cluster.intercept = ({ request, reply }) => {
        if (request._tag !== "Mutate") return false
        reply(doors.cluster.refused({ _tag: "DiskFull", node: 1 }))
        return true
      }
      expect((await failure(kv.put("default", "a", "3")))._tag).toBe("DiskFull")
    }))

  test("a command that expired on its only way is made anew with what is known of the range's time", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      // As after an hour in which this client's clock stood still.
      doors.cluster.advance(3600 * 1_000_000)
      const identities: Array<ReturnType<typeof identityOf>> = []
      doors.cluster.intercept = ({ request }) => {
        if (request._tag === "Mutate") identities.push(identityOf(request.command))
        return false
      }
      await run(kv.put("default", "a", "2"))
      expect(identities.length).toBe(2)
      expect(identities[1]?.sequence).toBeGreaterThan(identities[0]?.sequence as number)
      expect(identities[1]?.expiresAt).toBeGreaterThan(doors.cluster.time)
      expect(doors.cluster.applied.length).toBe(2)
    }))

  test("an interrupted call stops retrying and lets later ones acknowledge past it", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      doors.cluster.intercept = () => true
      const outcome = await run(Effect.timeoutOption(kv.put("default", "a", "2"), "20 millis"))
      expect(outcome._tag).toBe("None")
      let acked = 0
      doors.cluster.intercept = ({ request }) => {
        if (request._tag === "Mutate") acked = identityOf(request.command).ackedBelow
        return false
      }
      await run(kv.put("default", "a", "3"))
      await run(kv.put("default", "a", "4"))
      expect(acked).toBe(4)
    }))

  test("a node of another cluster is not talked to", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      await withDoors({ nodes: 1 }, async (others) => {
        const foreign = others.cluster.store(1)
        others.cluster.store = () => ({
          ...foreign,
          identity: { ...foreign.identity, clusterId: "another" },
        })
        await others.stop(1)
        await others.start(1)
        const kv = await doors.client({ endpoints: [doors.endpoint(1), others.endpoint(1)] })
        for (let i = 0; i < 10; i++) {
          await run(kv.put("default", `k${i}`, "1"))
          await run(kv.namespaces())
        }
        expect(doors.cluster.applied.length + others.cluster.applied.length).toBe(10)
        expect([0, 10]).toContain(others.cluster.applied.length)
      })
    }))

  test("with no node at all a call ends at its deadline, saying what was tried", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client({ endpoints: ["127.0.0.1:1"] })
      const error = await failure(kv.put("default", "a", "1", { deadlineMs: 150 }))
      expect(error._tag).toBe("QuorumUnavailable")
      expect(error.message).toContain("127.0.0.1:1")
    }))
})
