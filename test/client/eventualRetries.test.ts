import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { ClientShape } from "../../src/client/Client.ts"
import type { EventualRefusal, EventualReply } from "../../src/dynamo/node/requests.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import type { NodeId } from "../../src/types.ts"
import { type Doors, withDoors } from "../doors/harness.ts"
import { eventualNamespaces } from "../doors/memoryEventual.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))

function withEventual(
  body: (doors: Doors, kv: ClientShape["eventual"]) => Promise<void>,
): Promise<void> {
  return withDoors({ nodes: 3 }, async (doors) => {
    doors.cluster.namespaces.push(...eventualNamespaces)
    const { eventual } = await doors.client({ attemptTimeoutMs: 150 })
    // The first call connects.
    await run(eventual.get("lww", "first"))
    await body(doors, eventual)
  })
}

/** Nodes that were asked, in order. */
function watch({ cluster }: Doors): Array<NodeId> {
  const asked: Array<NodeId> = []
  cluster.eventual.intercept = ({ node }) => {
    asked.push(node)
    return false
  }
  return asked
}

/** The first so many requests are refused. */
function refuse({ cluster }: Doors, refusal: EventualRefusal, count: number): Array<NodeId> {
  const asked: Array<NodeId> = []
  cluster.eventual.intercept = ({ node, request, reply }) => {
    asked.push(node)
    if (asked.length > count) return false
    reply({ _tag: "EventualRefused", token: request.token, refusal })
    return true
  }
  return asked
}

/** Carries the next write out and breaks its connection before the answer leaves; the node is there again at once, or not at all. */
function loseAnswer(doors: Doors, options: { readonly restarts: boolean }): Array<NodeId> {
  const asked: Array<NodeId> = []
  doors.cluster.eventual.intercept = ({ node, request, carryOut }) => {
    if (request._tag !== "EventualWrite") return false
    asked.push(node)
    if (asked.length > 1) return false
    carryOut()
    void doors.stop(node).then(() => (options.restarts ? doors.start(node) : undefined))
    return true
  }
  return asked
}

async function counted(kv: ClientShape["eventual"], key = "n"): Promise<string> {
  const { siblings } = await run(kv.get("counter", key))
  return siblings.map(text).join()
}

describe("whom a call to an eventual namespace asks", () => {
  test("an owner of the key, another owner when that one has gone, and anybody when all have", () =>
    withEventual(async (doors, kv) => {
      const asked = watch(doors)
      const owners = doors.cluster.eventual.owners(utf8("k"))
      for (let i = 0; i < 20; i++) await run(kv.put("lww", "k", "1"))
      expect(new Set(asked)).toEqual(new Set(owners))
      await doors.stop(owners[0] as NodeId)
      await run(Effect.ignore(kv.get("lww", "k")))
      asked.length = 0
      for (let i = 0; i < 10; i++) await run(kv.put("lww", "k", "2"))
      expect(asked[0]).toBe(owners[1] as NodeId)
      await doors.stop(owners[1] as NodeId)
      await run(Effect.ignore(kv.get("lww", "k")))
      asked.length = 0
      await run(kv.put("lww", "k", "3"))
      expect(owners).not.toContain(asked.at(-1) as NodeId)
    }))

  test("somebody else when it is refused and nothing was done, and nobody when no other could do it either", () =>
    withEventual(async (doors, kv) => {
      for (const refusal of [
        { _tag: "Overloaded", what: "a queue" },
        { _tag: "RingMoved", ringVersion: 2 },
        { _tag: "LevelUnavailable", level: "all", answered: [] },
        { _tag: "DiskFull", node: 1 },
      ] as const) {
        const asked = refuse(doors, refusal, 2)
        await run(kv.put("lww", "k", refusal._tag))
        expect({ refusal, asked: new Set(asked).size }).toEqual({ refusal, asked: 3 })
      }
      for (const [refusal, tag] of [
        [{ _tag: "BadContext", message: "context" }, "InvalidRequest"],
        [{ _tag: "ClockAhead", message: "clock" }, "InvalidRequest"],
        [{ _tag: "TooManySiblings", limit: 100 }, "TooManySiblings"],
        [{ _tag: "NotSupportedInMode", message: "no" }, "NotSupportedInMode"],
        [{ _tag: "WriteUnknown", receipt: undefined }, "OutcomeUnknown"],
      ] as const) {
        const asked = refuse(doors, refusal, 1)
        const error = await failure(kv.put("lww", "k", "1"))
        expect(error._tag).toBe(tag)
        expect(asked.length).toBe(1)
      }
    }))

  test("all of them once when too few are up for the level, and then it says so", () =>
    withEventual(async (doors, kv) => {
      const refusal = { _tag: "LevelUnavailable", level: "all", answered: [] } as const
      const asked = refuse(doors, refusal, 1000)
      const error = await failure(kv.put("lww", "k", "1", { consistency: "all" }))
      expect(error._tag).toBe("QuorumUnavailable")
      expect(asked.toSorted()).toEqual([1, 2, 3])
    }))

  test("all of them once also when those that own nothing say so, and not the level", () =>
    withEventual(async (doors, kv) => {
      const owners = doors.cluster.eventual.owners(utf8("k"))
      const asked: Array<NodeId> = []
      doors.cluster.eventual.intercept = ({ node, request: { token }, reply }) => {
        asked.push(node)
        const refusal: EventualRefusal = owners.includes(node)
          ? { _tag: "LevelUnavailable", level: "all", answered: [] }
          : { _tag: "RingMoved", ringVersion: 1 }
        reply({ _tag: "EventualRefused", token, refusal })
        return true
      }
      const error = await failure(kv.put("lww", "k", "1", { strict: true, consistency: "all" }))
      expect(error._tag).toBe("QuorumUnavailable")
      expect(asked.length).toBe(3)
    }))

  test("the next node when one has not heard of the namespace yet; what is wrong for all is refused", () =>
    withEventual(async (doors, kv) => {
      for (const node of [1, 2]) doors.cluster.unaware.add(node)
      for (let i = 0; i < 10; i++) await run(kv.put("lww", `k${i}`, "1"))
      expect(new Set(doors.cluster.eventual.applied.map(({ node }) => node))).toEqual(new Set([3]))
      doors.cluster.unaware.delete(1)
      const { entries } = await run(kv.scanPage("lww"))
      expect(entries.length).toBe(10)
      doors.cluster.unaware.add(1).add(3)
      expect((await failure(kv.put("lww", "k", "1")))._tag).toBe("NamespaceNotFound")
    }))

  test("the next node when a read hangs; the one that hangs is not asked again at once", () =>
    withEventual(async (doors, kv) => {
      await run(kv.put("lww", "k", "1"))
      const [hanging] = doors.cluster.eventual.owners(utf8("k"))
      let hung = 0
      doors.cluster.eventual.intercept = ({ node }) => node === hanging && hung++ >= 0
      for (let i = 0; i < 10; i++) {
        const { siblings } = await run(kv.get("lww", "k"))
        expect(siblings.map(text)).toEqual(["1"])
      }
      expect(hung).toBeGreaterThan(0)
      expect(hung).toBeLessThan(4)
    }))

  test("goes on by a later ring as soon as it has heard of it", () =>
    withEventual(async (doors, kv) => {
      const { eventual } = doors.cluster
      const refusal = { _tag: "RingMoved", ringVersion: 2 } as const
      const asked = refuse(doors, refusal, 4)
      await run(kv.put("lww", "k", "1"))
      expect(asked.length).toBe(5)
      expect(eventual.applied.length).toBe(1)
    }))
})

describe("a write whose answer never came", () => {
  test("is not sent again: its outcome is unknown, and it happened at most once", () =>
    withEventual(async (doors, kv) => {
      const asked = loseAnswer(doors, { restarts: true })
      const error = await failure(kv.put("siblings", "k", "1"))
      expect(error._tag).toBe("OutcomeUnknown")
      expect(asked.length).toBe(1)
      expect((await run(kv.get("siblings", "k"))).siblings.map(text)).toEqual(["1"])
    }))

  test("is unknown at the deadline too, however it was meant", () =>
    withEventual(async (doors, kv) => {
      const { eventual } = doors.cluster
      eventual.intercept = ({ request, carryOut }) => {
        if (request._tag !== "EventualWrite") return false
        carryOut()
        return true
      }
      for (const write of [
        kv.put("siblings", "k", "1", { deadlineMs: 300 }),
        kv.increment("counter", "n", 1, { deadlineMs: 300 }),
        kv.add("set", "s", "m", { deadlineMs: 100 }),
      ]) {
        expect((await failure(write))._tag).toBe("OutcomeUnknown")
      }
      expect(eventual.applied.length).toBe(3)
    }))

  test("of which the last refusal was that of a copy before is unknown all the same", () =>
    withEventual(async (doors, kv) => {
      let asked = 0
      doors.cluster.eventual.intercept = ({ request, reply, carryOut }) => {
        if (asked++ > 0) {
          carryOut()
          return true
        }
        const refusal = { _tag: "Overloaded", what: "a queue" } as const
        reply({ _tag: "EventualRefused", token: request.token, refusal })
        return true
      }
      expect((await failure(kv.put("lww", "k", "1", { deadlineMs: 300 })))._tag).toBe(
        "OutcomeUnknown",
      )
    }))
})

describe("an increment whose answer was lost", () => {
  test("AP pitfall 18: is counted once when the node that took it still knows it", () =>
    withEventual(async (doors, kv) => {
      const asked = loseAnswer(doors, { restarts: true })
      expect((await run(kv.increment("counter", "n", 5))).counter).toBe(5n)
      expect(new Set(asked).size).toBe(1)
      expect(asked.length).toBeGreaterThan(1)
      expect(await counted(kv)).toBe("5")
    }))

  test("is unknown when that node has forgotten it, and counted once", () =>
    withEventual(async (doors, kv) => {
      const { eventual } = doors.cluster
      const asked = loseAnswer(doors, { restarts: true })
      const { intercept } = eventual
      eventual.intercept = (options) => {
        const took = intercept(options)
        if (took) eventual.restarted(options.node)
        return took
      }
      expect((await failure(kv.increment("counter", "n", 5)))._tag).toBe("OutcomeUnknown")
      expect(new Set(asked).size).toBe(1)
      expect(await counted(kv)).toBe("5")
    }))

  test("AP pitfall 18: is sent to nobody else while that node is away, and counted once", () =>
    withEventual(async (doors, kv) => {
      const asked = loseAnswer(doors, { restarts: false })
      const error = await failure(kv.increment("counter", "n", 5, { deadlineMs: 700 }))
      expect(error._tag).toBe("OutcomeUnknown")
      expect(asked.length).toBe(1)
      expect(await counted(kv)).toBe("5")
    }))

  test("is sent to nobody else when that node is too busy for a while", () =>
    withEventual(async (doors, kv) => {
      const asked = loseAnswer(doors, { restarts: true })
      const { intercept } = doors.cluster.eventual
      doors.cluster.eventual.intercept = (options) => {
        const { request, reply } = options
        if (asked.length > 0 && asked.length < 4 && request._tag === "EventualWrite") {
          asked.push(options.node)
          const refusal = { _tag: "Overloaded", what: "a queue" } as const
          reply({ _tag: "EventualRefused", token: request.token, refusal } as EventualReply)
          return true
        }
        return intercept(options)
      }
      expect((await run(kv.increment("counter", "n", 5))).counter).toBe(5n)
      expect(new Set(asked).size).toBe(1)
      expect(await counted(kv)).toBe("5")
    }))
})
