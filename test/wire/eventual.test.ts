import { describe, expect, test } from "bun:test"
import type {
  EventualReceipt,
  EventualReply,
  EventualRequest,
  EventualWrite,
} from "../../src/dynamo/node/requests.ts"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { concatBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { readAnswer, writeEventual } from "../../src/wire/answersLayout.ts"
import { readRequest, writeRequest } from "../../src/wire/native.ts"
import { eventualReplyOf, eventualRequestOf, stateOf } from "./eventualSamples.ts"

function payloadOf(write: (writer: ByteWriter) => void): Uint8Array {
  const writer = new ByteWriter(16)
  write(writer)
  return writer.take().subarray(4)
}

const requestBytes = (request: EventualRequest, id = 7) =>
  payloadOf((writer) => writeRequest(writer, { _tag: "Eventual", id, request }))

const replyBytes = (reply: EventualReply, id = 7) =>
  payloadOf((writer) => writeEventual(writer, id, reply))

/** Byte strings as hex and whole numbers as text, so that what differs only in kind of array compares equal. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_, each) => {
      if (each instanceof Uint8Array) return toHex(each)
      if (typeof each === "bigint") return `${each}n`
      return each === undefined ? "undefined" : each
    }),
  )

const blank = { token: 0, namespace: 1, level: undefined, deadlineMs: 1000 }
const write: EventualWrite = {
  ...blank,
  ...{ _tag: "EventualWrite", key: utf8("k"), context: undefined },
  ...{ change: { _tag: "Delete" }, strict: false, requestId: 0 },
}
const receipt: EventualReceipt = {
  ...{ coordinator: 2, asked: "quorum", achieved: "one", owners: [2, 3, 5], answered: [2, 5] },
  ...{ standIns: [{ node: 7, owner: 3 }], repairs: [3], sloppy: true, overlap: true },
}

describe("requests to eventual namespaces", () => {
  test("come back as they were written", () => {
    const prng = new Prng(1)
    for (let i = 0; i < 3000; i++) {
      const request = eventualRequestOf(prng)
      const read = readRequest(requestBytes(request, i))
      expect(plain(read)).toEqual(plain({ _tag: "Eventual", id: i, request }))
    }
  })

  test("have the bytes that their layout says", () => {
    const change = { _tag: "Put", value: utf8("vv"), ttlMs: 258 } as const
    const context = Uint8Array.of(9, 8)
    const fields = { level: "all", strict: true, requestId: 5, change, context } as const
    expect(toHex(requestBytes({ ...write, ...fields }))).toBe(
      // kind, id, namespace, deadline, level, flags, request id, change, TTL, lengths, context, key, value
      "0807000000" +
        "01000000e8030000" +
        "0303" +
        "0500000000000000" +
        "01" +
        "0201000000000000" +
        "02000100" +
        "09086b7676",
    )
    expect(toHex(requestBytes({ ...blank, _tag: "EventualRead", key: utf8("k") }))).toBe(
      "090700000001000000e8030000006b",
    )
    const increment: EventualWrite = { ...write, change: { _tag: "Increment", delta: -2n } }
    expect(toHex(requestBytes(increment)).slice(-16)).toBe("feffffffffffffff")
  })

  test("are refused when they are cut short, or name what there is not", () => {
    const put = requestBytes({ ...write, change: { _tag: "Put", value: utf8(""), ttlMs: 0 } })
    for (let length = 0; length < put.length; length++) {
      expect(() => readRequest(put.subarray(0, length)), `${length}`).toThrow(MalformedBytes)
    }
    // Level, flags and change, in turn.
    for (const [offset, value] of [
      [13, 5],
      [14, 8],
      [23, 0],
      [23, 8],
    ] as const) {
      const wrong = put.slice()
      wrong[offset] = value
      expect(() => readRequest(wrong), `${offset}`).toThrow(MalformedBytes)
    }
    const increment = requestBytes({ ...write, change: { _tag: "Increment", delta: 1n } })
    for (const wrong of [increment.slice(0, -1), concatBytes(increment, Uint8Array.of(0))]) {
      expect(() => readRequest(wrong)).toThrow(MalformedBytes)
    }
  })

  test("cannot claim more runs of slots than there are slots", () => {
    const slots = Array.from({ length: 2 * 16_384 + 2 }, (_, i) => i)
    const what = { prefix: utf8(""), after: undefined, limit: 1 }
    expect(() =>
      readRequest(requestBytes({ ...blank, _tag: "EventualPage", slots, ...what })),
    ).toThrow(MalformedBytes)
  })
})

describe("a request to an eventual namespace", () => {
  test("has no bytes that say nothing: of a change without a body, a TTL of no value, a context left out", () => {
    const remove = requestBytes(write)
    expect(() => readRequest(concatBytes(remove, Uint8Array.of(1)))).toThrow(MalformedBytes)
    const lasting = remove.slice()
    lasting[24] = 1
    expect(() => readRequest(lasting)).toThrow(MalformedBytes)
    const withContext = requestBytes({ ...write, context: utf8("token") })
    expect(withContext[14]).toBe(2)
    withContext[14] = 0
    expect(() => readRequest(withContext)).toThrow(MalformedBytes)
  })
})

describe("answers of eventual namespaces", () => {
  test("come back as they were written", () => {
    const prng = new Prng(2)
    for (let i = 0; i < 3000; i++) {
      const reply = eventualReplyOf(prng)
      const read = readAnswer(replyBytes(reply, i))
      expect(plain(read)).toEqual(plain({ id: i, answer: { _tag: "Eventual", reply } }))
    }
  })

  test("have the bytes that their layout says", () => {
    const told =
      "02000000" +
      "0201" +
      "03" +
      "0301" +
      "05000200" +
      "020000000300000005000000" +
      "0700000003000000"
    const written = { _tag: "EventualWritten", token: 0, counter: 258n, receipt } as const
    const head = (kind: string) => `${kind}07000000${"00".repeat(8)}`
    expect(toHex(replyBytes(written))).toBe(`${head("09")}010201000000000000${told}`)
    const state = stateOf(new Prng(3))
    const value = { _tag: "EventualValue", token: 0, receipt, state } as const
    expect(toHex(replyBytes(value))).toBe(`${head("0a")}${told}01${toHex(state)}`)
    const refusal = { _tag: "RingMoved", ringVersion: 3 } as const
    const refused = { _tag: "EventualRefused", token: 0, refusal } as const
    expect(toHex(replyBytes(refused))).toBe(`${head("0c")}030300000000000000`)
  })

  test("are refused when they are cut short, have bytes too many, or name no level", () => {
    const written = replyBytes({ _tag: "EventualWritten", token: 0, counter: undefined, receipt })
    for (let length = 0; length < written.length; length++) {
      expect(() => readAnswer(written.subarray(0, length)), `${length}`).toThrow(MalformedBytes)
    }
    expect(() => readAnswer(concatBytes(written, Uint8Array.of(0)))).toThrow(MalformedBytes)
    for (const asked of [0, 5]) {
      const wrong = written.slice()
      wrong[26] = asked
      expect(() => readAnswer(wrong), `${asked}`).toThrow(MalformedBytes)
    }
    const absent = replyBytes({ _tag: "EventualValue", token: 0, state: undefined, receipt })
    expect(() => readAnswer(concatBytes(absent, Uint8Array.of(1)))).toThrow(MalformedBytes)
  })

  test("bring no state that is none", () => {
    const prng = new Prng(5)
    for (let i = 0; i < 200; i++) {
      const state = stateOf(prng).slice()
      state[0] = prng.pick([0, 0x10, 0x17, 0x21, 0xff])
      const value = { _tag: "EventualValue", token: 0, receipt, state } as const
      expect(() => readAnswer(replyBytes(value))).toThrow(MalformedBytes)
      const entries = [{ key: utf8("k"), state: stateOf(prng).slice(0, -1) }]
      const page = { _tag: "EventualEntries", token: 0, node: 1, entries, next: undefined } as const
      expect(() => readAnswer(replyBytes(page))).toThrow(MalformedBytes)
    }
  })

  test("say a counter as it is, up to the ends of 64 bits", () => {
    for (const counter of [0n, -1n, 2n ** 63n - 1n, -(2n ** 63n)]) {
      const { answer } = readAnswer(
        replyBytes({ _tag: "EventualWritten", token: 0, counter, receipt }),
      )
      expect(answer).toMatchObject({ reply: { counter } })
    }
  })
})
