import { describe, expect, test } from "bun:test"
import { compareBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Engine } from "../../src/lsm/engine.ts"
import type { RangeTombstone } from "../../src/lsm/memtable/rangeTombstone.ts"
import {
  clip,
  coveringSequence,
  TombstoneCursor,
  TombstoneList,
  TombstoneSource,
  unionOf,
} from "../../src/lsm/memtable/rangeTombstone.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import {
  contentOf,
  digest,
  flushAll,
  freshSeed,
  Model,
  settle,
  step,
  tinyOptions,
} from "./harness.ts"

const span = 40
/** Keys of one and two bytes, so that bounds lie between keys as well as on them. */
const keys = Array.from({ length: 2 * span }, (_, i) =>
  i % 2 === 0 ? Uint8Array.of(i >> 1) : Uint8Array.of(i >> 1, 7),
)

function randomBounds(prng: Prng): [Uint8Array, Uint8Array] {
  const from = prng.int(0, keys.length - 2)
  const to = prng.int(from + 1, prng.chance(0.5) ? keys.length - 1 : from + 1)
  return [keys[from] as Uint8Array, keys[to] as Uint8Array]
}

function covers({ lower, upper }: { lower: Uint8Array; upper: Uint8Array }, key: Uint8Array) {
  return compareBytes(lower, key) <= 0 && compareBytes(key, upper) < 0
}

function newest(tombstones: ReadonlyArray<RangeTombstone>, key: Uint8Array, visible = 1e9): number {
  const over = tombstones.filter((one) => covers(one, key) && one.sequence <= visible)
  return Math.max(0, ...over.map(({ sequence }) => sequence))
}

function expectDisjoint(pieces: ReadonlyArray<RangeTombstone>): void {
  for (const [i, { lower, upper }] of pieces.entries()) {
    expect(compareBytes(lower, upper)).toBeLessThan(0)
    const before = pieces[i - 1]
    if (before !== undefined) expect(compareBytes(before.upper, lower)).toBeLessThanOrEqual(0)
  }
}

/** Overlapping tombstones with rising sequences from `from` on, as one list without overlaps. */
function randomPieces(prng: Prng, count: number, from: number): ReadonlyArray<RangeTombstone> {
  const list = new TombstoneList()
  for (let i = 0; i < count; i++) list.add(...randomBounds(prng), from + i, -1)
  return list.visibleAt(1e9)
}

const seeds = [1, 2, 3, 4, 5, freshSeed("rangeTombstone")]

describe("a memtable's list", () => {
  test("says of every key what all tombstones together say, at every pinned moment", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const list = new TombstoneList()
      const all: Array<RangeTombstone> = []
      const held: Array<{ sequence: number; pieces: ReadonlyArray<RangeTombstone> }> = []
      for (let sequence = 1; sequence < 80; sequence++) {
        const [lower, upper] = randomBounds(prng)
        const given = [lower.slice(), upper.slice()] as const
        list.add(...given, sequence, held.at(-1)?.sequence ?? -1)
        for (const bytes of given) bytes.fill(0xee)
        all.push({ lower, upper, sequence })
        if (prng.chance(0.1)) held.push({ sequence, pieces: list.visibleAt(sequence) })
        if (prng.chance(0.02)) held.length = 0
        for (const visible of [sequence, ...held.map((one) => one.sequence)]) {
          for (const key of keys) {
            expect(list.sequenceAt(key, visible)).toBe(newest(all, key, visible))
          }
          expectDisjoint(list.visibleAt(visible))
        }
        // What a reader was given does not change, and is what it would be given again.
        for (const { sequence: visible, pieces } of held) {
          for (const key of keys) {
            const expected = newest(all, key, visible)
            expect(coveringSequence(pieces, key)).toBe(expected)
            expect(coveringSequence(list.visibleAt(visible), key)).toBe(expected)
          }
        }
      }
    }
  })

  test("the same interval again and again takes no more room", () => {
    const list = new TombstoneList()
    list.add(utf8("a"), utf8("m"), 1, -1)
    const { usedBytes } = list
    for (let i = 2; i < 100; i++) list.add(utf8("a"), utf8("m"), i, -1)
    expect([list.count, list.usedBytes]).toEqual([1, usedBytes])
    for (let i = 100; i < 200; i++) list.add(utf8("a"), utf8("m"), i, 150)
    expect(list.usedBytes).toBeLessThan(usedBytes + 8 * 60)
    list.add(utf8("0"), utf8("z"), 200, -1)
    expect(list.count).toBe(1)
  })
})

describe("lists together", () => {
  test("unionOf and clip keep of every key the newest sequence, and nothing outside", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (let round = 0; round < 60; round++) {
        const lists = Array.from({ length: prng.int(0, 4) }, (_, i) =>
          randomPieces(prng, prng.int(0, 6), 1 + 10 * i),
        )
        const whole = unionOf(prng.shuffle(lists.slice()))
        expectDisjoint(whole)
        const [lower, upper] = randomBounds(prng)
        const end = prng.chance(0.2) ? undefined : upper
        const clipped = clip(whole, lower, end)
        expectDisjoint(clipped)
        for (const key of keys) {
          const expected = newest(lists.flat(), key)
          expect(coveringSequence(whole, key)).toBe(expected)
          const isInside =
            compareBytes(lower, key) <= 0 && (end === undefined || compareBytes(key, end) < 0)
          expect(coveringSequence(clipped, key)).toBe(isInside ? expected : 0)
        }
        for (const [i, piece] of whole.entries()) {
          const before = whole[i - 1]
          const isOne = before?.sequence === piece.sequence
          if (isOne) expect(toHex(before.upper)).not.toBe(toHex(piece.lower))
        }
      }
    }
  })

  test("a cursor agrees with them, whatever way the keys come", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (let round = 0; round < 60; round++) {
        const lists = Array.from({ length: prng.int(1, 4) }, (_, i) =>
          randomPieces(prng, prng.int(0, 9), 1 + 10 * i),
        )
        const cut = lists.map((list) => cutInGroups(prng, list))
        const sources = cut.map(({ groups, pieces }) =>
          groups.length === 0
            ? TombstoneSource.ofList(pieces.flat())
            : TombstoneSource.ofGroups(groups, (i) => pieces[i] as ReadonlyArray<RangeTombstone>),
        )
        const cursor = new TombstoneCursor(sources)
        const order = keys.slice()
        const way = prng.int(0, 2)
        if (way === 1) order.reverse()
        if (way === 2) prng.shuffle(order)
        for (const key of order) {
          const seen = cut.flatMap(({ groups, pieces }) =>
            groups.length === 0
              ? pieces.flat()
              : groups.flatMap((group, i) => (covers(group, key) ? (pieces[i] ?? []) : [])),
          )
          const expected = newest(seen, key)
          expect(cursor.sequenceAt(key, 0, key.length)).toBe(expected)
          if (expected === 0) continue
          const { coveredFrom, coveredUntil } = cursor
          const [lower, upper] = [coveredFrom as Uint8Array, coveredUntil as Uint8Array]
          expect(covers({ lower, upper }, key)).toBe(true)
          for (const other of keys) {
            if (covers({ lower, upper }, other)) {
              expect(newest(lists[cursor.source] ?? [], other)).toBe(expected)
            }
          }
        }
      }
    }
  })
})

/** A run whose fragments cut off what reaches out of them; sometimes not cut at all. */
function cutInGroups(prng: Prng, list: ReadonlyArray<RangeTombstone>) {
  const groups: Array<{ lower: Uint8Array; upper: Uint8Array }> = []
  const pieces: Array<ReadonlyArray<RangeTombstone>> = []
  if (prng.chance(0.3)) return { groups, pieces: [list] }
  for (let at = prng.int(0, 10); at < keys.length - 1; ) {
    const end = Math.min(keys.length - 1, at + prng.int(1, 30))
    groups.push({ lower: keys[at] as Uint8Array, upper: keys[end] as Uint8Array })
    pieces.push(list)
    at = end + (prng.chance(0.5) ? 0 : prng.int(1, 5))
  }
  return { groups, pieces }
}

describe("in an engine", () => {
  const key = (i: number) => utf8(`key:${String(i).padStart(4, "0")}`)

  /** The engine and its model say the same, both ways and key by key. */
  function check(engine: Engine, model: Model): void {
    expect(digest(contentOf(engine))).toBe(model.digest())
    const down = contentOf(engine, { reverse: true })
    expect(digest(down.reverse())).toBe(model.digest())
    for (let i = 0; i < 100; i++) expect(engine.get(key(i))).toEqual(model.get(key(i)) as never)
  }

  test("one deletes what lies below it wherever that is, and nothing that comes later", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", tinyOptions)
    const model = new Model()
    const put = (i: number, value: string) => {
      while (!engine.canWrite(30)) step(engine, disk)
      if (engine.needsSeal(30)) engine.seal()
      engine.put(key(i), utf8(value))
      model.put(key(i), utf8(value))
    }
    const deleteRange = (from: number, to: number) => {
      engine.deleteRange(key(from), key(to))
      model.deleteRange(key(from), key(to))
    }
    for (let i = 0; i < 100; i++) put(i, "bottom")
    flushAll(engine, disk)
    settle(engine, disk)
    const bottom = { snapshot: engine.snapshot(), content: model.digest() }
    for (let i = 0; i < 100; i += 3) put(i, "level 0")
    flushAll(engine, disk)
    for (let i = 0; i < 100; i += 7) put(i, "memtable")
    deleteRange(20, 60)
    deleteRange(10, 30)
    check(engine, model)
    const middle = { snapshot: engine.snapshot(), content: model.digest() }
    for (let i = 15; i < 50; i += 5) put(i, "later")
    deleteRange(44, 46)
    check(engine, model)
    flushAll(engine, disk)
    check(engine, model)
    put(21, "last")
    settle(engine, disk)
    check(engine, model)
    for (const { snapshot, content } of [bottom, middle]) {
      expect(digest(contentOf(engine, { snapshot }))).toBe(content)
      snapshot.release()
    }
    flushAll(engine, disk)
    disk.loseAllUnsynced()
    check(Engine.open(disk, "engine", tinyOptions), model)
  })

  test("a memtable with tombstones only is sealed, flushed, and survives", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", tinyOptions)
    engine.put(key(1), utf8("x"))
    flushAll(engine, disk)
    expect(engine.memtablesEmpty).toBe(true)
    engine.deleteRange(key(0), key(5))
    expect(engine.memtablesEmpty).toBe(false)
    expect(engine.memtableUsedBytes).toBeGreaterThan(0)
    flushAll(engine, disk)
    expect(engine.memtablesEmpty).toBe(true)
    expect(engine.get(key(1))).toBeUndefined()
    expect(contentOf(engine)).toEqual([])
    disk.loseAllUnsynced()
    const again = Engine.open(disk, "engine", { ...tinyOptions, level0Trigger: 1 })
    expect(contentOf(again)).toEqual([])
    settle(again, disk)
    expect(contentOf(again)).toEqual([])
    expect(again.liveFiles()).toEqual([])
  })

  test("an empty or turned interval deletes nothing and writes nothing", () => {
    const engine = Engine.open(new SimulatedDisk(), "engine", tinyOptions)
    engine.put(key(1), utf8("x"))
    const { sequence } = engine.snapshot()
    engine.deleteRange(key(1), key(1))
    engine.deleteRange(key(2), key(1))
    expect(engine.snapshot().sequence).toBe(sequence)
    expect(engine.get(key(1))).toEqual(utf8("x"))
  })

  test("100,000 covered pairs cost an iterator a few steps", () => {
    const disk = new SimulatedDisk()
    const engine = Engine.open(disk, "engine", { memtableBytes: 1 << 23, level0Trigger: 8 })
    const wide = (i: number) => utf8(`key:${String(i).padStart(6, "0")}`)
    for (let i = 0; i < 100_000; i++) engine.put(wide(i), utf8("x"))
    flushAll(engine, disk)
    engine.deleteRange(wide(10), wide(99_990))
    for (let round = 0; round < 2; round++) {
      const before = engine.stats().blockCacheHits + engine.stats().blockCacheMisses
      const iterator = engine.iterator()
      const seen: Array<Uint8Array> = []
      while (iterator.next()) seen.push(iterator.key)
      expect(seen.length).toBe(20)
      const down: Array<Uint8Array> = []
      while (iterator.previous()) down.push(iterator.key)
      expect(down.reverse()).toEqual(seen)
      for (let i = 0; i < 20; i++) {
        expect(iterator.seek(wide(5000 * i + 10))).toBe(true)
        expect(iterator.key).toEqual(wide(99_990))
        expect(iterator.seekBefore(wide(5000 * i + 11))).toBe(true)
        expect(iterator.key).toEqual(wide(9))
      }
      iterator.close()
      const { blockCacheHits, blockCacheMisses } = engine.stats()
      expect(blockCacheHits + blockCacheMisses - before).toBeLessThan(300)
      flushAll(engine, disk)
    }
  })
})

test("more tombstones than a data block may hold bytes are flushed and read", () => {
  const disk = new SimulatedDisk()
  const engine = Engine.open(disk, "db", { memtableBytes: 32 * 2 ** 20, readyArenas: 1 })
  const bound = (number: number, fill: number) => {
    const bytes = new Uint8Array(4096).fill(fill)
    bytes[0] = number >>> 8
    bytes[1] = number
    return bytes
  }
  engine.put(bound(5, 1), utf8("old"))
  for (let i = 0; i < 1300; i++) engine.deleteRange(bound(i, 0), bound(i, 2))
  flushAll(engine, disk)
  engine.put(bound(7, 1), utf8("new"))
  expect(engine.get(bound(5, 1))).toBeUndefined()
  expect(contentOf(engine).length).toBe(1)
  engine.verify()
})
