import { describe, expect, test } from "bun:test"
import { text, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { readCurrent } from "../../src/lsm/manifest/manifest.ts"
import { OlderFormat, placedChecksum } from "../../src/lsm/table/format.ts"
import { TreesDiffer } from "../../src/lsm/trees.ts"
import { Model, randomValue } from "./harness.ts"
import { flushAll, interval, open, put, settle, small } from "./maintained.ts"

describe("trees", () => {
  const one = { id: 1, name: "one" }
  const two = { id: 2, name: "two" }

  test("are recorded; others of the same byte, or fewer, are refused, more are taken", () => {
    const { disk, engine } = open({ ...small, trees: [one] })
    engine.put(Uint8Array.of(1, 5), utf8("x"))
    flushAll(engine, disk)
    const refused = [[], [two], [{ id: 1, name: "other" }]]
    for (const trees of refused) {
      const before = disk.operations
      expect(() => open({ ...small, trees }, disk)).toThrow(TreesDiffer)
      expect(disk.operations).toBe(before)
    }
    disk.loseAllUnsynced()
    const more = open({ ...small, trees: [two, one] }, disk).engine
    more.put(Uint8Array.of(2, 5), utf8("y"))
    flushAll(more, disk)
    disk.loseAllUnsynced()
    expect(() => open({ ...small, trees: [one] }, disk)).toThrow(TreesDiffer)
    const last = open({ ...small, trees: [one, two] }, disk).engine
    expect(last.get(Uint8Array.of(1, 5))).toEqual(utf8("x"))
    expect(last.get(Uint8Array.of(2, 5))).toEqual(utf8("y"))
    expect(() => last.put(Uint8Array.of(3), utf8("z"))).toThrow()
  })

  test("stay recorded when a new manifest takes over", () => {
    const { disk, engine } = open({ ...small, trees: [one], manifestBytes: 1 })
    for (let i = 0; i < 20; i++) {
      engine.put(Uint8Array.of(1, i), utf8("x"))
      flushAll(engine, disk)
    }
    expect(readCurrent(disk, "engine")).toBeGreaterThan(5)
    expect(() => open({ ...small, trees: [] }, disk)).toThrow(TreesDiffer)
  })

  test("a folder of the first format is refused and left as it is", () => {
    const { disk } = open()
    const file = disk.open("engine/CURRENT")
    const bytes = new Uint8Array(file.sizeBytes)
    file.read(bytes, 0)
    bytes[4] = 1
    new DataView(bytes.buffer).setUint32(16, placedChecksum(bytes.subarray(0, 16), 0, 0), true)
    file.write(bytes, 0)
    file.close()
    const before = disk.operations
    expect(() => open(small, disk)).toThrow(OlderFormat)
    expect(disk.operations).toBe(before)
  })
})

describe("sizes", () => {
  test("a split key leaves about half on either side, strictly inside, also in one block", () => {
    const prng = new Prng(11)
    const { disk, engine } = open({ ...small, memtableBytes: 4096 })
    const model = new Model()
    for (let i = 0; i < 3000; i++) {
      const key = utf8(`s${String(prng.int(0, 9999)).padStart(4, "0")}`)
      const value = randomValue(prng).slice(0, 40)
      put(engine, disk, key, value)
      model.put(key, value)
    }
    flushAll(engine, disk)
    settle(engine, disk)
    const bytesOf = (lower: Uint8Array, upper: Uint8Array | undefined) =>
      model.between(lower, upper).reduce((sum, [key, value]) => sum + key.length + value.length, 0)
    for (let i = 0; i < 60; i++) {
      const [from, to] = [prng.int(0, 9999), prng.int(0, 9999)].sort((a, b) => a - b)
      const lower = utf8(`s${String(from).padStart(4, "0")}`)
      const upper = i % 10 === 0 ? undefined : utf8(`s${String((to ?? 0) + 2).padStart(4, "0")}`)
      const inside = model.between(lower, upper)
      const key = engine.splitKey({ lower, upper })
      const total = bytesOf(lower, upper)
      if (inside.length < 4) continue
      expect(key).toBeDefined()
      expect(text(key as Uint8Array) > text(lower)).toBe(true)
      if (upper !== undefined) expect(text(key as Uint8Array) < text(upper)).toBe(true)
      if (total < 6000) continue
      const share = bytesOf(lower, key) / total
      expect(share).toBeGreaterThan(0.3)
      expect(share).toBeLessThan(0.7)
      const { bytes, entries } = engine.approximateSize({ lower, upper })
      expect(bytes).toBeGreaterThan(total / 2)
      expect(entries).toBeGreaterThan(inside.length / 2)
    }
    expect(engine.splitKey(interval("t", "u"))).toBeUndefined()
    expect(engine.approximateSize(interval("t", "u"))).toEqual({ bytes: 0, entries: 0 })
  })
})
