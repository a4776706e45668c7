import { expect, test } from "bun:test"
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { Effect, Layer, Logger } from "effect"
import { Client } from "../../src/client/Client.ts"
import { text } from "../../src/lib/bytes.ts"
import * as Node from "../../src/Node.ts"
import { endpointsOf, temporaryFolder } from "./Cluster.ts"
import { freePortBase } from "./Ports.ts"

/** A node is a layer: what `kvorum serve` runs can be part of any program's process, several of them too. */
function nodes(options: {
  readonly count: number
  readonly portBase: number
  readonly folder: string
}) {
  const { count, portBase, folder } = options
  const host = "127.0.0.1"
  const members = Array.from({ length: count }, (_, i) => ({
    node: i + 1,
    client: { host, port: portBase + i + 1 },
    peer: { host, port: portBase + i + 101 },
  }))
  const layers = members.map(({ node }) => {
    const dataDirectory = join(folder, `n${node}`)
    mkdirSync(dataDirectory, { recursive: true })
    return Node.layer({ dataDirectory, node, members, bindHost: host })
  })
  // Each has a store of its own, so they are built side by side and not merged.
  return Effect.forEach(layers, (layer) => Layer.build(Layer.fresh(layer)), {
    concurrency: "unbounded",
  })
}

const quiet = Logger.layer([])

test("three nodes and a client in one process keep data from one life to the next", async () => {
  const { path: folder, remove } = temporaryFolder()
  const life = <A, E>(use: Effect.Effect<A, E, Client>) => {
    const portBase = freePortBase(3)
    const endpoints = endpointsOf(portBase, 3).split(",")
    return Effect.gen(function* () {
      yield* nodes({ count: 3, portBase, folder })
      return yield* Effect.provide(use, Client.layer({ endpoints }))
    }).pipe(Effect.scoped, Effect.provide(quiet), Effect.runPromise)
  }
  try {
    const written = await life(
      Effect.gen(function* () {
        const client = yield* Client
        return yield* client.put("default", "greeting", "hello")
      }),
    )
    const found = await life(
      Effect.gen(function* () {
        const client = yield* Client
        return yield* client.get("default", "greeting")
      }),
    )
    expect(found.found && text(found.value)).toBe("hello")
    expect(found.found && found.version).toBe(written.version)
  } finally {
    remove()
  }
}, 60_000)
