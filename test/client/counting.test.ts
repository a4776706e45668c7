import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import type { KvorumError } from "../../src/Errors.ts"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { RangeId } from "../../src/types.ts"
import { type Doors, withDoors } from "../doors/harness.ts"
import { eventualNamespaces } from "../doors/memoryEventual.ts"

const run = Effect.runPromise
const failure = <A>(effect: Effect.Effect<A, KvorumError>) => run(Effect.flip(effect))
const keys = Array.from({ length: 60 }, (_, i) => `key:${i}`)

/** From now on no node answers for the range. */
function cutOff({ cluster }: Doors, range: RangeId): void {
  const { intercept } = cluster
  cluster.intercept = (met) => {
    const { request, reply } = met
    if (request.range !== range) return intercept(met)
    const refusal = { _tag: "NotLeader", range, leader: undefined } as const
    reply({ _tag: "Refused", token: request.token, rangeTime: 0, refusal })
    return true
  }
}

const sum = (parts: ReadonlyArray<{ readonly entries: number }>) =>
  parts.reduce((total, { entries }) => total + entries, 0)

describe("a count of a strong namespace", () => {
  test("is what there is, and its parts add up to it, range by range", () =>
    withDoors({ nodes: 3 }, async ({ client }) => {
      const kv = await client()
      for (const key of [...keys, "other"]) await run(kv.put("default", key, "1"))
      const all = await run(kv.count("default"))
      expect(all).toMatchObject({ count: 61, partial: false, missing: [] })
      expect(sum(all.parts)).toBe(61)
      expect(all.parts.map(({ range }) => range)).toEqual([1, 2, 3, 4])
      expect((await run(kv.count("default", { prefix: "key:" }))).count).toBe(60)
      expect((await run(kv.count("default", { prefix: "key:1" }))).count).toBe(11)
      expect((await run(kv.count("default", { prefix: "{none}" }))).count).toBe(0)
      expect((await run(kv.count("default", { level: "local" }))).count).toBe(61)
    }))

  test("follows a split that it did not know of", () =>
    withDoors({ nodes: 3 }, async ({ client, cluster }) => {
      const kv = await client()
      for (const key of keys) await run(kv.put("default", key, "1"))
      cluster.split(1, hashPosition(1, utf8("key:3")).subarray(0, 5), 77)
      const after = await run(kv.count("default"))
      expect(after.count).toBe(60)
      expect(sum(after.parts)).toBe(60)
    }))

  test("fails when no node answers for a range, or names it if that is enough", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      for (const key of keys) await run(kv.put("default", key, "1"))
      const whole = await run(kv.count("default"))
      cutOff(doors, 3)
      const error = await failure(kv.count("default", { deadlineMs: 300 }))
      expect(error._tag).toBe("QuorumUnavailable")
      const rest = await run(kv.count("default", { deadlineMs: 300, partial: true }))
      expect(rest).toMatchObject({
        partial: true,
        missing: [{ range: 3, error: { _tag: "QuorumUnavailable" } }],
      })
      expect(rest.parts).toEqual(whole.parts.filter(({ range }) => range !== 3))
      expect(rest.count).toBe(sum(rest.parts))
    }))

  test("a scan does the same, and goes on behind what it lacks", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const kv = await doors.client()
      for (const key of keys) await run(kv.put("default", key, "1"))
      const whole = await run(kv.scanPage("default"))
      expect(sum(whole.parts)).toBe(60)
      cutOff(doors, 2)
      expect((await failure(kv.scanPage("default", { deadlineMs: 300 })))._tag).toBe(
        "QuorumUnavailable",
      )
      const rest = await run(kv.scanPage("default", { deadlineMs: 300, partial: true }))
      expect(rest.missing.map(({ range }) => range)).toEqual([2])
      expect(rest.parts).toEqual(whole.parts.filter(({ range }) => range !== 2))
      const found = new Set(rest.entries.map(({ key }) => text(key)))
      expect(whole.entries.filter(({ key }) => found.has(text(key))).length).toBe(
        rest.entries.length,
      )
    }))

  test("what breaks a limit or makes no sense is refused", () =>
    withDoors({ nodes: 1 }, async ({ client }) => {
      const kv = await client()
      expect((await failure(kv.count("nothing")))._tag).toBe("NamespaceNotFound")
      expect((await failure(kv.count("default", { prefix: "x".repeat(5000) })))._tag).toBe(
        "InvalidRequest",
      )
      expect((await failure(kv.count("default", { level: "bounded" })))._tag).toBe("InvalidRequest")
    }))
})

describe("a count of an eventual namespace", () => {
  test("is what there is on one owner of each slot, node by node", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      doors.cluster.namespaces.push(...eventualNamespaces)
      const { eventual: kv } = await doors.client()
      for (const key of [...keys, "other"]) await run(kv.put("siblings", key, "1"))
      const all = await run(kv.count("siblings"))
      expect(all).toMatchObject({ count: 61, partial: false, missing: [] })
      expect(sum(all.parts)).toBe(61)
      expect(all.parts.reduce((total, { slots }) => total + slots, 0)).toBe(16_384)
      expect((await run(kv.count("siblings", { prefix: "key:" }))).count).toBe(60)
    }))

  test("fails when no owner of a slot answers, or says how many slots it lacks if that is enough", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      doors.cluster.namespaces.push(...eventualNamespaces)
      const { eventual: kv } = await doors.client()
      for (const key of keys) await run(kv.put("siblings", key, "1"))
      await doors.stop(2)
      expect((await run(kv.count("siblings", { partial: true }))).count).toBe(60)
      await doors.stop(3)
      expect((await failure(kv.count("siblings", { deadlineMs: 300 })))._tag).toBe(
        "QuorumUnavailable",
      )
      const rest = await run(kv.count("siblings", { deadlineMs: 300, partial: true }))
      expect(rest.partial).toBe(true)
      const [missing] = rest.missing
      const read = rest.parts.reduce((total, { slots }) => total + slots, 0)
      expect(read + (missing?.slots ?? 0)).toBe(16_384)
      expect(missing?.slots).toBeGreaterThan(0)
      expect(rest.count).toBe(sum(rest.parts))
    }))
})
