import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  amplificationRatios,
  comparedNames,
  formatFigures,
  formatRows,
  fullScale,
  type Name,
  names,
  quickScale,
  rowsOf,
  type Step,
  stepsFor,
} from "./engine/measurements.ts"
import { type Figures, runTask, runUntilKilled } from "./engine/Protocol.ts"
import { machineClass, today } from "./Machine.ts"
import {
  missingForRocksDb,
  parseRocksDb,
  parseRocksDbLarge,
  type RocksDbAmplification,
  runRocksDb,
} from "./RocksDb.ts"

/**
 * The storage engine on its own beside RocksDB: the same keys, values, sizes and order of work as db_bench's, one after the other on this machine in
 * one run. Every measurement is a process of its own.
 */
export interface EngineBenchOptions {
  readonly json: boolean
  readonly quick: boolean
  readonly only: ReadonlyArray<string> | undefined
  readonly withPeers: boolean
}

const seed = 20261122

/** Exit code: 0, or 2 for a name that there is not. */
export async function benchEngine(options: EngineBenchOptions): Promise<number> {
  const unknown = options.only?.find((name) => !(names as ReadonlyArray<string>).includes(name))
  if (unknown !== undefined) {
    console.error(`no measurement is called ${unknown}; there are ${names.join(", ")}`)
    return 2
  }
  const wanted = new Set((options.only ?? names) as ReadonlyArray<Name>)
  const byRun = await runSteps(stepsFor(wanted, options.quick ? quickScale : fullScale))
  const peers = options.withPeers ? await measurePeers(wanted, options.quick) : noPeers
  const merged: Record<string, number> = {}
  for (const figures of byRun.values()) Object.assign(merged, figures)
  const rows = rowsOf(merged, peers.rates)
  const figures = Object.fromEntries(byRun)
  const ratios = amplificationRatios(byRun.get("amplification"), peers.large)
  const head = { date: today(), machine: machineClass(), quick: options.quick }
  if (options.json) {
    // A rate without a peer still has its columns.
    const columns = rows.map(({ peerOpsPerSecond = null, ratio = null, ...row }) => {
      return { ...row, peerOpsPerSecond, ratio }
    })
    const more = { figures, rocksdbLarge: peers.large ?? null, ratios: ratios ?? null }
    console.log(JSON.stringify({ ...head, rows: columns, ...more }))
  } else {
    console.log(formatRows(rows))
    for (const [run, found] of byRun) console.log(formatFigures(run, found))
    if (peers.large !== undefined) console.log(formatFigures("rocksdb_large", { ...peers.large }))
    if (ratios !== undefined) console.log(formatFigures("amplification beside RocksDB", ratios))
    console.log(
      `${head.date}, ${head.machine}${options.quick ? "; --quick: no figures to quote" : ""}`,
    )
  }
  return 0
}

/** The figures of each run. Stores lie in one temporary folder and go as soon as no step needs them. */
async function runSteps(steps: ReadonlyArray<Step>): Promise<ReadonlyMap<string, Figures>> {
  const folder = mkdtempSync(join(process.env.KVORUM_BENCH_DIR ?? tmpdir(), "kvorum-bench-"))
  const figures = new Map<string, Figures>()
  try {
    for (const [i, step] of steps.entries()) {
      const { run, keys, seconds, store, killed } = step
      const task = { run, keys, seconds, seed: seed + 100 * i, root: join(folder, store) }
      if (killed) await runUntilKilled(task, "filled")
      else {
        const found = await runTask(task)
        figures.set(run, found)
        console.error(formatFigures(run, found))
      }
      const last = steps.findLastIndex((other) => other.store === store)
      if (last === i) rmSync(join(folder, store), { recursive: true, force: true })
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return figures
}

interface Peers {
  readonly rates: ReadonlyMap<string, number>
  readonly large: RocksDbAmplification | undefined
}

const noPeers: Peers = { rates: new Map(), large: undefined }

async function measurePeers(wanted: ReadonlySet<Name>, quick: boolean): Promise<Peers> {
  const missing = missingForRocksDb()
  if (missing !== undefined) {
    console.error(missing)
    return noPeers
  }
  if (quick) {
    console.error("--quick: RocksDB is left out, because it would do the full work")
    return noPeers
  }
  const isCompared = comparedNames.some((name) => wanted.has(name))
  const rates = isCompared ? parseRocksDb(await runRocksDb("rocksdb")) : new Map<string, number>()
  const isLarge = wanted.has("amplification")
  const large = isLarge ? parseRocksDbLarge(await runRocksDb("rocksdb_large")) : undefined
  return { rates, large }
}
