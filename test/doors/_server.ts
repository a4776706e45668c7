import { Effect, Layer } from "effect"
import { NativeDoor } from "../../src/doors/native/NativeDoor.ts"
import { Store } from "../../src/server/StoreService.ts"
import { MemoryCluster } from "./memoryCluster.ts"
const cluster = new MemoryCluster([1])
cluster.addresses.set(1, "127.0.0.1:17401")
const layer = NativeDoor.layer({ host: "127.0.0.1", port: 17401 }).pipe(Layer.provide(Layer.succeed(Store, cluster.store(1))))
cluster.applied.push = () => 0
await Effect.runPromise(Layer.launch(layer))
