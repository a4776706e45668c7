import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { type Figures, runTask, type Task } from "./engine/Protocol.ts"
import { machineClass, today } from "./Machine.ts"

/**
 * What each cache buys on which workload: point reads of one store with every cache off, with each alone, and with all of them. The data is larger than
 * the caches, which have 16 MiB each.
 */
const mebibyte = 2 ** 20
const budget = 16 * mebibyte
const off = { block: 0, key: 0, row: 0 }
const settings: ReadonlyArray<{ readonly name: string; readonly caches: Record<string, number> }> =
  [
    { name: "none", caches: off },
    { name: "block", caches: { ...off, block: budget } },
    { name: "block, key", caches: { ...off, block: budget, key: budget } },
    { name: "block, row", caches: { ...off, block: budget, row: budget } },
    { name: "all", caches: { block: budget, key: budget, row: budget } },
  ]
const workloads = ["uniform", "zipfian", "scanned"] as const

export interface CacheRow {
  readonly workload: string
  readonly caches: string
  readonly figures: Figures
}

/** Exit code: 0. */
export async function benchCaches(options: { json: boolean; quick: boolean }): Promise<number> {
  const { json, quick } = options
  const folder = mkdtempSync(join(process.env.KVORUM_BENCH_DIR ?? tmpdir(), "kvorum-bench-"))
  const common = { root: join(folder, "store"), keys: quick ? 50_000 : 1_000_000, seed: 1 }
  const rows: Array<CacheRow> = []
  try {
    await runTask({ ...common, run: "fill", seconds: 0 })
    for (const draws of workloads) {
      for (const { name, caches } of settings) {
        const task: Task = { ...common, run: "cachedReads", seconds: quick ? 1 : 5, draws, caches }
        const figures = await runTask(task)
        rows.push({ workload: draws, caches: name, figures })
        console.error(`${draws}, caches ${name}: ${Math.round(figures.reads ?? 0)} reads/s`)
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const head = { date: today(), machine: machineClass(), quick }
  if (json) console.log(JSON.stringify({ ...head, rows }))
  else console.log(`${formatCaches(rows)}\n\n${head.date}, ${head.machine}`)
  return 0
}

/** A Markdown table: a line a setting, a column a workload, each with the rate and the hit rates of the caches that are on. */
export function formatCaches(rows: ReadonlyArray<CacheRow>): string {
  const columns = [...new Set(rows.map(({ workload }) => workload))]
  const lines = [
    `| caches on | ${columns.map((column) => `${column}, reads/s`).join(" | ")} |`,
    `|---|${columns.map(() => "---|").join("")}`,
  ]
  for (const name of new Set(rows.map(({ caches }) => caches))) {
    const cells = columns.map((column) => {
      const row = rows.find(({ caches, workload }) => caches === name && workload === column)
      return row === undefined ? "-" : cell(row.figures)
    })
    lines.push(`| ${name} | ${cells.join(" | ")} |`)
  }
  return lines.join("\n")
}

function cell(figures: Figures): string {
  const hits = (["block", "key", "row"] as const)
    .map((name) => ({ name, share: figures[`${name}HitShare`] ?? 0 }))
    .filter(({ share }) => share > 0)
    .map(({ name, share }) => `${name} ${Math.round(share * 100)} %`)
  const rate = `${Math.round(figures.reads ?? 0)}`
  return hits.length === 0 ? rate : `${rate} (hits: ${hits.join(", ")})`
}
