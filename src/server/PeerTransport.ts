import { Context, Data, Duration, Effect, Exit, Fiber, Layer, Schedule, type Scope } from "effect"
import type { ByteWriter } from "../lib/byteWriter.ts"
import type { NodeId } from "../types.ts"
import { beginFrame, endFrame } from "../wire/frames.ts"
import { type PeerHello, peerKinds } from "../wire/peer.ts"
import { isSocketBug } from "../wire/SocketBug.ts"
import { ListenFailed } from "./ListenFailed.ts"
import { InboundEnd, OutboundEnd } from "./peerEnds.ts"
import type { PeerAddress, PeerTransportShape } from "./peerPort.ts"

export type { PeerAddress, PeerTransportShape } from "./peerPort.ts"

/**
 * Messages between nodes, over TCP. Each ordered pair of nodes has one connection, opened by the sender: n1 sends to n2 over
 * the connection that n1 opened, and n2 to n1 over its own.
 *
 * 1. A fiber per peer connects, shakes hands (cluster, node and incarnation must be the expected ones on both sides), and on
 *    a loss connects again, after a pause that grows to a cap.
 * 2. `send` encodes a message into the peer's outbox; `flush` gives all that has gathered to the sockets, one system call a peer.
 * 3. What does not leave is dropped as whole frames, never kept for later: while there is no connection, and past the outbox's limit.
 *    The peer is then reported unreachable, once per flush: consensus sends again what still matters.
 * 4. A received frame goes to `onMessage`; one that it cannot read closes the connection, with a reason.
 * 5. The connecting side pings every second. Silence of three seconds on either side closes the connection, because a host
 *    that lost its power never says goodbye.
 *
 * Invariants:
 * - Frames of one connection arrive in order and whole, each at most once; between connections anything may be lost.
 * - A peer can close its own connection and nothing else, whatever it sends.
 * - Waiting bytes per peer are bounded.
 *
 * Left out: TLS, which comes with certificates; several connections a pair, since a snapshot is cut into frames of 1 MiB.
 * Sources: etcd rafthttp (drop and report unreachable, never block consensus).
 */
export interface PeerTransportOptions {
  readonly self: PeerHello
  /** Port 0 takes a free one. */
  readonly listen: { readonly host: string; readonly port: number }
  readonly peers: ReadonlyArray<PeerAddress>
  /** Whether this incarnation of this node is known; a string is why it is refused. Cluster and node are checked before. */
  readonly admit: (hello: PeerHello) => string | undefined
  /** Throws `MalformedBytes` for a payload that is no message; the payload is the receiver's to keep. */
  readonly onMessage: (from: NodeId, payload: Uint8Array) => void
  /** Frames to this node were dropped, or its connection was lost. Never called from within `send`. */
  readonly onUnreachable: (node: NodeId) => void
  /** Bytes that may wait for a peer; default 64 MiB. */
  readonly queueBytes?: number
  readonly backoff?: { readonly minMs: number; readonly maxMs: number }
  /** How often to ping and look for silence; default 1000. */
  readonly sweepMs?: number
}

export class PeerTransport extends Context.Service<PeerTransport, PeerTransportShape>()(
  "kvorum/server/PeerTransport",
) {
  static readonly layer = (options: PeerTransportOptions) =>
    Layer.effect(PeerTransport, makePeerTransport(options))
}

class PeerLost extends Data.TaggedError("PeerLost")<{ readonly reason: string }> {}

const defaultQueueBytes = 64 * 1024 * 1024
const defaultBackoff = { minMs: 50, maxMs: 500 }
/** A host that is gone does not refuse a connection, it says nothing. */
const dialTimeoutMs = 3000
const silentSweepsMax = 3
/** A connection that lived so long ends the growth of pauses. */
const settledMs = 2000

/** What is kept for one peer, connected or not. */
class Peer {
  readonly node: NodeId
  address: PeerAddress
  end: OutboundEnd | undefined
  /** Keeps it connected. */
  caller: Fiber.Fiber<unknown, unknown> | undefined
  /** Frames were dropped since the last flush. */
  dropping = false
  droppedFrames = 0
  /** Failed dials not to log before the first connection (4 s of refusals): while a cluster starts, a node that is not up yet is no news. */
  quietDials = 10

  constructor(address: PeerAddress) {
    this.node = address.node
    this.address = address
  }
}

/** State and callbacks of the transport; Effect only around it. */
class Transport {
  readonly options: PeerTransportOptions
  readonly peers = new Map<NodeId, Peer>()
  readonly inbound = new Set<InboundEnd>()
  /** Nodes without an address that frames were meant for since the last flush. */
  private readonly strangers = new Set<NodeId>()
  private readonly queueBytes: number
  private readonly logged = new Set<string>()
  private readonly log: (text: string) => void

  constructor(options: PeerTransportOptions, log: (text: string) => void) {
    this.options = options
    this.log = log
    this.queueBytes = options.queueBytes ?? defaultQueueBytes
  }

  send<A>(to: NodeId, encode: (writer: ByteWriter, message: A) => void, message: A): void {
    const peer = this.peers.get(to)
    const end = peer?.end
    if (peer === undefined || end?.state !== "open" || end.outbox.pendingBytes > this.queueBytes) {
      if (peer === undefined) this.strangers.add(to)
      else {
        peer.dropping = true
        peer.droppedFrames++
      }
      return
    }
    const { writer } = end.outbox
    const start = beginFrame(writer)
    writer.u8(peerKinds.message)
    encode(writer, message)
    endFrame(writer, start)
  }

  flush(): void {
    for (const peer of this.peers.values()) {
      peer.end?.flush()
      if (!peer.dropping) continue
      peer.dropping = false
      this.options.onUnreachable(peer.node)
    }
    for (const node of this.strangers) {
      this.strangers.delete(node)
      this.options.onUnreachable(node)
    }
  }

  /** Once per reason, so that a peer that keeps trying does not fill the log. */
  logOnce(text: string): void {
    if (this.logged.has(text)) return
    if (this.logged.size >= 1000) this.logged.clear()
    this.logged.add(text)
    this.log(text)
  }

  /** A peer is there: its next trouble is news again. */
  private forget(node: NodeId): void {
    for (const text of this.logged) {
      if (text.startsWith(`no connection to n${node}:`)) this.logged.delete(text)
    }
  }

  /** Why a hello is not accepted; `expected` when it is known whom we called. */
  private problemOf(hello: PeerHello, expected: NodeId | undefined): string | undefined {
    const { self, admit } = this.options
    if (hello.clusterId !== self.clusterId) {
      return `cluster ${hello.clusterId} is not this cluster, ${self.clusterId}`
    }
    if (hello.node === self.node) return `n${hello.node} is this node's own id`
    if (expected !== undefined && hello.node !== expected) {
      return `n${hello.node} answers where n${expected} was expected`
    }
    return admit(hello)
  }

  /** Ends what there is of a peer; its caller is the driver's to stop. */
  remove(node: NodeId, reason: string): Peer | undefined {
    const peer = this.peers.get(node)
    this.peers.delete(node)
    peer?.end?.close(reason)
    for (const end of this.inbound) {
      if (end.peer === node) end.close(reason)
    }
    return peer
  }

  accept(socket: ConstructorParameters<typeof InboundEnd>[0]): InboundEnd {
    const end = new InboundEnd(socket, {
      self: this.options.self,
      admit: (hello) => this.problemOf(hello, undefined),
      accepted: (opened, node) => {
        // The other side has given the old one up, or would not have opened a new one.
        for (const other of this.inbound) {
          if (other !== opened && other.peer === node && other.state === "open") {
            other.close("replaced by a newer connection")
          }
        }
      },
      message: this.options.onMessage,
      closed: (closed, reason) => {
        const who = closed.peer === undefined ? "a stranger" : `n${closed.peer}`
        if (reason !== "") this.logOnce(`connection from ${who} closed: ${reason}`)
      },
    })
    this.inbound.add(end)
    return end
  }

  connected(
    peer: Peer,
    socket: ConstructorParameters<typeof OutboundEnd>[0],
    lost: (reason: string) => void,
  ): OutboundEnd {
    let end: OutboundEnd | undefined
    const made = new OutboundEnd(socket, {
      self: this.options.self,
      admit: (hello) => this.problemOf(hello, peer.node),
      opened: () => {
        peer.end = end
        peer.quietDials = 0
        this.forget(peer.node)
        this.log(`connected to n${peer.node}`)
      },
      closed: (reason) => {
        if (end !== undefined && peer.end === end) {
          peer.end = undefined
          peer.dropping = true
        }
        lost(reason)
      },
    })
    end = made
    return made
  }

  sweep(ends: Iterable<OutboundEnd>): void {
    for (const end of this.inbound) {
      if (++end.sweepsSilent <= silentSweepsMax) continue
      if (end.state === "closing") end.drop("")
      else end.close("silent for too long")
    }
    for (const end of ends) {
      if (++end.sweepsSilent > silentSweepsMax) end.drop("silent for too long")
      else if (end.state === "open") end.ping()
    }
    // Losses between two flushes are told here at the latest.
    this.flush()
  }
}

/** The transport as a scoped value, for those who build no layer. */
export const makePeerTransport: (
  options: PeerTransportOptions,
) => Effect.Effect<PeerTransportShape, ListenFailed, Scope.Scope> = Effect.fnUntraced(function* (
  options: PeerTransportOptions,
) {
  const scope = yield* Effect.scope
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const transport = new Transport(options, (text) => void runFork(Effect.logInfo(text)))
  const outbound = new Set<OutboundEnd>()
  const listener = yield* listen(transport)
  const start = (address: PeerAddress) => {
    const peer = new Peer(address)
    transport.peers.set(address.node, peer)
    return keepConnected(transport, peer, outbound).pipe(
      Effect.tapCause((cause) => Effect.logError(`connecting to n${peer.node} ended`, cause)),
      Effect.forkIn(scope),
      Effect.tap((fiber) =>
        Effect.sync(() => {
          peer.caller = fiber
        }),
      ),
    )
  }
  for (const peer of options.peers) yield* start(peer)
  yield* Effect.sync(() => transport.sweep(outbound)).pipe(
    Effect.delay(options.sweepMs ?? 1000),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("the peer transport's sweep ended", cause)),
    Effect.forkScoped,
  )
  return PeerTransport.of({
    address: { host: options.listen.host, port: listener.port },
    send: (to, encode, message) => transport.send(to, encode, message),
    flush: () => transport.flush(),
    setPeer: (address) => {
      const known = transport.peers.get(address.node)
      if (known === undefined) return void runFork(start(address))
      known.address = address
    },
    removePeer: (node, reason) => {
      const caller = transport.remove(node, reason)?.caller
      if (caller !== undefined) runFork(Fiber.interrupt(caller))
    },
    describe: () =>
      [...transport.peers.values()].map((peer) => ({
        node: peer.node,
        connected: peer.end?.state === "open",
        waitingBytes: peer.end?.outbox.pendingBytes ?? 0,
        droppedFrames: peer.droppedFrames,
      })),
  })
})

function listen(transport: Transport) {
  const { host, port } = transport.options.listen
  return Effect.acquireRelease(
    Effect.try({
      try: () =>
        Bun.listen<InboundEnd>({
          hostname: host,
          port,
          exclusive: true,
          socket: {
            binaryType: "uint8array",
            open: (socket) => {
              socket.setNoDelay(true)
              socket.data = transport.accept(socket)
            },
            data: (socket, chunk) => socket.data.received(chunk),
            drain: (socket) => socket.data.drained(),
            close: (socket) => {
              socket.data.drop("")
              transport.inbound.delete(socket.data)
            },
            error: (socket, error) => {
              if (!isSocketBug(error)) socket.data.drop(`socket error: ${error.message}`)
            },
          },
        }),
      catch: (cause) => new ListenFailed({ what: "peers", host, port, cause }),
    }),
    (listener) =>
      Effect.sync(() => {
        listener.stop()
        for (const end of transport.inbound) {
          end.close("the node stops")
          end.drop("")
        }
      }),
  )
}

/** Connects to a peer for ever; pauses grow while it cannot, or while connections do not last. */
function keepConnected(transport: Transport, peer: Peer, outbound: Set<OutboundEnd>) {
  const { minMs, maxMs } = transport.options.backoff ?? defaultBackoff
  const schedule = Schedule.min([Schedule.exponential(minMs), Schedule.spaced(maxMs)]).pipe(
    Schedule.jittered,
  )
  const session = Effect.timed(Effect.exit(connection(transport, peer, outbound))).pipe(
    Effect.flatMap(([lasted, exit]) => {
      if (Exit.isSuccess(exit)) return Effect.void
      // A connection that lasted ends this round, so that the next pause is short again.
      return exit.cause.reasons.some((reason) => reason._tag !== "Fail") ||
        Duration.toMillis(lasted) < settledMs
        ? Effect.failCause(exit.cause)
        : Effect.void
    }),
  )
  return session.pipe(Effect.retry(schedule), Effect.forever)
}

/** One connection from dialling to its loss, which is its failure. Interruption closes it. */
function connection(transport: Transport, peer: Peer, outbound: Set<OutboundEnd>) {
  return Effect.callback<never, PeerLost>((resume) => {
    let end: OutboundEnd | undefined
    let over = false
    const timer = setTimeout(() => {
      if (end === undefined) lost("no answer in time")
    }, dialTimeoutMs)
    const lost = (reason: string) => {
      if (over) return
      over = true
      clearTimeout(timer)
      if (end === undefined && peer.quietDials > 0) peer.quietDials--
      else transport.logOnce(`no connection to n${peer.node}: ${reason}`)
      if (end !== undefined) outbound.delete(end)
      resume(Effect.fail(new PeerLost({ reason })))
    }
    const dialled = Bun.connect<undefined>({
      hostname: peer.address.host,
      port: peer.address.port,
      socket: {
        binaryType: "uint8array",
        open: (socket) => {
          if (over) return void socket.terminate()
          socket.setNoDelay(true)
          end = transport.connected(peer, socket, lost)
          if (!over) outbound.add(end)
        },
        data: (_, chunk) => end?.received(chunk),
        drain: () => end?.drained(),
        close: () => (end === undefined ? lost("closed") : end.drop("connection closed")),
        error: (_, error) => {
          if (!isSocketBug(error)) end?.drop(`socket error: ${error.message}`)
        },
        connectError: (_, error) => lost(error.message),
      },
    })
    dialled.catch((error) => lost(String(error)))
    return Effect.sync(() => {
      over = true
      clearTimeout(timer)
      if (end === undefined) return
      outbound.delete(end)
      end.close("the node stops")
      end.drop("")
    })
  })
}
