import { mkdirSync } from "node:fs"
import { Effect, Layer, Logger } from "effect"
import * as Node from "../../../src/Node.ts"
import { bunPath, mainPath } from "../../processes/Command.ts"
import { freePortBase } from "../../processes/Ports.ts"
import { LoopLag } from "./Fill.ts"
import type { Figures, Task } from "./Protocol.ts"

/**
 * A node of its own in this process, another process that puts as fast as it can, and how long the node's event loop is held, whoever holds it: an
 * upper bound of what the engine holds it.
 */
export async function nodeLoop(task: Task): Promise<Figures> {
  mkdirSync(task.root, { recursive: true, mode: 0o700 })
  const portBase = freePortBase(1)
  const host = "127.0.0.1"
  const client = { host, port: portBase + 1 }
  const members = [{ node: 1, client, peer: { host, port: portBase + 101 } }]
  const layer = Node.layer({ dataDirectory: task.root, node: 1, members, bindHost: host })
  const lag = new LoopLag()
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
