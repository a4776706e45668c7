import { Effect } from "effect"
import type { ClientShape } from "./Api.ts"
import { Caller, toBytes } from "./Caller.ts"
import type { ClientCore } from "./ClientCore.ts"
import { Eventual } from "./eventual/Eventual.ts"
import { Reads } from "./Reads.ts"
import { Scans } from "./Scans.ts"
import { Views } from "./Views.ts"
import { Writes } from "./Writes.ts"

/** The client's operations as Effects over the core. */
export function facade(core: ClientCore, deadlineMs: number): ClientShape {
  const caller = new Caller(core, deadlineMs)
  const reads = new Reads(caller)
  const scans = new Scans(caller)
  const writes = new Writes(caller)
  const views = new Views(caller)
  const eventual = new Eventual(caller, core.eventual)
  return {
    get: (namespace, key, options) => reads.get(namespace, toBytes(key), options),
    put: (namespace, key, value, options) => writes.put(namespace, key, value, options),
    delete: (namespace, key, options) => writes.delete(namespace, key, options),
    add: (namespace, key, delta, options) => writes.add(namespace, key, delta, options),
    compareAndSet: (namespace, key, options) => writes.compareAndSet(namespace, key, options),
    batch: (namespace, operations, options) => writes.batch(namespace, operations, options),
    atomicBatch: (namespace, operations, options) =>
      writes.atomicBatch(namespace, operations, options),
    session: caller.session,
    scanPage: (namespace, options) => scans.scanPage(namespace, options ?? {}),
    scan: (namespace, options) => scans.scan(namespace, options ?? {}),
    count: (namespace, options) => scans.count(namespace, options ?? {}),
    eventual: eventual.client,
    namespace: (name) =>
      caller.withinAny(name, undefined, ({ namespace }) => Effect.succeed(namespace)),
    namespaces: () => views.namespaces(),
    ranges: () => views.ranges(),
    status: () => views.status(),
    admin: (verb, args, options) => views.admin(verb, args, options),
    changeRange: (range, change, options) => views.changeRange(range, change, options),
  }
}
