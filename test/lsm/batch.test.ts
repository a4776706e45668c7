import { describe, expect, test } from "bun:test"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { toHex, utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"
import { WriteBatch } from "../../src/lsm/batch.ts"
import { maxKeyBytes } from "../../src/lsm/table/format.ts"

/** What a batch says, one line an operation. */
function lines(bytes: Uint8Array): Array<string> {
  const result: Array<string> = []
  WriteBatch.visit(bytes, {
    put: (key, value) => result.push(`put ${toHex(key)} ${toHex(value)}`),
    delete: (key) => result.push(`delete ${toHex(key)}`),
    deleteRange: (lower, upper) => result.push(`range ${toHex(lower)} ${toHex(upper)}`),
  })
  return result
}

function sample(): WriteBatch {
  const batch = new WriteBatch(0)
  batch.put(utf8("a"), utf8("12"))
  batch.delete(utf8("b"))
  batch.deleteRange(utf8(""), utf8("c"))
  batch.putParts(utf8("d"), utf8("3"), utf8("4"))
  return batch
}

const expected = ["put 61 3132", "delete 62", "range  63", "put 64 3334"]

describe("a batch", () => {
  test("says what was put in, in order, in these bytes", () => {
    const batch = sample()
    expect(lines(batch.bytes())).toEqual(expected)
    expect([batch.count, batch.sizeBytes]).toEqual([4, batch.bytes().length])
    expect(toHex(batch.bytes())).toBe(
      "04000000" +
        "0101000200000061" +
        "3132" +
        "0001000000000062" +
        "02000001000000" +
        "63" +
        "0101000200000064" +
        "3334",
    )
  })

  test("copies what it is given, and is empty again after clear", () => {
    const batch = new WriteBatch()
    const key = utf8("key")
    batch.put(key, key)
    key.fill(0)
    expect(lines(batch.bytes())).toEqual(["put 6b6579 6b6579"])
    batch.clear()
    expect([batch.count, batch.sizeBytes]).toEqual([0, 4])
    expect(lines(batch.bytes())).toEqual([])
    batch.deleteRange(utf8("b"), utf8("b"))
    expect(batch.count).toBe(0)
  })

  test("comes back from its bytes, and can be added to", () => {
    const bytes = sample().bytes()
    const batch = WriteBatch.decode(bytes)
    bytes.fill(0)
    batch.delete(utf8("e"))
    expect(lines(batch.bytes())).toEqual([...expected, "delete 65"])
    expect(batch.count).toBe(5)
  })

  test("refuses keys that no table could hold", () => {
    const batch = new WriteBatch()
    expect(() => batch.put(new Uint8Array(0), utf8("x"))).toThrow("a key of 0 bytes")
    expect(() => batch.delete(new Uint8Array(maxKeyBytes + 1))).toThrow("a key of")
    expect(() => batch.deleteRange(utf8("a"), new Uint8Array(maxKeyBytes + 1).fill(255))).toThrow()
  })

  test("cut short anywhere, or longer than it says, is malformed, and tells nothing of itself", () => {
    const bytes = sample().bytes()
    for (let length = 0; length < bytes.length; length++) {
      expect(() => lines(bytes.slice(0, length))).toThrow(MalformedBytes)
    }
    expect(() => lines(new Uint8Array([...bytes, 0]))).toThrow(MalformedBytes)
    let told = 0
    const visitor = { put: () => told++, delete: () => told++, deleteRange: () => told++ }
    expect(() => WriteBatch.visit(bytes.slice(0, -1), visitor)).toThrow(MalformedBytes)
    expect(told).toBe(0)
  })

  test("of any bytes is whole or malformed", () => {
    const prng = new Prng(11)
    let whole = 0
    for (let round = 0; round < 20_000; round++) {
      const bytes = sample().bytes().slice()
      for (let i = prng.int(1, 3); i > 0; i--) {
        bytes[prng.int(0, bytes.length - 1)] = prng.pick([0, 1, 2, 3, 0x61, 0xff, prng.int(0, 255)])
      }
      try {
        expect(lines(bytes).length).toBe(4)
        whole++
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedBytes)
      }
    }
    expect(whole).toBeGreaterThan(1000)
  })
})
