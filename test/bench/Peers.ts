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
  const packages = etcdPackages.join(" ")
  if (!existsSync("/usr/bin/dpkg") || !existsSync("/usr/bin/apt-get")) {
    return `etcd is measured with the Debian packages ${packages}: run this on Debian, as root`
  }
  const missing = etcdPackages.filter(
    (name) =>
      Bun.spawnSync(["dpkg", "-s", name], { stderr: "ignore", stdout: "ignore" }).exitCode !== 0,
  )
  if (missing.length === 0 || process.getuid?.() === 0) return undefined
  return `etcd is measured with Debian packages that are not installed; as root: apt-get install ${missing.join(" ")}`
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
export async function measureEtcd(): Promise<ReadonlyArray<PeerFigure>> {
  const child = Bun.spawn(["bash", script, "etcd"], { stdout: "pipe", stderr: "pipe" })
  const [output, errors, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  const figures = parseEtcd(output)
  if (code !== 0 || figures.length === 0)
    throw new Error(`peers.sh etcd failed: ${output}${errors}`)
  return figures
}
