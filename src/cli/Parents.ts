import { readFileSync } from "node:fs"

/**
 * A watch on the processes that run this one. npm starts a script through a shell, and when npm is killed outright the shell goes on
 * waiting: the change of parent shows one step up, not here. So the whole chain is looked at: the shells above this process, and the
 * first process that is none.
 */
export interface Parent {
  readonly pid: number
  /** The parent's own parent when the watch began. */
  readonly parent: number
}

const shells = new Set(["sh", "dash", "bash", "zsh", "ash", "busybox"])

interface Process {
  readonly name: string
  readonly parent: number
}

/** Fields 2 and 4 of /proc/PID/stat; the name is in parentheses and may hold any character. */
function processOf(pid: number): Process | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1")
    const end = stat.lastIndexOf(")")
    const rest = stat.slice(end + 2).split(" ")
    return { name: stat.slice(stat.indexOf("(") + 1, end), parent: Number(rest[1]) }
  } catch {
    return processByPs(pid)
  }
}

/** Where there is no /proc. */
function processByPs(pid: number): Process | undefined {
  if (process.platform === "linux") return undefined
  const { stdout, success } = Bun.spawnSync(["ps", "-o", "ppid=,comm=", "-p", String(pid)])
  const match = /^\s*(\d+)\s+(.+)$/.exec(stdout.toString().trim())
  if (!success || match === null) return undefined
  return { name: (match[2] as string).split("/").at(-1) as string, parent: Number(match[1]) }
}

/** The chain above this process: shells, then the first that is none. Empty when this process has no parent but init. */
export function parents(): ReadonlyArray<Parent> {
  const chain: Array<Parent> = []
  let pid = process.ppid
  while (pid > 1 && chain.length < 8) {
    const found = processOf(pid)
    if (found === undefined) break
    chain.push({ pid, parent: found.parent })
    if (!shells.has(found.name)) break
    pid = found.parent
  }
  return chain
}

/** False once any process of the chain has gone: the one below it has another parent then. */
export function parentsAlive(chain: ReadonlyArray<Parent>): boolean {
  const first = chain[0]
  if (first === undefined) return true
  if (process.ppid !== first.pid) return false
  for (let i = 0; i < chain.length - 1; i++) {
    const link = chain[i] as Parent
    if (processOf(link.pid)?.parent !== link.parent) return false
  }
  return true
}
