import { describe, expect, test } from "bun:test"
import { Effect } from "effect"
import { Meta } from "../../src/admin/Meta.ts"
import { oneAtATime } from "../../src/admin/OneAtATime.ts"
import type { Plane } from "../../src/admin/Plane.ts"
import type { ClientShape } from "../../src/client/Client.ts"
import { utf8 } from "../../src/lib/bytes.ts"

/** The meta group as far as this needs it: keys with versions. */
class Records {
  readonly byKey = new Map<string, { value: string; version: number }>()
  private version = 0

  plane(node: number): Plane {
    const client = {
      get: (_: string, key: string) => {
        const found = this.byKey.get(key)
        return Effect.succeed(
          found === undefined
            ? { found: false }
            : { found: true, value: utf8(found.value), version: found.version },
        ).pipe(Effect.delay(1))
      },
      compareAndSet: (
        _: string,
        key: string,
        { expect, value }: { expect: { version?: number }; value: string },
      ) =>
        Effect.sync(() => {
          const swapped = this.byKey.get(key)?.version === expect.version
          if (swapped) this.byKey.set(key, { value, version: ++this.version })
          return { swapped }
        }).pipe(Effect.delay(1)),
      delete: (_: string, key: string) => Effect.sync(() => void this.byKey.delete(key)),
    } as unknown as ClientShape
    const control = { self: { id: node, incarnation: `i${node}` } } as Plane["control"]
    return { client, meta: new Meta(client), control, refresh: Effect.void }
  }
}

const held = (untilMs: number) => ({
  value: JSON.stringify({ node: 9, order: "other", untilMs }),
  version: -1,
})

describe("orders for one range", () => {
  test("are carried out one after another, whatever node has them; those for another range are not held up", async () => {
    const records = new Records()
    let inside = 0
    let most = 0
    let other = 0
    const procedure = Effect.gen(function* () {
      inside++
      most = Math.max(most, inside)
      yield* Effect.sleep(20)
      inside--
    })
    const orders = [1, 2, 3, 1, 2].map((node) => oneAtATime(records.plane(node), 7, procedure))
    const elsewhere = oneAtATime(
      records.plane(1),
      8,
      Effect.sync(() => {
        other = inside
      }),
    )
    await Effect.runPromise(Effect.all([...orders, elsewhere], { concurrency: "unbounded" }))
    expect([most, inside, other]).toEqual([1, 0, 1])
    expect(records.byKey.size).toBe(0)
  })

  test("wait for one that is under way, and pass over one whose node has died", async () => {
    const records = new Records()
    const begunMs = Date.now()
    records.byKey.set("changing/7", held(begunMs + 300))
    const doneMs = await Effect.runPromise(
      oneAtATime(
        records.plane(1),
        7,
        Effect.sync(() => Date.now()),
      ),
    )
    expect(doneMs).toBeGreaterThanOrEqual(begunMs + 300)
    expect(records.byKey.size).toBe(0)
  })

  test("end when they fail or are given up, and leave another one's record alone", async () => {
    const records = new Records()
    const failed = oneAtATime(records.plane(1), 7, Effect.fail("no"))
    expect(await Effect.runPromise(Effect.flip(failed))).toBe("no")
    expect(records.byKey.size).toBe(0)
    const endless = oneAtATime(records.plane(1), 7, Effect.never)
    await Effect.runPromise(Effect.timeoutOption(endless, 50))
    expect(records.byKey.size).toBe(0)
    const robbed = oneAtATime(
      records.plane(1),
      7,
      Effect.sync(() => records.byKey.set("changing/7", held(Number.MAX_SAFE_INTEGER))),
    )
    await Effect.runPromise(robbed)
    expect(records.byKey.size).toBe(1)
  })
})
