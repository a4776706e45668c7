import { describe, expect, test } from "bun:test"
import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { BlockPacker } from "../../src/lsm/table/blockPacker.ts"
import {
  compress,
  compressionName,
  compressions,
  expand,
  maxExpandedBytes,
} from "../../src/lsm/table/compression.ts"
import { kinds } from "../../src/lsm/table/format.ts"
import { Table } from "../../src/lsm/table/tableReader.ts"
import { readU32, writeU32 } from "../../src/lsm/table/varint.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { freshSeed } from "./harness.ts"
import { writeTable } from "./tableHarness.ts"

const seeds = [1, 2, 3, freshSeed("compression")]
const packing = [compressions.snappy, compressions.lz4, compressions.zstd]

/** Bytes that repeat themselves, more or less. */
function content(prng: Prng, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  const spread = prng.pick([0, 1, 15, 255])
  for (let at = 0; at < length; ) {
    const run = Math.min(length - at, prng.int(1, 300))
    if (at > 0 && prng.chance(0.7)) {
      const from = prng.int(0, at - 1)
      for (let i = 0; i < run; i++) bytes[at + i] = bytes[from + i] as number
    } else {
      for (let i = 0; i < run; i++) bytes[at + i] = prng.int(0, spread)
    }
    at += run
  }
  return bytes
}

describe("compression", () => {
  test("gives back what was packed, in plain memory of its own", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      let packed = 0
      for (let round = 0; round < 150; round++) {
        const bytes = content(prng, prng.logUniform(1, 200_000))
        // Among other bytes, which must not matter.
        const padded = new Uint8Array(bytes.length + 20).fill(9)
        padded.set(bytes, 7)
        for (const kind of packing) {
          const stored = compress(kind, padded.subarray(7, 7 + bytes.length))
          if (stored === undefined) continue
          packed++
          expect(stored.length).toBeLessThanOrEqual(bytes.length - (bytes.length >>> 3))
          expect(readU32(stored, 0)).toBe(bytes.length)
          const around = new Uint8Array(stored.length + 9).fill(5)
          around.set(stored, 4)
          const expanded = expand(kind, around.subarray(4, 4 + stored.length)) as Uint8Array
          expect(Buffer.compare(expanded, bytes)).toBe(0)
          // A `Buffer` would not copy in `slice` (pitfall 28).
          expect(Buffer.isBuffer(expanded)).toBe(false)
          expect(expanded.slice(0, 1).buffer).not.toBe(expanded.buffer)
        }
      }
      expect(packed).toBeGreaterThan(200)
    }
  })

  test("leaves alone what shrinks by less than an eighth, and what is empty", () => {
    const prng = new Prng(1)
    const noise = new Uint8Array(4096).map(() => prng.int(0, 255))
    for (const kind of packing) {
      expect(compress(kind, noise)).toBeUndefined()
      expect(compress(kind, emptyBytes)).toBeUndefined()
      // Seven eighths of noise, then zeros: the gain is just below an eighth.
      const nearly = noise.slice().fill(0, 4096 - 480)
      expect(compress(kind, nearly)).toBeUndefined()
      expect(compress(kind, noise.slice().fill(0, 2048))).toBeDefined()
    }
    expect(compress(compressions.none, new Uint8Array(4096))).toBeUndefined()
  })

  test("is tried on few blocks of a table while it does not pay, and on all again once it does", () => {
    const prng = new Prng(2)
    const noise = new Uint8Array(4096).map(() => prng.int(0, 255))
    const zeros = new Uint8Array(4096)
    for (const kind of packing) {
      const packer = new BlockPacker(kind)
      const packed = (block: Uint8Array) => packer.pack(block) !== undefined
      // Fewer futile blocks in a row than it takes change nothing.
      for (let i = 0; i < 15; i++) expect(packed(noise)).toBe(false)
      expect(packed(zeros)).toBe(true)
      for (let i = 0; i < 16; i++) expect(packed(noise)).toBe(false)
      const later = Array.from({ length: 12 }, () => packed(zeros))
      expect(later).toEqual([...Array(7).fill(false), ...Array(5).fill(true)])
    }
  })

  test("has its numbers and names in the format", () => {
    expect(compressions).toEqual({ none: 0, snappy: 1, lz4: 2, zstd: 3 })
    expect([0, 1, 2, 3, 4].map(compressionName)).toEqual([
      "none",
      "snappy",
      "lz4",
      "zstd",
      undefined,
    ])
  })

  test("reads what it always wrote, since blocks are stored", () => {
    const text = utf8("kvorum ".repeat(12))
    for (const [kind, hex] of stored) {
      const bytes = Uint8Array.fromHex(hex)
      expect(expand(kind, bytes)).toEqual(text)
    }
  })
})

/** "kvorum " twelve times, as each codec packed it when format 2 was made. */
const stored: ReadonlyArray<readonly [number, string]> = [
  [compressions.snappy, "5400000054206b766f72756d206b76fe07001d07"],
  [compressions.lz4, "540000007f6b766f72756d2007003460766f72756d20"],
  [compressions.zstd, "5400000028b52ffd2054750000386b766f72756d2001002ab41801"],
]

describe("damaged compressed bytes", () => {
  test("are refused or give bytes of the stated size; nothing else happens", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      for (let round = 0; round < 400; round++) {
        const kind = prng.pick(packing)
        const bytes = content(prng, prng.int(100, 5000))
        const whole = compress(kind, bytes)
        if (whole === undefined) continue
        const cut = prng.chance(0.3) ? whole.slice(0, prng.int(0, whole.length)) : whole.slice()
        for (let flips = prng.int(0, 4); flips > 0 && cut.length > 0; flips--) {
          cut[prng.int(0, cut.length - 1)] = prng.int(0, 255)
        }
        const expanded = expand(kind, cut)
        if (expanded !== undefined) expect(expanded.length).toBe(readU32(cut, 0))
      }
    }
  })

  test("never make the expanded size that they claim the size of an allocation", () => {
    const bytes = new Uint8Array(1000)
    for (const kind of packing) {
      const whole = compress(kind, bytes) as Uint8Array
      for (const claim of [0xffffffff, 0x7fffffff, 2 ** 30, maxExpandedBytes + 1, 1001, 999, 0]) {
        const lying = whole.slice()
        writeU32(lying, 0, claim)
        const before = process.memoryUsage().rss
        expect(expand(kind, lying)).toBeUndefined()
        expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024)
      }
      expect(expand(kind, whole)).toEqual(bytes)
    }
  })

  test("a zstd frame that states a size of its own must state the same one, and must state one", () => {
    const bytes = new Uint8Array(100_000)
    const whole = compress(compressions.zstd, bytes) as Uint8Array
    expect(expand(compressions.zstd, whole)?.length).toBe(bytes.length)
    // Descriptor 0xa0: one segment, four bytes of size.
    expect(whole[8]).toBe(0xa0)
    const larger = whole.slice()
    writeU32(larger, 9, 0xffffff00)
    expect(expand(compressions.zstd, larger)).toBeUndefined()
    writeU32(larger, 0, 0xffffff00)
    expect(expand(compressions.zstd, larger)).toBeUndefined()
    const unstated = whole.slice()
    unstated[8] = 0x00
    expect(expand(compressions.zstd, unstated)).toBeUndefined()
    const withDictionary = whole.slice()
    withDictionary[8] = 0xa1
    expect(expand(compressions.zstd, withDictionary)).toBeUndefined()
  })

  test("a snappy stream that gives fewer or more bytes than it states", () => {
    const bytes = new Uint8Array(1000)
    const whole = compress(compressions.snappy, bytes) as Uint8Array
    expect(whole[4]).toBe(0xe8)
    for (const claim of [936, 999, 1001, 1064]) {
      const lying = whole.slice()
      writeU32(lying, 0, claim)
      lying[4] = (claim & 0x7f) | 0x80
      lying[5] = claim >>> 7
      expect(expand(compressions.snappy, lying)).toBeUndefined()
    }
    // Copies from before the beginning, and of nothing.
    for (const back of [0, 5]) {
      const stream = new Uint8Array([8, 0, 0, 0, 8, 0x0c, 1, 2, 3, 4, 0x01, back])
      expect(expand(compressions.snappy, stream)).toBeUndefined()
      stream[stream.length - 1] = 4
      expect(expand(compressions.snappy, stream)).toEqual(new Uint8Array([1, 2, 3, 4, 1, 2, 3, 4]))
    }
    // One that would write far past its end, had it been let.
    const long = new Uint8Array(4 + 3 + 30_003)
    writeU32(long, 0, 300)
    long.set([0xac, 0x02, 0x00, 7], 4)
    for (let at = 8; at + 3 <= long.length; at += 3) long.set([0xfe, 1, 0], at)
    const started = performance.now()
    for (let i = 0; i < 100; i++) expect(expand(compressions.snappy, long)).toBeUndefined()
    expect(performance.now() - started).toBeLessThan(200)
  })

  test("a zstd frame that is whole, but states no size or more than a block may hold", () => {
    const text = utf8("kvorum")
    // No size in the header; a window of 1 KiB; one raw block, the last, of six bytes.
    const frame = new Uint8Array([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x00, 0x31, 0x00, 0x00, ...text])
    expect(Bun.zstdDecompressSync(frame).toString()).toBe("kvorum")
    const unstated = new Uint8Array(4 + frame.length)
    unstated.set(frame, 4)
    writeU32(unstated, 0, text.length)
    expect(expand(compressions.zstd, unstated)).toBeUndefined()
    for (const [size, isExpanded] of [
      [maxExpandedBytes, true],
      [maxExpandedBytes + 1, false],
    ] as const) {
      const packed = Bun.zstdCompressSync(new Uint8Array(size), { level: 1 })
      expect(packed.length).toBeLessThan(2000)
      const bomb = new Uint8Array(4 + packed.length)
      bomb.set(packed, 4)
      writeU32(bomb, 0, size)
      expect(expand(compressions.zstd, bomb) !== undefined).toBe(isExpanded)
    }
  })

  test("an unknown kind, or nothing at all", () => {
    for (const kind of [0, 4, 255]) expect(expand(kind, new Uint8Array(100))).toBeUndefined()
    for (const kind of packing) {
      for (let length = 0; length < 12; length++) {
        expect(expand(kind, new Uint8Array(length).fill(length))).toBeUndefined()
      }
    }
  })
})

test("a table of each kind is smaller, states its kind and holds the same", () => {
  const disk = new SimulatedDisk()
  const entries = Array.from({ length: 2000 }, (_, i) => {
    const key = utf8(`key:${String(i).padStart(8, "0")}`)
    return { key, value: utf8(`a value that repeats: ${i % 7}`), sequence: i, kind: kinds.put }
  })
  const sizes = Object.entries(compressions).map(([name, compression]) => {
    const options = { blockBytes: 4096, bloomBitsPerKey: 10, compression }
    const identity = writeTable(disk, name, { entries }, options)
    const table = new Table({ disk, path: name, identity })
    expect(table.properties.compression).toBe(compression)
    expect(table.verify()).toBeGreaterThan(5)
    return identity.sizeBytes
  })
  const [none, ...rest] = sizes as [number, ...Array<number>]
  for (const size of rest) expect(size).toBeLessThan(none / 2)
})
