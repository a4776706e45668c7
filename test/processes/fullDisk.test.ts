import { afterEach, expect, test } from "bun:test"
import { join } from "node:path"
import { Effect, Layer, Logger } from "effect"
import { Client } from "../../src/client/Client.ts"
import { Output, temporaryFolder } from "./Cluster.ts"
import { bunPath, mainPath, root } from "./Command.ts"
import { freePortBase } from "./Ports.ts"

/** A disk that is full for real: a file system in memory with a size of its own. Mounting it needs root on Linux. */
const canMount = process.platform === "linux" && process.getuid?.() === 0
const title = "a full disk stops the node with one line that names its directory, and loses nothing"

const cleanups: Array<() => unknown> = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

function mount(...words: ReadonlyArray<string>): void {
  const { exitCode, stderr } = Bun.spawnSync(["mount", "-t", "tmpfs", ...words])
  if (exitCode !== 0) throw new Error(`mount: ${stderr.toString()}`)
}

function serve(data: string, portBase: number) {
  const cluster = `1=127.0.0.1:${portBase + 101}`
  const words = ["serve", "--data", data, "--id", "1", "--cluster", cluster]
  const child = Bun.spawn([bunPath, mainPath, ...words], {
    cwd: root,
    stdout: "pipe",
    stderr: "pipe",
  })
  cleanups.push(() => {
    child.kill("SIGKILL")
    return child.exited
  })
  return { child, stderr: new Output(child.stderr) }
}

/** Runs `use` with a client of the node, without a log. */
function asClient<A, E>(portBase: number, use: Effect.Effect<A, E, Client>): Promise<A> {
  const client = Client.layer({ endpoints: [`127.0.0.1:${portBase + 1}`] })
  return Effect.runPromise(
    use.pipe(Effect.provide(client.pipe(Layer.provideMerge(Logger.layer([]))))),
  )
}

test.skipIf(!canMount)(
  canMount ? title : `${title} (skipped: needs Linux and root, to mount a small file system)`,
  async () => {
    const { path, remove } = temporaryFolder()
    cleanups.push(remove)
    // Two journal segments, and a little for the engine.
    mount("-o", "size=170m", "kvorum-test", path)
    cleanups.push(() => Bun.spawnSync(["umount", "-l", path]))
    const data = join(path, "data")
    const portBase = freePortBase(1)
    const first = serve(data, portBase)
    const value = new Uint8Array(64 * 1024).fill(7)
    const fill = Effect.gen(function* () {
      const client = yield* Client
      const acknowledged: Array<string> = []
      yield* Effect.forEach(
        Array.from({ length: 3000 }, (_, i) => `key${i}`),
        (key) =>
          client.put("default", key, value, { deadlineMs: 4000 }).pipe(
            Effect.tap(() => Effect.sync(() => acknowledged.push(key))),
            Effect.asVoid,
          ),
        { concurrency: 8, discard: true },
      ).pipe(Effect.exit)
      return acknowledged
    })
    const acknowledged = await asClient(portBase, fill)
    expect(acknowledged.length).toBeGreaterThan(100)
    expect(await first.child.exited).toBe(1)
    await first.stderr.done
    const lines = first.stderr.text.split("\n").filter((line) => line.startsWith("kvorum:"))
    expect(lines).toHaveLength(1)
    expect(lines[0]).toContain(`the disk of ${data} is full`)

    mount("-o", "remount,size=1g", "kvorum-test", path)
    serve(data, portBase)
    const missing = await asClient(
      portBase,
      Effect.gen(function* () {
        const client = yield* Client
        const found = yield* Effect.forEach(
          acknowledged,
          (key) => client.get("default", key, { deadlineMs: 20_000 }),
          { concurrency: 8 },
        )
        return found.filter((answer) => !answer.found).length
      }),
    )
    expect(missing).toBe(0)
  },
  120_000,
)
