import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Exit, Layer, Scope } from "effect"
import type { TendingPolicy } from "../../src/admin/Tending.ts"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import * as Node from "../../src/Node.ts"
import { tilingOf } from "../../src/server/directory.ts"
import { StoreFailure } from "../../src/server/Store.ts"
import {
  Control,
  type ControlShape,
  Store,
  type StoreShape,
} from "../../src/server/StoreService.ts"
import type { NodeId, RangeDescriptor } from "../../src/types.ts"
import { freePortBase } from "../processes/Ports.ts"

interface Running {
  readonly scope: Scope.Closeable
  readonly store: StoreShape
  readonly control: ControlShape
  /** Set once the node has stopped by itself. */
  failure: string | undefined
}

const host = "127.0.0.1"

interface JoinedHow {
  readonly place?: number
  readonly standing?: Node.NodeOptions["standing"]
  /** Others reach it at other ports than those that it binds. */
  readonly forwarded?: boolean
}

/** Passes bytes on, both ways. */
class Forwarder {
  target = 0
  private readonly server: Server
  private readonly sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.server = server
    server.on("connection", (inward) => {
      const outward = connect(this.target, host)
      for (const [one, other] of [
        [inward, outward],
        [outward, inward],
      ] as const) {
        this.sockets.add(one)
        one.on("error", () => other.destroy())
        one.on("close", () => other.destroy())
        one.pipe(other)
      }
    })
  }

  static async start(): Promise<Forwarder> {
    const server = createServer()
    await new Promise<void>((done) => server.listen(0, host, done))
    return new Forwarder(server)
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  stop(): void {
    for (const socket of this.sockets) socket.destroy()
    this.server.close()
  }
}

/** Whole nodes in this process: real files, sockets and worker threads. */
export class Nodes {
  readonly root = mkdtempSync(join(tmpdir(), "kvorum-admin-"))
  readonly founders: ReadonlyArray<NodeId>
  private readonly portBase: number
  tending: TendingPolicy | "none"
  private readonly running = new Map<string, Running>()
  private readonly outer = Effect.runSync(Scope.make())
  private nextPort: number
  private readonly forwarders: Array<Forwarder> = []

  /** `tending`: what the nodes see to by themselves; else nothing moves but by order. */
  constructor(founders: number, more = 3, tending: TendingPolicy | "none" = "none") {
    this.tending = tending
    this.founders = Array.from({ length: founders }, (_, i) => i + 1)
    this.portBase = freePortBase(founders + more)
    this.nextPort = founders
  }

  private addresses(place: number) {
    return {
      peer: { host, port: this.portBase + 100 + place },
      client: { host, port: this.portBase + place },
    }
  }

  get endpoints(): ReadonlyArray<string> {
    return this.founders.map((id) => `${host}:${this.addresses(id).client.port}`)
  }

  /** A founder, by its id. */
  async start(id: NodeId): Promise<void> {
    const members = this.founders.map((node) => ({ node, ...this.addresses(node) }))
    const dataDirectory = this.directory(`n${id}`)
    mkdirSync(dataDirectory, { recursive: true })
    const { tending } = this
    const options = { dataDirectory, node: id, members, bindHost: host, tending }
    await this.run(`n${id}`, Node.layer(options))
  }

  async startAll(): Promise<void> {
    await Promise.all(this.founders.map((id) => this.start(id)))
  }

  /** A node that joins with what is in its directory; started again under the same name it has the same addresses. */
  async join(name: string, how: number | JoinedHow = {}): Promise<number> {
    const { tending, endpoints } = this
    const {
      place = ++this.nextPort,
      standing,
      forwarded,
    } = typeof how === "number" ? ({ place: how } as JoinedHow) : how
    const base = { dataDirectory: this.directory(name), endpoints, tending }
    const options = { ...base, ...(standing === undefined ? {} : { standing }) }
    if (forwarded === true) return this.joinForwarded(name, place, options)
    await this.run(name, Node.joinedLayer({ ...options, ...this.addresses(place), bindHost: host }))
    return place
  }

  private async joinForwarded(
    name: string,
    place: number,
    options: Omit<Node.JoinedNodeOptions, "peer" | "client" | "bindHost">,
  ): Promise<number> {
    const [client, peer] = await Promise.all([Forwarder.start(), Forwarder.start()])
    this.forwarders.push(client, peer)
    const { peer: bound, client: boundClient } = this.addresses(place)
    client.target = boundClient.port
    peer.target = bound.port
    const bindPorts = { peer: bound.port, client: boundClient.port }
    const at = { peer: { host, port: peer.port }, client: { host, port: client.port } }
    await this.run(name, Node.joinedLayer({ ...options, ...at, bindHost: host, bindPorts }))
    return place
  }

  private async run(name: string, layer: ReturnType<typeof Node.joinedLayer>): Promise<void> {
    const scope = Effect.runSync(Scope.make())
    const built = Layer.buildWithScope(layer as Layer.Layer<Store | Control | StoreFailure>, scope)
    const context = await Effect.runPromise(built).catch(async (error) => {
      await Effect.runPromise(Scope.close(scope, Exit.void))
      throw error
    })
    const [store, control] = [Context.get(context, Store), Context.get(context, Control)]
    const running: Running = { scope, store, control, failure: undefined }
    this.running.set(name, running)
    Effect.runPromise(Effect.flip(Context.get(context, StoreFailure).failed)).then(
      async ({ message }) => {
        running.failure = message
        await Effect.runPromise(Scope.close(scope, Exit.void))
      },
      () => undefined,
    )
  }

  directory(name: string): string {
    return join(this.root, name)
  }

  node(name: string): Running {
    return this.running.get(name) as Running
  }

  /** Every range, by whoever of those that run knows most: a follower lags behind what was answered. */
  ranges(): ReadonlyArray<RangeDescriptor> {
    const known = [...this.running.values()].flatMap(({ store }) => store.ranges())
    return tilingOf(known.map(({ descriptor }) => descriptor))
  }

  async stop(name: string): Promise<void> {
    const running = this.running.get(name)
    this.running.delete(name)
    if (running !== undefined) await Effect.runPromise(Scope.close(running.scope, Exit.void))
  }

  /** As if the disk had been replaced. */
  wipe(name: string): void {
    rmSync(this.directory(name), { recursive: true, force: true })
  }

  /** `places` = which nodes it knows at first; default the founders. */
  async client(internal = false, places = this.founders): Promise<ClientShape> {
    const endpoints = places.map((place) => `${host}:${this.addresses(place).client.port}`)
    const layer = Client.layer({ endpoints, internal })
    const context = await Effect.runPromise(Layer.buildWithScope(layer, this.outer))
    return Context.get(context, Client)
  }

  async close(): Promise<void> {
    await Effect.runPromise(Scope.close(this.outer, Exit.void))
    await Promise.all([...this.running.keys()].map((name) => this.stop(name)))
    for (const forwarder of this.forwarders) forwarder.stop()
    rmSync(this.root, { recursive: true, force: true })
  }
}

export async function withNodes(
  founders: number,
  body: (nodes: Nodes) => Promise<void>,
  tending: TendingPolicy | "none" = "none",
): Promise<void> {
  const nodes = new Nodes(founders, 3, tending)
  try {
    await nodes.startAll()
    await body(nodes)
  } finally {
    await nodes.close()
  }
}

/** Waits until every founder knows every other by the directory. */
export function founded(nodes: Nodes): Promise<void> {
  return until("every founder knows all of them", () =>
    nodes.founders.every((id) => {
      const directory = nodes.node(`n${id}`).control.directory()
      return directory.founded && directory.nodes.length === nodes.founders.length
    }),
  )
}

/** Waits until it is so; fails by name after `limitMs`, a limit for hanging. */
export async function until(
  name: string,
  condition: () => boolean | Promise<boolean>,
  limitMs = 20_000,
): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`still not so after ${limitMs} ms: ${name}`)
    await Bun.sleep(50)
  }
}
