import { Context, Effect, Layer } from "effect"
import { ListenFailed } from "../../server/ListenFailed.ts"
import { Store } from "../../server/StoreService.ts"
import { limits } from "../../wire/limits.ts"
import { isSocketBug } from "../../wire/SocketBug.ts"
import { DoorConnection, type DoorHost, type DoorLimits, tooSlow } from "./DoorConnection.ts"

/**
 * The native door: a TCP listener that speaks wire/native.ts to Kvorum's own client.
 *
 * 1. A connection is accepted, or turned away when there are too many; it has `handshakeTimeoutMs` to say hello.
 * 2. Each chunk is cut into frames and each frame read as a request, checked against the limits (checks.ts) and handed to the
 *    store, which answers by a callback, in any order, in the same turn or a later one. Orders go to the node's control plane (admin/) in the same way.
 * 3. Answers are encoded into the outbox of their connection. A connection with something to send is put on the door's list
 *    once, and the list is flushed in a microtask: after the turn that made the answers, in one system call per connection.
 * 4. What the kernel does not take waits in the outbox for the socket to drain. With much waiting, the connection is not read from;
 *    with more, values are left out of answers (`Overloaded`); with too much, or when the client takes nothing for half a minute, it is
 *    closed as too slow.
 *
 * Invariants:
 * - No Effect runs per request; a sweep every second is the only fiber.
 * - A byte sequence from outside can close its own connection, with a reason, and nothing else.
 * - Requests under way, bytes waiting and connections are bounded, each bound with a named outcome.
 *
 * Left out: authentication and TLS, which come with users, so that a client that says it is a node of the cluster is believed; forwarding to other nodes, since this client routes by itself.
 */
export interface NativeDoorOptions {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  readonly limits?: Partial<DoorLimits>
  readonly connectionsMax?: number
  readonly handshakeTimeoutMs?: number
  /** How often timeouts are looked at; default 1000. */
  readonly sweepMs?: number
}

/** Slack for a 16 MiB frame, several of them, and a client that pauses for a moment. */
const defaultLimits: DoorLimits = {
  inFlightMax: 4096,
  scansInFlightMax: 16,
  pauseBytes: 1024 * 1024,
  refuseBytes: 32 * 1024 * 1024,
  outgoingBytesMax: 64 * 1024 * 1024,
}

const stopReason = "the node stops"
const defaultSweepMs = 1000
/** Sweeps between two warnings about large values. */
const warnSweeps = 10
/** Sweeps that a client has to take its farewell. */
const farewellSweeps = 2
/** Sweeps that answers may wait while the client takes none. */
const stallSweepsMax = 30

export interface DoorStats {
  readonly connections: number
  readonly largeValues: number
  /** Connections closed by the door, by reason. */
  readonly closed: ReadonlyMap<string, number>
}

export class NativeDoor extends Context.Service<
  NativeDoor,
  {
    /** Where it listens. */
    readonly address: { readonly host: string; readonly port: number }
    readonly stats: () => DoorStats
  }
>()("kvorum/doors/NativeDoor") {
  static readonly layer = (options: NativeDoorOptions) => Layer.effect(NativeDoor, make(options))
}

/** The door's mutable state: its connections and what it must do for them. */
class Door implements DoorHost {
  readonly store: DoorHost["store"]
  readonly limits: DoorLimits
  readonly connections = new Set<DoorConnection>()
  readonly closedByReason = new Map<string, number>()
  private readonly log: (text: string) => void
  private dirty: Array<DoorConnection> = []
  largeValues = 0
  private largeValuesWarned = 0
  private largestBytes = 0
  private sweeps = 0

  constructor(options: {
    readonly store: DoorHost["store"]
    readonly limits: DoorLimits
    readonly log: (text: string) => void
  }) {
    this.store = options.store
    this.limits = options.limits
    this.log = options.log
  }

  readonly willFlush = (connection: DoorConnection): void => {
    if (connection.flushing) return
    connection.flushing = true
    if (this.dirty.push(connection) === 1) queueMicrotask(this.flushAll)
  }

  private readonly flushAll = (): void => {
    const dirty = this.dirty
    this.dirty = []
    for (const connection of dirty) connection.flush()
  }

  readonly tookLargeValue = (valueBytes: number): void => {
    this.largeValues++
    if (valueBytes > this.largestBytes) this.largestBytes = valueBytes
  }

  readonly closed = (_: DoorConnection, reason: string): void => {
    if (reason === "" || reason === stopReason) return
    // Reasons quote what was sent, so their number is bounded.
    const known = this.closedByReason.get(reason)
    if (known === undefined) {
      if (this.closedByReason.size >= 100) return
      this.log(`native door closed a connection: ${reason}`)
    }
    this.closedByReason.set(reason, (known ?? 0) + 1)
  }

  /** Once a second. */
  sweep(handshakeSweeps: number): void {
    this.sweeps++
    for (const connection of this.connections) {
      connection.sweepsInState++
      if (connection.state === "hello" && connection.sweepsInState > handshakeSweeps) {
        connection.close("no handshake in time")
      } else if (connection.state === "closing" && connection.sweepsInState > farewellSweeps) {
        connection.drop("")
      } else if (connection.outgoingBytes > 0 && ++connection.sweepsStalled > stallSweepsMax) {
        connection.drop(tooSlow)
      }
    }
    if (this.sweeps % warnSweeps === 1 && this.largeValues > this.largeValuesWarned) {
      const count = this.largeValues - this.largeValuesWarned
      this.log(
        `${count} values above ${limits.valueWarnBytes} bytes were written, the largest of ` +
          `${this.largestBytes} bytes: Kvorum is made for small values`,
      )
      this.largeValuesWarned = this.largeValues
      this.largestBytes = 0
    }
  }
}

const make = Effect.fnUntraced(function* (options: NativeDoorOptions) {
  const store = yield* Store
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const door = new Door({
    store,
    limits: { ...defaultLimits, ...options.limits },
    log: (text) => void runFork(Effect.logWarning(text)),
  })
  const listener = yield* listen(door, options)
  const sweepMs = options.sweepMs ?? defaultSweepMs
  const handshakeSweeps = Math.ceil((options.handshakeTimeoutMs ?? 5000) / sweepMs)
  yield* Effect.sync(() => door.sweep(handshakeSweeps)).pipe(
    Effect.delay(sweepMs),
    Effect.forever,
    Effect.tapCause((cause) => Effect.logError("the native door's sweep ended", cause)),
    Effect.forkScoped,
  )
  return NativeDoor.of({
    address: { host: options.host, port: listener.port },
    stats: () => ({
      connections: door.connections.size,
      largeValues: door.largeValues,
      closed: door.closedByReason,
    }),
  })
})

function listen(door: Door, options: NativeDoorOptions) {
  const { host, port } = options
  const connectionsMax = options.connectionsMax ?? 4096
  return Effect.acquireRelease(
    Effect.try({
      try: () =>
        Bun.listen<DoorConnection>({
          hostname: host,
          port,
          exclusive: true,
          socket: {
            binaryType: "uint8array",
            open: (socket) => {
              socket.setNoDelay(true)
              socket.data = new DoorConnection(door, socket)
              if (door.connections.size >= connectionsMax) {
                socket.data.close("too many connections")
              }
              door.connections.add(socket.data)
            },
            data: (socket, chunk) => socket.data.received(chunk),
            drain: (socket) => socket.data.flush(),
            close: (socket) => {
              socket.data.gone()
              door.connections.delete(socket.data)
            },
            error: (socket, error) => {
              if (!isSocketBug(error)) socket.data.drop("socket error")
            },
          },
        }),
      catch: (cause) => new ListenFailed({ what: "clients", host, port, cause }),
    }),
    (listener) =>
      Effect.sync(() => {
        for (const connection of door.connections) connection.close(stopReason)
        listener.stop()
        for (const connection of door.connections) connection.flush()
        for (const connection of door.connections) connection.drop("")
      }),
  )
}
