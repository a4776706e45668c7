import { describe, expect, test } from "bun:test"
import { emptyBytes, text, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { EngineIterator } from "../../src/lsm/engine.ts"
import { Engine } from "../../src/lsm/engine.ts"
import { IteratorHost } from "../../src/lsm/read/iteratorHost.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  carryOut,
  contentOf,
  digest,
  flushAll,
  Model,
  randomKey,
  randomValue,
  settle,
  step,
  tinyOptions,
} from "./harness.ts"

const empty = emptyBytes
const ff = (count: number) => new Uint8Array(count).fill(0xff)

/** a to e over three kinds of sources: the deepest level, level 0, the memtable; c is deleted. */
function small(): { engine: Engine; disk: SimulatedDisk } {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "engine", { ...tinyOptions, level0Trigger: 2 })
  for (const key of ["a", "c", "e"]) engine.put(utf8(key), utf8("1"))
  flushAll(engine, disk)
  engine.put(utf8("e"), utf8("2"))
  flushAll(engine, disk)
  settle(engine, disk)
  engine.put(utf8("b"), utf8("1"))
  engine.delete(utf8("c"))
  flushAll(engine, disk)
  engine.put(utf8("d"), utf8("1"))
  engine.put(utf8("a"), utf8("2"))
  return { engine, disk }
}

/** Where an iterator stands after a move. */
function at(iterator: EngineIterator, moved: boolean): string {
  expect(iterator.valid).toBe(moved)
  return moved ? text(iterator.key) + text(iterator.value) : "-"
}

/** Moves named in one letter: n(ext), p(revious), f(irst), l(ast), or a seek: >key, <key. */
function walk(iterator: EngineIterator, moves: string): string {
  const places: Array<string> = []
  for (const move of moves.split(" ")) {
    const key = utf8(move.slice(1))
    const moved = {
      n: () => iterator.next(),
      p: () => iterator.previous(),
      f: () => iterator.seekFirst(),
      l: () => iterator.seekLast(),
      ">": () => iterator.seek(key),
      "<": () => iterator.seekBefore(key),
    }[move[0] as "n"]()
    places.push(at(iterator, moved))
  }
  return places.join(" ")
}

describe("moves", () => {
  const cases: Array<[string, string, object?]> = [
    ["n n n n n n p", "a2 b1 d1 e2 - - e2"],
    ["p p p p p p n", "e2 d1 b1 a2 - - a2"],
    ["n n p n n p p p n", "a2 b1 a2 b1 d1 b1 a2 - a2"],
    ["f p n l n p", "a2 - a2 e2 - e2"],
    [">c p n", "d1 b1 d1"],
    ["<c n n p", "b1 d1 e2 d1"],
    ["<d p n", "b1 a2 b1"],
    [">f p", "- e2"],
    [">f n p", "- - e2"],
    ["<a n", "- a2"],
    ["<a p n", "- - a2"],
    ["> <", "a2 -"],
    [">b >a <e >e", "b1 a2 d1 e2"],
    // Bounds hold for every move.
    ["n n n p p p n", "b1 d1 - d1 b1 - b1", { lower: utf8("b"), upper: utf8("e") }],
    [">a <z >e <b f l", "b1 d1 - - b1 d1", { lower: utf8("b"), upper: utf8("e") }],
    ["n p >a <z f l", "- - - - - -", { lower: utf8("c"), upper: utf8("c") }],
    ["n p >a <z f l", "- - - - - -", { lower: utf8("d"), upper: utf8("b") }],
    ["n p >c <d f l", "- - - - - -", { lower: utf8("c"), upper: utf8("d") }],
    // Reverse turns next and previous, and nothing else.
    ["n n n n n p", "e2 d1 b1 a2 - a2", { reverse: true }],
    ["p p n n p", "a2 b1 a2 - a2", { reverse: true }],
    [">c n p f l", "d1 b1 d1 a2 e2", { reverse: true }],
    ["n n n", "d1 b1 -", { reverse: true, lower: utf8("b"), upper: utf8("e") }],
    // A prefix and bounds hold together.
    ["n n p p", "b1 - b1 -", { prefix: utf8("b") }],
    ["n l p", "a2 e2 d1", { prefix: empty }],
    ["n p", "- -", { prefix: utf8("b"), lower: utf8("c") }],
    ["n n", "d1 -", { prefix: utf8("d"), lower: utf8("a"), upper: utf8("e") }],
  ]
  for (const [moves, places, options] of cases) {
    test(`${moves} ${options === undefined ? "" : JSON.stringify(options)}`, () => {
      const { engine, disk } = small()
      for (let round = 0; round < 3; round++) {
        const iterator = engine.iterator(options ?? {})
        expect(walk(iterator, moves)).toBe(places)
        iterator.close()
        if (round === 0) flushAll(engine, disk)
        else settle(engine, disk)
      }
    })
  }

  test("in an empty engine none finds anything", () => {
    const engine = Engine.open(new SimulatedDisk(), "engine", tinyOptions)
    expect(walk(engine.iterator(), "n n p p f l >a <a n")).toBe("- - - - - - - - -")
    expect(walk(engine.iterator({ reverse: true }), "n p")).toBe("- -")
  })

  test("keys and prefixes of 0xff bytes are where they belong", () => {
    const { engine, disk } = small()
    for (let length = 1; length <= 4; length++) engine.put(ff(length), utf8("x"))
    engine.put(new Uint8Array([0xfe, 0xff]), utf8("x"))
    for (let round = 0; round < 3; round++) {
      expect(contentOf(engine, { prefix: ff(1) }).length).toBe(4)
      expect(contentOf(engine, { prefix: ff(3), reverse: true }).length).toBe(2)
      expect(contentOf(engine, { prefix: ff(5) }).length).toBe(0)
      expect(contentOf(engine, { prefix: new Uint8Array([0xfe, 0xff]) }).length).toBe(1)
      const iterator = engine.iterator()
      expect(iterator.seekBefore(ff(1))).toBe(true)
      expect(iterator.key[0]).toBe(0xfe)
      expect(iterator.next()).toBe(true)
      expect(iterator.key).toEqual(ff(1))
      expect(iterator.seek(ff(5))).toBe(false)
      expect(iterator.previous()).toBe(true)
      expect(iterator.key).toEqual(ff(4))
      iterator.close()
      if (round === 0) flushAll(engine, disk)
      else settle(engine, disk)
    }
  })
})

describe("an open iterator", () => {
  test("is not read before it moves, where there is none, or after it is closed", () => {
    const { engine } = small()
    const iterator = engine.iterator()
    expect(() => iterator.key).toThrow("stands on a pair")
    expect(iterator.next()).toBe(true)
    expect(iterator.seek(utf8("x"))).toBe(false)
    expect(() => iterator.value).toThrow("stands on a pair")
    expect(iterator.next()).toBe(false)
    iterator.close()
    iterator.close()
    for (const move of [
      () => iterator.next(),
      () => iterator.previous(),
      () => iterator.seekFirst(),
      () => iterator.seek(utf8("z")),
      () => iterator.seekBefore(empty),
    ]) {
      expect(move).toThrow("before it is closed")
    }
    expect(() => iterator.pair).toThrow()
    expect(engine.stats().openReaders).toBe(0)
  })

  test("gives copies that stay, and shows the pair in place without one", () => {
    const { engine } = small()
    const iterator = engine.iterator()
    const keys: Array<Uint8Array> = []
    const values: Array<Uint8Array> = []
    while (iterator.next()) {
      const { keyBytes, keyOffset, valueBytes, valueOffset, valueLength } = iterator.pair
      expect(keyBytes[keyOffset]).toBe(iterator.key[0] as number)
      const value = valueBytes.slice(valueOffset, valueOffset + valueLength)
      expect(toHex(value)).toBe(toHex(iterator.value))
      expect(iterator.key).toBe(iterator.key)
      keys.push(iterator.key)
      values.push(iterator.value)
    }
    expect(keys.map(text).join("") + values.map(text).join("")).toBe("abde2112")
    for (const bytes of [...keys, ...values]) expect(bytes.buffer).toBeInstanceOf(ArrayBuffer)
  })

  test("walks both ways through what it began with, over 100 flushes and compactions", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", { ...tinyOptions, tableBytes: 300 })
    const prng = new Prng(21)
    const model = new Model()
    const write = (count: number) => {
      for (let i = 0; i < count; i++) {
        const key = randomKey(prng)
        const value = randomValue(prng)
        while (!engine.canWrite(key.length + value.length)) step(engine, disk)
        if (engine.needsSeal(key.length + value.length)) engine.seal()
        if (prng.chance(0.1)) {
          const upper = new Uint8Array([...key, 0x7f])
          engine.deleteRange(key, upper)
          model.deleteRange(key, upper)
        } else {
          engine.put(key, value)
          model.put(key, value)
        }
      }
    }
    write(400)
    const pairs = model.between(empty, undefined)
    const iterator = engine.iterator()
    let place = -1
    let jobs = 0
    let ingests = 0
    while (jobs < 100) {
      write(4)
      if (step(engine, disk)) jobs++
      if (jobs === 40 * (ingests + 1)) {
        // The deepest change of all: everything is replaced by nothing.
        flushAll(engine, disk)
        const intervals = [{ lower: empty, upper: undefined }]
        carryOut(engine, disk, engine.replaceInterval({ intervals }))
        ingests++
      }
      for (let i = prng.int(1, 8); i > 0; i--) {
        const isUp = prng.chance(0.55)
        const moved = isUp ? iterator.next() : place < 0 ? false : iterator.previous()
        place = Math.max(-1, Math.min(pairs.length, place + (isUp ? 1 : -1)))
        const pair = pairs[place]
        expect(moved).toBe(pair !== undefined)
        if (pair === undefined) continue
        expect(digest([[iterator.key, iterator.value]])).toBe(digest([pair]))
      }
    }
    expect(ingests).toBe(2)
    iterator.close()
    settle(engine, disk)
    expect(engine.heldFiles()).toEqual(engine.liveFiles())
  })

  test("pins nothing once it is closed, in whatever order", () => {
    const { engine, disk } = small()
    const prng = new Prng(5)
    for (let round = 0; round < 50; round++) {
      const open = Array.from({ length: prng.int(1, 6) }, () => {
        engine.put(utf8(`k${prng.int(0, 9)}`), utf8("x"))
        const reader = engine.iterator()
        return { reader, content: digest(contentOf(engine)) }
      })
      for (const { reader, content } of prng.shuffle(open)) {
        const pairs: Array<[Uint8Array, Uint8Array]> = []
        while (reader.next()) pairs.push([reader.key, reader.value])
        expect(digest(pairs)).toBe(content)
        reader.close()
      }
      if (prng.chance(0.3)) flushAll(engine, disk)
    }
    settle(engine, disk)
    expect(engine.stats().openReaders).toBe(0)
    expect(engine.heldFiles()).toEqual(engine.liveFiles())
    // With no reader left a key that is written again takes no more room.
    engine.put(utf8("again"), utf8("x"))
    const { memtableUsedBytes } = engine
    for (let i = 0; i < 10; i++) {
      engine.iterator().close()
      engine.put(utf8("again"), utf8("y"))
    }
    expect(engine.memtableUsedBytes).toBe(memtableUsedBytes)
  })
})

test("a cursor that is kept for the next iterator lets go of blocks and of large buffers", () => {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "engine", { memtableBytes: 2 ** 22, blockCacheBytes: 0 })
  for (const key of ["a", "b"]) engine.put(utf8(key), new Uint8Array(2 ** 20).fill(7))
  flushAll(engine, disk)
  const host = Reflect.get(engine, "iteratorHost")
  if (!(host instanceof IteratorHost)) throw new Error("an engine has a host of iterators")
  const iterator = engine.iterator()
  expect(iterator.next()).toBe(true)
  iterator.close()
  const cursor = host.takeCursor([], undefined, undefined)
  expect(cursor.valueBytes.length).toBe(0)
  expect(Reflect.get(cursor, "ahead").length).toBeLessThanOrEqual(128 * 1024)
})
