import { connect, createServer, type Server, type Socket } from "node:net"
import { framePrefixBytes } from "../../src/wire/frames.ts"
import { readPeerHello } from "../../src/wire/peer.ts"

/**
 * Stands between nodes, so that a test can cut one direction of the way between two of them: what node a sends to node b then vanishes, on
 * connections of either, old and new, while nothing is closed and the other direction works. So it looks to both when a switch or a
 * firewall drops packets; no rights are needed.
 *
 * Node i believes that node j lives at 127.0.1.j, where this listens, and binds 127.0.0.1 itself. Who dials says so in its hello.
 */
export function proxyHost(node: number): string {
  return `127.0.1.${node}`
}

export class PeerProxy {
  private readonly servers: Array<Server> = []
  private readonly sockets = new Set<Socket>()
  private readonly cuts = new Set<string>()
  /** Bytes that vanished: a cut that cut nothing proves nothing. */
  swallowedBytes = 0

  /** Stands before `nodes`, whose client and peer ports are those of `portBase`. */
  async open(nodes: ReadonlyArray<number>, portBase: number): Promise<void> {
    for (const node of nodes) {
      await this.listen(node, portBase + node, false)
      await this.listen(node, portBase + 100 + node, true)
    }
  }

  private listen(node: number, port: number, isPeer: boolean): Promise<void> {
    const server = createServer({ noDelay: true }, (dialer) => {
      const target = connect({ host: "127.0.0.1", port, noDelay: true })
      this.join(dialer, target, isPeer ? new Pair(node) : undefined)
    })
    this.servers.push(server)
    return new Promise((resolve, reject) => {
      server.once("error", reject)
      server.listen({ host: proxyHost(node), port }, resolve)
    })
  }

  private join(dialer: Socket, target: Socket, pair: Pair | undefined): void {
    for (const [from, to, direction] of [
      [dialer, target, "out"],
      [target, dialer, "back"],
    ] as const) {
      this.sockets.add(from)
      from.on("data", (bytes: Buffer) => {
        if (direction === "out") pair?.hear(bytes)
        const way = pair?.way(direction)
        if (way !== undefined && this.cuts.has(way)) this.swallowedBytes += bytes.length
        else if (!to.write(bytes)) {
          from.pause()
          to.once("drain", () => from.resume())
        }
      })
      from.on("error", () => to.destroy())
      from.on("close", () => {
        this.sockets.delete(from)
        to.destroy()
      })
    }
  }

  /** Nothing from `from` reaches `to` any more. */
  cut(from: number, to: number): void {
    this.cuts.add(`${from} ${to}`)
  }

  heal(): void {
    this.cuts.clear()
    // What was swallowed can't be made up for: as after a long cut, every connection that lost bytes must begin anew.
    for (const socket of this.sockets) socket.destroy()
  }

  close(): void {
    for (const server of this.servers) server.close()
    for (const socket of this.sockets) socket.destroy()
  }
}

/** Who is at the ends of one connection, known once the dialer has said hello. */
class Pair {
  private readonly target: number
  private dialer: number | undefined
  private hello: Uint8Array = new Uint8Array(0)

  constructor(target: number) {
    this.target = target
  }

  hear(bytes: Uint8Array): void {
    if (this.dialer !== undefined) return
    this.hello = Buffer.concat([this.hello, bytes])
    if (this.hello.length < framePrefixBytes) return
    const view = new DataView(this.hello.buffer, this.hello.byteOffset)
    const end = framePrefixBytes + view.getUint32(0, true)
    if (this.hello.length < end) return
    const hello = readPeerHello(this.hello.subarray(framePrefixBytes, end))
    if (typeof hello !== "string") this.dialer = hello.node
  }

  way(direction: "out" | "back"): string | undefined {
    if (this.dialer === undefined) return undefined
    return direction === "out" ? `${this.dialer} ${this.target}` : `${this.target} ${this.dialer}`
  }
}
