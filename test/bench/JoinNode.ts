import { Effect, ManagedRuntime } from "effect"
import { measuresOf } from "../../src/admin/Reports.ts"
import { Client, type ClientShape } from "../../src/client/Client.ts"
import { Prng } from "../../src/lib/prng.ts"
import { NodeSet, temporaryFolder } from "../processes/Cluster.ts"

/**
 * A fourth node joins a loaded cluster of three: for how long it takes until it has its share, without anybody's order, what that costs the clients meanwhile, and how much of the data was
 * moved. The nodes, the clients and the fourth node share the machine.
 */
export interface JoinRow {
  readonly mebibytes: number
  readonly ranges: number
  /** From the moment when the node is up. */
  readonly firstMoveSeconds: number
  readonly seconds: number
  /** Of all replicas' bytes, those that were copied. */
  readonly movedPercent: number
  readonly calmP99Ms: number
  readonly joiningP99Ms: number
  readonly failedCalls: number
}

const valueBytes = 4096
const writersAtOnce = 32
/** Foreground while it is measured: a rate that three nodes on two cores bear without being full. */
const callersAtOnce = 8
const pauseMs = 10
const calmSeconds = 20
/** Balanced, and so for so long. */
const restSeconds = 12
const limitSeconds = 600

export async function benchJoin(mebibytes: number): Promise<JoinRow> {
  const folder = temporaryFolder()
  const nodes = new NodeSet({ nodes: 3, directory: folder.path, more: 1 })
  nodes.startAll()
  const endpoints = nodes.endpoints.split(",")
  const runtime = ManagedRuntime.make(Client.layer({ endpoints, deadlineMs: 30_000 }))
  try {
    const client = await runtime.runPromise(Effect.map(Client, (each) => each))
    const run = <A, E>(work: Effect.Effect<A, E>) => runtime.runPromise(work)
    const keys = Math.round((mebibytes * 2 ** 20) / valueBytes)
    await load(client, run, keys)
    console.error(`${mebibytes} MiB are loaded`)
    // Splits of what has grown, and flushes.
    await Bun.sleep(15_000)
    const calls = new Calls(client, run, keys)
    calls.start()
    await Bun.sleep(calmSeconds * 1000)
    const calmP99Ms = calls.take()
    const before = await placesOf(client, run)
    const joined = await nodes.join()
    const beganMs = performance.now()
    let firstMs: number | undefined
    let lastMs = beganMs
    let count = 0
    for (;;) {
      await Bun.sleep(250)
      const nowMs = performance.now()
      const present = [...(await placesOf(client, run)).values()].filter(
        ({ node }) => node === joined,
      )
      if (present.length !== count) {
        count = present.length
        firstMs ??= nowMs
        lastMs = nowMs
      }
      const isResting = firstMs !== undefined && nowMs - lastMs > restSeconds * 1000
      if (isResting || nowMs - beganMs > limitSeconds * 1000) break
    }
    const joiningP99Ms = calls.take()
    await calls.stop()
    const after = await placesOf(client, run)
    let moved = 0
    let total = 0
    for (const [place, { bytes }] of after) {
      total += bytes
      if (!before.has(place)) moved += bytes
    }
    const tenths = (value: number) => Math.round(value * 10) / 10
    return {
      mebibytes,
      ranges: new Set([...after.values()].map(({ range }) => range)).size,
      firstMoveSeconds: tenths(((firstMs ?? lastMs) - beganMs) / 1000),
      seconds: tenths((lastMs - beganMs) / 1000),
      movedPercent: tenths((100 * moved) / Math.max(1, total)),
      calmP99Ms: tenths(calmP99Ms),
      joiningP99Ms: tenths(joiningP99Ms),
      failedCalls: calls.failed,
    }
  } finally {
    await runtime.dispose()
    await nodes.stop()
    folder.remove()
  }
}

type Run = <A, E>(work: Effect.Effect<A, E>) => Promise<A>

const keyOf = (i: number) => `key:${String(i).padStart(8, "0")}`

function load(client: ClientShape, run: Run, keys: number): Promise<void> {
  const prng = new Prng(1)
  const value = new Uint8Array(valueBytes)
  for (let i = 0; i < value.length; i++) value[i] = prng.int(0, 255)
  return run(
    Effect.forEach(
      Array.from({ length: keys }, (_, i) => i),
      (i) => client.put("default", keyOf(i), value),
      { concurrency: writersAtOnce, discard: true },
    ),
  )
}

interface Place {
  readonly range: number
  readonly node: number
  readonly bytes: number
}

/** Each replica by the beginning of its range and its node, with about its bytes. A range that is cut meanwhile has its new half where it was. */
async function placesOf(client: ClientShape, run: Run): Promise<ReadonlyMap<string, Place>> {
  const reports = await run(client.ranges())
  const { nodes } = await run(client.status())
  const measures = await run(
    measuresOf(
      client,
      nodes.map(({ id }) => id),
    ),
  )
  const places = new Map<string, Place>()
  for (const { descriptor } of reports) {
    for (const { node, role } of descriptor.replicas) {
      if (role !== "voter") continue
      const range = descriptor.id
      places.set(`${range} ${node}`, { range, node, bytes: measures.get(range)?.bytes ?? 0 })
    }
  }
  return places
}

/** Reads and writes, one in four, of random keys. */
class Calls {
  failed = 0
  private latencies: Array<number> = []
  private isOver = false
  private running: Promise<unknown> = Promise.resolve()
  private readonly client: ClientShape
  private readonly run: Run
  private readonly keys: number

  constructor(client: ClientShape, run: Run, keys: number) {
    this.client = client
    this.run = run
    this.keys = keys
  }

  start(): void {
    this.running = Promise.all(Array.from({ length: callersAtOnce }, (_, i) => this.caller(i)))
  }

  private async caller(seed: number): Promise<void> {
    const prng = new Prng(100 + seed)
    const value = new Uint8Array(valueBytes)
    while (!this.isOver) {
      const key = keyOf(prng.int(0, this.keys - 1))
      const call = prng.chance(0.25)
        ? Effect.asVoid(this.client.put("default", key, value))
        : Effect.asVoid(this.client.get("default", key))
      const beganMs = performance.now()
      const result = await this.run(Effect.result(call))
      this.latencies.push(performance.now() - beganMs)
      if (result._tag === "Failure") this.failed++
      await Bun.sleep(pauseMs)
    }
  }

  /** The 99th percentile since the last call. */
  take(): number {
    const sorted = this.latencies.sort((left, right) => left - right)
    this.latencies = []
    return sorted[Math.floor(sorted.length * 0.99)] ?? 0
  }

  async stop(): Promise<void> {
    this.isOver = true
    await this.running
  }
}
