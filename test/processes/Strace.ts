import { until } from "./Cluster.ts"

let found: string | undefined
let looked = false

/** Where `strace` is; installed when that is possible without asking. */
export function findStrace(): string | undefined {
  if (looked) return found
  looked = true
  if (process.platform !== "linux") return undefined
  found = Bun.which("strace") ?? undefined
  if (found === undefined && process.getuid?.() === 0 && Bun.which("apt-get") !== null) {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" }
    Bun.spawnSync(["apt-get", "install", "-y", "-qq", "strace"], { env, timeout: 60_000 })
    found = Bun.which("strace") ?? undefined
  }
  return found
}

export interface Injection {
  readonly stop: () => Promise<void>
}

/** From now on system calls of a running process, in all its threads, are tampered with as `inject` says (strace(1)). */
export function injectInto(pid: number, inject: string): Injection {
  const [call] = inject.split(":") as [string]
  const words = ["-f", "-qq", "-o", "/dev/null", "-p", String(pid)]
  const rules = ["-e", `trace=${call}`, "-e", `inject=${inject}`]
  const child = Bun.spawn([findStrace() as string, ...words, ...rules], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  })
  return {
    stop: async () => {
      child.kill("SIGINT")
      await until("strace lets go", () => child.exitCode !== null || child.signalCode !== null)
    },
  }
}
