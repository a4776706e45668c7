import type { MonotonicMs } from "../types.ts"
import type { Welcome } from "../wire/native.ts"
import { Connection } from "./Connection.ts"

/** `host:port` (an IPv6 host in brackets), or `undefined` when it is not one. */
export function parseAddress(address: string): { host: string; port: number } | undefined {
  const match = /^(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(address)
  if (match === null) return undefined
  const host = (match[1] as string).replace(/^\[|\]$/g, "")
  const port = Number(match[2])
  return port >= 1 && port <= 65535 ? { host, port } : undefined
}

export interface LinkSettings {
  readonly connectionsPerNode: number
  readonly handshakeTimeoutMs: number
  readonly internal: boolean
  readonly nowMs: () => MonotonicMs
  readonly random: () => number
  /** A string is why this node is not to be talked to. */
  readonly welcomed: (link: NodeLink, welcome: Welcome) => string | undefined
}

/** A node that did not answer is left alone this long at first, and at most. */
const restMsMin = 50
const restMsMax = 1000

/**
 * All connections to one address. It dials when someone wants a connection and none is open; an address that could not be reached
 * rests before the next try, longer each time.
 */
export class NodeLink {
  readonly address: string
  private readonly settings: LinkSettings
  private connections: Array<Connection> = []
  private waiters: Array<(connection: Connection | undefined) => void> = []
  private turn = 0
  private failures = 0
  private restUntil: MonotonicMs = 0
  lastReason = "never tried"

  constructor(address: string, settings: LinkSettings) {
    this.address = address
    this.settings = settings
  }

  /** True while it rests after a failure. */
  get isDown(): boolean {
    return !this.isOpen && this.settings.nowMs() < this.restUntil
  }

  get isOpen(): boolean {
    return this.connections.some((connection) => connection.state === "open")
  }

  /** An open connection, the next in turn, or `undefined`. */
  pick(): Connection | undefined {
    const { connections } = this
    for (let i = 0; i < connections.length; i++) {
      this.turn = (this.turn + 1) % connections.length
      const connection = connections[this.turn] as Connection
      if (connection.state === "open") {
        if (connections.length < this.settings.connectionsPerNode) this.dial()
        return connection
      }
    }
    return undefined
  }

  /** Calls back once, with an open connection as soon as there is one, or `undefined` when there will be none for now. */
  want(
    callback: (connection: Connection | undefined) => void,
    options?: { readonly evenIfResting: boolean },
  ): void {
    const connection = this.pick()
    if (connection !== undefined) return callback(connection)
    if (options?.evenIfResting === true) this.restUntil = 0
    if (this.isDown) return callback(undefined)
    this.waiters.push(callback)
    if (this.connections.length === 0) this.dial()
  }

  private dial(): void {
    const target = parseAddress(this.address)
    if (target === undefined || this.settings.nowMs() < this.restUntil) {
      return this.settle(undefined)
    }
    this.connections.push(
      new Connection({
        address: this.address,
        host: target.host,
        port: target.port,
        handshakeTimeoutMs: this.settings.handshakeTimeoutMs,
        internal: this.settings.internal,
        nowMs: this.settings.nowMs,
        events: {
          opened: (connection, welcome) => {
            const problem = this.settings.welcomed(this, welcome)
            if (problem !== undefined) return problem
            this.failures = 0
            this.restUntil = 0
            this.settle(connection)
            return undefined
          },
          closed: (connection, reason) => this.closed(connection, reason),
        },
      }),
    )
  }

  private closed(connection: Connection, reason: string): void {
    this.lastReason = reason
    this.connections = this.connections.filter((each) => each !== connection)
    const restMs = Math.min(restMsMax, restMsMin * 2 ** this.failures++)
    this.restUntil = this.settings.nowMs() + restMs * (0.5 + this.settings.random() / 2)
    if (this.connections.length === 0) this.settle(undefined)
  }

  private settle(connection: Connection | undefined): void {
    const waiters = this.waiters
    this.waiters = []
    for (const waiter of waiters) waiter(connection)
  }

  close(reason: string): void {
    for (const connection of [...this.connections]) connection.close(reason)
  }
}
