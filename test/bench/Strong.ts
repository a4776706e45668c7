import { runtimeSettings } from "../../src/cli/Supervisor.ts"
import { type ClusterProcess, startCluster } from "../processes/Cluster.ts"
import { kvorum } from "../processes/Command.ts"
import { machineClass, today } from "./Machine.ts"
import { measureEtcd, missingForEtcd, type PeerFigure } from "./Peers.ts"

/**
 * Strong mode beside etcd: three nodes of each on this machine, one after the other, fsync on, 256-byte values, 100,000 keys, 1, 16 and 128
 * callers over at most 8 connections, one key a call. Puts run long enough for flush and compaction to be inside.
 *
 * etcd has one group and so one leader; here the namespace has four ranges, whose leaders are wherever they were elected. That chance decides more than
 * anything else where three nodes share two cores: spread leaders mean three times the batches, syncs and messages for the same work. So before
 * measuring, all leads are handed to one node, as etcd has it, or with `spread` to each in turn.
 */
export interface StrongOptions {
  readonly json: boolean
  readonly putSeconds: number
  readonly getSeconds: number
  readonly withPeers: boolean
  /** Leaders on all nodes, not on one. */
  readonly spread: boolean
}

/** `get` is linearizable, `local` a get at that level. */
export type Operation = "put" | "get" | "local"

/** What `kvorum bench --json` prints, but for the name of local gets. */
export interface BenchFigure {
  readonly operation: Operation
  readonly clients: number
  readonly seconds: number
  readonly opsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  readonly failed: number
}

const nodes = 3
const runs: ReadonlyArray<readonly [Operation, number]> = [
  ["put", 1],
  ["put", 16],
  ["put", 128],
  ["get", 1],
  ["get", 16],
  ["get", 128],
  ["local", 128],
]
/** How many times etcd's rate is to be reached. */
const goals: Readonly<Record<string, number>> = {
  "put 1": 1.7,
  "put 16": 4,
  "put 128": 5,
  "get 1": 5,
  "get 16": 5,
  "get 128": 5,
}
/** Operations a second that are to be reached, whatever etcd does. */
const rateGoals: Readonly<Record<string, number>> = { "local 128": 100_000 }
/** What etcd calls it. */
const peerOperation = { put: "put", get: "get", local: "sget" } as const

export interface Comparison {
  readonly operation: Operation
  readonly clients: number
  readonly kvorum: BenchFigure
  readonly etcd: PeerFigure | undefined
  readonly ratio: number | undefined
  readonly goal: number | undefined
  readonly rateGoal: number | undefined
}

export function compare(
  figures: ReadonlyArray<BenchFigure>,
  peers: ReadonlyArray<PeerFigure>,
): ReadonlyArray<Comparison> {
  return figures.map((figure) => {
    const { operation, clients } = figure
    const name = peerOperation[operation]
    const etcd = peers.find((peer) => peer.operation === name && peer.clients === clients)
    const ratio = etcd === undefined ? undefined : figure.opsPerSecond / etcd.opsPerSecond
    return {
      operation,
      clients,
      kvorum: figure,
      etcd,
      ratio,
      goal: goals[`${operation} ${clients}`],
      rateGoal: rateGoals[`${operation} ${clients}`],
    }
  })
}

/** A Markdown table, so that it can be put into README as it is. */
export function formatTable(rows: ReadonlyArray<Comparison>): string {
  const lines = [
    "| operation | clients | Kvorum ops/s | p50 us | p99 us | failed | etcd ops/s | p50 us | p99 us | ratio | goal |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for (const { operation, clients, kvorum: own, etcd, ratio, goal, rateGoal } of rows) {
    const cells = [
      operation,
      clients,
      Math.round(own.opsPerSecond),
      own.p50Us,
      own.p99Us,
      own.failed,
      etcd === undefined ? "-" : etcd.opsPerSecond,
      etcd === undefined ? "-" : etcd.p50Us,
      etcd === undefined ? "-" : etcd.p99Us,
      ratio === undefined ? "-" : `${ratio.toFixed(2)}x`,
      goal !== undefined ? `${goal}x` : rateGoal === undefined ? "-" : `${rateGoal} ops/s`,
    ]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

async function measureOne(
  cluster: ClusterProcess,
  operation: Operation,
  clients: number,
  seconds: number,
): Promise<BenchFigure> {
  const what = operation === "local" ? ["get", "--consistency", "local"] : [operation]
  const words = ["bench", "--operation", ...what, "--clients", String(clients), "--json"]
  const place = ["--seconds", String(seconds), "--endpoints", cluster.endpoints]
  const { code, stdout, stderr } = await kvorum([...words, ...place], {
    // As the nodes are run: what loads them takes its processor time from the same cores.
    environment: runtimeSettings,
  })
  if (code !== 0) throw new Error(`kvorum bench exited with ${code}: ${stderr}`)
  const printed = JSON.parse(stdout.trim().split("\n").at(-1) as string) as BenchFigure
  const figure = { ...printed, operation }
  console.error(
    `kvorum ${operation} clients=${clients} ops/s=${Math.round(figure.opsPerSecond)} p50_us=${figure.p50Us} p99_us=${figure.p99Us} failed=${figure.failed}`,
  )
  return figure
}

/** Hands the lead of every range to n1, or to each node in turn. */
async function placeLeaders(cluster: ClusterProcess, spread: boolean): Promise<void> {
  const place = ["--endpoints", cluster.endpoints, "--json"]
  const listed = await kvorum(["range", "list", ...place])
  if (listed.code !== 0) throw new Error(`kvorum range list: ${listed.stderr}`)
  const { ranges } = JSON.parse(listed.stdout.trim().split("\n").at(-1) as string) as {
    readonly ranges: ReadonlyArray<{ readonly id: number }>
  }
  for (const [i, { id }] of ranges.entries()) {
    const to = String(spread ? 1 + (i % nodes) : 1)
    const moved = await kvorum(["range", "transfer", String(id), "--to", to, ...place])
    if (moved.code !== 0) throw new Error(`kvorum range transfer ${id}: ${moved.stderr}`)
  }
}

async function measureKvorum(options: StrongOptions): Promise<ReadonlyArray<BenchFigure>> {
  const cluster = await startCluster({ nodes, ephemeral: true })
  try {
    await placeLeaders(cluster, options.spread)
    const figures: Array<BenchFigure> = []
    for (const [operation, clients] of runs) {
      const seconds = operation === "put" ? options.putSeconds : options.getSeconds
      figures.push(await measureOne(cluster, operation, clients, seconds))
    }
    return figures
  } finally {
    await cluster.stop()
  }
}

/** Exit code: 0, or 3 when the peers cannot be measured here. */
export async function benchStrong(options: StrongOptions): Promise<number> {
  const missing = options.withPeers ? missingForEtcd() : undefined
  if (missing !== undefined) {
    console.error(missing)
    return 3
  }
  const figures = await measureKvorum(options)
  const rows = compare(figures, options.withPeers ? await measureEtcd() : [])
  const head = `${today()}, ${machineClass()}`
  const leaders = options.spread ? "leaders on all nodes" : "all leaders on one node"
  console.error(
    `\nStrong mode, three nodes, ${leaders}, fsync on, 256-byte values, one key a call; ${head}\n`,
  )
  console.log(
    options.json
      ? JSON.stringify({ date: today(), machine: machineClass(), spread: options.spread, rows })
      : formatTable(rows),
  )
  return 0
}
