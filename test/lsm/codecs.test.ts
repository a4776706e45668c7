import { describe, expect, test } from "bun:test"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { compareBytes, emptyBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { crc32 } from "../../src/lib/checksum.ts"
import { Prng } from "../../src/lib/prng.ts"
import { ArenaPool } from "../../src/lsm/memtable/arenaPool.ts"
import { Memtable } from "../../src/lsm/memtable/memtable.ts"
import { MemtableCursor } from "../../src/lsm/memtable/memtableCursor.ts"
import { BlockCursor } from "../../src/lsm/table/block.ts"
import { BlockWriter } from "../../src/lsm/table/blockWriter.ts"
import { BloomBuilder, bloomMayContain, isBloomFilter, keyHash } from "../../src/lsm/table/bloom.ts"
import { kinds, placedChecksum } from "../../src/lsm/table/format.ts"
import { readVarint, varintEnd, writeVarint } from "../../src/lsm/table/varint.ts"
import { freshSeed, Model, randomKey, randomValue } from "./harness.ts"

const seeds = [1, 2, 3, 4, 5, freshSeed("codecs")]

function randomPairs(prng: Prng, count: number): Array<[Uint8Array, Uint8Array]> {
  const model = new Model()
  for (let i = 0; i < count; i++) model.put(randomKey(prng), randomValue(prng))
  return model.between(emptyBytes, undefined)
}

function show(cursor: BlockCursor): string {
  const key = toHex(cursor.keyBytes.subarray(0, cursor.keyLength))
  const end = cursor.valueOffset + cursor.valueLength
  const value = toHex(cursor.valueBytes.subarray(cursor.valueOffset, end))
  return `${key}=${value} ${cursor.sequence} ${cursor.kind}`
}

describe("a block", () => {
  test("gives back what was added, by seek, forward and backward", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const writer = new BlockWriter(64)
      // The writer is used again for the next block.
      for (let round = 0; round < 20; round++) {
        const pairs = randomPairs(prng, prng.int(1, 120))
        const lines: Array<string> = []
        for (const [key, value] of pairs) {
          const sequence = prng.chance(0.5) ? prng.int(0, 300) : 2 ** 51 + prng.uint32()
          const kind = prng.int(0, 1)
          // Bytes before and after what is meant must not matter.
          const padded = new Uint8Array([7, 7, ...key, 7, 7, 7, ...value, 7])
          const { length } = key
          writer.add(padded, 2, length, sequence, kind, padded, 5 + length, value.length)
          lines.push(`${toHex(key)}=${toHex(value)} ${sequence} ${kind}`)
        }
        checkBlock(prng, writer.finish().slice(), pairs, lines)
      }
    }
  })
})

function checkBlock(
  prng: Prng,
  content: Uint8Array,
  pairs: ReadonlyArray<readonly [Uint8Array, Uint8Array]>,
  lines: ReadonlyArray<string>,
): void {
  const cursor = new BlockCursor()
  cursor.setBlock(content)
  const forward: Array<string> = []
  for (let valid = cursor.seekFirst(); valid; valid = cursor.step()) forward.push(show(cursor))
  expect(forward).toEqual([...lines])
  const backward: Array<string> = []
  for (let valid = cursor.seekLast(); valid; valid = cursor.stepBack()) backward.push(show(cursor))
  expect(backward.reverse()).toEqual([...lines])
  for (let i = 0; i < 30; i++) {
    const key = prng.chance(0.5) ? randomKey(prng) : prng.pick(pairs)[0]
    const index = pairs.findIndex(([other]) => compareBytes(other, key) >= 0)
    const after = index < 0 ? pairs.length : index
    expect(cursor.seekAtOrAfter(key)).toBe(after < pairs.length)
    if (after < pairs.length) expect(show(cursor)).toBe(lines[after] as string)
    expect(cursor.seekBefore(key)).toBe(after > 0)
    if (after === 0) continue
    expect(show(cursor)).toBe(lines[after - 1] as string)
    // A walk that turns round stays on the entries.
    expect(cursor.step()).toBe(after < pairs.length)
    if (after < pairs.length)
      expect(cursor.stepBack() && show(cursor)).toBe(lines[after - 1] as string)
  }
}

describe("bytes that are no block", () => {
  test("are reported, with whose they are, and never read past", () => {
    const origin = {
      malformed(index: number, actual: string): never {
        throw new MalformedBytes(`block ${index}: ${actual}`)
      },
    }
    const cursor = new BlockCursor()
    const key = utf8("k")
    for (const length of [0, 1, 11, 12, 15]) {
      const take = () => cursor.setBlock(new Uint8Array(length).fill(1), 0, origin, 3)
      expect(take).toThrow(MalformedBytes)
      expect(take).toThrow("block 3")
    }
    const writer = new BlockWriter(64)
    writer.add(key, 0, 1, 5, 1, utf8("value"), 0, 5)
    writer.add(utf8("kl"), 0, 2, 6, 1, utf8("value"), 0, 5)
    const whole = writer.finish().slice()
    const secondAt = 1 + 1 + 1 + 1 + 1 + 5
    expect([...whole.subarray(secondAt, secondAt + 2)]).toEqual([1, 3])
    // It shares more than the key before it has; a key too long; a value past the end.
    for (const [at, bytes] of [
      [secondAt, [2, 3]],
      [secondAt + 1, [0xff, 0xff, 0x7f]],
      [secondAt + 4, [0x7f]],
      [secondAt + 4, [0xff, 0xff, 0xff, 0xff, 0x7f]],
    ] as const) {
      const broken = whole.slice()
      broken.set(bytes, at)
      cursor.setBlock(broken, 0, origin, 3)
      expect(() => {
        for (let valid = cursor.seekFirst(); valid; valid = cursor.step());
      }).toThrow("block 3")
      expect(cursor.valid).toBe(false)
    }
  })

  test("varints: all sizes, and no end", () => {
    const bytes = new Uint8Array(12)
    for (const value of [0, 1, 127, 128, 2 ** 14, 2 ** 28 - 1, 2 ** 28, 2 ** 31, 2 ** 53 - 1]) {
      const end = writeVarint(bytes, 2, value)
      expect([readVarint(bytes, 2), varintEnd]).toEqual([value, end])
    }
    expect(readVarint(new Uint8Array(20).fill(0xff), 0)).toBeNaN()
    expect(readVarint(new Uint8Array(2).fill(0xff), 0)).toBe(2 ** 14 - 1)
  })

  test("a checksum stands for a place: table and offset", () => {
    const bytes = utf8("content")
    const places = [0, 1, 2, 2 ** 31].flatMap((id) =>
      [0, 1, 4096, 2 ** 30].map((offset) => placedChecksum(bytes, id, offset)),
    )
    expect(new Set(places).size).toBe(16)
  })
})

describe("a bloom filter", () => {
  test("knows every key that was added", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (const bitsPerKey of [0, 1, 4, 10, 20, 64]) {
        const builder = new BloomBuilder()
        const keys = Array.from({ length: prng.int(1, 2000) }, () => randomKey(prng))
        for (const key of keys) builder.add(keyHash(key, 0, key.length))
        const filter = builder.finish(bitsPerKey)
        for (const key of keys) {
          const shifted = new Uint8Array([1, 2, 3, ...key])
          expect(bloomMayContain(filter, keyHash(shifted, 3, key.length))).toBe(true)
        }
      }
    }
  })

  test("lets about one absent key in a hundred pass at ten bits a key", () => {
    const builder = new BloomBuilder()
    const hashOf = (text: string) => keyHash(utf8(text), 0, text.length)
    for (let i = 0; i < 20_000; i++) builder.add(hashOf(`present:${i}`))
    const filter = builder.finish(10)
    let passed = 0
    for (let i = 0; i < 20_000; i++) if (bloomMayContain(filter, hashOf(`absent:${i}`))) passed++
    expect(passed).toBeLessThan(300)
    expect(passed).toBeGreaterThan(100)
    expect(isBloomFilter(filter)).toBe(true)
    expect(isBloomFilter(filter.subarray(1))).toBe(false)
    expect(isBloomFilter(new Uint8Array(3))).toBe(false)
    expect(isBloomFilter(filter.slice().fill(17, 0, 1))).toBe(false)
  })

  test("is, bit for bit, what it always was, since it is stored", () => {
    const builder = new BloomBuilder()
    for (const key of ["a", "b", "c"]) builder.add(keyHash(utf8(key), 0, 1))
    expect(crc32(builder.finish(10))).toBe(958452969)
  })

  test("hashes as it always has, since filters are stored", () => {
    expect(["", "a", "abcd", "abcdefg"].map((key) => keyHash(utf8(key), 0, key.length))).toEqual(
      storedHashes,
    )
  })
})

const storedHashes = [3651860435, 3348447516, 2270210426, 510796743]

describe("a memtable", () => {
  test("shows at each sequence what was there then, both ways, while its arena grows", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      const memtable = new Memtable(new SharedArrayBuffer(1024), 1)
      const model = new Model()
      const moments: Array<{ sequence: number; model: Model }> = []
      let pinned = -1
      for (let sequence = 1; sequence <= 600; sequence++) {
        const key = randomKey(prng)
        // An empty value stands for a delete in this comparison.
        const isPut = prng.chance(0.8)
        const value = isPut ? randomValue(prng) : emptyBytes
        const cut = prng.int(0, value.length)
        const kind = isPut ? kinds.put : kinds.delete
        memtable.write(key, kind, sequence, value.subarray(0, cut), value.subarray(cut), pinned)
        model.put(key, new Uint8Array([kind, ...value]))
        if (prng.chance(0.01)) {
          pinned = sequence
          moments.push({ sequence, model: model.clone() })
        }
      }
      moments.push({ sequence: 600, model })
      for (const moment of moments) checkMemtable(prng, memtable, moment)
      // Another thread sees the same through the arena alone.
      const sealed = Memtable.sealed(memtable.arena, 1)
      expect(walk(sealed, 600, false, undefined)).toEqual(walk(memtable, 600, false, undefined))
    }
  })

  test("takes no more room for a key that is written again and again", () => {
    const memtable = new Memtable(new SharedArrayBuffer(4096), 1)
    const key = utf8("state")
    memtable.write(key, kinds.put, 1, new Uint8Array(100), emptyBytes, -1)
    const { usedBytes } = memtable
    for (let sequence = 2; sequence < 100; sequence++) {
      memtable.write(key, kinds.put, sequence, new Uint8Array(sequence), emptyBytes, -1)
    }
    expect(memtable.usedBytes).toBe(usedBytes)
    memtable.write(key, kinds.put, 100, new Uint8Array(100), emptyBytes, 99)
    expect(memtable.usedBytes).toBeGreaterThan(usedBytes)
  })

  test("begins empty in an arena that was used before", () => {
    const pool = new ArenaPool({ arenaBytes: 2048, keepCount: 1, readyCount: 0 })
    const arena = pool.take()
    const memtable = new Memtable(arena, 1)
    for (let i = 1; i < 20; i++) memtable.write(utf8(`k${i}`), 1, i, utf8("v"), emptyBytes, -1)
    pool.give(arena)
    expect(pool.take()).toBe(arena)
    const next = new Memtable(arena, 2)
    expect(walk(next, 1000, false, undefined)).toEqual([])
    expect(next.find(utf8("k3"), 1000)).toBe(0)
    expect(next.last()).toBe(0)
  })
})

function walk(
  memtable: Memtable,
  sequence: number,
  reverse: boolean,
  from: Uint8Array | undefined,
): Array<string> {
  const cursor = new MemtableCursor(memtable, { sequence, reverse })
  const lines: Array<string> = []
  for (cursor.seek(from); cursor.valid; cursor.advance()) {
    const key = cursor.keyBytes.slice(cursor.keyOffset, cursor.keyOffset + cursor.keyLength)
    const end = cursor.valueOffset + cursor.valueLength
    const value = cursor.valueBytes.slice(cursor.valueOffset, end)
    lines.push(`${toHex(key)}=${toHex(new Uint8Array([cursor.kind, ...value]))}`)
  }
  return lines
}

function checkMemtable(
  prng: Prng,
  memtable: Memtable,
  { sequence, model }: { sequence: number; model: Model },
): void {
  const line = ([key, value]: readonly [Uint8Array, Uint8Array]) => `${toHex(key)}=${toHex(value)}`
  const all = model.between(emptyBytes, undefined)
  expect(walk(memtable, sequence, false, undefined)).toEqual(all.map(line))
  expect(walk(memtable, sequence, true, undefined)).toEqual(all.map(line).reverse())
  for (let i = 0; i < 10; i++) {
    const key = randomKey(prng)
    const after = model.between(key, undefined)
    expect(walk(memtable, sequence, false, key)).toEqual(after.map(line))
    const before = all.slice(0, all.length - after.length)
    expect(walk(memtable, sequence, true, key)).toEqual(before.map(line).reverse())
    const node = memtable.find(key, sequence)
    const expected = model.get(key)
    expect(node !== 0).toBe(expected !== undefined)
    if (node !== 0)
      expect(toHex(memtable.copyValue(node))).toBe(toHex(expected?.subarray(1) as Uint8Array))
  }
}
