import { describe, expect, test } from "bun:test"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { compareBytes, emptyBytes, toHex, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { int64Of } from "../../src/lib/int64.ts"
import { Prng } from "../../src/lib/prng.ts"
import { bootstrapDescriptors } from "../../src/server/bootstrap.ts"
import {
  clientOfSessionKey,
  dataEnd,
  dataKey,
  isStateKey,
  localInterval,
  sessionKey,
  stateKey,
} from "../../src/server/engineKeys.ts"
import {
  decodePeerMessage,
  encodePeerMessage,
  type PeerMessage,
} from "../../src/server/peerMessage.ts"
import { decodeRangeState, encodeRangeState, noMerges } from "../../src/server/rangeState.ts"
import { SessionTable } from "../../src/server/sessions.ts"

describe("bootstrap", () => {
  test("its ranges tile the space of positions for every number of nodes", () => {
    for (let count = 1; count <= 9; count++) {
      const nodes = Array.from({ length: count }, (_, i) => i + 1)
      const descriptors = bootstrapDescriptors(nodes)
      expect(descriptors[0]?.start).toEqual(emptyBytes)
      expect(descriptors[descriptors.length - 1]?.end).toEqual(emptyBytes)
      for (let i = 1; i < descriptors.length; i++) {
        expect(descriptors[i]!.start).toEqual(descriptors[i - 1]!.end)
        expect(compareBytes(descriptors[i]!.start, descriptors[i - 1]!.start)).toBeGreaterThan(0)
      }
    }
  })

  test("namespace default is cut at slots 4096, 8192 and 12288", () => {
    const starts = bootstrapDescriptors([1, 2, 3]).map(({ start }) => toHex(start))
    expect(starts.slice(1)).toEqual([
      "00000001",
      "000000011000",
      "000000012000",
      "000000013000",
      "00000002",
    ])
  })

  test("a group has min(3, nodes) voters, round robin; the meta group up to 5, an odd number", () => {
    const voters = (nodes: ReadonlyArray<number>) =>
      bootstrapDescriptors(nodes).map(({ replicas }) => replicas.map(({ node }) => node).join(""))
    expect(voters([1])).toEqual(["1", "1", "1", "1", "1", "1"])
    expect(voters([1, 2])).toEqual(["1", "12", "12", "12", "12", "12"])
    expect(voters([1, 2, 3, 4])).toEqual(["123", "123", "234", "134", "124", "123"])
    expect(voters([1, 2, 3, 4, 5, 6])[0]).toBe("12345")
  })
})

describe("keys in the engine", () => {
  test("a range's local keys lie in its local interval and no other's", () => {
    const { lower, upper } = localInterval(5)
    for (const key of [stateKey(5), sessionKey(5, 1), sessionKey(5, 2 ** 53 - 1)]) {
      expect(compareBytes(key, lower)).toBeGreaterThanOrEqual(0)
      expect(compareBytes(key, upper)).toBeLessThan(0)
    }
    for (const key of [stateKey(6), sessionKey(4, 9), dataKey(emptyBytes)]) {
      const inside = compareBytes(key, lower) >= 0 && compareBytes(key, upper) < 0
      expect(inside).toBe(false)
    }
  })

  test("a session key tells its client, a state key is one", () => {
    expect(clientOfSessionKey(sessionKey(3, 2 ** 52 + 5))).toBe(2 ** 52 + 5)
    expect(clientOfSessionKey(stateKey(3))).toBeUndefined()
    expect(isStateKey(stateKey(3))).toBe(true)
  })

  test("the end of the last range lies after every position", () => {
    const last = dataKey(new Uint8Array(40).fill(0xff))
    expect(compareBytes(last, dataEnd(emptyBytes))).toBeLessThan(0)
  })
})

describe("stored and sent layouts", () => {
  test("a range state comes back as it was", () => {
    for (const descriptor of bootstrapDescriptors([1, 2, 3])) {
      const state = {
        descriptor,
        replica: 2,
        appliedIndex: 2 ** 40 + 1,
        appliedTerm: 9,
        rangeTime: 2 ** 52 + 3,
        chain: 0xdeadbeef,
        lastReplica: 17,
        ...noMerges,
      }
      expect(decodeRangeState(encodeRangeState(state))).toEqual(state)
    }
  })

  test("a session table comes back as it was", () => {
    const table = new SessionTable({ results: 100, clients: 100 })
    for (let i = 1; i <= 20; i++) {
      const value = i % 4 === 0 ? int64Of(BigInt(-i)) : undefined
      const result = { status: 0, version: i * 1000, value } as const
      table.record(i % 3, i, { ackedBelow: 2, expiresAt: 10 * i, result })
    }
    const copy = new SessionTable({ results: 100, clients: 100 })
    for (const { clientId, record } of table.all()) copy.restore(clientId, record)
    expect(copy.all()).toEqual(table.all())
    expect(copy.results).toBe(table.results)
    expect(copy.find(1, 19)).toEqual({ status: 0, version: 19_000, value: undefined })
    expect(copy.find(1, 16)?.value).toEqual(int64Of(-16n))
    expect(copy.isForgotten(1, 1)).toBe(true)
  })

  test("a damaged session record is refused by name, never by another error", () => {
    const table = new SessionTable({ results: 100, clients: 100 })
    for (let i = 1; i <= 5; i++) {
      const result = {
        status: 0,
        version: i,
        value: i % 2 === 0 ? int64Of(1n) : undefined,
      } as const
      table.record(1, i, { ackedBelow: 0, expiresAt: 10, result })
    }
    const whole = table.all()[0]!
    const prng = new Prng(8)
    let refused = 0
    for (let i = 0; i < 20_000; i++) {
      const bytes = whole.record.slice(0, prng.int(0, whole.record.length))
      for (let k = prng.int(0, 3); k > 0 && bytes.length > 0; k--) {
        bytes[prng.int(0, bytes.length - 1)] = prng.int(0, 255)
      }
      try {
        new SessionTable({ results: 100, clients: 100 }).restore(1, bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedBytes)
        refused++
      }
    }
    expect(refused).toBeGreaterThan(10_000)
  })

  const samples: ReadonlyArray<PeerMessage> = [
    {
      _tag: "Raft",
      range: 3,
      message: { _tag: "Heartbeat", from: 1, to: 2, term: 7, commit: 12, round: 4 },
    },
    {
      _tag: "SnapshotFrame",
      range: 3,
      from: 1,
      to: 2,
      term: 7,
      snapshot: 1,
      sequence: 2,
      last: true,
      bytes: utf8("pairs"),
    },
    {
      _tag: "SnapshotFrameAck",
      range: 3,
      from: 2,
      to: 1,
      term: 7,
      snapshot: 1,
      sequence: 2,
      accepted: false,
      next: 3,
    },
    {
      _tag: "Gone",
      range: 3,
      replica: 2,
      lastReplica: 18,
      descriptor: {
        id: 3,
        namespace: undefined,
        start: utf8("b"),
        end: utf8(""),
        boundsVersion: 4,
        membersVersion: 9,
        replicas: [
          { node: 1, replica: 1, role: "voter" },
          { node: 5, replica: 17, role: "incoming" },
          { node: 4, replica: 18, role: "learner" },
        ],
      },
      absorbedBy: { range: 9, boundsVersion: 5, lastReplica: 2 },
    },
    { _tag: "Chain", kind: "differs", range: 3, from: 1, to: 2, index: 128, chain: 0xfffffff1 },
    {
      _tag: "Chain",
      kind: "sum",
      range: 3,
      from: 1,
      to: 2,
      index: 128,
      chain: 0xfffffff1,
      slice: { from: utf8("b"), bytes: 524_288 },
    },
    { _tag: "Clock", range: 0, wallMs: 1_700_000_000_123 },
    {
      _tag: "Swim",
      range: 0,
      kind: "ask",
      sequence: 2 ** 40,
      about: 3,
      rumours: [
        { node: 2, belief: "down", incarnation: 2 ** 40 },
        { node: 4, belief: "suspect", incarnation: 0 },
      ],
    },
    {
      _tag: "TickWanted",
      range: 3,
      from: 2,
      to: 1,
      session: 2 ** 40,
      question: 1,
      expiry: 2 ** 50,
    },
    {
      _tag: "TickRefused",
      range: 3,
      from: 1,
      to: 2,
      session: 2 ** 40,
      question: 1,
      clock: 2 ** 49,
    },
    {
      _tag: "EntriesWanted",
      range: 3,
      from: 2,
      to: 1,
      sequence: 2 ** 40,
      first: 11,
      last: 12,
      anchor: { index: 13, term: 5 },
      readableTo: 10,
    },
    {
      _tag: "EntriesFound",
      range: 3,
      from: 1,
      to: 2,
      sequence: 2 ** 40,
      isSure: true,
      term: 7,
      last: { index: 20, term: 6 },
      previousTerm: 4,
      entries: [
        { index: 11, term: 4, kind: 1, data: utf8("eleven") },
        { index: 12, term: 5, kind: 0, data: emptyBytes },
      ],
    },
  ]

  test("peer messages come back as they were", () => {
    for (const message of samples) {
      const writer = new ByteWriter()
      encodePeerMessage(writer, message)
      expect(decodePeerMessage(writer.take())).toEqual(message)
    }
  })

  test("damaged peer messages are refused by name, never by another error", () => {
    const prng = new Prng(5)
    for (let i = 0; i < 20_000; i++) {
      const writer = new ByteWriter()
      encodePeerMessage(writer, samples[i % samples.length]!)
      const bytes = writer.take()
      const cut = bytes.slice(0, prng.int(0, bytes.length))
      for (let k = prng.int(0, 3); k > 0 && cut.length > 0; k--) {
        cut[prng.int(0, cut.length - 1)] = prng.int(0, 255)
      }
      try {
        decodePeerMessage(cut)
      } catch (error) {
        expect(error).toBeInstanceOf(MalformedBytes)
      }
    }
  })
})
