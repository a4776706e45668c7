import { describe, expect, test } from "bun:test"
import { equalBytes, toHex } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import {
  readAnswer,
  writeAdministered,
  writeAnswer,
  writeRoutes,
  writeStatus,
} from "../../src/wire/answersLayout.ts"
import {
  nativeVersion,
  readHello,
  readRequest,
  readWelcome,
  writeHello,
  writeRequest,
  writeTurnedAway,
  writeWelcome,
} from "../../src/wire/native.ts"
import { Outbox } from "../../src/wire/outbox.ts"
import { pack, unpack } from "../../src/wire/packed.ts"
import { readPeerFrame, readPeerHello, writePeerHello, writePeerPing } from "../../src/wire/peer.ts"
import { answerOf, requestOf, routesOf, statusSample } from "./samples.ts"

const payloadOf = (write: (writer: ByteWriter) => void): Uint8Array => {
  const writer = new ByteWriter(16)
  write(writer)
  return writer.take().subarray(4)
}

/** Byte strings as hex, so that two kinds of array compare equal. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_, each) =>
      each instanceof Uint8Array ? toHex(each) : each === undefined ? "undefined" : each,
    ),
  )

describe("native protocol", () => {
  test("every request comes back as it was written", () => {
    const prng = new Prng(1)
    for (let i = 0; i < 2000; i++) {
      const request = requestOf(prng)
      const read = readRequest(payloadOf((writer) => writeRequest(writer, request)))
      expect(plain(read)).toEqual(plain(request))
    }
  })

  test("every answer comes back as it was written", () => {
    const prng = new Prng(2)
    for (let i = 0; i < 2000; i++) {
      const answer = answerOf(prng)
      const read = readAnswer(payloadOf((writer) => writeAnswer(writer, i, answer)))
      expect(plain(read)).toEqual(plain({ id: i, answer }))
    }
    const routes = routesOf(prng)
    expect(plain(readAnswer(payloadOf((writer) => writeRoutes(writer, 9, routes))))).toEqual(
      plain({ id: 9, answer: { _tag: "Routes", routes } }),
    )
    expect(readAnswer(payloadOf((writer) => writeStatus(writer, 9, statusSample)))).toEqual({
      id: 9,
      answer: { _tag: "Status", status: statusSample },
    })
    const result = { moved: 2, ranges: [1, null] }
    expect(readAnswer(payloadOf((writer) => writeAdministered(writer, 8, result)))).toEqual({
      id: 8,
      answer: { _tag: "Admin", result },
    })
  })

  test("the handshake tells versions apart and carries who the node is", () => {
    for (const internal of [true, false]) {
      const hello = readHello(payloadOf((writer) => writeHello(writer, { internal })))
      expect(hello).toEqual({ internal })
    }
    expect(readHello(payloadOf((writer) => writeHello(writer, { version: 99 })))).toBe(
      `protocol version 99 is not spoken here: this node speaks ${nativeVersion}`,
    )
    const welcome = { clusterId: "abc", node: 3, time: 2 ** 52 + 1 }
    expect(readWelcome(payloadOf((writer) => writeWelcome(writer, welcome)))).toEqual(welcome)
    expect(readWelcome(payloadOf((writer) => writeTurnedAway(writer, "full")))).toBe("full")
    const hello = { clusterId: "abc", node: 3, incarnation: "xyz" }
    expect(readPeerHello(payloadOf((writer) => writePeerHello(writer, hello)))).toEqual(hello)
    expect(readPeerHello(payloadOf((writer) => writePeerHello(writer, hello, 7)))).toContain(
      "version 7",
    )
    expect(readPeerFrame(payloadOf((writer) => writePeerPing(writer, "ping")))._tag).toBe("Ping")
  })

  test("MessagePack from outside cannot claim what it does not bring", () => {
    expect(unpack(pack([1, "a", null, [true]]).slice())).toEqual([1, "a", null, [true]])
    // An array of 2^32 - 1, a map of 65,535, nesting, an extension, a cut string.
    for (const bytes of [
      [0xdd, 0xff, 0xff, 0xff, 0xff],
      [0xde, 0xff, 0xff, 0xc0],
      Array.from({ length: 20 }, () => 0x91),
      [0xd4, 0x00, 0x00],
      [0xa5, 0x61],
      [0xc0, 0xc0],
      [],
    ]) {
      expect(() => unpack(Uint8Array.from(bytes)), `${bytes}`).toThrow()
    }
  })

  test("an outbox gives a socket that writes short every byte, once and in order", () => {
    const prng = new Prng(3)
    const outbox = new Outbox()
    const sent: Array<Uint8Array> = []
    const given: Array<number> = []
    const sink = {
      write: (bytes: Uint8Array, offset: number, length: number) => {
        const taken = prng.chance(0.3) ? 0 : prng.int(0, length)
        sent.push(bytes.slice(offset, offset + taken))
        return taken
      },
    }
    let next = 0
    for (let round = 0; round < 3000; round++) {
      for (let i = prng.int(0, 400); i > 0; i--) {
        outbox.writer.u8(next & 255)
        given.push(next++ & 255)
      }
      outbox.flush(sink)
    }
    while (outbox.flush(sink) !== "flushed");
    expect(equalBytes(Buffer.concat(sent), Uint8Array.from(given))).toBe(true)
    expect(outbox.pendingBytes).toBe(0)
    expect(outbox.flush({ write: () => -1 })).toBe("flushed")
    outbox.writer.u8(1)
    expect(outbox.flush({ write: () => -1 })).toBe("closed")
  })
})
