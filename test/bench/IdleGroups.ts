import { readFileSync } from "node:fs"
import { Effect, ManagedRuntime } from "effect"
import { Client } from "../../src/client/Client.ts"
import { NodeSet, temporaryFolder } from "../processes/Cluster.ts"
import { machineClass, today } from "./Machine.ts"

/**
 * What groups cost that nobody wants anything of: three real nodes with the groups of a new cluster, then with so many more, each time started anew so that
 * nothing of the making is left in their memory. CPU time and resident memory are those of the node that has most.
 */
export interface IdleOptions {
  readonly json: boolean
  readonly groups: number
  readonly seconds: number
}

export interface IdleRow {
  readonly groups: number
  /** Of one core. */
  readonly cpuPercent: number
  readonly residentMebibytes: number
}

/** Until groups sleep, and what starting leaves behind has been collected. */
const settleMs = 20_000
const ticksPerSecond = 100
const pageBytes = 4096
const mebibyte = 1024 * 1024

/** CPU time used so far, in seconds. */
function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

function residentBytesOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/statm`, "latin1").split(" ")[1]) * pageBytes
}

async function measure(nodes: NodeSet, groups: number, seconds: number): Promise<IdleRow> {
  await Bun.sleep(settleMs)
  const pids = nodes.ids.map((id) => nodes.pid(id))
  const before = pids.map(cpuSecondsOf)
  await Bun.sleep(seconds * 1000)
  const used = pids.map((pid, i) => cpuSecondsOf(pid) - (before[i] as number))
  return {
    groups,
    cpuPercent: (Math.max(...used) / seconds) * 100,
    residentMebibytes: Math.max(...pids.map(residentBytesOf)) / mebibyte,
  }
}

async function withClient<A>(
  nodes: NodeSet,
  use: (client: typeof Client.Service) => Effect.Effect<A, unknown>,
): Promise<A> {
  const runtime = ManagedRuntime.make(Client.layer({ endpoints: nodes.endpoints.split(",") }))
  try {
    return await runtime.runPromise(Effect.flatMap(Client, use))
  } finally {
    await runtime.dispose()
  }
}

async function count(nodes: NodeSet): Promise<number> {
  return (await withClient(nodes, (client) => client.ranges())).length
}

export async function benchIdleGroups(options: IdleOptions): Promise<number> {
  const folder = temporaryFolder()
  const nodes = new NodeSet({ nodes: 3, directory: folder.path })
  const rows: Array<IdleRow> = []
  try {
    nodes.startAll()
    await withClient(nodes, (client) => client.put("default", "key", "value"))
    rows.push(await measure(nodes, await count(nodes), options.seconds))
    const args = { name: "idle", ranges: options.groups, partitioning: "hash" }
    await withClient(nodes, (client) =>
      client.admin("namespace.create", args, { deadlineMs: 600_000 }),
    )
    await nodes.stop()
    nodes.startAll()
    await withClient(nodes, (client) => client.put("idle", "key", "value"))
    rows.push(await measure(nodes, await count(nodes), options.seconds))
  } finally {
    await nodes.stop()
    folder.remove()
  }
  report(rows, options.json)
  return 0
}

function report(rows: ReadonlyArray<IdleRow>, json: boolean): void {
  const [few, many] = rows as [IdleRow, IdleRow]
  const more = many.groups - few.groups
  const kibibytesPerGroup = ((many.residentMebibytes - few.residentMebibytes) * 1024) / more
  const addedCpuPercent = many.cpuPercent - few.cpuPercent
  const machine = machineClass()
  if (json) {
    const date = today()
    console.log(JSON.stringify({ date, machine, rows, addedCpuPercent, kibibytesPerGroup }))
    return
  }
  console.log(`${today()}, ${machine}\n`)
  console.log("| groups on each node | CPU, % of a core | resident, MiB |\n|---|---|---|")
  for (const { groups, cpuPercent, residentMebibytes } of rows) {
    console.log(`| ${groups} | ${cpuPercent.toFixed(1)} | ${residentMebibytes.toFixed(0)} |`)
  }
  console.log(
    `\n${more} groups more: ${addedCpuPercent.toFixed(1)} % of a core (goal: ${((3 * more) / 1000).toFixed(1)}), ${kibibytesPerGroup.toFixed(0)} KiB a group (goal: 16)`,
  )
}
