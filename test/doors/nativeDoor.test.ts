import { describe, expect, test } from "bun:test"
import { concatBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Answer, Refusal } from "../../src/wire/answers.ts"
import { readAnswer } from "../../src/wire/answersLayout.ts"
import { conditions, encodeCommand, operations } from "../../src/wire/command.ts"
import { limits } from "../../src/wire/limits.ts"
import { readWelcome, type WireRequest, writeHello, writeRequest } from "../../src/wire/native.ts"
import { type Doors, withDoors } from "./harness.ts"
import { RawSocket } from "./rawSocket.ts"

const frame = (write: (writer: ByteWriter) => void): Uint8Array => {
  const writer = new ByteWriter()
  write(writer)
  return writer.take()
}
const requestFrame = (request: WireRequest) => frame((writer) => writeRequest(writer, request))
const hello = frame((writer) => writeHello(writer))

async function open(doors: Doors, node = 1): Promise<RawSocket> {
  const raw = await RawSocket.connect(doors.endpoint(node))
  raw.write(hello)
  await raw.until(() => raw.frames.length === 1)
  expect(readWelcome(raw.frames.shift() as Uint8Array)).toMatchObject({ node })
  return raw
}

async function ask(raw: RawSocket, request: WireRequest): Promise<Answer> {
  raw.write(requestFrame(request))
  await raw.until(() => raw.frames.length > 0)
  const { id, answer } = readAnswer(raw.frames.shift() as Uint8Array)
  expect(id).toBe(request.id)
  return answer
}

function rangeOf(doors: Doors, position: Uint8Array) {
  const found = doors.cluster.descriptors.filter(
    (range) => Buffer.compare(range.start, position) <= 0,
  )
  return found.at(-1) as (typeof found)[number]
}

const plain = { maxStalenessMs: 0, atLeast: 0, anyReplica: false }
let sequence = 0

function put(doors: Doors, key: Uint8Array, value: Uint8Array, position = hashPosition(1, key)) {
  const command = encodeCommand({
    operation: operations.put,
    condition: conditions.none,
    boundsVersion: 1,
    clientId: 77,
    sequence: ++sequence,
    ackedBelow: 0,
    expiresAt: 2 ** 50,
    expectedVersion: 0,
    ttl: 0,
    position,
    value,
    expectedValue: new Uint8Array(0),
  })
  const { id: range } = rangeOf(doors, position)
  return { _tag: "Mutate", id: sequence, range, deadlineMs: 1000, command } as const
}

const get = (doors: Doors, key: string) => {
  const position = hashPosition(1, utf8(key))
  const { id: range } = rangeOf(doors, position)
  return {
    _tag: "Get",
    ...plain,
    id: ++sequence,
    range,
    deadlineMs: 1000,
    level: "linearizable",
    boundsVersion: 1,
    position,
  } as const
}

function release(held: ReadonlyArray<() => void>): void {
  for (const answer of held) answer()
}

const refusal = (answer: Answer): Refusal | undefined =>
  answer._tag === "Refused" ? answer.refusal : undefined

describe("native door", () => {
  test("many requests in flight on one connection are each answered under their id", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const raw = await open(doors)
      // Answers in reverse order, a turn later.
      const held: Array<() => void> = []
      doors.cluster.intercept = ({ reply, carryOut }) => {
        held.unshift(() => carryOut(reply))
        if (held.length === 500) queueMicrotask(() => release(held))
        return true
      }
      const requests = Array.from({ length: 500 }, (_, i) =>
        put(doors, utf8(`k${i}`), utf8(`v${i}`)),
      )
      raw.write(concatBytes(...requests.map(requestFrame)))
      await raw.until(() => raw.frames.length === 500)
      const ids = raw.frames.map((each) => readAnswer(each).id)
      expect(ids).toEqual(requests.map((request) => request.id).reverse())
    }))

  test("what breaks a limit is refused by its name, and the connection goes on", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const raw = await open(doors)
      const small = utf8("v")
      const wrongSlot = hashPosition(1, utf8("a"))
      wrongSlot[5] = (wrongSlot[5] as number) ^ 1
      const cases: ReadonlyArray<readonly [WireRequest, string]> = [
        [put(doors, new Uint8Array(2049), small), "2048 bytes"],
        [put(doors, new Uint8Array(0), small), "key is empty"],
        [
          put(doors, utf8("a"), new Uint8Array(limits.valueBytes + 1)),
          `${limits.valueBytes} bytes`,
        ],
        [put(doors, utf8("a"), small, wrongSlot), "slot"],
        [put(doors, utf8("a"), small, hashPosition(9, utf8("a"))), "no namespace with id 9"],
        [{ ...get(doors, "a"), position: wrongSlot }, "slot"],
        [{ ...get(doors, "a"), deadlineMs: limits.deadlineMs + 1 }, "deadline"],
        [{ ...put(doors, utf8("a"), small), command: utf8("nonsense") }, "command"],
      ]
      for (const [request, words] of cases) {
        const answer = await ask(raw, request)
        expect(refusal(answer)?._tag).toBe("InvalidRequest")
        expect(JSON.stringify(refusal(answer))).toContain(words)
      }
      expect(doors.cluster.requests).toBe(0)
      expect((await ask(raw, put(doors, new Uint8Array(2048), small)))._tag).toBe("Mutated")
      const largest = new Uint8Array(limits.valueBytes)
      expect((await ask(raw, put(doors, utf8("a"), largest)))._tag).toBe("Mutated")
      expect(doors.door(1).stats().largeValues).toBe(1)
    }))

  test("garbage, an unknown version and a frame over the limit close their connection with a reason; the node goes on", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const healthy = await open(doors)
      const turnedAway: ReadonlyArray<readonly [Uint8Array, string]> = [
        [utf8("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "limit is 4096 bytes"],
        [frame((writer) => writeHello(writer, { version: 9 })), "version 9"],
        [concatBytes(Uint8Array.from([5, 0, 0, 0]), utf8("hello")), "not a Kvorum client"],
        [concatBytes(Uint8Array.from([1, 0, 0, 0]), utf8("K")), "not understood"],
      ]
      for (const [bytes, reason] of turnedAway) {
        const raw = await RawSocket.connect(doors.endpoint(1))
        raw.write(bytes)
        await raw.until(() => raw.closed)
        expect(readWelcome(raw.frames[0] as Uint8Array)).toContain(reason)
      }
      const closed: ReadonlyArray<readonly [Uint8Array, string]> = [
        [Uint8Array.from([1, 0, 0, 1]), "limit is 16777216 bytes"],
        [Uint8Array.from([1, 0, 0, 0, 99]), "not understood"],
        [concatBytes(Uint8Array.from([1, 0, 0, 1]), new Uint8Array(3_000_000)), "limit is"],
      ]
      for (const [bytes, reason] of closed) {
        const raw = await open(doors)
        raw.write(bytes)
        await raw.until(() => raw.closed)
        expect(readAnswer(raw.frames[0] as Uint8Array).answer).toMatchObject({
          _tag: "Closing",
          reason: expect.stringContaining(reason),
        })
      }
      expect((await ask(healthy, get(doors, "a")))._tag).toBe("Value")
    }))

  test("a connection with too many requests under way is told Overloaded", () =>
    withDoors({ nodes: 1, door: { limits: { inFlightMax: 3 } } }, async (doors) => {
      const raw = await open(doors)
      const held: Array<() => void> = []
      doors.cluster.intercept = ({ reply, carryOut }) => {
        held.push(() => carryOut(reply))
        return true
      }
      const requests = Array.from({ length: 4 }, (_, i) => get(doors, `k${i}`))
      raw.write(concatBytes(...requests.map(requestFrame)))
      await raw.until(() => raw.frames.length === 1)
      const { id, answer } = readAnswer(raw.frames[0] as Uint8Array)
      expect(id).toBe(requests[3]?.id as number)
      expect(refusal(answer)?._tag).toBe("Overloaded")
      release(held)
      await raw.until(() => raw.frames.length === 4)
    }))

  test("a client that reads slowly gets every byte of megabytes of answers", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const raw = await open(doors)
      const value = new Uint8Array(limits.valueBytes).map((_, i) => (i * 31) >> 3)
      expect((await ask(raw, put(doors, utf8("large"), value)))._tag).toBe("Mutated")
      raw.pause()
      const requests = Array.from({ length: 24 }, () => get(doors, "large"))
      raw.write(concatBytes(...requests.map(requestFrame)))
      await raw.until(() => doors.cluster.requests >= 3)
      raw.resume()
      await raw.until(() => raw.frames.length === 24)
      for (const [i, bytes] of raw.frames.entries()) {
        const { id, answer } = readAnswer(bytes)
        expect(id).toBe(requests[i]?.id as number)
        expect(answer._tag === "Value" && Buffer.compare(answer.value as Uint8Array, value)).toBe(0)
      }
    }))

  test("a client that never reads is closed once too much waits for it", () =>
    withDoors(
      {
        nodes: 1,
        door: {
          limits: { outgoingBytesMax: 20 * 1024 * 1024, pauseBytes: 2 ** 40, refuseBytes: 2 ** 40 },
        },
      },
      async (doors) => {
        const raw = await open(doors)
        const value = new Uint8Array(limits.valueBytes)
        await ask(raw, put(doors, utf8("large"), value))
        raw.pause()
        raw.write(
          concatBytes(...Array.from({ length: 64 }, () => requestFrame(get(doors, "large")))),
        )
        const isClosed = () => doors.door(1).stats().connections === 0
        await raw.until(isClosed)
        expect([...doors.door(1).stats().closed.keys()].join()).toContain("too slow")
        raw.end()
      },
    ))

  test("with answers waiting, a connection is not read from", () =>
    withDoors({ nodes: 1, door: { limits: { pauseBytes: 1024 } } }, async (doors) => {
      const raw = await open(doors)
      await ask(raw, put(doors, utf8("large"), new Uint8Array(limits.valueBytes)))
      raw.pause()
      // More requests than the kernel's buffers hold answers for, in several chunks.
      const requests = Array.from({ length: 200 }, () => requestFrame(get(doors, "large")))
      for (const request of requests) {
        raw.write(request)
        await Bun.sleep(0)
      }
      expect(doors.cluster.requests).toBeLessThan(150)
      // Nor do its requests pile up on this side: they stay with the client.
      const more = Array.from({ length: 64 }, () =>
        requestFrame(put(doors, utf8("k"), new Uint8Array(limits.valueBytes))),
      )
      for (const request of more) raw.write(request)
      let before = -1
      while (raw.unsentBytes !== before) {
        before = raw.unsentBytes
        await Bun.sleep(100)
      }
      expect(raw.unsentBytes).toBeGreaterThan(32 * 1024 * 1024)
      raw.resume()
      await raw.until(() => raw.frames.length === 264)
    }))

  test("past a limit of waiting answers, values are left out and said to be", () =>
    withDoors(
      { nodes: 1, door: { limits: { pauseBytes: 2 ** 40, refuseBytes: 8 * 1024 * 1024 } } },
      async (doors) => {
        const raw = await open(doors)
        await ask(raw, put(doors, utf8("large"), new Uint8Array(limits.valueBytes)))
        raw.pause()
        raw.write(
          concatBytes(...Array.from({ length: 60 }, () => requestFrame(get(doors, "large")))),
        )
        await raw.until(() => doors.cluster.requests === 61)
        raw.resume()
        await raw.until(() => raw.frames.length === 60)
        const answers = raw.frames.map((each) => readAnswer(each).answer)
        const refused = answers.filter((answer) => refusal(answer)?._tag === "Overloaded").length
        expect(refused).toBeGreaterThan(10)
        expect(answers.filter((answer) => answer._tag === "Value").length).toBe(60 - refused)
      },
    ))

  test("routes and status tell of the whole cluster", () =>
    withDoors({ nodes: 3 }, async (doors) => {
      const raw = await open(doors, 2)
      const routes = await ask(raw, { _tag: "AskRoutes", id: 5 })
      expect(routes._tag === "Routes" && routes.routes.ranges.length).toBe(6)
      expect(routes._tag === "Routes" && routes.routes.namespaces.map(({ name }) => name)).toEqual([
        "system",
        "default",
      ])
      const status = await ask(raw, { _tag: "AskStatus", id: 6 })
      expect(status._tag === "Status" && status.status.id).toBe(2)
    }))

  test("a page leaves out keys without the prefix, and is cut by bytes", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const raw = await open(doors)
      for (let i = 0; i < 6; i++) {
        await ask(raw, put(doors, utf8(`{t}a${i}`), new Uint8Array(400_000)))
        await ask(raw, put(doors, utf8(`{t}b${i}`), utf8("small")))
      }
      const lower = hashPosition(1, utf8("{t}a"))
      const scan = {
        _tag: "Scan",
        countOnly: false,
        ...plain,
        id: 1,
        range: rangeOf(doors, lower).id,
        deadlineMs: 1000,
        level: "linearizable",
        boundsVersion: 1,
        lower,
        upper: rangeOf(doors, lower).end,
        limit: 100,
        prefix: utf8("{t}b"),
      } as const
      const page = await ask(raw, scan)
      const keys = page._tag === "Page" ? page.entries.map((e) => text(e.position.subarray(6))) : []
      expect(keys).toEqual(["{t}b0", "{t}b1", "{t}b2", "{t}b3", "{t}b4", "{t}b5"])
      const cut = await ask(raw, { ...scan, prefix: utf8("{t}a") })
      expect(cut._tag === "Page" && cut.entries.length).toBe(2)
      expect(cut._tag === "Page" && text((cut.next as Uint8Array).subarray(6))).toBe("{t}a2")
    }))

  test("an order goes to the control plane, and its answer, sooner or later, to its connection", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const raw = await open(doors)
      doors.cluster.administer = ({ verb, args, deadlineMs }, reply) => {
        if (verb === "wrong") {
          const message = "nobody knows how"
          return reply({ _tag: "Refused", refusal: { _tag: "InvalidRequest", message } })
        }
        setTimeout(() => reply({ _tag: "Done", result: { args, deadlineMs } }), 20)
      }
      const order = {
        _tag: "Admin",
        id: 7,
        deadlineMs: 200_000,
        args: { range: [1, null] },
      } as const
      raw.write(requestFrame({ ...order, verb: "slow" }))
      expect(await ask(raw, { ...order, id: 8, verb: "wrong" })).toMatchObject({
        _tag: "Refused",
        refusal: { _tag: "InvalidRequest", message: "nobody knows how" },
      })
      await raw.until(() => raw.frames.length > 0)
      expect(readAnswer(raw.frames.shift() as Uint8Array)).toEqual({
        id: 7,
        answer: { _tag: "Admin", result: { args: { range: [1, null] }, deadlineMs: 200_000 } },
      })
    }))

  test("a range is changed over a connection whose hello says that it is a node's", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      const change = { _tag: "Transfer", to: 1 } as const
      const request = { _tag: "Range", id: 3, range: 1, deadlineMs: 1000, change } as const
      const outside = await open(doors)
      expect(JSON.stringify(refusal(await ask(outside, request)))).toContain("cluster itself")
      const inside = await RawSocket.connect(doors.endpoint(1))
      inside.write(frame((writer) => writeHello(writer, { internal: true })))
      await inside.until(() => inside.frames.length === 1)
      inside.frames.length = 0
      expect(await ask(inside, request)).toMatchObject({ _tag: "Changed", descriptor: { id: 1 } })
    }))

  test("a connection without a handshake, and one too many, are told so and closed", () =>
    withDoors(
      { nodes: 1, door: { connectionsMax: 2, handshakeTimeoutMs: 20, sweepMs: 20 } },
      async (doors) => {
        const first = await open(doors)
        const mute = await RawSocket.connect(doors.endpoint(1))
        const third = await RawSocket.connect(doors.endpoint(1))
        await third.until(() => third.closed)
        expect(readWelcome(third.frames[0] as Uint8Array)).toContain("too many connections")
        await mute.until(() => mute.closed)
        expect(readWelcome(mute.frames[0] as Uint8Array)).toContain("no handshake in time")
        expect((await ask(first, get(doors, "a")))._tag).toBe("Value")
      },
    ))

  test("a broken promise inside the store stops the process, it is not taken for a broken connection", async () => {
    const child = Bun.spawn([process.execPath, `${import.meta.dir}/brokenStore.ts`], {
      stdout: "pipe",
      stderr: "pipe",
    })
    const [code, stderr] = await Promise.all([child.exited, new Response(child.stderr).text()])
    expect(code).toBe(1)
    expect(stderr).toContain("the store broke a promise")
  })

  test("a second listener on the same port is refused with its address", () =>
    withDoors({ nodes: 1 }, async (doors) => {
      doors.cluster.addresses.set(2, doors.endpoint(1))
      await expect(doors.start(2)).rejects.toThrow(`cannot listen on ${doors.endpoint(1)}`)
    }))
})
