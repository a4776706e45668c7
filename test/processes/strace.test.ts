import { afterAll, expect, test } from "bun:test"
import { join } from "node:path"
import { Effect, Layer, Logger } from "effect"
import { Client } from "../../src/client/Client.ts"
import { Output, temporaryFolder, until } from "./Cluster.ts"
import { bunPath, mainPath, root } from "./Command.ts"
import { freePortBase } from "./Ports.ts"

/**
 * The real node over a kernel that fails: `strace` lets one system call of it end in an error, or with a count that is too small, and all others through. What
 * it has acknowledged must be there when it is started again.
 */
const strace = findStrace()
const why = " (SKIPPED: install strace, on Debian `apt-get install strace`; needs Linux)"
const title = (name: string) => (strace === undefined ? `${name}${why}` : name)

/** Where `strace` is; installed when that is possible without asking. */
function findStrace(): string | undefined {
  if (process.platform !== "linux") return undefined
  const found = Bun.which("strace")
  if (found !== null) return found
  if (process.getuid?.() === 0 && Bun.which("apt-get") !== null) {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
    Bun.spawnSync(["apt-get", "install", "-y", "-qq", "strace"], { env, timeout: 60_000 })
  }
  return Bun.which("strace") ?? undefined
}

if (strace === undefined) console.warn(`strace.test.ts is skipped${why}`)

const cleanups: Array<() => unknown> = []
afterAll(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

interface Running {
  readonly child: Bun.Subprocess<"pipe", "pipe", "pipe">
  readonly stdout: Output
  readonly stderr: Output
}

function serve(data: string, portBase: number, before: ReadonlyArray<string> = []): Running {
  const cluster = `1=127.0.0.1:${portBase + 101}`
  const words = ["serve", "--data", data, "--id", "1", "--cluster", cluster, "--stop-with-stdin"]
  const child = Bun.spawn([...before, bunPath, mainPath, ...words], {
    cwd: root,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  })
  cleanups.push(async () => {
    // Under strace the node itself must end, which it does with its stdin.
    child.stdin.end()
    if (before.length > 0) await Promise.race([child.exited, Bun.sleep(5000)])
    child.kill("SIGKILL")
    await child.exited
  })
  return { child, stdout: new Output(child.stdout), stderr: new Output(child.stderr) }
}

function isUp({ stdout, stderr }: Running): Promise<void> {
  return until("the node is up", () => `${stdout.text}${stderr.text}`.includes("is up"))
}

async function stop(running: Running): Promise<void> {
  running.child.stdin.end()
  await running.child.exited
}

/** Runs `use` with a client of the node, without a log. */
function asClient<A, E>(portBase: number, use: Effect.Effect<A, E, Client>): Promise<A> {
  const client = Client.layer({ endpoints: [`127.0.0.1:${portBase + 1}`] })
  return Effect.runPromise(
    use.pipe(Effect.provide(client.pipe(Layer.provideMerge(Logger.layer([]))))),
  )
}

/** Puts until the node is gone; returns the keys that were acknowledged. On a loaded machine one may fail for want of time before. */
function fill(
  prefix: string,
  options: {
    readonly puts: number
    readonly valueBytes: number
    readonly isGone?: () => boolean
  },
) {
  const value = new Uint8Array(options.valueBytes)
  crypto.getRandomValues(value.subarray(0, 65_536))
  const keys = Array.from({ length: options.puts }, (_, i) => `${prefix}${i}`)
  return Effect.gen(function* () {
    const client = yield* Client
    const acknowledged: Array<string> = []
    const put = (key: string) =>
      client.put("default", key, value, { deadlineMs: 1500 }).pipe(
        Effect.tap(() => Effect.sync(() => acknowledged.push(key))),
        Effect.catch((error) => (options.isGone?.() === false ? Effect.void : Effect.fail(error))),
        Effect.asVoid,
      )
    yield* Effect.forEach(keys, put, { concurrency: 8, discard: true }).pipe(Effect.exit)
    return acknowledged
  })
}

const missing = (keys: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const client = yield* Client
    const found = yield* Effect.forEach(
      keys,
      (key) => client.get("default", key, { deadlineMs: 20_000 }),
      { concurrency: 8 },
    )
    return keys.filter((_, i) => !found[i]?.found)
  })

interface Failure {
  readonly name: string
  readonly inject: string
  /** Only calls on these, inside the data directory. */
  readonly paths: ReadonlyArray<string>
  readonly puts: number
  readonly valueBytes: number
  /** A part of the line that it ends with. */
  readonly says: string
}

const numbered = (make: (number: string) => string) =>
  Array.from({ length: 12 }, (_, i) => make(String(i + 1).padStart(8, "0")))
const segments = numbered((number) => `journal/${number}.log`)
const small = { puts: 4000, valueBytes: 100 }
// Several memtables.
const large = { puts: 500, valueBytes: 512 * 1024 }

const failures: ReadonlyArray<Failure> = [
  {
    name: "a sync of the journal",
    inject: "fdatasync:error=EIO:when=6",
    paths: segments,
    ...small,
    says: "io: journal/",
  },
  {
    name: "a write to the journal",
    inject: "pwrite64:error=EIO:when=20",
    paths: segments,
    ...small,
    says: "EIO",
  },
  {
    name: "writes to the journal of which nothing is written",
    inject: "pwrite64:retval=0:when=20+",
    paths: segments,
    ...small,
    says: "journal/",
  },
  {
    name: "the sync of a new segment",
    inject: "fdatasync:error=EIO:when=1",
    paths: numbered((number) => `journal/${number}.log.new`),
    ...large,
    says: "io: journal/",
  },
  {
    name: "the sync of a table",
    inject: "fdatasync:error=EIO:when=1",
    paths: numbered((number) => `engine/${number}.table`),
    ...large,
    says: "io: engine/",
  },
  {
    name: "the sync of the manifest",
    // The first one in a thread may be that of opening.
    inject: "fdatasync:error=EIO:when=2",
    paths: numbered((number) => `engine/${number}.manifest`),
    ...large,
    says: "io: engine/",
  },
  {
    name: "the sync of the engine's folder",
    inject: "fsync:error=EIO:when=2",
    paths: ["engine"],
    ...large,
    says: "io: engine",
  },
]

for (const failure of failures) {
  test.concurrent.skipIf(strace === undefined)(
    title(
      `pitfall 35: a node whose kernel fails ${failure.name} stops with one line, and loses nothing`,
    ),
    async () => {
      const folder = temporaryFolder()
      cleanups.push(folder.remove)
      const data = join(folder.path, "data")
      const portBase = freePortBase(1)
      // What opening an empty directory writes is not meant.
      const first = serve(data, portBase)
      await isUp(first)
      const before = await asClient(portBase, fill("before", { puts: 20, valueBytes: 100 }))
      expect(before).toHaveLength(20)
      await stop(first)

      const trace = join(folder.path, "trace")
      const [call] = failure.inject.split(":") as [string]
      const paths = failure.paths.flatMap((path) => ["-P", join(data, path)])
      const injection = ["-e", `trace=${call}`, "-e", `inject=${failure.inject}`]
      const failing = serve(data, portBase, [
        strace as string,
        ...["-f", "-qq", "-o", trace],
        ...injection,
        ...paths,
      ])
      await isUp(failing)
      const isGone = () => failing.child.exitCode !== null
      const acknowledged = await asClient(portBase, fill("key", { ...failure, isGone }))
      await until("the node ends", () => failing.child.exitCode !== null, 60_000)
      expect(failing.child.exitCode).toBe(1)
      await failing.stderr.done
      const lines = failing.stderr.text.split("\n").filter((line) => line.startsWith("kvorum:"))
      expect(lines, failing.stderr.text).toHaveLength(1)
      expect(lines[0]).toContain(data)
      expect(lines[0]).toContain(failure.says)
      expect(await Bun.file(trace).text()).toContain("(INJECTED)")

      const again = serve(data, portBase)
      await isUp(again)
      expect(await asClient(portBase, missing([...before, ...acknowledged]))).toEqual([])
    },
    120_000,
  )
}
