import { RoutingTable } from "../../src/client/routes.ts"
import { toHex } from "../../src/lib/bytes.ts"
import { namespaceStart } from "../../src/lib/position.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { Position, RangeDescriptor } from "../../src/types.ts"
import { type FailoverRow, measureFault } from "./Failover.ts"
import { benchJoin, type JoinRow } from "./JoinNode.ts"
import { machineClass, today } from "./Machine.ts"

/** What it costs that ranges change, and that there are many. */
export interface TopologyOptions {
  readonly json: boolean
  readonly rounds: number
  /** Data of the cluster that a node joins; 0 = none does. */
  readonly mebibytes: number
}

interface RoutesRow {
  readonly ranges: number
  readonly lookupUs: number
  readonly mebibytes: number
}

const many = 100_000

/** A table of many ranges as splits make them, a thousand families that have their replicas in common, heard of from the last to the first; and lookups of random positions in it. */
export function benchRoutes(ranges = many): RoutesRow {
  Bun.gc(true)
  const before = process.memoryUsage()
  const table = new RoutingTable()
  const startOf = (i: number): Position => {
    const position = new Uint8Array(8)
    position.set(namespaceStart(1))
    const rest = Math.floor((i / ranges) * 2 ** 32)
    for (let byte = 0; byte < 4; byte++) position[4 + byte] = rest >>> (24 - 8 * byte)
    return position
  }
  for (let i = ranges - 1; i >= 0; i--) {
    const family = Math.floor((i / ranges) * 1000)
    const descriptor: RangeDescriptor = {
      ...{ id: i + 1, namespace: 1, boundsVersion: 1, membersVersion: 1 },
      ...{ start: startOf(i), end: i + 1 < ranges ? startOf(i + 1) : namespaceStart(2) },
      replicas: [1, 2, 3].map((k) => ({
        node: ((family + k) % 100) + 1,
        replica: 3 * family + k,
        role: "voter",
      })),
    }
    table.learn(descriptor)
  }
  Bun.gc(true)
  const after = process.memoryUsage()
  const prng = new Prng(7)
  const wanted = Array.from({ length: 200_000 }, () => startOf(prng.int(0, ranges - 1)))
  for (const position of wanted) table.find(position)
  const beganMs = performance.now()
  let found = 0
  for (const position of wanted) if (table.find(position) !== undefined) found++
  const passedMs = performance.now() - beganMs
  if (found !== wanted.length) throw new Error(`${toHex(wanted[0] as Position)} was not found`)
  const used = after.heapUsed + after.external - before.heapUsed - before.external
  return {
    ranges,
    lookupUs: Math.round((passedMs * 1e6) / wanted.length) / 1000,
    mebibytes: Math.round((used / 2 ** 20) * 10) / 10,
  }
}

export function formatTopology(
  changes: ReadonlyArray<FailoverRow>,
  routes: RoutesRow,
  join?: JoinRow,
): string {
  const lines = [
    "| change under load | samples | writes held up p50 ms | p99 ms | goal ms | failed calls | history |",
    "|---|---|---|---|---|---|---|",
  ]
  for (const row of changes) {
    const history = row.violations === 0 ? "linearizable" : `${row.violations} violations`
    const cells = [row.fault, row.samples, row.p50Ms, row.p99Ms, row.goal, row.failedCalls, history]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  const { ranges, lookupUs, mebibytes } = routes
  lines.push(
    "",
    `A client's table of ${ranges} ranges: ${lookupUs} us a lookup, ${mebibytes} MiB (goals: below 1 us and 32 MiB).`,
  )
  if (join !== undefined) {
    const { movedPercent, calmP99Ms, joiningP99Ms, failedCalls } = join
    lines.push(
      "",
      `A fourth node joins three that hold ${join.mebibytes} MiB each, in ${join.ranges} ranges: it has its share ${join.seconds} s after it is up (goal: 60 for 1,024 MiB), the first replica after ${join.firstMoveSeconds} s; ${movedPercent} % of the bytes were moved (goal: at most 30); clients' p99 ${calmP99Ms} ms before, ${joiningP99Ms} ms meanwhile (goal: at most doubled), ${failedCalls} failed calls.`,
    )
  }
  return lines.join("\n")
}

/** Exit code: 0, or 1 when a history was wrong. */
export async function benchTopology(options: TopologyOptions): Promise<number> {
  const { json, rounds, mebibytes } = options
  const routes = benchRoutes()
  const changes: Array<FailoverRow> = []
  for (const change of rounds === 0 ? [] : (["split", "merge"] as const)) {
    const row = await measureFault(change, { json, rounds, histories: undefined })
    console.error(`${row.fault}: p50 ${row.p50Ms} ms, p99 ${row.p99Ms} ms of ${row.samples}`)
    changes.push(row)
  }
  const join = mebibytes === 0 ? undefined : await benchJoin(mebibytes)
  const date = today()
  const machine = machineClass()
  console.error(`\nRanges that change, three nodes, fsync on; ${date}, ${machine}\n`)
  console.log(
    json
      ? JSON.stringify({ date, machine, changes, routes, join })
      : formatTopology(changes, routes, join),
  )
  return changes.some(({ violations }) => violations > 0) ? 1 : 0
}
