import { existsSync } from "node:fs"
import { join } from "node:path"

/** RocksDB's db_bench as peers/peers.sh runs it, on this machine and in the same run. */
const script = join(import.meta.dir, "peers/peers.sh")

/** Operations a second by db_bench's name. */
export type RocksDbRates = ReadonlyMap<string, number>

export interface RocksDbAmplification {
  readonly userGb: number
  readonly writtenGb: number
  readonly writeAmplification: number
  readonly spaceMb: number
}

/** Lines of `peers.sh rocksdb`: `rocksdb fillrandom ops/s=247000`. */
export function parseRocksDb(output: string): RocksDbRates {
  const rates = new Map<string, number>()
  for (const match of output.matchAll(/^rocksdb (\w+) ops\/s=([\d.]+)\s*$/gm)) {
    rates.set(match[1] as string, Number(match[2]))
  }
  return rates
}

/** Lines of `peers.sh rocksdb_large`; `undefined` when one is missing. */
export function parseRocksDbLarge(output: string): RocksDbAmplification | undefined {
  const written =
    /^rocksdb user_gb=([\d.]+) flushed_and_compacted_gb=([\d.]+) write_amplification=([\d.]+)\s*$/m.exec(
      output,
    )
  const space = /^rocksdb space_mb=(\d+)\s*$/m.exec(output)
  if (written === null || space === null) return undefined
  const [, userGb, writtenGb, writeAmplification] = written
  return {
    userGb: Number(userGb),
    writtenGb: Number(writtenGb),
    writeAmplification: Number(writeAmplification),
    spaceMb: Number(space[1]),
  }
}

/** Why RocksDB cannot be measured here, with what to do about it; or `undefined`. */
export function missingForRocksDb(): string | undefined {
  if (Bun.which("db_bench") !== null && existsSync("/usr/bin/dpkg")) return undefined
  if (!existsSync("/usr/bin/dpkg") || !existsSync("/usr/bin/apt-get")) {
    return "RocksDB is measured with the Debian package rocksdb-tools: on another system rows have no ratio"
  }
  if (process.getuid?.() === 0) return undefined
  return "RocksDB's db_bench is not installed, so rows have no ratio; as root: apt-get install rocksdb-tools"
}

/** Runs `peers.sh` with RocksDB alone on the machine; throws with its output when it fails. */
export async function runRocksDb(what: "rocksdb" | "rocksdb_large"): Promise<string> {
  const child = Bun.spawn(["bash", script, what], { stdout: "pipe", stderr: "pipe" })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  if (code !== 0) throw new Error(`peers.sh ${what} failed: ${output}${errors}`)
  return output
}
