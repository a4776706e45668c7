import { MalformedBytes } from "../lib/byteReader.ts"
import type { MonotonicMs } from "../types.ts"
import type { Answer, ClosingNotice } from "../wire/answers.ts"
import { readAnswer } from "../wire/answersLayout.ts"
import { describeFrameProblem, FrameDecoder } from "../wire/frames.ts"
import {
  readWelcome,
  type Welcome,
  type WireRequest,
  writeHello,
  writeRequest,
} from "../wire/native.ts"
import { Outbox } from "../wire/outbox.ts"
import { isSocketBug } from "../wire/SocketBug.ts"

/** A request under way, as its connection sees it. Exactly one of the two is called, once. */
export interface Waiting {
  answered(answer: Exclude<Answer, ClosingNotice>): void
  /** The connection broke first: whether the request was carried out is not known. */
  lost(reason: string): void
}

export interface ConnectionEvents {
  /** The handshake is done. A string is why the welcome is not accepted: the connection closes. */
  opened(connection: Connection, welcome: Welcome): string | undefined
  closed(connection: Connection, reason: string): void
}

/** With this much waiting to be sent, `send` refuses. */
const outgoingBytesMax = 32 * 1024 * 1024
/** Below the door's own limit of requests under way. */
const inFlightMax = 4000

/**
 * One TCP connection to a node's native door, many requests at a time. Requests of one turn of the event loop, in which answers of several nodes may have
 * come in, leave in one system call. All in callbacks; a connection that is closed is never opened again.
 */
export class Connection {
  readonly address: string
  state: "connecting" | "hello" | "open" | "closed" = "connecting"
  /** When bytes last came in, by the clock given. */
  heardAt: MonotonicMs
  private readonly internal: boolean
  private readonly events: ConnectionEvents
  private readonly nowMs: () => MonotonicMs
  private readonly decoder = new FrameDecoder()
  private readonly outbox = new Outbox()
  private readonly waiting = new Map<number, Waiting>()
  private socket: Bun.Socket<undefined> | undefined
  private nextId = 1
  private flushing = false
  private readonly timer: ReturnType<typeof setTimeout>

  constructor(options: {
    readonly address: string
    readonly host: string
    readonly port: number
    readonly handshakeTimeoutMs: number
    /** This client speaks for a node of the cluster. */
    readonly internal: boolean
    readonly events: ConnectionEvents
    readonly nowMs: () => MonotonicMs
  }) {
    this.address = options.address
    this.internal = options.internal
    this.events = options.events
    this.nowMs = options.nowMs
    this.heardAt = options.nowMs()
    this.timer = setTimeout(() => this.close("no handshake in time"), options.handshakeTimeoutMs)
    this.dial(options.host, options.port)
  }

  get inFlight(): number {
    return this.waiting.size
  }

  private dial(hostname: string, port: number): void {
    const dialled = Bun.connect<undefined>({
      hostname,
      port,
      socket: {
        binaryType: "uint8array",
        open: (socket) => this.dialled(socket),
        data: (_, chunk) => this.received(chunk),
        drain: () => this.flush(),
        close: () => this.close("connection closed"),
        error: (_, error) => {
          if (!isSocketBug(error)) this.close(`socket error: ${error.message}`)
        },
        connectError: (_, error) => this.close(`no connection: ${error.message}`),
      },
    })
    // `connectError` has said it already.
    dialled.catch((error) => this.close(`no connection: ${error}`))
  }

  private dialled(socket: Bun.Socket<undefined>): void {
    if (this.state === "closed") {
      socket.terminate()
      return
    }
    socket.setNoDelay(true)
    this.socket = socket
    this.state = "hello"
    writeHello(this.outbox.writer, { internal: this.internal })
    this.flush()
  }

  /** False when it cannot take another request now; nothing is sent then. */
  send(request: WireRequest, waiting: Waiting): boolean {
    if (
      this.state !== "open" ||
      this.waiting.size >= inFlightMax ||
      this.outbox.pendingBytes > outgoingBytesMax
    ) {
      return false
    }
    let id = this.nextId
    while (id === 0 || this.waiting.has(id)) id = (id + 1) >>> 0
    this.nextId = (id + 1) >>> 0
    this.waiting.set(id, waiting)
    writeRequest(this.outbox.writer, request, id)
    if (!this.flushing) {
      this.flushing = true
      setImmediate(this.flushLater)
    }
    return true
  }

  private readonly flushLater = (): void => {
    this.flushing = false
    this.flush()
  }

  private flush(): void {
    if (this.socket === undefined || this.state === "closed") return
    if (this.outbox.flush(this.socket) === "closed") this.close("socket closed while writing")
  }

  private received(chunk: Uint8Array): void {
    if (this.state === "closed") return
    this.heardAt = this.nowMs()
    this.decoder.push(chunk)
    try {
      for (let frame = this.decoder.next(); frame !== undefined; frame = this.decoder.next()) {
        if (this.state === "hello") this.welcome(frame)
        else if (this.state === "open") this.take(frame)
      }
    } catch (cause) {
      if (!(cause instanceof MalformedBytes)) throw cause
      return this.close(`not understood: ${cause.message}`)
    }
    const { problem } = this.decoder
    if (problem !== undefined) this.close(describeFrameProblem(problem))
  }

  private welcome(frame: Uint8Array): void {
    const welcome = readWelcome(frame)
    if (typeof welcome === "string") return this.close(`refused: ${welcome}`)
    clearTimeout(this.timer)
    this.state = "open"
    const problem = this.events.opened(this, welcome)
    if (problem !== undefined) this.close(problem)
  }

  private take(frame: Uint8Array): void {
    const { id, answer } = readAnswer(frame)
    if (answer._tag === "Closing") return this.close(`closed by the node: ${answer.reason}`)
    const waiting = this.waiting.get(id)
    if (waiting === undefined) return
    this.waiting.delete(id)
    waiting.answered(answer)
  }

  close(reason: string): void {
    if (this.state === "closed") return
    this.state = "closed"
    clearTimeout(this.timer)
    this.socket?.terminate()
    const lost = [...this.waiting.values()]
    this.waiting.clear()
    this.events.closed(this, reason)
    for (const each of lost) each.lost(reason)
  }
}
