import { Effect, Exit, Layer, Scope } from "effect"
import { Client, type ClientOptions, type ClientShape } from "../../src/client/Client.ts"
import { NativeDoor, type NativeDoorOptions } from "../../src/doors/native/NativeDoor.ts"
import { Store } from "../../src/server/StoreService.ts"
import type { NodeId } from "../../src/types.ts"
import { MemoryCluster } from "./memoryCluster.ts"

/** Doors over a memory cluster on free ports, and clients to them, for as long as a test runs. */
export interface Doors {
  readonly cluster: MemoryCluster
  readonly endpoint: (node: NodeId) => string
  readonly door: (node: NodeId) => typeof NativeDoor.Service
  readonly client: (options?: Partial<ClientOptions>) => Promise<ClientShape>
  /** Closes a node's listener and connections. */
  readonly stop: (node: NodeId) => Promise<void>
  /** Listens again at the same port. */
  readonly start: (node: NodeId) => Promise<void>
}

export async function withDoors(
  options: { readonly nodes: number; readonly door?: Partial<NativeDoorOptions> },
  body: (doors: Doors) => Promise<void>,
): Promise<void> {
  const nodes = Array.from({ length: options.nodes }, (_, i) => i + 1)
  const cluster = new MemoryCluster(nodes)
  const scopes = new Map<NodeId, Scope.Closeable>()
  const doors = new Map<NodeId, typeof NativeDoor.Service>()
  const outer = Effect.runSync(Scope.make())
  const start = async (node: NodeId) => {
    const scope = Effect.runSync(Scope.make())
    const port = Number(cluster.addresses.get(node)?.split(":")[1] ?? 0)
    const layer = NativeDoor.layer({ host: "127.0.0.1", port, ...options.door }).pipe(
      Layer.provide(Layer.succeed(Store, cluster.store(node))),
    )
    const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
    const door = Effect.runSync(Effect.provide(NativeDoor, context))
    scopes.set(node, scope)
    doors.set(node, door)
    cluster.addresses.set(node, `127.0.0.1:${door.address.port}`)
  }
  const stop = async (node: NodeId) => {
    const scope = scopes.get(node)
    scopes.delete(node)
    if (scope !== undefined) await Effect.runPromise(Scope.close(scope, Exit.void))
  }
  try {
    for (const node of nodes) await start(node)
    await body({
      cluster,
      endpoint: (node) => cluster.addresses.get(node) as string,
      door: (node) => doors.get(node) as typeof NativeDoor.Service,
      client: async (clientOptions) => {
        const endpoints = nodes.map((node) => cluster.addresses.get(node) as string)
        const layer = Client.layer({ endpoints, ...clientOptions })
        const context = await Effect.runPromise(Layer.buildWithScope(layer, outer))
        return Effect.runSync(Effect.provide(Client, context))
      },
      start,
      stop,
    })
  } finally {
    await Effect.runPromise(Scope.close(outer, Exit.void))
    for (const node of nodes) await stop(node)
  }
}
