import { afterEach, expect, test } from "bun:test"
import { join } from "node:path"
import { Effect, Layer, Logger, Result } from "effect"
import { Client } from "../../src/client/Client.ts"
import { Output, temporaryFolder } from "./Cluster.ts"
import { bunPath, mainPath, root } from "./Command.ts"
import { freePortBase } from "./Ports.ts"

/** A disk that is full for real: a file system in memory with a size of its own. Mounting it needs root on Linux. */
const canMount = process.platform === "linux" && process.getuid?.() === 0
const title =
  "a full disk refuses puts and nothing else, loses nothing, and takes puts again once there is space, without a restart"

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

/** Returns when the log has said it; fails after two seconds. */
async function said(log: Output, words: string): Promise<void> {
  const endMs = performance.now() + 2000
  while (!log.text.includes(words) && performance.now() < endMs) await Bun.sleep(20)
  expect(log.text).toContain(words)
}

const deadlineMs = 4000

/** Puts until the disk is full; returns the keys that were acknowledged and the error of the first that was not. */
const fill = Effect.gen(function* () {
  const client = yield* Client
  const acknowledged: Array<string> = []
  const value = crypto.getRandomValues(new Uint8Array(64 * 1024))
  const exit = yield* Effect.forEach(
    Array.from({ length: 10_000 }, (_, i) => `key${i}`),
    (key) =>
      client.put("default", key, value, { deadlineMs }).pipe(
        Effect.tap(() => Effect.sync(() => acknowledged.push(key))),
        Effect.asVoid,
      ),
    { concurrency: 8, discard: true },
  ).pipe(Effect.result)
  return { acknowledged, error: Result.isFailure(exit) ? exit.failure : undefined }
})

const missing = (keys: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const client = yield* Client
    const found = yield* Effect.forEach(
      keys,
      (key) => client.get("default", key, { deadlineMs: 20_000 }),
      { concurrency: 8 },
    )
    return found.filter((answer) => !answer.found).length
  })

/** What the node says of itself. */
const stateOf = Effect.gen(function* () {
  const client = yield* Client
  const { nodes } = yield* client.status()
  return nodes.map(({ state }) => state)
})

/** What became of a put. */
const tryPut = (key: string) =>
  Effect.gen(function* () {
    const client = yield* Client
    const result = yield* client
      .put("default", key, new Uint8Array(64 * 1024), { deadlineMs })
      .pipe(Effect.result)
    return Result.isFailure(result) ? result.failure._tag : "ok"
  })

test.skipIf(!canMount)(
  canMount ? title : `${title} (skipped: needs Linux and root, to mount a small file system)`,
  async () => {
    const { path, remove } = temporaryFolder()
    cleanups.push(remove)
    // The reserve, two journal segments that hold data and one that is ready, and a few memtables' worth of tables.
    mount("-o", "size=500m", "kvorum-test", path)
    cleanups.push(() => Bun.spawnSync(["umount", "-l", path]))
    const data = join(path, "data")
    const portBase = freePortBase(1)
    const first = serve(data, portBase)

    const { acknowledged, error } = await asClient(portBase, fill)
    expect(acknowledged.length).toBeGreaterThan(500)
    expect(error?._tag).toBe("DiskFull")
    expect(error?.message).toContain("the disk of n1 is full: free space")

    // The node lives: it refuses puts, and reads and deletes go on.
    const gone = acknowledged.slice(0, 20)
    const kept = acknowledged.slice(20)
    expect(await asClient(portBase, tryPut("another"))).toBe("DiskFull")
    expect(await asClient(portBase, stateOf)).toEqual(["disk full"])
    await said(first.stderr, "the disk is full: puts are refused")
    expect(await asClient(portBase, missing(acknowledged))).toBe(0)
    const deleted = await asClient(
      portBase,
      Effect.gen(function* () {
        const client = yield* Client
        return yield* Effect.forEach(gone, (key) =>
          client.delete("default", key, { deadlineMs: 10_000 }),
        )
      }),
    )
    expect(deleted).toHaveLength(gone.length)

    mount("-o", "remount,size=1g", "kvorum-test", path)
    const freedAtMs = performance.now()
    let outcome = ""
    while (outcome !== "ok" && performance.now() - freedAtMs < 20_000) {
      outcome = await asClient(portBase, tryPut("after"))
      if (outcome !== "ok") expect(outcome).toBe("DiskFull")
    }
    // Within how much time is shown in simulated time, by test/server/diskFull.test.ts.
    expect(outcome).toBe("ok")
    expect(await asClient(portBase, stateOf)).toEqual(["ready"])
    await said(first.stderr, "the disk has room again")
    expect(first.child.exitCode).toBeNull()

    first.child.kill("SIGKILL")
    await first.child.exited
    serve(data, portBase)
    expect(await asClient(portBase, missing([...kept, "after"]))).toBe(0)
    expect(await asClient(portBase, missing(gone))).toBe(gone.length)
  },
  180_000,
)
