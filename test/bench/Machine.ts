import { readFileSync } from "node:fs"
import { cpus, release, totalmem } from "node:os"

/** What a figure needs beside it to mean anything: when, and on what class of machine. */
export function machineClass(): string {
  const model = cpus()[0]?.model.trim() ?? "unknown CPU"
  const gibibytes = Math.round(totalmem() / 2 ** 30)
  return `${cpus().length} cores (${model}), ${gibibytes} GiB, ${distribution()}, kernel ${release()}, Bun ${Bun.version}`
}

function distribution(): string {
  try {
    const match = /^PRETTY_NAME="?([^"\n]+)/m.exec(readFileSync("/etc/os-release", "utf8"))
    return match?.[1] ?? process.platform
  } catch {
    return process.platform
  }
}

export function today(): string {
  return new Date().toISOString().slice(0, 10)
}
