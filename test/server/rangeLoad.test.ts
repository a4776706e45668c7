import { describe, expect, test } from "bun:test"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { HotKeys } from "../../src/server/load/hotKeys.ts"
import { RangeLoad } from "../../src/server/load/rangeLoad.ts"
import type { DataRequest } from "../../src/server/requests.ts"

const get = (key: string) => ({ _tag: "Get", position: utf8(key) }) as unknown as DataRequest
const name = (i: number) => `key:${String(i).padStart(6, "0")}`

/** So many requests, in seconds of a thousand each. */
function ask(load: RangeLoad, count: number, key: (i: number) => string): void {
  for (let i = 0; i < count; i++) {
    load.note(get(key(i)))
    if (i % 1000 === 0) load.tick(i + 1, 1)
  }
  load.tick(count + 1, 1)
}

function partBefore(cut: Uint8Array, keys: ReadonlyArray<string>): number {
  return keys.filter((key) => Buffer.compare(Buffer.from(key), cut) < 0).length / keys.length
}

describe("where the load of a range lies", () => {
  test("even, skewed, or in order: the cut leaves a third to two thirds on either side", () => {
    const prng = new Prng(7)
    const draws: Record<string, (i: number) => number> = {
      even: () => prng.int(0, 9999),
      skewed: () => Math.floor(10_000 * prng.float() ** 3),
      "in order": (i) => i % 10_000,
      "two keys": (i) => i % 2,
      "twenty keys by turns": (i) => i % 20,
    }
    for (const [what, draw] of Object.entries(draws)) {
      const keys = Array.from({ length: 20_000 }, (_, i) => name(draw(i)))
      const load = new RangeLoad(prng.int(1, 1000))
      ask(load, keys.length, (i) => keys[i] as string)
      const cut = load.cut()
      expect(cut === undefined ? what : "cut").toBe("cut")
      // Of what came lately, as far as the samples go back.
      const part = partBefore(cut as Uint8Array, keys.slice(-4000))
      if (what !== "in order") expect([what, part > 0.33 && part < 0.67]).toEqual([what, true])
    }
  })

  test("one hot key: no cut, and the key is named with its share", () => {
    const prng = new Prng(3)
    const load = new RangeLoad(1)
    ask(load, 20_000, () => (prng.chance(0.8) ? name(5000) : name(prng.int(0, 9999))))
    expect(load.cut()).toBe(undefined)
    const [hot, ...more] = load.hot()
    expect(more).toEqual([])
    expect(Buffer.from(hot?.position as Uint8Array).toString()).toBe(name(5000))
    expect(Math.abs((hot?.share ?? 0) - 0.8)).toBeLessThan(0.1)
  })

  test("the rate follows what is asked; nobody asks: nothing is kept; other bounds: nothing is known", () => {
    const load = new RangeLoad(1)
    ask(load, 20_000, (i) => name(i % 100))
    expect(Math.abs(load.requestsPerSecond - 1000)).toBeLessThan(30)
    load.tick(21_000, 2)
    expect(load.requestsPerSecond).toBe(0)
    expect(load.cut()).toBe(undefined)
    const idle = new RangeLoad(1)
    ask(idle, 20_000, (i) => name(i % 100))
    for (let ms = 21_000; ms < 60_000; ms += 1000) idle.tick(ms, 1)
    expect(idle.requestsPerSecond).toBe(0)
    expect(idle.hot()).toEqual([])
  })

  test("few requests tell nothing", () => {
    const load = new RangeLoad(1)
    ask(load, 500, (i) => name(i % 100))
    expect(load.cut()).toBe(undefined)
    expect(load.hot()).toEqual([])
  })
})

describe("the sketch of hot keys", () => {
  test("Space-Saving: no key above 1/16 of the stream is missed, and no counter is off by more than that", () => {
    for (let seed = 1; seed <= 200; seed++) {
      const prng = new Prng(seed)
      const sketch = new HotKeys()
      const exponent = 1 + 4 * prng.float()
      const kinds = prng.int(2, 500)
      const count = prng.int(100, 2000)
      const truth = new Map<string, number>()
      for (let i = 0; i < count; i++) {
        const key = name(Math.floor(kinds * prng.float() ** exponent))
        truth.set(key, (truth.get(key) ?? 0) + 1)
        sketch.add(utf8(key))
      }
      const told = new Map<string, { readonly share: number; readonly error: number }>()
      for (const { position, ...rest } of sketch.above(0)) {
        told.set(Buffer.from(position).toString(), rest)
      }
      expect(told.size).toBeLessThanOrEqual(16)
      for (const [key, times] of truth) {
        if (times * 16 > count) expect([seed, key, told.has(key)]).toEqual([seed, key, true])
      }
      for (const [key, { share, error }] of told) {
        const real = (truth.get(key) ?? 0) / count
        const isRight = share >= real - 1e-9 && share - error <= real + 1e-9
        expect([seed, isRight, error <= 1 / 16]).toEqual([seed, true, true])
      }
    }
  })

  test("what was hot long ago is forgotten", () => {
    const sketch = new HotKeys()
    for (let i = 0; i < 5000; i++) sketch.add(utf8("old"))
    for (let i = 0; i < 20_000; i++) sketch.add(utf8("new"))
    expect(sketch.above(0.2).map(({ position }) => Buffer.from(position).toString())).toEqual([
      "new",
    ])
  })
})
