import { Layer } from "effect"
import { NativeDoor } from "./doors/native/NativeDoor.ts"
import { type StoreOptions, storeLayer } from "./server/Store.ts"

export type NodeOptions = StoreOptions

/**
 * A whole node as a layer: its store and its native door. `kvorum serve` runs one; a program or a test can build one in its own
 * process, several of them too. Building it fails with `NodeFailed` or `ListenFailed`, one line that names what is in the way; later
 * failures come out of `StoreFailure`. Closing the scope stops it; what was acknowledged is on disk.
 */
export const layer = (options: NodeOptions) =>
  NativeDoor.layer({
    host: options.bindHost,
    port: options.members.find((member) => member.node === options.node)?.client.port ?? 0,
  }).pipe(Layer.provideMerge(storeLayer(options)))
