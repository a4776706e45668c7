import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { toJsonLines } from "../jepsen/history.ts"
import {
  FaultCluster,
  type FaultName,
  faultNames,
  faultProblem,
  needsProxy,
  strike,
} from "../processes/Faults.ts"
import { machineClass, today } from "./Machine.ts"

/**
 * For how long nothing can be written when a node fails: three real nodes under load, a fault of each kind again and again, and of each range that the
 * struck node led the longest time between two writes that succeeded. A killed follower counts against every range.
 */
export interface FailoverOptions {
  readonly json: boolean
  readonly rounds: number
  /** Where to keep what clients saw; nowhere when not given. */
  readonly histories: string | undefined
}

export interface FailoverRow {
  readonly fault: string
  readonly samples: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly goal: string
  readonly failedCalls: number
  readonly violations: number
}

const goals: Readonly<Record<FaultName, string>> = {
  killed: "p50 500, p99 1500",
  paused: "2000",
  mute: "3000",
  deaf: "3000",
  stalled: "3000",
  follower: "no error",
  split: "50, no error",
  merge: "200, no error",
}

/** The value below which that share of them lies, the largest of all for a share near 1. */
function percentile(sorted: ReadonlyArray<number>, share: number): number {
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
}

/** Strikes again and again, and gathers what came of it. */
export async function measureFault(
  fault: FaultName,
  options: FailoverOptions,
): Promise<FailoverRow> {
  const { rounds, histories } = options
  const gapsMs: Array<number> = []
  let failedCalls = 0
  let violations = 0
  const cluster = await FaultCluster.open({ behindProxy: needsProxy(fault) })
  try {
    for (let round = 0; round < rounds; round++) {
      const result = await strike(cluster, fault, { lastsMs: 1500, seed: 1 + round })
      gapsMs.push(...result.gapsMs)
      if (histories !== undefined) {
        mkdirSync(histories, { recursive: true })
        writeFileSync(join(histories, `${fault}-${round}.jsonl`), toJsonLines(result.history))
      }
      for (const count of result.errors.values()) failedCalls += count
      for (const line of result.violations) console.error(`${fault}: ${line}`)
      violations += result.violations.length
    }
  } finally {
    await cluster.close()
  }
  gapsMs.sort((left, right) => left - right)
  return {
    fault: faultNames[fault],
    samples: gapsMs.length,
    p50Ms: percentile(gapsMs, 0.5),
    p99Ms: percentile(gapsMs, 0.99),
    goal: goals[fault],
    failedCalls,
    violations,
  }
}

/** A Markdown table, so that it can be put into README as it is. */
export function formatFailover(rows: ReadonlyArray<FailoverRow>): string {
  const lines = [
    "| fault | samples | write gap p50 ms | p99 ms | goal ms | failed calls | history |",
    "|---|---|---|---|---|---|---|",
  ]
  for (const row of rows) {
    const history = row.violations === 0 ? "linearizable" : `${row.violations} violations`
    const cells = [row.fault, row.samples, row.p50Ms, row.p99Ms, row.goal, row.failedCalls, history]
    lines.push(`| ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

/** Exit code: 0, or 1 when a history was wrong. */
export async function benchFailover(options: FailoverOptions): Promise<number> {
  const rows: Array<FailoverRow> = []
  for (const fault of Object.keys(faultNames) as Array<FaultName>) {
    const problem = faultProblem(fault)
    if (problem !== undefined) {
      console.error(`${faultNames[fault]}: ${problem}`)
      continue
    }
    const row = await measureFault(fault, options)
    console.error(`${row.fault}: p50 ${row.p50Ms} ms, p99 ${row.p99Ms} ms of ${row.samples}`)
    rows.push(row)
  }
  const head = `${today()}, ${machineClass()}`
  console.error(`\nTime without writes in a range, three nodes, fsync on; ${head}\n`)
  console.log(
    options.json
      ? JSON.stringify({ date: today(), machine: machineClass(), rows })
      : formatFailover(rows),
  )
  return rows.some(({ violations }) => violations > 0) ? 1 : 0
}
