import { Effect, Layer } from "effect"
import * as ControlPlane from "./admin/ControlPlane.ts"
import { type JoiningOptions, joinCluster } from "./admin/Joining.ts"
import type { TendingPolicy } from "./admin/Tending.ts"
import { NativeDoor } from "./doors/native/NativeDoor.ts"
import { type StoreOptions, storeLayer } from "./server/Store.ts"

export interface NodeOptions extends StoreOptions {
  /** What the cluster sees to by itself; default: admin/Tending.ts. */
  readonly tending?: TendingPolicy | "none"
}

/**
 * A whole node as a layer: its store, its native door and its control plane. `kvorum serve` runs one; a program or a test can build one in its own
 * process, several of them too. Building it fails with `NodeFailed` or `ListenFailed`, one line that names what is in the way; later
 * failures come out of `StoreFailure`. Closing the scope stops it; what was acknowledged is on disk.
 */
export const layer = (options: NodeOptions, contacts: ReadonlyArray<string> = []) =>
  ControlPlane.layer({ contacts, tending: options.tending }).pipe(
    Layer.provideMerge(NativeDoor.layer({ host: options.bindHost, port: clientPortOf(options) })),
    Layer.provideMerge(storeLayer(options)),
  )

function clientPortOf({ bindPorts, members, node }: NodeOptions): number {
  return bindPorts?.client ?? members.find((member) => member.node === node)?.client.port ?? 0
}

export interface JoinedNodeOptions
  extends JoiningOptions,
    Pick<NodeOptions, "bindHost" | "bindPorts" | "settings" | "tending"> {}

/** A node of a cluster that runs already: it joins with an empty directory, and goes by its directory from then on. */
export const joinedLayer = (options: JoinedNodeOptions) =>
  Layer.unwrap(
    Effect.map(joinCluster(options), (node) => {
      const { peer, client, endpoints, ...rest } = options
      return layer({ ...rest, node, members: [{ node, peer, client }], joined: true }, endpoints)
    }),
  )
