import { mkdirSync } from "node:fs"
import { Effect, Layer, Logger } from "effect"
import { Engine } from "../../../src/lsm/engine.ts"
import * as Node from "../../../src/Node.ts"
import { StoreLoop } from "../../../src/server/storeLoop.ts"
import { bunPath, mainPath } from "../../processes/Command.ts"
import { freePortBase } from "../../processes/Ports.ts"
import { LoopLag } from "./Fill.ts"
import { Latencies } from "./latencies.ts"
import type { Figures, Task } from "./Protocol.ts"

/**
 * A node of its own in this process, another process that puts as fast as it can, and how long the node's event loop is held: by whoever it is, and by
 * the engine, as the time that one turn of the store loop, or one job's end, spends in calls of it.
 */
export async function nodeLoop(task: Task): Promise<Figures> {
  mkdirSync(task.root, { recursive: true, mode: 0o700 })
  const portBase = freePortBase(1)
  const host = "127.0.0.1"
  const client = { host, port: portBase + 1 }
  const members = [{ node: 1, client, peer: { host, port: portBase + 101 } }]
  const layer = Node.layer({ dataDirectory: task.root, node: 1, members, bindHost: host })
  const lag = new LoopLag()
  const held = engineTime()
  const measured = Effect.promise(async () => {
    const words = ["bench", "--operation", "put", "--clients", "128", "--json"]
    const place = ["--seconds", `${task.seconds}`, "--endpoints", `${host}:${client.port}`]
    const child = Bun.spawn([bunPath, mainPath, ...words, ...place], {
      stdin: "ignore",
      stdout: "pipe",
      stderr: "inherit",
    })
    lag.start()
    const [output, code] = await Promise.all([new Response(child.stdout).text(), child.exited])
    lag.stop()
    if (code !== 0) throw new Error(`kvorum bench exited with ${code}: ${output}`)
    const figure = JSON.parse(output.trim().split("\n").at(-1) as string)
    return {
      nodePuts: figure.opsPerSecond as number,
      putP99Us: figure.p99Us as number,
      engineP50Us: held.percentile(0.5),
      engineP999Us: held.percentile(0.999),
      engineLongestUs: held.maxUs,
      lagP50Us: lag.lags.percentile(0.5),
      lagP999Us: lag.lags.percentile(0.999),
      lagLongestUs: lag.lags.maxUs,
    }
  })
  return Effect.scoped(Layer.build(layer).pipe(Effect.andThen(measured))).pipe(
    Effect.provide(Logger.layer([])),
    Effect.runPromise,
  )
}

type Call = (...values: Array<unknown>) => unknown

/** Replaces methods of a class by ones that `around` calls. */
function wrap(
  prototype: object,
  names: ReadonlyArray<string>,
  around: (call: () => unknown) => unknown,
) {
  for (const name of names) {
    const plain = Reflect.get(prototype, name) as Call
    Reflect.set(prototype, name, function wrapped(this: unknown, ...values: Array<unknown>) {
      return around(() => plain.apply(this, values))
    })
  }
}

/** Microseconds in the engine for each turn of the store loop and each end of a job that has any. */
function engineTime(): Latencies {
  const held = new Latencies()
  let heldMs = 0
  let isInside = false
  const calls = ["put", "putParts", "delete", "deleteRange", "write", "get", "iterator", "seal"]
  const ends = ["nextJob", "complete", "installed", "abandon", "corrupted", "obsoleteFiles"]
  wrap(Engine.prototype, [...calls, ...ends], (call) => {
    if (isInside) return call()
    isInside = true
    const startedMs = performance.now()
    try {
      return call()
    } finally {
      heldMs += performance.now() - startedMs
      isInside = false
    }
  })
  wrap(StoreLoop.prototype, ["turn", "jobDone"], (call) => {
    heldMs = 0
    try {
      return call()
    } finally {
      if (heldMs > 0) held.record(heldMs * 1000)
    }
  })
  return held
}
