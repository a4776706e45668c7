import { cpSync, fsyncSync, openSync, readdirSync, rmSync, statSync } from "node:fs"
import { join } from "node:path"
import { Effect, ManagedRuntime } from "effect"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import type { KvorumError } from "../../src/Errors.ts"
import { startCluster, temporaryFolder } from "../processes/Cluster.ts"
import { kvorum } from "../processes/Command.ts"
import { machineClass, today } from "./Machine.ts"

/**
 * How long a new replica takes to catch up by snapshot: four real nodes, a range of 256-byte values on three of them, and the order to add a replica on the
 * fourth, from when it is given until the replica votes. Once with nobody else about, once while clients put and get in the same range; what the order
 * costs them is in the second row. Beside it stands what copying the data directory of one node takes, with a sync of every file.
 */
export interface SnapshotOptions {
  readonly json: boolean
  readonly mebibytes: number
}

export interface SnapshotRow {
  readonly foreground: boolean
  readonly seconds: number
  readonly mebibytesPerSecond: number
  /** Of puts and gets before and during; 0 without them. */
  readonly p99BeforeMs: number
  readonly p99DuringMs: number
  readonly failed: number
}

const namespace = "snapshot"
const valueBytes = 256
const perBatch = 256
const batchesAtOnce = 6
const foregroundCallers = 4
/** Each caller waits so long between two calls: a node that serves people, not a bench of puts. */
const thinkMs = 4
const quietMs = 5000
const mebibyte = 1024 * 1024

type Call = <A>(use: (client: ClientShape) => Effect.Effect<A, KvorumError>) => Promise<A>

function percentile99(values: ReadonlyArray<number>): number {
  const sorted = [...values].sort((left, right) => left - right)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * 0.99))] ?? 0
}

async function load(call: Call, keys: number): Promise<void> {
  const value = new Uint8Array(valueBytes)
  let next = 0
  const worker = async () => {
    while (next < keys) {
      const first = next
      next += perBatch
      const operations = Array.from({ length: Math.min(perBatch, keys - first) }, (_, i) => {
        crypto.getRandomValues(value)
        return { op: "put", key: `key ${first + i}`, value: value.slice() } as const
      })
      for (let open = operations; open.length > 0; ) {
        const results = await call((client) => client.batch(namespace, open))
        open = open.filter((_, i) => results[i]?.ok !== true)
      }
    }
  }
  await Promise.all(Array.from({ length: batchesAtOnce }, worker))
}

/** Clients that put and get until they are stopped. */
class Foreground {
  failed = 0
  private latenciesMs: Array<number> = []
  private over = false
  private readonly callers: Promise<unknown>

  constructor(call: Call, keys: number) {
    const caller = async () => {
      for (let i = 0; !this.over; i++) {
        const key = `key ${Math.floor(Math.random() * keys)}`
        const begunMs = performance.now()
        const made =
          i % 2 === 0
            ? call((client) => client.put(namespace, key, new Uint8Array(valueBytes)))
            : call((client) => client.get(namespace, key))
        await made.catch(() => this.failed++)
        this.latenciesMs.push(performance.now() - begunMs)
        await Bun.sleep(thinkMs)
      }
    }
    this.callers = Promise.all(Array.from({ length: foregroundCallers }, caller))
  }

  /** Of the calls since the last time. */
  takeP99Ms(): number {
    const p99 = percentile99(this.latenciesMs)
    this.latenciesMs = []
    return p99
  }

  async stop(): Promise<void> {
    this.over = true
    await this.callers
  }
}

interface Place {
  readonly range: number
  /** A node without a replica of it. */
  readonly node: number
}

async function placeOf(call: Call, nodes: ReadonlyArray<number>): Promise<Place> {
  const [all, reports] = await Promise.all([
    call((client) => client.namespaces()),
    call((client) => client.ranges()),
  ])
  const id = all.find(({ name }) => name === namespace)?.id
  const descriptor = reports.find((report) => report.descriptor.namespace === id)?.descriptor
  const node = nodes.find((each) => descriptor?.replicas.every((place) => place.node !== each))
  if (descriptor === undefined || node === undefined) throw new Error("no place for a replica")
  return { range: descriptor.id, node }
}

async function catchUp(
  call: Call,
  { range, node }: Place,
  options: { readonly mebibytes: number; readonly keys: number; readonly foreground: boolean },
): Promise<SnapshotRow> {
  const clients = options.foreground ? new Foreground(call, options.keys) : undefined
  if (clients !== undefined) await Bun.sleep(quietMs)
  const p99BeforeMs = clients?.takeP99Ms() ?? 0
  const begunMs = performance.now()
  await call((client) =>
    client.admin("range.addReplica", { range, on: node }, { deadlineMs: 600_000 }),
  )
  const seconds = (performance.now() - begunMs) / 1000
  const p99DuringMs = clients?.takeP99Ms() ?? 0
  await clients?.stop()
  await call((client) =>
    client.admin("range.removeReplica", { range, on: node }, { deadlineMs: 60_000 }),
  )
  const mebibytesPerSecond = options.mebibytes / seconds
  const failed = clients?.failed ?? 0
  const { foreground } = options
  return { foreground, seconds, mebibytesPerSecond, p99BeforeMs, p99DuringMs, failed }
}

function filesOf(directory: string): ReadonlyArray<string> {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
}

/** MiB a second of `cp` and a sync of each file, for the tables of a node. */
function copyRate(from: string, to: string): number {
  const begunMs = performance.now()
  cpSync(from, to, { recursive: true })
  let bytes = 0
  for (const path of filesOf(to)) {
    const file = openSync(path, "r+")
    fsyncSync(file)
    bytes += statSync(path).size
  }
  const seconds = (performance.now() - begunMs) / 1000
  rmSync(to, { recursive: true })
  return bytes / mebibyte / seconds
}

async function measure(options: SnapshotOptions) {
  const folder = temporaryFolder()
  const data = join(folder.path, "data")
  const cluster = await startCluster({ nodes: 4, data })
  const endpoints = cluster.endpoints.split(",")
  const runtime = ManagedRuntime.make(Client.layer({ endpoints, deadlineMs: 30_000 }))
  const call: Call = (use) => runtime.runPromise(Effect.flatMap(Client, use))
  try {
    const make = ["namespace", "create", namespace, "--endpoints", cluster.endpoints]
    const made = await kvorum(make)
    if (made.code !== 0) throw new Error(`kvorum namespace create: ${made.stderr}`)
    const keys = (options.mebibytes * mebibyte) / valueBytes
    const { mebibytes } = options
    await load(call, keys)
    const place = await placeOf(call, [1, 2, 3, 4])
    const rows: Array<SnapshotRow> = []
    for (const foreground of [false, true]) {
      // What the load left to be flushed and merged is not the snapshot's to pay for.
      await Bun.sleep(quietMs)
      const row = await catchUp(call, place, { mebibytes, keys, foreground })
      console.error(formatSnapshot([row]))
      rows.push(row)
    }
    const whole = [1, 2, 3, 4].filter((id) => id !== place.node).map((id) => join(data, `n${id}`))
    return { rows, copied: copyRate(whole[0] as string, join(folder.path, "copy")) }
  } finally {
    await runtime.dispose()
    await cluster.stop()
    folder.remove()
  }
}

/** A Markdown table, so that it can be put into README as it is. */
export function formatSnapshot(rows: ReadonlyArray<SnapshotRow>): string {
  const lines = [
    "| clients | seconds | MiB/s | p99 ms before | p99 ms during | failed calls |",
    "|---|---|---|---|---|---|",
  ]
  for (const row of rows) {
    const cells = [
      row.foreground ? foregroundCallers : "none",
      row.seconds.toFixed(1),
      row.mebibytesPerSecond.toFixed(1),
      row.foreground ? row.p99BeforeMs.toFixed(1) : "-",
      row.foreground ? row.p99DuringMs.toFixed(1) : "-",
      row.failed,
    ]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

/** Exit code: 0, or 1 when a call failed. */
export async function benchSnapshot(options: SnapshotOptions): Promise<number> {
  const { rows, copied } = await measure(options)
  console.error(
    `\nA replica that catches up with ${options.mebibytes} MiB of ${valueBytes}-byte values by snapshot; copying and syncing a node's directory: ${copied.toFixed(1)} MiB/s; ${today()}, ${machineClass()}\n`,
  )
  console.log(
    options.json
      ? JSON.stringify({ date: today(), machine: machineClass(), copied, rows })
      : formatSnapshot(rows),
  )
  return rows.some(({ failed }) => failed > 0) ? 1 : 0
}
