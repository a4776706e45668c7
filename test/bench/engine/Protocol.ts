import { join } from "node:path"
import { bunPath } from "../../processes/Command.ts"

/** One measurement in a process of its own: what it is asked for, and what it answers in one line of JSON. */
export interface Task {
  readonly run: string
  /** The store's directory. */
  readonly root: string
  readonly keys: number
  /** Of a timed run. */
  readonly seconds: number
  readonly seed: number
  /** Budgets of the caches in bytes, by name; 0 = off. */
  readonly caches?: Readonly<Record<string, number>>
  readonly draws?: "uniform" | "zipfian" | "scanned"
}

export type Figures = Readonly<Record<string, number>>

const child = join(import.meta.dir, "Child.ts")

/** Runs a task in a fresh process, so that no heap and no compiled code of another run is in it. */
export async function runTask(task: Task): Promise<Figures> {
  const process = Bun.spawn([bunPath, child, JSON.stringify(task)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  })
  const [output, code] = await Promise.all([new Response(process.stdout).text(), process.exited])
  const line = output.trim().split("\n").at(-1) ?? ""
  if (code !== 0 || line === "") throw new Error(`${task.run} exited with ${code}: ${output}`)
  return JSON.parse(line) as Figures
}

/** Runs a task that never ends until it prints `word`, then kills it outright. */
export async function runUntilKilled(task: Task, word: string): Promise<void> {
  const process = Bun.spawn([bunPath, child, JSON.stringify(task)], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  })
  let output = ""
  for await (const chunk of process.stdout) {
    output += Buffer.from(chunk).toString("utf8")
    if (output.includes(word)) process.kill("SIGKILL")
  }
  await process.exited
  if (!output.includes(word)) throw new Error(`${task.run} ended before it said ${word}: ${output}`)
}
