import { MalformedBytes } from "../../lib/byteReader.ts"
import { startsWith } from "../../lib/bytes.ts"
import { keyIn, namespaceOf, prefixBytesOf } from "../../lib/position.ts"
import type { PageReply, Reply } from "../../server/requests.ts"
import type { AdminReply, StoreShape } from "../../server/StoreService.ts"
import type { PageEntry, Refusal } from "../../wire/answers.ts"
import {
  writeAdministered,
  writeAnswer,
  writeClosing,
  writeEventual,
  writeRoutes,
  writeStatus,
} from "../../wire/answersLayout.ts"
import { describeFrameProblem, FrameDecoder } from "../../wire/frames.ts"
import { limits } from "../../wire/limits.ts"
import {
  readHello,
  readRequest,
  type WireEventual,
  type WireRequest,
  type WireScan,
  writeTurnedAway,
  writeWelcome,
} from "../../wire/native.ts"
import { type ByteSink, Outbox } from "../../wire/outbox.ts"
import {
  adminProblem,
  type Caller,
  eventualProblem,
  getProblem,
  mutateProblem,
  rangeProblem,
  replyProblem,
  scanProblem,
  valueBytesOf,
} from "./checks.ts"

export interface DoorLimits {
  /** Requests of one connection under way; beyond: `Overloaded`. */
  readonly inFlightMax: number
  /** Of those, scans, whose pages are large. */
  readonly scansInFlightMax: number
  /** With more than this waiting to be sent, nothing more is read from the connection. */
  readonly pauseBytes: number
  /** With more than this waiting, values and pages are left out of answers: `Overloaded` in their place. */
  readonly refuseBytes: number
  /** With more than this waiting, the connection is closed: its client does not read what it asked for. */
  readonly outgoingBytesMax: number
}

/** The socket of a connection, as far as it is used here. */
export interface DoorSocket extends ByteSink {
  end(): void
  terminate(): void
  pause(): void
  resume(): void
}

/** What a connection needs of its door. */
export interface DoorHost {
  readonly store: StoreShape
  readonly limits: DoorLimits
  /** The connection has bytes to send: call `flush` once at the end of this turn. */
  readonly willFlush: (connection: DoorConnection) => void
  readonly tookLargeValue: (valueBytes: number) => void
  readonly closed: (connection: DoorConnection, reason: string) => void
}

/** Requests that the store or the control plane answers, sooner or later. */
type Admitted = Exclude<WireRequest, { _tag: "AskRoutes" | "AskStatus" }>

export const tooSlow = "too slow: it does not read its answers"

/**
 * One client's connection: `hello` until the handshake, `open`, then `closing` once it was told why. Everything happens in the
 * callbacks of its socket and of the store; no fiber, no promise.
 */
export class DoorConnection {
  private readonly host: DoorHost
  private readonly socket: DoorSocket
  private readonly decoder = new FrameDecoder(limits.helloBytes)
  private readonly outbox = new Outbox()
  private inFlight = 0
  private scansInFlight = 0
  private paused = false
  private caller: Caller
  /** Chunks that came although reading was paused. */
  private backlog: Array<Uint8Array> = []
  private ended = false
  state: "hello" | "open" | "closing" | "closed" = "hello"
  /** Counted by the door's sweep, for the timeouts of handshake and farewell. */
  sweepsInState = 0
  /** Sweeps in which answers waited and the socket took none. */
  sweepsStalled = 0
  /** The door has it on its list for this turn. */
  flushing = false

  constructor(host: DoorHost, socket: DoorSocket) {
    this.host = host
    this.socket = socket
    this.caller = callerOf(host.store, false)
  }

  get outgoingBytes(): number {
    return this.outbox.pendingBytes
  }

  received(chunk: Uint8Array): void {
    if (this.state === "closing" || this.state === "closed") return
    if (this.paused) {
      this.backlog.push(chunk)
      return
    }
    this.decoder.push(chunk)
    this.readOn()
  }

  /** Takes frames out of the chunk at hand until it is used up, or too much waits to be sent. */
  private readOn(): void {
    try {
      for (let frame = this.decoder.next(); frame !== undefined; frame = this.decoder.next()) {
        if (this.state === "hello") this.greet(frame)
        else if (this.state === "open") this.handle(readRequest(frame))
        if (this.outbox.pendingBytes > this.host.limits.pauseBytes) this.flush()
        if (this.paused) return
      }
    } catch (cause) {
      if (!(cause instanceof MalformedBytes)) throw cause
      return this.close(`not understood: ${cause.message}`)
    }
    const { problem } = this.decoder
    if (problem !== undefined) this.close(describeFrameProblem(problem))
  }

  private greet(frame: Uint8Array): void {
    const hello = readHello(frame)
    if (typeof hello === "string") return this.turnAway(hello)
    this.caller = callerOf(this.host.store, hello.internal)
    const { clusterId, node } = this.host.store.identity
    writeWelcome(this.outbox.writer, { clusterId, node, time: this.host.store.time() })
    this.state = "open"
    this.sweepsInState = 0
    this.decoder.limitBytes = limits.frameBytes
    this.host.willFlush(this)
  }

  private handle(request: WireRequest): void {
    const { store } = this.host
    switch (request._tag) {
      case "AskRoutes":
        writeRoutes(this.outbox.writer, request.id, {
          nodes: store.nodes(),
          namespaces: store.namespaces(),
          ranges: store.ranges(),
          ring: store.ring(),
        })
        return this.wrote()
      case "AskStatus":
        writeStatus(this.outbox.writer, request.id, store.status())
        return this.wrote()
      default:
        return this.admit(request)
    }
  }

  private admit(request: Admitted): void {
    const { store } = this.host
    const { inFlightMax, scansInFlightMax } = this.host.limits
    if (
      this.inFlight >= inFlightMax ||
      (isScan(request) && this.scansInFlight >= scansInFlightMax)
    ) {
      const what = "the connection's table of requests under way"
      return this.refuse(request.id, { _tag: "Overloaded", what })
    }
    const problem = this.problemOf(request)
    if (problem !== undefined) {
      return this.refuse(request.id, { _tag: "InvalidRequest", message: problem })
    }
    this.inFlight++
    if (request._tag === "Eventual") return this.askEventual(request)
    if (request._tag !== "Admin") return this.ask(request)
    const { id, verb, args, deadlineMs } = request
    store.administer({ verb, args, deadlineMs }, (reply) => this.administered(id, reply))
  }

  private askEventual({ id, request }: WireEventual): void {
    if (request._tag === "EventualWrite" && request.change._tag === "Put") {
      const valueBytes = request.change.value.length
      if (valueBytes > limits.valueWarnBytes) this.host.tookLargeValue(valueBytes)
    }
    if (request._tag === "EventualPage") this.scansInFlight++
    this.host.store.eventual(request, (reply) => {
      this.inFlight--
      if (request._tag === "EventualPage") this.scansInFlight--
      if (this.state !== "open") return
      const isLarge = reply._tag === "EventualValue" || reply._tag === "EventualEntries"
      if (isLarge && this.outbox.pendingBytes > this.host.limits.refuseBytes) {
        return this.refuse(id, { _tag: "Overloaded", what: "the connection's queue of answers" })
      }
      const message = replyProblem(reply)
      if (message !== undefined) return this.refuse(id, { _tag: "InvalidRequest", message })
      writeEventual(this.outbox.writer, id, reply)
      this.wrote()
    })
  }

  private ask(request: Exclude<Admitted, { _tag: "Admin" | "Eventual" }>): void {
    const { store } = this.host
    const { id, range, deadlineMs } = request
    switch (request._tag) {
      case "Mutate": {
        const { command } = request
        const valueBytes = valueBytesOf(command)
        if (valueBytes > limits.valueWarnBytes) this.host.tookLargeValue(valueBytes)
        const mutate = { _tag: "Mutate", token: 0, range, deadlineMs, command } as const
        return store.request(mutate, (reply) => this.reply(id, reply))
      }
      case "Get": {
        const { level, boundsVersion, position, maxStalenessMs, atLeast, anyReplica } = request
        // Field by field, since it is done for every get: spreads would make three objects.
        const get = {
          _tag: "Get",
          token: 0,
          range,
          deadlineMs,
          level,
          boundsVersion,
          position,
          maxStalenessMs,
          atLeast,
          anyReplica,
        } as const
        return store.request(get, (reply) => this.reply(id, reply))
      }
      case "Scan": {
        this.scansInFlight++
        const { partitioning } = this.namespaceOf(request) ?? { partitioning: "hash" }
        const { countOnly, prefix, ...scan } = request
        const filter = { offset: prefixBytesOf(partitioning), prefix: prefix.slice() }
        const count = countOnly ? filter : undefined
        return store.request({ ...scan, token: 0, count }, (reply) => {
          this.scansInFlight--
          const isPage = reply._tag === "Page" && !countOnly
          this.reply(id, isPage ? cutPage(reply, request.prefix, partitioning) : reply)
        })
      }
      case "Range":
        return store.request({ ...request.change, token: 0, range, deadlineMs }, (reply) =>
          this.reply(id, reply),
        )
      default:
        request satisfies never
    }
  }

  private namespaceOf({ lower }: WireScan) {
    const id = namespaceOf(lower)
    return this.host.store.namespaces().find((namespace) => namespace.id === id)
  }

  private problemOf(request: Admitted) {
    const { caller } = this
    switch (request._tag) {
      case "Mutate":
        return mutateProblem(request, caller)
      case "Get":
        return getProblem(request, caller)
      case "Scan":
        return scanProblem(request, caller)
      case "Range":
        return rangeProblem(request, caller)
      case "Admin":
        return adminProblem(request)
      case "Eventual":
        return eventualProblem(request.request, caller)
      default:
        return request satisfies never
    }
  }

  private reply(id: number, reply: Reply): void {
    this.inFlight--
    if (this.state !== "open") return
    const isLarge = reply._tag === "Value" || reply._tag === "Page"
    if (isLarge && this.outbox.pendingBytes > this.host.limits.refuseBytes) {
      return this.refuse(id, { _tag: "Overloaded", what: "the connection's queue of answers" })
    }
    writeAnswer(this.outbox.writer, id, reply)
    this.wrote()
  }

  private administered(id: number, reply: AdminReply): void {
    this.inFlight--
    if (this.state !== "open") return
    if (reply._tag === "Refused") return this.refuse(id, reply.refusal)
    writeAdministered(this.outbox.writer, id, reply.result)
    this.wrote()
  }

  private refuse(id: number, refusal: Refusal): void {
    writeAnswer(this.outbox.writer, id, { _tag: "Refused", rangeTime: 0, refusal })
    this.wrote()
  }

  private wrote(): void {
    if (this.outbox.pendingBytes > this.host.limits.outgoingBytesMax) {
      // Its receive window is closed, so it would not get a farewell either.
      return this.drop(tooSlow)
    }
    this.host.willFlush(this)
  }

  /** Sends what has gathered; also called when the socket drains. */
  flush(): void {
    this.flushing = false
    if (this.state === "closed") return
    const pendingBytes = this.outbox.pendingBytes
    const outcome = this.outbox.flush(this.socket)
    if (this.outbox.pendingBytes < pendingBytes) this.sweepsStalled = 0
    if (outcome === "closed") return this.drop("socket closed while writing")
    if (outcome === "flushed" && this.state === "closing" && !this.ended) {
      this.ended = true
      this.socket.end()
      return
    }
    const full = this.outbox.pendingBytes > this.host.limits.pauseBytes
    if (full === this.paused) return
    this.paused = full
    if (full) return this.socket.pause()
    this.socket.resume()
    this.readOn()
    while (!this.paused && this.state === "open") {
      const chunk = this.backlog.shift()
      if (chunk === undefined) return
      this.decoder.push(chunk)
      this.readOn()
    }
  }

  /** Says why, then closes. */
  close(reason: string): void {
    if (this.state === "closing" || this.state === "closed") return
    if (this.state === "hello") return this.turnAway(reason)
    writeClosing(this.outbox.writer, reason)
    this.farewell(reason)
  }

  private turnAway(reason: string): void {
    writeTurnedAway(this.outbox.writer, reason)
    this.farewell(reason)
  }

  private farewell(reason: string): void {
    this.state = "closing"
    this.sweepsInState = 0
    this.host.closed(this, reason)
    this.host.willFlush(this)
  }

  /** Closes without a word. */
  drop(reason: string): void {
    if (this.state === "closed") return
    if (this.state !== "closing") this.host.closed(this, reason)
    this.state = "closed"
    this.socket.terminate()
  }

  /** The socket is gone. */
  gone(): void {
    if (this.state !== "closed" && this.state !== "closing") this.host.closed(this, "")
    this.state = "closed"
  }
}

function callerOf(store: StoreShape, internal: boolean): Caller {
  return {
    get namespaces() {
      return store.namespaces()
    },
    internal,
  }
}

function isScan(request: Admitted): boolean {
  if (request._tag === "Eventual") return request.request._tag === "EventualPage"
  return request._tag === "Scan"
}

/** The page without keys that lack the prefix, and cut where it would get too large for one answer. */
function cutPage(page: PageReply, prefix: Uint8Array, partitioning: "hash" | "ordered"): PageReply {
  const entries: Array<PageEntry> = []
  let sizeBytes = 0
  for (const entry of page.entries) {
    if (!startsWith(keyIn(partitioning, entry.position), prefix)) continue
    sizeBytes += entry.position.length + entry.value.length
    if (sizeBytes > limits.scanPageBytes && entries.length > 0) {
      return { ...page, entries, count: entries.length, next: entry.position }
    }
    entries.push(entry)
  }
  return { ...page, entries, count: entries.length }
}
