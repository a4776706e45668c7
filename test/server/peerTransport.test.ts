import { describe, expect, test } from "bun:test"
import { Effect, Exit, Scope } from "effect"
import { MalformedBytes } from "../../src/lib/byteReader.ts"
import { concatBytes, text, utf8 } from "../../src/lib/bytes.ts"
import { ByteWriter } from "../../src/lib/byteWriter.ts"
import {
  makePeerTransport,
  type PeerTransportOptions,
  type PeerTransportShape,
} from "../../src/server/PeerTransport.ts"
import type { NodeId } from "../../src/types.ts"
import { readPeerFrame, readPeerHello, writePeerHello, writePeerPing } from "../../src/wire/peer.ts"
import { RawSocket } from "../doors/rawSocket.ts"

interface Node {
  readonly transport: PeerTransportShape
  readonly received: Array<{ readonly from: NodeId; readonly payload: Uint8Array }>
  readonly unreachable: Array<NodeId>
  readonly stop: () => Promise<void>
}

const encode = (writer: ByteWriter, message: Uint8Array) => writer.raw(message)
const hello = (node: NodeId) => ({ clusterId: "c", node, incarnation: `i${node}` })

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(2)
}

/** Runs `body` with a way to start nodes; all of them stop afterwards. */
async function withNodes(
  body: (
    start: (node: NodeId, options?: Partial<PeerTransportOptions>) => Promise<Node>,
  ) => Promise<void>,
): Promise<void> {
  const stops: Array<() => Promise<void>> = []
  const start = async (node: NodeId, options: Partial<PeerTransportOptions> = {}) => {
    const received: Node["received"] = []
    const unreachable: Array<NodeId> = []
    const scope = Effect.runSync(Scope.make())
    const transport = await Effect.runPromise(
      makePeerTransport({
        self: hello(node),
        listen: { host: "127.0.0.1", port: 0 },
        peers: [],
        admit: (other) =>
          other.incarnation === `i${other.node}`
            ? undefined
            : `unknown incarnation ${other.incarnation}`,
        onMessage: (from, payload) => void received.push({ from, payload }),
        onUnreachable: (other) => void unreachable.push(other),
        backoff: { minMs: 5, maxMs: 20 },
        sweepMs: 1000,
        ...options,
      }).pipe(Scope.provide(scope)),
    )
    const stop = () => Effect.runPromise(Scope.close(scope, Exit.void))
    stops.push(stop)
    return { transport, received, unreachable, stop }
  }
  try {
    await body(start)
  } finally {
    for (const stop of stops) await stop()
  }
}

const addressOf = (node: NodeId, { transport }: Node) => ({ node, ...transport.address })
const endpointOf = ({ transport }: Node) => `${transport.address.host}:${transport.address.port}`
const isConnected = ({ transport }: Node, to: NodeId) =>
  transport.describe().some((peer) => peer.node === to && peer.connected)

const rawHello = (fields: Partial<ReturnType<typeof hello>> = {}, version?: number) => {
  const writer = new ByteWriter()
  writePeerHello(writer, { ...hello(2), ...fields }, version)
  return writer.take()
}

describe("peer transport", () => {
  test("a peer that was removed is cut off both ways, with the reason, and not called again", () =>
    withNodes(async (start) => {
      const refused = new Set<NodeId>()
      const admit = ({ node }: { readonly node: NodeId }) =>
        refused.has(node) ? "n2 was removed" : undefined
      const first = await start(1, { admit })
      const second = await start(2, { peers: [addressOf(1, first)] })
      first.transport.setPeer(addressOf(2, second))
      await until(() => isConnected(first, 2) && isConnected(second, 1))
      refused.add(2)
      first.transport.removePeer(2, "n2 was removed")
      expect(first.transport.describe()).toEqual([])
      await until(() => !isConnected(second, 1))
      await Bun.sleep(100)
      expect(isConnected(second, 1)).toBe(false)
      expect(first.transport.describe()).toEqual([])
      first.transport.send(2, encode, utf8("late"))
      first.transport.flush()
      expect(first.unreachable).toEqual([2])
      // One that is called in vain, again and again, until it is removed.
      let calls = 0
      const mute = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          open: (socket) => {
            calls++
            socket.terminate()
          },
          data: () => {},
        },
      })
      first.transport.setPeer({ node: 3, host: "127.0.0.1", port: mute.port })
      await until(() => calls > 1)
      first.transport.removePeer(3, "n3 was removed")
      await Bun.sleep(50)
      const callsBefore = calls
      await Bun.sleep(100)
      mute.stop(true)
      expect(calls).toBe(callsBefore)
    }))

  test("messages arrive in order, whole and once, both ways", () =>
    withNodes(async (start) => {
      const one = await start(1)
      const two = await start(2, { peers: [addressOf(1, one)] })
      one.transport.setPeer(addressOf(2, two))
      await until(() => isConnected(one, 2) && isConnected(two, 1))
      for (let i = 0; i < 2000; i++) {
        one.transport.send(2, encode, utf8(`to two ${i}`))
        two.transport.send(1, encode, utf8(`to one ${i}`))
        if (i % 64 === 0) one.transport.flush()
      }
      one.transport.flush()
      two.transport.flush()
      await until(() => one.received.length === 2000 && two.received.length === 2000)
      expect(two.received.map(({ payload }) => text(payload))).toEqual(
        Array.from({ length: 2000 }, (_, i) => `to two ${i}`),
      )
      expect(one.received.every(({ from }) => from === 2)).toBe(true)
    }))

  test("frames of 8 MiB to a reader that pauses lose nothing", () =>
    withNodes(async (start) => {
      const reader = await start(2, {
        // A receiver that is busy for a while after each frame, so that the kernel's buffers fill and writes fall short.
        onMessage: (from, payload) => {
          reader.received.push({ from, payload })
          Bun.sleepSync(10)
        },
      })
      const writer = await start(1, { peers: [addressOf(2, reader)] })
      await until(() => isConnected(writer, 2))
      const frames = Array.from({ length: 6 }, (_, n) =>
        new Uint8Array(8 * 1024 * 1024).map((_, i) => (i * 7 + n) >> 2),
      )
      for (const frame of frames) writer.transport.send(2, encode, frame)
      writer.transport.flush()
      expect(writer.transport.describe()[0]?.waitingBytes).toBeGreaterThan(0)
      await until(() => reader.received.length === frames.length)
      for (const [i, { payload }] of reader.received.entries()) {
        expect(Buffer.compare(payload, frames[i] as Uint8Array)).toBe(0)
      }
      expect(writer.unreachable).toEqual([])
    }))

  test("past the limit of waiting bytes frames are dropped whole, and the peer is reported once per flush", () =>
    withNodes(async (start) => {
      const reader = await start(2)
      const writer = await start(1, { peers: [addressOf(2, reader)], queueBytes: 1024 * 1024 })
      await until(() => isConnected(writer, 2))
      const frame = new Uint8Array(700_000)
      for (let i = 0; i < 10; i++) writer.transport.send(2, encode, frame)
      expect(writer.unreachable).toEqual([])
      writer.transport.flush()
      expect(writer.unreachable).toEqual([2])
      expect(writer.transport.describe()[0]?.droppedFrames).toBe(8)
      await until(() => reader.received.length === 2)
      writer.transport.send(2, encode, utf8("after"))
      writer.transport.flush()
      await until(() => reader.received.length === 3)
      expect(text(reader.received[2]?.payload as Uint8Array)).toBe("after")
    }))

  test("a peer that comes back is connected to again; meanwhile frames are dropped and reported", () =>
    withNodes(async (start) => {
      const first = await start(2)
      const address = addressOf(2, first)
      const one = await start(1, { peers: [address] })
      await until(() => isConnected(one, 2))
      await first.stop()
      await until(() => !isConnected(one, 2))
      one.transport.send(2, encode, utf8("lost"))
      one.transport.flush()
      expect(one.unreachable).toContain(2)
      const second = await start(2, { listen: address })
      await until(() => isConnected(one, 2))
      one.transport.send(2, encode, utf8("found"))
      one.transport.flush()
      await until(() => second.received.length > 0)
      expect(second.received.map(({ payload }) => text(payload))).toEqual(["found"])
    }))

  test("a stranger is refused with a reason: cluster, incarnation, version, own id, garbage, length", () =>
    withNodes(async (start) => {
      const one = await start(1)
      const cases: ReadonlyArray<readonly [Uint8Array, string]> = [
        [rawHello({ clusterId: "other" }), "cluster other is not this cluster"],
        [rawHello({ incarnation: "emptied" }), "unknown incarnation emptied"],
        [rawHello({}, 9), "version 9"],
        [rawHello({ node: 1 }), "own id"],
        [utf8("GET / HTTP/1.1\r\n\r\n"), "limit is 4096 bytes"],
        [concatBytes(Uint8Array.from([2, 0, 0, 0, 1, 1])), "not understood"],
      ]
      for (const [bytes, reason] of cases) {
        const raw = await RawSocket.connect(endpointOf(one))
        raw.write(bytes)
        await raw.until(() => raw.closed)
        expect(readPeerHello(raw.frames[0] as Uint8Array)).toContain(reason)
      }
      expect(one.received).toEqual([])
    }))

  test("after the handshake, garbage and a frame over the limit close that connection; others go on", () =>
    withNodes(async (start) => {
      const one = await start(1, {
        onMessage: (from, payload) => {
          if (payload[0] === 0) throw new MalformedBytes("no message begins with 0")
          one.received.push({ from, payload })
        },
      })
      const two = await start(2, { peers: [addressOf(1, one)] })
      await until(() => isConnected(two, 1))
      const cases: ReadonlyArray<readonly [Uint8Array, string]> = [
        [Uint8Array.from([1, 0, 0, 1]), "limit is 16777216 bytes"],
        [Uint8Array.from([1, 0, 0, 0, 77]), "unknown frame kind 77"],
        [Uint8Array.from([2, 0, 0, 0, 1, 0]), "no message begins with 0"],
        [Uint8Array.from([1, 0, 0, 0, 3]), "pong"],
      ]
      for (const [bytes, reason] of cases) {
        const raw = await RawSocket.connect(endpointOf(one))
        raw.write(concatBytes(rawHello({ node: 3, incarnation: "i3" }), bytes))
        await raw.until(() => raw.closed)
        const closing = readPeerFrame(raw.frames[1] as Uint8Array)
        expect(closing._tag === "Closing" && closing.reason).toContain(reason)
      }
      two.transport.send(1, encode, utf8("still here"))
      two.transport.flush()
      await until(() => one.received.length === 1)
    }))

  test("a node that is not the one wanted, or comes with another directory, is not sent to", () =>
    withNodes(async (start) => {
      const two = await start(2)
      const emptied = await start(3, { self: { ...hello(3), incarnation: "emptied" } })
      const one = await start(1, {
        peers: [
          { ...addressOf(2, two), node: 4 },
          { ...addressOf(3, emptied), node: 3 },
        ],
      })
      await Bun.sleep(50)
      expect(one.transport.describe().map((peer) => peer.connected)).toEqual([false, false])
      one.transport.send(3, encode, utf8("vote"))
      one.transport.flush()
      expect(one.unreachable).toContain(3)
      expect(emptied.received).toEqual([])
    }))

  test("a newer connection of a peer replaces the older one", () =>
    withNodes(async (start) => {
      const one = await start(1)
      const older = await RawSocket.connect(endpointOf(one))
      older.write(rawHello())
      await older.until(() => older.frames.length === 1)
      const newer = await RawSocket.connect(endpointOf(one))
      newer.write(rawHello())
      await older.until(() => older.closed)
      const closing = readPeerFrame(older.frames[1] as Uint8Array)
      expect(closing._tag === "Closing" && closing.reason).toContain("replaced")
      newer.write(Uint8Array.from([2, 0, 0, 0, 1, 42]))
      await until(() => one.received.length === 1)
      newer.end()
    }))

  test("a connection that goes silent is closed, one that pings is kept and answered", () =>
    withNodes(async (start) => {
      const one = await start(1, { sweepMs: 50 })
      const silent = await RawSocket.connect(endpointOf(one))
      silent.write(rawHello({ node: 3, incarnation: "i3" }))
      const pinging = await RawSocket.connect(endpointOf(one))
      pinging.write(rawHello())
      const ping = new ByteWriter()
      writePeerPing(ping, "ping")
      const pings = setInterval(() => pinging.write(ping.bytes()), 20)
      await silent.until(() => silent.closed)
      clearInterval(pings)
      const closing = readPeerFrame(silent.frames.at(-1) as Uint8Array)
      expect(closing._tag === "Closing" && closing.reason).toContain("silent")
      expect(pinging.closed).toBe(false)
      expect(readPeerFrame(pinging.frames.at(-1) as Uint8Array)._tag).toBe("Pong")
      pinging.end()
    }))

  test("a peer that accepts and never speaks is given up, and tried again", () =>
    withNodes(async (start) => {
      let accepted = 0
      const mute = Bun.listen({
        hostname: "127.0.0.1",
        port: 0,
        socket: {
          open: () => {
            accepted++
          },
          data: () => {},
        },
      })
      await start(1, { sweepMs: 20, peers: [{ node: 2, host: "127.0.0.1", port: mute.port }] })
      await until(() => accepted >= 3)
      mute.stop(true)
    }))
})
