/**
 * What `npm run bench -- engine` measures: for each name the runs that give it, in order, each in a process of its own, and how much work they do.
 * Names are those of RocksDB's db_bench where it has them.
 */
export interface Step {
  readonly run: string
  readonly keys: number
  readonly seconds: number
  /** Steps with the same store share a directory, which the last of them removes. */
  readonly store: string
  /** The process is killed once it has filled the store. */
  readonly killed?: boolean
}

export interface Scale {
  readonly keys: number
  readonly seconds: number
  readonly syncKeys: number
  readonly sustainedSeconds: number
  readonly largeKeys: number
  readonly reopenKeys: number
  readonly memoryKeys: number
}

export const fullScale: Scale = {
  keys: 1_000_000,
  seconds: 10,
  syncKeys: 20_000,
  sustainedSeconds: 60,
  largeKeys: 10_000_000,
  // About 10 GB of keys and values.
  reopenKeys: 86_000_000,
  memoryKeys: 100_000_000,
}

/** To see that everything runs; its figures mean nothing. */
export const quickScale: Scale = {
  keys: 50_000,
  seconds: 1,
  syncKeys: 500,
  sustainedSeconds: 2,
  largeKeys: 200_000,
  reopenKeys: 200_000,
  memoryKeys: 200_000,
}

/** Rates that RocksDB has too. */
export const comparedNames = [
  "fillrandom",
  "overwrite",
  "readrandom",
  "readmissing",
  "seekrandom",
  "readseq",
  "fillsync",
] as const

export const names = [
  ...comparedNames,
  "fillsync64",
  "sustained",
  "amplification",
  "reopen",
  "memory",
  "node",
] as const

export type Name = (typeof names)[number]

/** The steps for the names asked for, each once. */
export function stepsFor(wanted: ReadonlySet<Name>, scale: Scale): ReadonlyArray<Step> {
  const { keys, seconds, syncKeys, sustainedSeconds, largeKeys, reopenKeys, memoryKeys } = scale
  const common = { store: "common", keys }
  const steps: Array<Step> = []
  const add = (names: ReadonlyArray<Name>, ...more: ReadonlyArray<Step>) => {
    if (names.some((name) => wanted.has(name))) steps.push(...more)
  }
  const ofCommon = ["fillrandom", "overwrite", "readrandom", "readmissing", "seekrandom", "readseq"]
  add(ofCommon as ReadonlyArray<Name>, { ...common, run: "fill", seconds: 0 })
  add(["readrandom"], { ...common, run: "readRandom", seconds })
  add(["readmissing"], { ...common, run: "readMissing", seconds })
  add(["seekrandom"], { ...common, run: "seekRandom", seconds })
  add(["readseq"], { ...common, run: "readSequential", seconds })
  // The 64 callers are put beside one of our own.
  add(["fillsync", "fillsync64"], { store: "sync", run: "fillSync", keys: syncKeys, seconds: 0 })
  add(["fillsync64"], { store: "sync64", run: "fillSyncGathered", keys: syncKeys, seconds })
  add(["sustained"], {
    store: "sustained",
    run: "sustained",
    keys: largeKeys,
    seconds: sustainedSeconds,
  })
  add(["amplification"], { store: "large", run: "amplification", keys: largeKeys, seconds: 0 })
  add(
    ["reopen"],
    { store: "reopen", run: "fillUntilKilled", keys: reopenKeys, seconds: 0, killed: true },
    { store: "reopen", run: "reopen", keys: reopenKeys, seconds: 0 },
  )
  add(
    ["memory"],
    { store: "memory", run: "fillInOrder", keys: memoryKeys, seconds: 0 },
    { store: "memory", run: "memory", keys: memoryKeys, seconds },
  )
  add(["node"], { store: "node", run: "nodeLoop", keys, seconds: sustainedSeconds })
  return steps
}

export interface Row {
  readonly name: string
  readonly opsPerSecond: number
  readonly peerOpsPerSecond: number | undefined
  readonly ratio: number | undefined
}

/** Rates beside RocksDB's; fillsync64 stands beside our own one caller. */
export function rowsOf(
  figures: Readonly<Record<string, number>>,
  peers: ReadonlyMap<string, number>,
): ReadonlyArray<Row> {
  const rows: Array<Row> = []
  for (const name of [...comparedNames, "fillsync64"]) {
    const opsPerSecond = figures[name]
    if (opsPerSecond === undefined) continue
    const peerOpsPerSecond = name === "fillsync64" ? figures.fillsync : peers.get(name)
    const ratio = peerOpsPerSecond === undefined ? undefined : opsPerSecond / peerOpsPerSecond
    rows.push({ name, opsPerSecond, peerOpsPerSecond, ratio })
  }
  return rows
}

/** Below 1 is better than RocksDB. */
export function amplificationRatios(
  own: Readonly<Record<string, number>> | undefined,
  peer: { readonly writeAmplification: number; readonly spaceMb: number } | undefined,
): { readonly writeRatio: number; readonly spaceRatio: number } | undefined {
  const { writeAmplification, tablesMb } = own ?? {}
  if (peer === undefined || writeAmplification === undefined || tablesMb === undefined) {
    return undefined
  }
  return {
    writeRatio: writeAmplification / peer.writeAmplification,
    spaceRatio: tablesMb / peer.spaceMb,
  }
}

/** A Markdown table, for the README of src/lsm. */
export function formatRows(rows: ReadonlyArray<Row>): string {
  const lines = ["| name | Kvorum ops/s | beside it | ratio |", "|---|---|---|---|"]
  for (const { name, opsPerSecond, peerOpsPerSecond, ratio } of rows) {
    const peer = peerOpsPerSecond === undefined ? "-" : `${Math.round(peerOpsPerSecond)}`
    const whose = name === "fillsync64" ? " (own fillsync)" : peer === "-" ? "" : " (RocksDB)"
    const times = ratio === undefined ? "-" : `${ratio.toFixed(2)}x`
    lines.push(`| ${name} | ${Math.round(opsPerSecond)} | ${peer}${whose} | ${times} |`)
  }
  return lines.join("\n")
}

/** Figures that are no rates, by the name that they were measured for. */
export function formatFigures(name: string, figures: Readonly<Record<string, number>>): string {
  const parts = Object.entries(figures).map(([key, value]) => `${key} ${rounded(value)}`)
  return `${name}: ${parts.join(", ")}`
}

function rounded(value: number): string {
  return Number.isInteger(value) || Math.abs(value) >= 1000
    ? `${Math.round(value)}`
    : value.toFixed(2)
}
