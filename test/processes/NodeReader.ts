import { Connection, type Waiting } from "../../src/client/Connection.ts"
import { compareBytes, utf8 } from "../../src/lib/bytes.ts"
import { hashPosition } from "../../src/lib/position.ts"
import type { Answer, ClosingNotice, RangeReport } from "../../src/wire/answers.ts"
import type { WireRequest } from "../../src/wire/native.ts"

/**
 * Reads what one node itself holds, over one connection to its native door. The client would choose among replicas; this asks
 * exactly the node it was given, at level `local`.
 */
type Answered = Exclude<Answer, ClosingNotice>

export class NodeReader {
  private readonly connection: Connection
  private ranges: ReadonlyArray<RangeReport> = []

  private constructor(connection: Connection) {
    this.connection = connection
  }

  static async open(endpoint: string): Promise<NodeReader> {
    const [host, port] = endpoint.split(":") as [string, string]
    const connection = await new Promise<Connection>((resolve, reject) => {
      new Connection({
        address: endpoint,
        host,
        port: Number(port),
        handshakeTimeoutMs: 5000,
        internal: false,
        nowMs: () => performance.now(),
        events: {
          opened: (opened) => {
            resolve(opened)
            return undefined
          },
          closed: (_, reason) => reject(new Error(`${endpoint}: ${reason}`)),
        },
      })
    })
    const reader = new NodeReader(connection)
    await reader.reports()
    return reader
  }

  private ask(request: WireRequest): Promise<Answered> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { answered: resolve, lost: (reason) => reject(new Error(reason)) }
      if (!this.connection.send(request, waiting)) reject(new Error("the connection is full"))
    })
  }

  /** Every range as this node sees it. */
  async reports(): Promise<ReadonlyArray<RangeReport>> {
    const answer = await this.ask({ _tag: "AskRoutes", id: 0 })
    if (answer._tag !== "Routes") throw new Error(`asked for routes, got ${answer._tag}`)
    this.ranges = answer.routes.ranges
    return this.ranges
  }

  /** What this node has applied of a key of namespace `default`. */
  async get(
    key: string,
  ): Promise<{ readonly value: Uint8Array | undefined; readonly version: number }> {
    const position = hashPosition(1, utf8(key))
    const route = this.ranges.find(
      ({ descriptor: { start, end } }) =>
        compareBytes(start, position) <= 0 && (end.length === 0 || compareBytes(position, end) < 0),
    )
    if (route === undefined) throw new Error(`no range holds ${key}`)
    const { id: range, boundsVersion } = route.descriptor
    const answer = await this.ask({
      _tag: "Get",
      id: 0,
      range,
      deadlineMs: 5000,
      level: "local",
      maxStalenessMs: 0,
      atLeast: 0,
      anyReplica: false,
      boundsVersion,
      position,
    })
    if (answer._tag !== "Value") throw new Error(`get ${key}: ${JSON.stringify(answer)}`)
    return { value: answer.value?.slice(), version: answer.version }
  }

  close(): void {
    this.connection.close("done")
  }
}
