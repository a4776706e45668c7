import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { KvorumError } from "../../src/Errors.ts"
import { text } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { NodeId } from "../../src/types.ts"
import { type Doors, withDoors } from "../doors/harness.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))

function rangeOf({ cluster }: Doors, key: string) {
  const position = hashPosition(1, new TextEncoder().encode(key))
  const found = cluster.descriptors.findLast(({ start }) => Buffer.compare(start, position) <= 0)
  return found as (typeof cluster.descriptors)[number]
}

const followersOf = (doors: Doors, key: string): ReadonlyArray<NodeId> => {
  const { id, replicas } = rangeOf(doors, key)
  const leader = doors.cluster.leaders.get(id)
  return replicas.map(({ node }) => node).filter((node) => node !== leader)
}

describe("levels of reads", () => {
  test("a linearizable read goes to the leader, or to any replica if that is asked for", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      for (const node of followersOf(doors, "a")) doors.cluster.lag(node)
      await run(kv.put("default", "a", "2"))
      const roles = new Set<string>()
      for (let i = 0; i < 40; i++) {
        const plain = await run(kv.get("default", "a"))
        expect(plain.receipt.role).toBe("leader")
        const any = await run(kv.get("default", "a", { anyReplica: true }))
        expect(any.found && text(any.value)).toBe("2")
        expect(any.receipt.level).toBe("linearizable")
        roles.add(any.receipt.role)
      }
      expect([...roles].sort()).toEqual(["follower", "leader"])
    }))

  test("a bounded read names its bound, and goes to the leader when a replica cannot keep it", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      const bounds: Array<number> = []
      doors.cluster.intercept = ({ request }) => {
        if (request._tag === "Get") bounds.push(request.maxStalenessMs)
        return false
      }
      for (const node of followersOf(doors, "a")) doors.cluster.lag(node)
      await run(kv.put("default", "a", "2"))
      for (let i = 0; i < 20; i++) {
        const got = await run(kv.get("default", "a", { level: "bounded", maxStalenessMs: 500 }))
        expect(got.found && text(got.value)).toBe("2")
      }
      expect(new Set(bounds)).toEqual(new Set([500]))
      // One that cannot, then the leader: never a third.
      expect(bounds.length).toBeGreaterThan(20)
      expect(bounds.length).toBeLessThanOrEqual(40)
      for (const options of [
        { level: "bounded" },
        { level: "bounded", maxStalenessMs: 0 },
        { level: "local", maxStalenessMs: 5 },
      ] as const) {
        expect((await failure(kv.get("default", "a", options))).message).toContain("maxStalenessMs")
      }
    }))
})

describe("sessions", () => {
  test("a local read with a session shows what the session wrote; one without need not", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "old"))
      for (const node of followersOf(doors, "a")) doors.cluster.lag(node)
      const session = await run(kv.session())
      await run(kv.put("default", "a", "new", { session }))
      const plain = new Set<string>()
      for (let i = 0; i < 40; i++) {
        const mine = await run(kv.get("default", "a", { level: "local", session }))
        expect(mine.found && text(mine.value)).toBe("new")
        const got = await run(kv.get("default", "a", { level: "local" }))
        plain.add(got.found ? text(got.value) : "")
      }
      expect([...plain].sort()).toEqual(["new", "old"])
    }))

  test("what one read showed, no later one takes back: absent keys, scans and other levels too", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      await run(kv.put("default", "a", "1"))
      for (const node of followersOf(doors, "a")) doors.cluster.lag(node)
      await run(kv.delete("default", "a"))
      for (let round = 0; round < 10; round++) {
        const session = await run(kv.session())
        // At the leader the key is gone; from then on it is gone everywhere.
        expect((await run(kv.get("default", "a", { session }))).found).toBe(false)
        for (let i = 0; i < 5; i++) {
          expect((await run(kv.get("default", "a", { level: "local", session }))).found).toBe(false)
          const page = await run(kv.scanPage("default", { level: "local", session }))
          expect(page.entries).toEqual([])
        }
      }
    }))

  test("a session asks for the state that it saw, not for the leader's clock: followers that are up to date answer it", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      doors.cluster.clockAhead = 5_000_000
      const session = await run(kv.session())
      await run(kv.put("default", "a", "1", { session }))
      for (const node of [1, 2, 3]) doors.cluster.lag(node)
      await run(kv.get("default", "a", { session }))
      const roles = new Set<string>()
      for (let i = 0; i < 40; i++) {
        roles.add((await run(kv.get("default", "a", { level: "local", session }))).receipt.role)
      }
      expect([...roles].sort()).toEqual(["follower", "leader"])
    }))

  test("a token carries the session to another process, and through a split of the range", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      const keys = Array.from({ length: 20 }, (_, i) => `k${i}`)
      for (const key of keys) await run(kv.put("default", key, "old"))
      for (const node of [1, 2, 3]) doors.cluster.lag(node)
      const session = await run(kv.session())
      for (const key of keys) await run(kv.put("default", key, "new", { session }))
      for (const key of keys.slice(0, 5)) {
        doors.cluster.split(rangeOf(doors, key).id, hashPosition(1, new TextEncoder().encode(key)))
      }
      const other = await doors.client()
      const carried = await run(other.session(session.token))
      for (const key of keys) {
        // Every replica lags, the leader's too, so nobody can show this session what it must see.
        const options = { level: "local", session: carried, deadlineMs: 60 } as const
        const error = await failure(other.get("default", key, options))
        expect(error._tag).toBe("NotLeader")
        const got = await run(other.get("default", key, { session: carried }))
        expect(got.found && text(got.value)).toBe("new")
      }
    }))

  test("a token that is cut, or of another cluster, is refused and says what to do", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const kv = await doors.client()
      const { token } = await run(kv.session())
      expect((await failure(kv.session(token.slice(2)))).message).toContain("pass it on whole")
      await withDoors({ nodes: 1 }, async (others) => {
        const foreign = others.cluster.store(1)
        others.cluster.store = () => ({
          ...foreign,
          identity: { ...foreign.identity, clusterId: "another" },
        })
        await others.stop(1)
        await others.start(1)
        const stranger = await others.client()
        const error = await failure(stranger.session(token))
        expect(error._tag).toBe("InvalidRequest")
        expect(error.message).toContain("begin a new one")
        const session = await run(kv.session(token))
        await run(stranger.put("default", "a", "1"))
        const used = await failure(stranger.get("default", "a", { session }))
        expect(used.message).toContain("another cluster")
      })
      const made = { token }
      const used = await failure(kv.get("default", "a", { session: made }))
      expect(used.message).toContain("client.session")
    }))
})
