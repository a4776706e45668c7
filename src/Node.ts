import { Effect, Layer } from "effect"
import * as ControlPlane from "./admin/ControlPlane.ts"
import { type JoiningOptions, joinCluster } from "./admin/Joining.ts"
import { NativeDoor } from "./doors/native/NativeDoor.ts"
import { type StoreOptions, storeLayer } from "./server/Store.ts"

export type NodeOptions = StoreOptions

/**
 * A whole node as a layer: its store, its native door and its control plane. `kvorum serve` runs one; a program or a test can build one in its own
 * process, several of them too. Building it fails with `NodeFailed` or `ListenFailed`, one line that names what is in the way; later
 * failures come out of `StoreFailure`. Closing the scope stops it; what was acknowledged is on disk.
 */
export const layer = (options: NodeOptions, contacts: ReadonlyArray<string> = []) =>
  ControlPlane.layer({ contacts }).pipe(
    Layer.provideMerge(
      NativeDoor.layer({
        host: options.bindHost,
        port: options.members.find((member) => member.node === options.node)?.client.port ?? 0,
      }),
    ),
    Layer.provideMerge(storeLayer(options)),
  )

export interface JoinedNodeOptions extends JoiningOptions {
  readonly bindHost: string
  readonly settings?: NodeOptions["settings"]
}

/** A node of a cluster that runs already: it joins with an empty directory, and goes by its directory from then on. */
export const joinedLayer = (options: JoinedNodeOptions) =>
  Layer.unwrap(
    Effect.map(joinCluster(options), (node) => {
      const { dataDirectory, peer, client, bindHost, settings, endpoints, zone, rack } = options
      const domains = {
        ...(zone === undefined ? {} : { zone }),
        ...(rack === undefined ? {} : { rack }),
      }
      const members = [{ node, peer, client }]
      const base = { dataDirectory, node, members, bindHost, joined: true, ...domains }
      return layer(settings === undefined ? base : { ...base, settings }, endpoints)
    }),
  )
