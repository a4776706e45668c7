import { runtimeSettings } from "../../src/cli/Supervisor.ts"
import { type ClusterProcess, startCluster } from "../processes/Cluster.ts"
import { kvorum } from "../processes/Command.ts"
import { machineClass, today } from "./Machine.ts"
import { measureRedis, missingForRedis, type RedisFigure } from "./Peers.ts"
import type { BenchFigure } from "./Strong.ts"

/**
 * Eventual mode beside Redis: three nodes with three copies of each key, fsync on, beside one Redis with one copy and appendfsync always; 256-byte values, 100,000
 * keys, one key a call. Redis pipelines nothing here either. A run of puts counts only if within five seconds of its end no hint is owed and no owners differ.
 */
export interface EventualOptions {
  readonly json: boolean
  readonly putSeconds: number
  readonly getSeconds: number
  readonly withPeers: boolean
}

type Level = "one" | "quorum"

interface Run {
  readonly operation: "put" | "get"
  readonly level: Level
  readonly clients: number
}

export interface EventualRow extends Run {
  readonly figure: BenchFigure
  /** Milliseconds until no hint was owed and no owners differed; `undefined`: not within five seconds, or nothing was written. */
  readonly settledMs: number | undefined
  readonly goal: string
  /** Of what the goal compares with. */
  readonly ratio: number | undefined
}

const nodes = 3
const namespace = "bench"
const settleMs = 5000
const runs: ReadonlyArray<Run> = [
  { operation: "put", level: "one", clients: 128 },
  { operation: "put", level: "quorum", clients: 128 },
  { operation: "put", level: "quorum", clients: 16 },
  { operation: "get", level: "one", clients: 128 },
  { operation: "get", level: "one", clients: 1 },
  { operation: "get", level: "quorum", clients: 128 },
]

interface Measured extends Run {
  readonly figure: BenchFigure
  readonly settledMs: number | undefined
}

/** What a figure is held against, and by how much. */
export function rowOf(
  run: Measured,
  all: ReadonlyArray<Measured>,
  redis: ReadonlyArray<RedisFigure>,
): EventualRow {
  const { operation, level, clients, figure } = run
  const own = (of: Run["operation"]) =>
    all.find((each) => each.operation === of && each.level === "one" && each.clients === 128)
      ?.figure.opsPerSecond
  const peer = redis.find(
    (each) =>
      each.fsync === "always" &&
      each.operation === (operation === "put" ? "set" : "get") &&
      each.clients === clients,
  )?.opsPerSecond
  const [goal, base] =
    operation === "put"
      ? level === "one"
        ? ["0.5x Redis", peer]
        : clients === 128
          ? ["0.8x put one", own("put")]
          : ["p50 < 1 ms", undefined]
      : level === "one"
        ? clients === 128
          ? ["1.0x Redis", peer]
          : ["p50 < 100 us", undefined]
        : ["0.5x get one", own("get")]
  const ratio = base === undefined ? undefined : figure.opsPerSecond / base
  return { ...run, goal: goal as string, ratio }
}

export function formatRows(rows: ReadonlyArray<EventualRow>): string {
  const lines = [
    "| operation | level | clients | ops/s | p50 us | p99 us | failed | ratio | goal | equal everywhere after |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for (const { operation, level, clients, figure, ratio, goal, settledMs } of rows) {
    const { opsPerSecond, p50Us, p99Us, failed } = figure
    const settled = settledMs === undefined ? "not in 5 s" : `${settledMs} ms`
    const cells = [
      ...[operation, level, clients, Math.round(opsPerSecond), p50Us, p99Us, failed],
      ratio === undefined ? "-" : `${ratio.toFixed(2)}x`,
      goal,
      operation === "put" ? settled : "-",
    ]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

async function command(words: ReadonlyArray<string>, cluster: ClusterProcess): Promise<unknown> {
  const { code, stdout, stderr } = await kvorum(
    [...words, "--json", "--endpoints", cluster.endpoints],
    { environment: runtimeSettings },
  )
  if (code !== 0) throw new Error(`kvorum ${words.join(" ")} exited with ${code}: ${stderr}`)
  return JSON.parse(stdout.trim().split("\n").at(-1) as string)
}

/** Until no node owes a hint or knows of a key that differs. */
async function settled(cluster: ClusterProcess): Promise<number | undefined> {
  const began = performance.now()
  while (performance.now() - began < settleMs) {
    const { nodes: all } = (await command(["status"], cluster)) as {
      readonly nodes: ReadonlyArray<{
        readonly eventual: {
          readonly hints: ReadonlyArray<unknown>
          readonly divergence: ReadonlyArray<{
            readonly keys: number
            readonly runsUnknown: number
          }>
        }
      }>
    }
    const isSettled = all.every(
      ({ eventual: { hints, divergence } }) =>
        hints.length === 0 && divergence.every(({ keys, runsUnknown }) => keys + runsUnknown === 0),
    )
    if (isSettled) return Math.round(performance.now() - began)
    await Bun.sleep(100)
  }
  return undefined
}

async function measureKvorum(options: EventualOptions): Promise<ReadonlyArray<Measured>> {
  const cluster = await startCluster({ nodes, ephemeral: true })
  try {
    const made = ["namespace", "create", namespace, "--mode", "eventual", "--conflict", "lww"]
    await command(made, cluster)
    const found: Array<Measured> = []
    for (const run of runs) {
      const { operation, level, clients } = run
      const seconds = operation === "put" ? options.putSeconds : options.getSeconds
      const words = ["bench", "--namespace", namespace, "--operation", operation]
      const load = ["--consistency", level, "--clients", `${clients}`, "--seconds", `${seconds}`]
      const figure = (await command([...words, ...load], cluster)) as BenchFigure
      const settledMs = operation === "put" ? await settled(cluster) : undefined
      found.push({ ...run, figure, settledMs })
      console.error(
        `kvorum ${operation} ${level} clients=${clients} ops/s=${Math.round(figure.opsPerSecond)} p50_us=${figure.p50Us} p99_us=${figure.p99Us} failed=${figure.failed} settled_ms=${settledMs}`,
      )
    }
    return found
  } finally {
    await cluster.stop()
  }
}

/** Exit code: 0, or 3 when Redis cannot be measured here. */
export async function benchEventual(options: EventualOptions): Promise<number> {
  const missing = options.withPeers ? missingForRedis() : undefined
  if (missing !== undefined) {
    console.error(missing)
    return 3
  }
  const measured = await measureKvorum(options)
  const redis = options.withPeers ? await measureRedis() : []
  const rows = measured.map((run) => rowOf(run, measured, redis))
  const head = `${today()}, ${machineClass()}`
  console.error(
    `\nEventual mode, three nodes, three copies, fsync on, 256-byte values, one key a call, beside one Redis with appendfsync always; ${head}\n`,
  )
  for (const { fsync, operation, clients, opsPerSecond, p50Us, p99Us } of redis) {
    console.error(
      `redis fsync=${fsync} ${operation} clients=${clients} ops/s=${opsPerSecond} p50_us=${p50Us} p99_us=${p99Us}`,
    )
  }
  console.log(
    options.json
      ? JSON.stringify({ date: today(), machine: machineClass(), rows, redis })
      : formatRows(rows),
  )
  return 0
}
