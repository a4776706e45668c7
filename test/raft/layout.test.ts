import { describe, expect, test } from "bun:test"
import { ByteReader, MalformedBytes } from "../../src/lib/byteReader.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { Prng } from "../../src/lib/prng.ts"
import { readMessage, writeMessage } from "../../src/raft/layout.ts"
import {
  type Membership,
  membershipInEntry,
  readMembership,
  writeMembership,
} from "../../src/raft/membership.ts"
import { type Entry, type EntryKind, entryKinds, type Message } from "../../src/raft/message.ts"

const interesting = [0, 1, 2, 255, 256, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 12, 2 ** 53 - 1]

function drawNumber(prng: Prng): number {
  return prng.chance(0.5) ? prng.pick(interesting) : Math.floor(prng.logUniform(1, 2 ** 53 - 1))
}

function drawId(prng: Prng): number {
  return prng.pick([1, 2, 7, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1])
}

function drawMembership(prng: Prng): Membership {
  const draw = (candidates: ReadonlyArray<number>) => candidates.filter(() => prng.chance(0.5))
  const voters = [...draw([1, 2, 3]), 4]
  const outgoing = prng.chance(0.5) ? draw([1, 2, 4, 5, 2 ** 31]) : []
  return { voters, outgoing, learners: draw([6, 7, 2 ** 32 - 1]) }
}

function drawData(prng: Prng, kind: EntryKind): Uint8Array {
  const bytes = Uint8Array.from({ length: prng.int(0, 40) }, () => prng.int(0, 255))
  if (kind !== entryKinds.members) return bytes
  const writer = new ByteWriter()
  writer.u64(drawNumber(prng))
  writeMembership(writer, drawMembership(prng))
  writer.raw(bytes)
  return writer.take()
}

function drawEntries(prng: Prng, after: Entry, highest: number): ReadonlyArray<Entry> {
  const entries: Array<Entry> = []
  let { term } = after
  for (let count = prng.int(0, 5); count > 0; count--) {
    term = Math.min(highest, term + prng.int(0, 2))
    const kind = prng.pick(Object.values(entryKinds))
    const index = after.index + entries.length + 1
    entries.push({ index, term, kind, data: drawData(prng, kind) })
  }
  return entries
}

function drawMessage(prng: Prng): Message {
  const term = drawNumber(prng)
  const envelope = { from: drawId(prng), to: drawId(prng), term }
  const flag = () => prng.chance(0.5)
  const number = () => drawNumber(prng)
  switch (prng.int(1, 10)) {
    case 1:
      return {
        _tag: "VoteRequest",
        ...envelope,
        preVote: flag(),
        transfer: flag(),
        lastIndex: number(),
        lastTerm: number(),
      }
    case 2:
      return { _tag: "VoteResponse", ...envelope, preVote: flag(), granted: flag() }
    case 3: {
      const previousIndex = Math.min(number(), 2 ** 53 - 10)
      const previousTerm = Math.min(number(), term)
      const after = { index: previousIndex, term: previousTerm } as Entry
      const entries = drawEntries(prng, after, term)
      return {
        _tag: "AppendRequest",
        ...envelope,
        previousIndex,
        previousTerm,
        entries,
        commit: number(),
      }
    }
    case 4:
      return {
        _tag: "AppendResponse",
        ...envelope,
        accepted: flag(),
        index: number(),
        hintIndex: number(),
        hintTerm: number(),
      }
    case 5:
      return { _tag: "Heartbeat", ...envelope, commit: number(), round: number() }
    case 6:
      return { _tag: "HeartbeatResponse", ...envelope, round: number(), full: flag() }
    case 7:
      return { _tag: "TimeoutNow", ...envelope }
    case 8:
      return { _tag: "ReadIndexRequest", ...envelope, session: drawId(prng), context: number() }
    case 9:
      return {
        _tag: "ReadIndexResponse",
        ...envelope,
        session: drawId(prng),
        context: number(),
        index: number(),
      }
    default:
      return { _tag: "SnapshotOffer", ...envelope, index: number(), indexTerm: number() }
  }
}

function encode(message: Message): Uint8Array {
  const writer = new ByteWriter(1)
  writeMessage(writer, message)
  return writer.take()
}

function decode(bytes: Uint8Array): Message {
  const reader = new ByteReader(bytes)
  const message = readMessage(reader)
  reader.end()
  return message
}

describe("the layout of raft messages", () => {
  test("every message comes back as it was, up to the largest terms, indexes and ids", () => {
    const prng = new Prng(2)
    for (let run = 0; run < 3000; run++) {
      const message = drawMessage(prng)
      expect(decode(encode(message))).toEqual(message)
    }
  })

  test("the bytes of a message are fixed", () => {
    const data = Uint8Array.of(0xaa, 0xbb)
    const message: Message = {
      _tag: "AppendRequest",
      from: 1,
      to: 2,
      term: 3,
      previousIndex: 4,
      previousTerm: 2,
      commit: 4,
      entries: [{ index: 5, term: 3, kind: entryKinds.commands, data }],
    }
    expect(Buffer.from(encode(message)).toString("hex")).toBe(
      "03" + // AppendRequest
        "01000000" + // from
        "02000000" + // to
        "0300000000000000" + // term
        "0400000000000000" + // previousIndex
        "0200000000000000" + // previousTerm
        "0400000000000000" + // commit
        "01000000" + // one entry
        "0300000000000000" + // its term
        "01" + // commands
        "02000000" + // of two bytes
        "aabb",
    )
  })

  test("the bytes of a membership, and of an entry that holds one, are fixed", () => {
    const writer = new ByteWriter()
    writer.u64(9)
    writeMembership(writer, { voters: [1, 2, 4], outgoing: [1, 2, 3], learners: [258] })
    const bytes = writer.take()
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "0900000000000000" + // base stamp
        "030301" + // voters, outgoing, learners
        "010000000200000004000000" +
        "010000000200000003000000" +
        "02010000",
    )
    expect(membershipInEntry(bytes)).toEqual({
      voters: [1, 2, 4],
      outgoing: [1, 2, 3],
      learners: [258],
    })
  })

  test("a membership that cannot be is refused, from bytes and as an entry", () => {
    const encoded = (...lists: ReadonlyArray<ReadonlyArray<number>>) => {
      const writer = new ByteWriter()
      for (const list of lists) writer.u8(list.length)
      for (const list of lists) for (const replica of list) writer.u32(replica)
      return writer.take()
    }
    const many = Array.from({ length: 40 }, (_, i) => i + 1)
    const wrong = [
      encoded([], [], []),
      encoded([2, 1], [], []),
      encoded([1, 1], [], []),
      encoded([0], [], []),
      encoded([1], [], [1]),
      encoded([1], [2], [2]),
      encoded(many, many, []),
      encoded([1, 2], [], []).subarray(0, 8),
    ]
    for (const bytes of wrong) {
      expect(() => readMembership(new ByteReader(bytes))).toThrow(MalformedBytes)
      const data = Uint8Array.from([...new Uint8Array(8), ...bytes])
      const entry: Entry = { index: 1, term: 1, kind: entryKinds.members, data }
      const message: Message = {
        _tag: "AppendRequest",
        from: 1,
        to: 2,
        term: 1,
        previousIndex: 0,
        previousTerm: 0,
        commit: 0,
        entries: [entry],
      }
      expect(() => decode(encode(message))).toThrow(MalformedBytes)
    }
    const joint = readMembership(new ByteReader(encoded([1], [1], [2])))
    expect(joint).toEqual({ voters: [1], outgoing: [1], learners: [2] })
  })

  test("data outlives the buffer that it came in", () => {
    const bytes = encode({
      ...(drawMessage(new Prng(1)) as { from: 1; to: 2; term: 3 }),
      _tag: "AppendRequest",
      term: 9,
      previousIndex: 0,
      previousTerm: 0,
      commit: 0,
      entries: [{ index: 1, term: 1, kind: entryKinds.commands, data: Uint8Array.of(1, 2, 3) }],
    })
    const message = decode(bytes)
    bytes.fill(0xff)
    expect(message).toMatchObject({ entries: [{ data: Uint8Array.of(1, 2, 3) }] })
  })

  test("cut, changed and random bytes are a message or MalformedBytes, and nothing else", () => {
    const prng = new Prng(3)
    let malformed = 0
    let read = 0
    for (let run = 0; run < 20_000; run++) {
      let bytes = encode(drawMessage(prng))
      if (prng.chance(0.3)) bytes = bytes.subarray(0, prng.int(0, bytes.length))
      for (let i = prng.int(0, 3); i > 0 && bytes.length > 0; i--) {
        bytes[prng.int(0, bytes.length - 1)] = prng.pick([0, 1, 0x7f, 0xff, prng.int(0, 255)])
      }
      try {
        const message = decode(bytes)
        expect(encode(message)).toEqual(Uint8Array.from(bytes))
        read++
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedBytes)
        malformed++
      }
    }
    expect(malformed).toBeGreaterThan(1000)
    expect(read).toBeGreaterThan(1000)
  })

  test("a count that the bytes do not bear out is refused before anything is made of it", () => {
    const bytes = encode({
      _tag: "AppendRequest",
      from: 1,
      to: 2,
      term: 3,
      previousIndex: 4,
      previousTerm: 2,
      commit: 4,
      entries: [],
    })
    new DataView(bytes.buffer).setUint32(bytes.length - 4, 0xffffffff, true)
    expect(() => decode(bytes)).toThrow("4294967295 entries in 0 bytes")
  })

  test("entries whose terms fall, or pass the leader's, are refused", () => {
    const request = (first: number, second: number) =>
      encode({
        _tag: "AppendRequest",
        from: 1,
        to: 2,
        term: 5,
        previousIndex: 0,
        previousTerm: 0,
        commit: 0,
        entries: [first, second].map((term, i) => ({
          index: i + 1,
          term,
          kind: entryKinds.empty,
          data: new Uint8Array(0),
        })),
      })
    expect(() => decode(request(3, 2))).toThrow(MalformedBytes)
    expect(() => decode(request(3, 6))).toThrow(MalformedBytes)
    expect(decode(request(3, 5))._tag).toBe("AppendRequest")
  })
})
