import { describe, expect, test } from "bun:test"
import { StorageCorruption } from "../../src/disk/disk.ts"
import { emptyBytes, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { Caches } from "../../src/lsm/cache/caches.ts"
import type { Fragment } from "../../src/lsm/manifest/version.ts"
import { RunCursor } from "../../src/lsm/read/runCursor.ts"
import { BlockCursor } from "../../src/lsm/table/block.ts"
import { keyHash } from "../../src/lsm/table/bloom.ts"
import { compressions } from "../../src/lsm/table/compression.ts"
import { kinds, NewerFormat, OlderFormat, placedChecksum } from "../../src/lsm/table/format.ts"
import { identifyTable, Table } from "../../src/lsm/table/tableReader.ts"
import { readU32, writeU32 } from "../../src/lsm/table/varint.ts"
import { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { freshSeed } from "./harness.ts"
import type { Entry } from "./tableHarness.ts"
import { partsOf, readFile, replaceFile, reseal, writeTable } from "./tableHarness.ts"

const seeds = [1, 2, 3, freshSeed("tableDamage")]
const path = "t"

/** A table of several index pages, with deletes and range tombstones. */
function smallTable(compression: number): {
  disk: SimulatedDisk
  bytes: Uint8Array
  fragment: Fragment
  entries: ReadonlyArray<Entry>
} {
  const disk = new SimulatedDisk()
  const entries = Array.from({ length: 60 }, (_, i) => ({
    key: utf8(`key:${100 + i}`),
    value: i % 9 === 8 ? emptyBytes : utf8(`value ${i % 3}`.repeat(3)),
    sequence: 1000 - i,
    kind: i % 9 === 8 ? kinds.delete : kinds.put,
  }))
  const tombstones = [{ lower: utf8("key:105"), upper: utf8("key:2"), sequence: 2000 }]
  const options = { blockBytes: 200, bloomBitsPerKey: 10, indexPageBytes: 70, compression }
  const fragment = writeTable(disk, path, { entries, tombstones }, options, { tableId: 77 })
  disk.keepAll()
  return { disk, bytes: readFile(disk, path), fragment, entries }
}

/** Everything that reads of a table give, in one line. */
function readAll(table: Table, fragment: Fragment, entries: ReadonlyArray<Entry>): string {
  const lines: Array<string> = []
  const cursor = new BlockCursor()
  const show = (one: BlockCursor) => {
    const end = one.valueOffset + one.valueLength
    const value = one.valueBytes.slice(one.valueOffset, end).toHex()
    return `${one.keyBytes.slice(0, one.keyLength).toHex()}=${value} ${one.sequence} ${one.kind}`
  }
  for (const { key } of entries) {
    const isFound = table.find(key, keyHash(key, 0, key.length), cursor)
    lines.push(isFound ? show(cursor) : "absent")
  }
  for (const reverse of [false, true]) {
    const run = new RunCursor([fragment], { tableOf: () => table, reverse })
    // Malformed entries under right checksums may be any number, yet never without an end.
    for (run.seek(undefined); run.valid && lines.length < 1e5; run.advance()) lines.push(show(run))
  }
  for (const { lower, upper, sequence } of table.tombstones) {
    lines.push(`${lower.toHex()} ${upper.toHex()} ${sequence}`)
  }
  return lines.join("\n")
}

function open(disk: SimulatedDisk, fragment: Fragment): Table {
  const caches = new Caches({ blockBytes: 100_000, keyBytes: 1000, rowBytes: 0 })
  return new Table({ disk, path, identity: fragment, caches })
}

describe("a table with damage", () => {
  for (const [name, compression] of Object.entries(compressions)) {
    test(`every flipped bit is found by verify, and by reads (${name})`, () => {
      const { disk, bytes, fragment, entries } = smallTable(compression)
      const whole = readAll(open(disk, fragment), fragment, entries)
      expect(whole.split("\n").length).toBe(3 * 60 + 1)
      expect(open(disk, fragment).verify()).toBeGreaterThan(4)
      for (let offset = 0; offset < bytes.length; offset++) {
        for (let bit = 0; bit < 8; bit++) {
          disk.corrupt(path, offset, 1 << bit)
          const table = open(disk, fragment)
          expect(() => table.verify()).toThrow(StorageCorruption)
          // Reads of all keys touch every byte of the file.
          expect(() => readAll(table, fragment, entries)).toThrow(StorageCorruption)
          table.close()
          disk.corrupt(path, offset, 1 << bit)
        }
      }
      expect(readAll(open(disk, fragment), fragment, entries)).toBe(whole)
    })
  }

  test("a read that does not touch it is right", () => {
    const { disk, fragment, entries, bytes } = smallTable(compressions.none)
    const [first] = partsOf(bytes)
    disk.corrupt(path, (first?.offset as number) + 3, 4)
    const table = open(disk, fragment)
    const cursor = new BlockCursor()
    const [damaged, last] = [entries[0], entries.at(-1)] as [Entry, Entry]
    expect(table.find(last.key, keyHash(last.key, 0, last.key.length), cursor)).toBe(true)
    const read = () => table.find(damaged.key, keyHash(damaged.key, 0, damaged.key.length), cursor)
    expect(read).toThrow(StorageCorruption)
    // Again: damage is never cached, nor taken for "absent" the second time.
    expect(read).toThrow(StorageCorruption)
    expect(table.verify(1)).toBe(table.blockCount)
  })

  test("the report names the file and where the damaged block begins", () => {
    const { disk, fragment, bytes } = smallTable(compressions.lz4)
    const parts = partsOf(bytes)
    const { offset } = parts[2] as (typeof parts)[0]
    disk.corrupt(path, offset + 1, 1)
    let error: unknown
    try {
      open(disk, fragment).verify()
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(StorageCorruption)
    const report = error as StorageCorruption
    expect([report.path, report.offset]).toEqual([path, offset])
  })

  test("of any other length, or another table of the same size and id", () => {
    const { disk, bytes, fragment, entries } = smallTable(compressions.none)
    for (const length of [0, 1, 15, 16, 39, 40, 56, bytes.length - 1]) {
      replaceFile(disk, path, bytes.slice(0, length))
      expect(() => open(disk, fragment).verify()).toThrow(StorageCorruption)
      expect(() => readAll(open(disk, fragment), fragment, entries)).toThrow(StorageCorruption)
      expect(() => identifyTable(disk, path)).toThrow(StorageCorruption)
    }
    replaceFile(disk, path, new Uint8Array([...bytes, 0]))
    expect(() => open(disk, fragment).verify()).toThrow(StorageCorruption)
    disk.remove(path)
    expect(() => open(disk, fragment).verify()).toThrow(StorageCorruption)
    const other = entries.map((entry) => ({ ...entry, value: entry.value.map((byte) => byte ^ 1) }))
    const options = { blockBytes: 200, bloomBitsPerKey: 10, indexPageBytes: 70 }
    const tombstones = [{ lower: utf8("key:105"), upper: utf8("key:2"), sequence: 2000 }]
    const swapped = writeTable(disk, path, { entries: other, tombstones }, options, { tableId: 77 })
    expect(swapped.sizeBytes).toBe(fragment.sizeBytes)
    expect(() => open(disk, fragment).verify()).toThrow(StorageCorruption)
    expect(() => readAll(open(disk, fragment), fragment, entries)).toThrow(StorageCorruption)
  })

  test("a good block of the same table, id and place, but of another write", () => {
    const { disk, bytes, fragment, entries } = smallTable(compressions.none)
    const other = entries.map((entry) => ({ ...entry, value: entry.value.map((byte) => byte ^ 1) }))
    const options = { blockBytes: 200, bloomBitsPerKey: 10, indexPageBytes: 70 }
    writeTable(disk, "other", { entries: other }, options, { tableId: 77 })
    const [block] = partsOf(bytes)
    const { offset, sizeBytes } = block as NonNullable<typeof block>
    const mixed = bytes.slice()
    mixed.set(readFile(disk, "other").subarray(offset, offset + sizeBytes), offset)
    expect(mixed).not.toEqual(bytes)
    replaceFile(disk, path, mixed)
    expect(() => open(disk, fragment).verify()).toThrow(StorageCorruption)
    expect(() => readAll(open(disk, fragment), fragment, entries)).toThrow(StorageCorruption)
  })

  test("a block in another block's place, though its own checksum is right", () => {
    const disk = new SimulatedDisk()
    // Blocks of equal size: each holds keys and values of the same lengths.
    const entries = Array.from({ length: 30 }, (_, i) => ({
      key: utf8(`key:${100 + i}`),
      value: new Uint8Array(20).fill(i),
      sequence: 5,
      kind: kinds.put,
    }))
    const options = { blockBytes: 64, bloomBitsPerKey: 10 }
    const fragment = writeTable(disk, path, { entries }, options)
    const bytes = readFile(disk, path)
    const [first, second] = partsOf(bytes)
    expect(first?.sizeBytes).toBe(second?.sizeBytes as number)
    const { offset, sizeBytes } = second as NonNullable<typeof second>
    bytes.copyWithin(first?.offset as number, offset, offset + sizeBytes)
    replaceFile(disk, path, bytes)
    expect(() => readAll(open(disk, fragment), fragment, entries)).toThrow(StorageCorruption)
  })
})

describe("bytes that lie under right checksums", () => {
  test("the seal of the test is the writer's own", () => {
    for (const compression of Object.values(compressions)) {
      const { bytes, fragment } = smallTable(compression)
      const sealed = bytes.slice()
      expect(reseal(sealed, 77, partsOf(bytes))).toBe(fragment.checksum)
      expect(sealed.toHex()).toBe(bytes.toHex())
    }
  })

  test("any change is refused or read as something; no crash, no hang, no great allocation", () => {
    for (const seed of seeds) {
      const prng = new Prng(seed)
      let [refused, whole] = [0, 0]
      for (let round = 0; round < 1500; round++) {
        if (round % 100 === 0) Bun.gc(true)
        const { disk, bytes, fragment, entries } = pickTable(prng)
        const parts = partsOf(bytes)
        const mutated = bytes.slice()
        for (let changes = prng.int(1, 3); changes > 0; changes--) {
          const { offset, sizeBytes } = prng.pick(parts)
          const at = offset + prng.int(0, sizeBytes - 5)
          if (prng.chance(0.4)) mutated[at] = prng.pick([0, 1, 0x7f, 0x80, 0xfe, 0xff])
          else if (prng.chance(0.5)) mutated[at] ^= 1 << prng.int(0, 7)
          else writeU32(mutated, at, prng.pick([0, 1, 0x7fffffff, 0xffffffff, prng.uint32()]))
        }
        // The last four bytes of a change may have met the next part's first ones: all are sealed.
        const checksum = reseal(mutated, 77, parts)
        replaceFile(disk, path, mutated)
        const identity = { ...fragment, checksum }
        const before = process.memoryUsage().rss
        for (const act of [
          () => open(disk, identity).verify(),
          () => readAll(open(disk, identity), identity, entries),
        ]) {
          try {
            act()
            whole++
          } catch (error) {
            const isKnown =
              error instanceof StorageCorruption ||
              error instanceof NewerFormat ||
              error instanceof OlderFormat
            if (!isKnown) throw error
            refused++
          }
        }
        expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024)
      }
      expect(refused).toBeGreaterThan(1000)
      expect(whole).toBeGreaterThan(100)
    }
  })

  test("verify looks at the restarts, on which searches rely", () => {
    const { disk, entries } = smallTable(compressions.none)
    const options = { blockBytes: 4096, bloomBitsPerKey: 10 }
    const fragment = writeTable(disk, "large", { entries }, options, { tableId: 77 })
    const bytes = readFile(disk, "large")
    const parts = partsOf(bytes)
    const [{ offset, sizeBytes }] = parts as [(typeof parts)[0]]
    // Behind the entries: offsets of the four restarts, base sequence, count.
    const restartsAt = offset + sizeBytes - 5 - 12 - 16
    for (const restart of [1, 2, 3]) {
      const right = readU32(bytes, restartsAt + 4 * restart)
      for (const wrong of [0, right - 1, right + 1, sizeBytes, 0xffffffff]) {
        const mutated = bytes.slice()
        writeU32(mutated, restartsAt + 4 * restart, wrong)
        const identity = { ...fragment, checksum: reseal(mutated, 77, parts) }
        replaceFile(disk, path, mutated)
        expect(() => open(disk, identity).verify()).toThrow("restarts elsewhere")
      }
    }
  })

  const kept = new Map<number, ReturnType<typeof smallTable>>()
  function pickTable(prng: Prng): ReturnType<typeof smallTable> {
    const compression = prng.pick(Object.values(compressions))
    const known = kept.get(compression) ?? smallTable(compression)
    kept.set(compression, known)
    return known
  }
})

describe("another format", () => {
  for (const [found, error] of [
    [1, OlderFormat],
    [3, NewerFormat],
    [99, NewerFormat],
    [0, StorageCorruption],
  ] as const) {
    test(`${found} is refused, by name`, () => {
      const { disk, bytes, fragment } = smallTable(compressions.none)
      const changed = bytes.slice()
      writeU32(changed, 4, found)
      writeU32(changed, 12, placedChecksum(changed.subarray(0, 12), 77, 0))
      replaceFile(disk, path, changed)
      expect(() => open(disk, fragment).verify()).toThrow(error)
      expect(() => identifyTable(disk, path)).toThrow(error)
      if (found === 1) {
        expect(() => identifyTable(disk, path)).toThrow("begin with an empty directory")
      }
    })
  }
})
