import { MalformedBytes } from "../lib/byteReader.ts"
import type { NodeId } from "../types.ts"
import { describeFrameProblem, FrameDecoder } from "../wire/frames.ts"
import { limits } from "../wire/limits.ts"
import { type ByteSink, Outbox } from "../wire/outbox.ts"
import {
  type PeerHello,
  readPeerFrame,
  readPeerHello,
  writePeerClosing,
  writePeerHello,
  writePeerPing,
  writePeerRefusal,
} from "../wire/peer.ts"

/** The two ends of a connection between nodes, in callbacks; PeerTransport.ts owns them. */

export interface PeerSocket extends ByteSink {
  end(): void
  terminate(): void
}

abstract class PeerEnd {
  protected readonly socket: PeerSocket
  protected readonly decoder = new FrameDecoder(limits.helloBytes)
  readonly outbox = new Outbox()
  state: "hello" | "open" | "closing" | "closed" = "hello"
  /** Counted by the transport's sweep; set to 0 at every sign of life of the other side. */
  sweepsSilent = 0
  private ended = false

  constructor(socket: PeerSocket) {
    this.socket = socket
  }

  received(chunk: Uint8Array): void {
    if (this.state === "closing" || this.state === "closed") return
    this.sweepsSilent = 0
    this.decoder.push(chunk)
    try {
      for (let frame = this.decoder.next(); frame !== undefined; frame = this.decoder.next()) {
        if (this.state === "hello") this.greeted(frame)
        else if (this.state === "open") this.take(frame)
      }
    } catch (cause) {
      if (!(cause instanceof MalformedBytes)) throw cause
      return this.close(`not understood: ${cause.message}`)
    }
    const { problem } = this.decoder
    if (problem !== undefined) this.close(describeFrameProblem(problem))
  }

  protected abstract greeted(frame: Uint8Array): void
  protected abstract take(frame: Uint8Array): void
  protected abstract closed(reason: string): void

  flush(): void {
    if (this.state === "closed") return
    const outcome = this.outbox.flush(this.socket)
    if (outcome === "closed") return this.drop("socket closed while writing")
    if (outcome === "flushed" && this.state === "closing" && !this.ended) {
      this.ended = true
      this.socket.end()
    }
  }

  /** The kernel has room again, which it has because the other side took what was sent: a sign of life. */
  drained(): void {
    this.sweepsSilent = 0
    this.flush()
  }

  /** Says why, then closes. */
  close(reason: string): void {
    if (this.state === "closing" || this.state === "closed") return
    if (this.state === "hello") writePeerRefusal(this.outbox.writer, reason)
    else writePeerClosing(this.outbox.writer, reason)
    this.state = "closing"
    this.sweepsSilent = 0
    this.closed(reason)
    this.flush()
  }

  /** Closes without a word; also when the socket is gone. */
  drop(reason: string): void {
    if (this.state === "closed") return
    const isNews = this.state !== "closing"
    this.state = "closed"
    this.socket.terminate()
    if (isNews) this.closed(reason)
  }
}

export interface InboundEvents {
  /** A string is why the peer is not accepted. */
  readonly admit: (hello: PeerHello) => string | undefined
  readonly self: PeerHello
  readonly accepted: (end: InboundEnd, peer: NodeId) => void
  /** May throw `MalformedBytes`. The payload is the receiver's to keep. */
  readonly message: (from: NodeId, payload: Uint8Array) => void
  readonly closed: (end: InboundEnd, reason: string) => void
}

/** The side that accepted: it receives messages and answers pings. */
export class InboundEnd extends PeerEnd {
  private readonly events: InboundEvents
  /** Known once the handshake is done. */
  peer: NodeId | undefined

  constructor(socket: PeerSocket, events: InboundEvents) {
    super(socket)
    this.events = events
  }

  protected greeted(frame: Uint8Array): void {
    const hello = readPeerHello(frame)
    if (typeof hello === "string") return this.close(hello)
    this.peer = hello.node
    const problem = this.events.admit(hello)
    if (problem !== undefined) return this.close(problem)
    writePeerHello(this.outbox.writer, this.events.self)
    this.state = "open"
    this.decoder.limitBytes = limits.frameBytes
    this.events.accepted(this, hello.node)
    this.flush()
  }

  protected take(bytes: Uint8Array): void {
    const frame = readPeerFrame(bytes)
    switch (frame._tag) {
      case "Message":
        return this.events.message(this.peer as NodeId, frame.payload)
      case "Ping":
        writePeerPing(this.outbox.writer, "pong")
        return this.flush()
      case "Pong":
        throw new MalformedBytes("a pong that nobody asked for")
      case "Closing":
        return this.drop(`closed by the peer: ${frame.reason}`)
      default:
        frame satisfies never
    }
  }

  protected closed(reason: string): void {
    this.events.closed(this, reason)
  }
}

export interface OutboundEvents {
  readonly self: PeerHello
  /** A string is why this is not the peer wanted. */
  readonly admit: (hello: PeerHello) => string | undefined
  readonly opened: () => void
  readonly closed: (reason: string) => void
}

/** The side that connected: it sends messages, and pings to learn whether anyone is there. */
export class OutboundEnd extends PeerEnd {
  private readonly events: OutboundEvents

  constructor(socket: PeerSocket, events: OutboundEvents) {
    super(socket)
    this.events = events
    writePeerHello(this.outbox.writer, events.self)
    this.flush()
  }

  protected greeted(frame: Uint8Array): void {
    const hello = readPeerHello(frame)
    if (typeof hello === "string") return this.drop(hello)
    const problem = this.events.admit(hello)
    if (problem !== undefined) {
      writePeerClosing(this.outbox.writer, problem)
      this.flush()
      return this.drop(problem)
    }
    this.state = "open"
    this.decoder.limitBytes = limits.frameBytes
    this.events.opened()
  }

  ping(): void {
    writePeerPing(this.outbox.writer, "ping")
    this.flush()
  }

  protected take(bytes: Uint8Array): void {
    const frame = readPeerFrame(bytes)
    if (frame._tag === "Closing") return this.drop(`closed by the peer: ${frame.reason}`)
    if (frame._tag !== "Pong") throw new MalformedBytes(`${frame._tag} on a one-way connection`)
  }

  protected closed(reason: string): void {
    this.events.closed(reason)
  }
}
