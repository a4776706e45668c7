import { type ClusterProcess, startCluster } from "../processes/Cluster.ts"
import { kvorum } from "../processes/Command.ts"
import { machineClass, today } from "./Machine.ts"
import { measureEtcd, missingForEtcd, type PeerFigure } from "./Peers.ts"

/**
 * Strong mode beside etcd: three nodes of each on this machine, one after the other, fsync on, 256-byte values, 100,000 keys, 1, 16 and 128
 * callers over at most 8 connections. Puts run long enough for flush and compaction to be inside.
 */
export interface StrongOptions {
  readonly json: boolean
  readonly putSeconds: number
  readonly getSeconds: number
  readonly withPeers: boolean
}

/** What `kvorum bench --json` prints. */
export interface BenchFigure {
  readonly operation: "put" | "get"
  readonly clients: number
  readonly seconds: number
  readonly opsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  readonly failed: number
}

const clientCounts = [1, 16, 128]
/** How many times etcd's rate is to be reached. */
const goals: Readonly<Record<string, number>> = {
  "put 1": 1.7,
  "put 16": 4,
  "put 128": 5,
  "get 1": 5,
  "get 16": 5,
  "get 128": 5,
}

export interface Comparison {
  readonly operation: "put" | "get"
  readonly clients: number
  readonly kvorum: BenchFigure
  readonly etcd: PeerFigure | undefined
  readonly ratio: number | undefined
  readonly goal: number | undefined
}

export function compare(
  figures: ReadonlyArray<BenchFigure>,
  peers: ReadonlyArray<PeerFigure>,
): ReadonlyArray<Comparison> {
  return figures.map((figure) => {
    const { operation, clients } = figure
    const etcd = peers.find((peer) => peer.operation === operation && peer.clients === clients)
    const ratio = etcd === undefined ? undefined : figure.opsPerSecond / etcd.opsPerSecond
    return {
      operation,
      clients,
      kvorum: figure,
      etcd,
      ratio,
      goal: goals[`${operation} ${clients}`],
    }
  })
}

/** A Markdown table, so that it can be put into README as it is. */
export function formatTable(rows: ReadonlyArray<Comparison>): string {
  const lines = [
    "| operation | clients | Kvorum ops/s | p50 us | p99 us | failed | etcd ops/s | p50 us | p99 us | ratio | goal |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
  ]
  for (const { operation, clients, kvorum: own, etcd, ratio, goal } of rows) {
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
      goal === undefined ? "-" : `${goal}x`,
    ]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

async function measureOne(
  cluster: ClusterProcess,
  operation: "put" | "get",
  clients: number,
  seconds: number,
): Promise<BenchFigure> {
  const words = ["bench", "--operation", operation, "--clients", String(clients), "--json"]
  const place = ["--seconds", String(seconds), "--endpoints", cluster.endpoints]
  const { code, stdout, stderr } = await kvorum([...words, ...place])
  if (code !== 0) throw new Error(`kvorum bench exited with ${code}: ${stderr}`)
  const figure = JSON.parse(stdout.trim().split("\n").at(-1) as string) as BenchFigure
  console.error(
    `kvorum ${operation} clients=${clients} ops/s=${Math.round(figure.opsPerSecond)} p50_us=${figure.p50Us} p99_us=${figure.p99Us} failed=${figure.failed}`,
  )
  return figure
}

async function measureKvorum(options: StrongOptions): Promise<ReadonlyArray<BenchFigure>> {
  const cluster = await startCluster({ nodes: 3, ephemeral: true })
  try {
    const figures: Array<BenchFigure> = []
    for (const operation of ["put", "get"] as const) {
      const seconds = operation === "put" ? options.putSeconds : options.getSeconds
      for (const clients of clientCounts) {
        figures.push(await measureOne(cluster, operation, clients, seconds))
      }
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
  console.error(`\nStrong mode, three nodes, fsync on, 256-byte values; ${head}\n`)
  console.log(
    options.json
      ? JSON.stringify({ date: today(), machine: machineClass(), rows })
      : formatTable(rows),
  )
  return 0
}
