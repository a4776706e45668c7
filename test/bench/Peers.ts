import { existsSync } from "node:fs"
import { join } from "node:path"

/** The peers that Kvorum is put beside, measured by peers/peers.sh on this machine and in the same run. */
const script = join(import.meta.dir, "peers/peers.sh")
const etcdPackages = ["etcd-server", "golang-go", "golang-etcd-server-dev"]

export interface PeerFigure {
  readonly operation: "put" | "get" | "sget"
  readonly clients: number
  readonly opsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
  readonly failed: number
}

/** What a person must do before the peers can be measured here, or `undefined`. */
export function missingForEtcd(): string | undefined {
  return missingPackages("etcd", etcdPackages)
}

function missingPackages(peer: string, names: ReadonlyArray<string>): string | undefined {
  if (!existsSync("/usr/bin/dpkg") || !existsSync("/usr/bin/apt-get")) {
    return `${peer} is measured with the Debian packages ${names.join(" ")}: run this on Debian, as root`
  }
  const missing = names.filter(
    (name) =>
      Bun.spawnSync(["dpkg", "-s", name], { stderr: "ignore", stdout: "ignore" }).exitCode !== 0,
  )
  if (missing.length === 0 || process.getuid?.() === 0) return undefined
  return `${peer} is measured with Debian packages that are not installed; as root: apt-get install ${missing.join(" ")}`
}

/** Lines of peers.sh: `etcd put  clients=16   ops/s=2900  p50_us=5200  p99_us=9100  failed=0`. */
export function parseEtcd(output: string): ReadonlyArray<PeerFigure> {
  const pattern =
    /^etcd (put|get|sget)\s+clients=(\d+)\s+ops\/s=(\d+)\s+p50_us=(\d+)\s+p99_us=(\d+)\s+failed=(\d+)/gm
  return [...output.matchAll(pattern)].map((match) => ({
    operation: match[1] as PeerFigure["operation"],
    clients: Number(match[2]),
    opsPerSecond: Number(match[3]),
    p50Us: Number(match[4]),
    p99Us: Number(match[5]),
    failed: Number(match[6]),
  }))
}

/** Runs etcd alone on the machine; throws with its output when it fails. */
export function measureEtcd(): Promise<ReadonlyArray<PeerFigure>> {
  return measured("etcd", parseEtcd)
}

export interface RedisFigure {
  /** `always`: each write is synced before its answer. */
  readonly fsync: "always" | "off"
  readonly operation: "set" | "get"
  readonly clients: number
  readonly opsPerSecond: number
  readonly p50Us: number
  readonly p99Us: number
}

const redisPackages = ["redis-server", "redis-tools"]

export function missingForRedis(): string | undefined {
  return missingPackages("Redis", redisPackages)
}

/** Lines of peers.sh: `redis fsync=always set clients=16   ops/s=29000  p50_us=520  p99_us=910`. */
export function parseRedis(output: string): ReadonlyArray<RedisFigure> {
  const pattern =
    /^redis fsync=(always|off)\s+(set|get)\s+clients=(\d+)\s+ops\/s=(\d+)\s+p50_us=(\d+)\s+p99_us=(\d+)/gm
  return [...output.matchAll(pattern)].map((match) => ({
    fsync: match[1] as RedisFigure["fsync"],
    operation: match[2] as RedisFigure["operation"],
    clients: Number(match[3]),
    opsPerSecond: Number(match[4]),
    p50Us: Number(match[5]),
    p99Us: Number(match[6]),
  }))
}

/** The same with one Redis. */
export function measureRedis(): Promise<ReadonlyArray<RedisFigure>> {
  return measured("redis", parseRedis)
}

async function measured<A>(
  peer: string,
  parse: (output: string) => ReadonlyArray<A>,
): Promise<ReadonlyArray<A>> {
  const child = Bun.spawn(["bash", script, peer], { stdout: "pipe", stderr: "pipe" })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  const figures = parse(output)
  if (code !== 0 || figures.length === 0)
    throw new Error(`peers.sh ${peer} failed: ${output}${errors}`)
  return figures
}
