import { describe, expect, test } from "bun:test"
import { parseBatch } from "../../src/cli/batchLines.ts"
import { Latencies } from "../../src/cli/latencies.ts"
import { argumentBytes, exactText, jsonBytes, lineText } from "../../src/cli/textBytes.ts"
import { utf8 } from "../../src/lib/bytes.ts"
import { Prng } from "../../src/lib/prng.ts"

describe("bytes as text", () => {
  test("JSON gives text where the text gives the bytes back, else hex", () => {
    expect(jsonBytes("value", utf8("grüß dich"), false)).toEqual({ value: "grüß dich" })
    expect(jsonBytes("value", utf8("a"), true)).toEqual({ valueHex: "61" })
    expect(jsonBytes("value", Uint8Array.of(0xff, 0x00), false)).toEqual({ valueHex: "ff00" })
    // A byte order mark disappears in decoding, so its text is not exact.
    expect(jsonBytes("key", Uint8Array.of(0xef, 0xbb, 0xbf, 0x61), false)).toEqual({
      keyHex: "efbbbf61",
    })
  })

  test("an argument is UTF-8, or hexadecimal on request", () => {
    expect(argumentBytes("ff00", false)).toEqual(utf8("ff00"))
    expect(argumentBytes("fF00", true)).toEqual(Uint8Array.of(255, 0))
    expect(argumentBytes("f", true)).toBeUndefined()
    expect(argumentBytes("", true)).toEqual(new Uint8Array(0))
  })

  test("a field of a line holds no control character and no ambiguity", () => {
    expect(lineText(utf8("a\tb\nc\\d"))).toBe("a\\tb\\nc\\\\d")
    expect(lineText(Uint8Array.of(0x61, 0xff, 0x5c, 0x00))).toBe("a\\xff\\\\\\x00")
    expect(lineText(utf8("é\u0085"))).toBe("é\\xc2\\x85")
  })

  test("different bytes never give the same line", () => {
    const prng = new Prng(7)
    const seen = new Map<string, string>()
    for (let i = 0; i < 20_000; i++) {
      const bytes = Uint8Array.from({ length: prng.int(0, 5) }, () =>
        prng.pick([0, 9, 10, 0x5c, 0x61, 0x78, 0x30, 0x7f, 0xc3, 0xa9, 0xff]),
      )
      const line = lineText(bytes)
      expect(line).not.toMatch(/[\t\n]/)
      const hex = Buffer.from(bytes).toString("hex")
      expect(seen.get(line) ?? hex, `${line} stands for both`).toBe(hex)
      seen.set(line, hex)
    }
  })

  test("text that is not UTF-8 has no exact text", () => {
    expect(exactText(Uint8Array.of(0xc3))).toBeUndefined()
    expect(exactText(new Uint8Array(0))).toBe("")
  })
})

describe("operations of a batch", () => {
  test("puts and deletes, text and hex, empty lines passed over", () => {
    const source = [
      '{"op":"put","key":"a","value":"b"}',
      "",
      '{"op":"delete","keyHex":"00ff"}\r',
      '{"op":"put","key":"c","valueHex":""}',
    ].join("\n")
    expect(parseBatch(source)).toEqual([
      { op: "put", key: utf8("a"), value: utf8("b") },
      { op: "delete", key: Uint8Array.of(0, 255) },
      { op: "put", key: utf8("c"), value: new Uint8Array(0) },
    ])
  })

  test.each([
    ["{", "is not JSON"],
    ["[]", "is not a JSON object"],
    ['{"op":"put","key":"a"}', "has neither value nor valueHex"],
    ['{"op":"put","key":"a","keyHex":"61","value":"b"}', "has both key and keyHex"],
    ['{"op":"put","key":1,"value":"b"}', "key is not a string"],
    ['{"op":"put","keyHex":"6","value":"b"}', "keyHex is not hex"],
    ['{"op":"get","key":"a"}', 'has an op that is none of "put", "delete", "add" and "remove"'],
    ['{"op":"delete","key":"a","value":"b"}', "has a field value, which delete does not take"],
    ['{"op":"delete","key":"a","ttlMs":1}', "has a field ttlMs, which delete does not take"],
    ['{"op":"put","key":"a","value":"b","ttl":"30s"}', "has a field ttl, which put does not take"],
    ['{"op":"put","key":"a","value":"b","ttlMs":0}', "has a ttlMs that is no number above 0"],
    ['{"op":"add","key":"a"}', 'has no delta that is a whole number, such as "delta":2'],
    ['{"op":"add","key":"a","delta":1e30}', "has a delta beyond 2^53: write it as text, in quotes"],
    [
      '{"op":"add","key":"a","delta":"123456789012345678901"}',
      "has a delta that is not between -2^63 and 2^63 - 1",
    ],
    [
      '{"op":"add","key":"a","delta":1.5}',
      'has no delta that is a whole number, such as "delta":2',
    ],
    [
      '{"op":"put","key":"a","value":"b","ifAbsent":true}',
      "has the condition ifAbsent: conditions need --atomic",
    ],
  ])("the line %p is named: it %s", (line, problem) => {
    expect(parseBatch(`{"op":"delete","key":"a"}\n${line}\n`)).toBe(`line 2 ${problem}`)
  })
})

describe("lines of an atomic batch", () => {
  test("may have a condition each", () => {
    const source = [
      '{"op":"put","key":"a","value":"b","ifVersion":7,"ttlMs":1500}',
      '{"op":"put","key":"c","value":"d","ifVersion":0}',
      '{"op":"delete","key":"e","ifValueHex":"00ff"}',
      '{"op":"add","key":"f","delta":"-9223372036854775808","ifAbsent":true}',
      '{"op":"add","key":"g","delta":2}',
    ].join("\n")
    expect(parseBatch(source, { atomic: true })).toEqual([
      { op: "put", key: utf8("a"), value: utf8("b"), expect: { version: 7 }, ttlMs: 1500 },
      { op: "put", key: utf8("c"), value: utf8("d"), expect: { absent: true } },
      { op: "delete", key: utf8("e"), expect: { value: Uint8Array.of(0, 255) } },
      { op: "add", key: utf8("f"), delta: -(2n ** 63n), expect: { absent: true } },
      { op: "add", key: utf8("g"), delta: 2n },
    ])
  })

  test.each([
    ['"ifVersion":1,"ifAbsent":true', "has more than one condition: ifAbsent and ifVersion"],
    ['"ifVersion":-1', "has an ifVersion that is no version"],
    ['"ifAbsent":false', "has an ifAbsent that is not true"],
    ['"ifValue":3', "ifValue is not a string"],
  ])("the condition %p is named: it %s", (condition, problem) => {
    const line = `{"op":"delete","key":"a",${condition}}`
    expect(parseBatch(line, { atomic: true })).toBe(`line 1 ${problem}`)
  })
})

describe("latencies", () => {
  test("percentiles are the nearest rank", () => {
    const latencies = new Latencies()
    expect(latencies.percentiles([0.5, 0.99])).toEqual([0, 0])
    for (let i = 5000; i >= 1; i--) latencies.add(i)
    expect(latencies.count).toBe(5000)
    expect(latencies.percentiles([0, 0.5, 0.99, 1])).toEqual([1, 2500, 4950, 5000])
    latencies.clear()
    latencies.add(7)
    expect(latencies.percentiles([0.5, 0.99])).toEqual([7, 7])
  })
})
