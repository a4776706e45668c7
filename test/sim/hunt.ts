import { eventualMutants } from "./eventual/mutants.ts"
import { runEventualSeed } from "./eventual/world.ts"
import { mutantNamed } from "./mutants/registry.ts"
import { runServerSeed } from "./server/ServerWorld.ts"
import { type Outcome, runSeed } from "./world.ts"

/** Simulators beside the usual one: whole nodes with clients (server/), and eventual mode (eventual/). */
export type Level = "server" | "eventual"

/** Seeds for a worker process to run. */
export interface Task {
  readonly first: number
  readonly count: number
  readonly mutant: string | undefined
  /** Of another simulator than that of strong mode. */
  readonly level?: Level | undefined
}

export interface TaskResult {
  readonly outcomes: ReadonlyArray<Outcome>
  /** User plus system time of the worker so far. */
  readonly cpuSeconds: number
}

/** A worker's whole life: seeds in, outcomes out, until its parent is gone. */
export function serveTasks(): void {
  process.on("disconnect", () => process.exit(0))
  process.on("message", ({ first, count, mutant, level }: Task) => {
    const planted =
      level === "eventual"
        ? eventualMutants.find(({ name }) => name === mutant)
        : mutantNamed(mutant)
    const outcomes: Array<Outcome> = []
    for (let seed = first; seed < first + count; seed++) {
      if (level === "server") outcomes.push(runServerSeed({ seed }))
      else if (level === "eventual") outcomes.push(runEventualSeed({ seed, mutant: planted }))
      else outcomes.push(runSeed({ seed, mutant: planted }))
    }
    const { user, system } = process.cpuUsage()
    const result: TaskResult = { outcomes, cpuSeconds: (user + system) / 1e6 }
    process.send?.(result)
  })
}

interface Worker {
  readonly process: Bun.Subprocess
  cpuSeconds: number
  finish: ((result: TaskResult) => void) | undefined
}

/** Processes that run seeds, each one task at a time. */
export class Workers {
  readonly workers: ReadonlyArray<Worker>

  /** `isLong`: they run so many seeds that the last compiler, which takes a third of the time at first, wins it back. */
  constructor(count: number, options: { readonly isLong?: boolean } = {}) {
    this.workers = Array.from({ length: count }, () => startWorker(options.isLong === true))
  }

  get cpuSeconds(): number {
    return this.workers.reduce((sum, worker) => sum + worker.cpuSeconds, 0)
  }

  async run(worker: number, task: Task): Promise<ReadonlyArray<Outcome>> {
    const target = this.workers[worker] as Worker
    const result = await new Promise<TaskResult>((resolve, reject) => {
      target.finish = resolve
      target.process.exited.then((code) => reject(new Error(`a worker ended with code ${code}`)))
      target.process.send(task)
    })
    target.cpuSeconds = result.cpuSeconds
    return result.outcomes
  }

  stop(): void {
    for (const worker of this.workers) worker.process.kill()
  }
}

function startWorker(isLong: boolean): Worker {
  const worker: Worker = {
    cpuSeconds: 0,
    finish: undefined,
    process: Bun.spawn([process.execPath, `${import.meta.dir}/main.ts`, "--worker"], {
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, ...(isLong ? {} : { BUN_JSC_useFTLJIT: "0" }) },
      ipc: (result: TaskResult) => worker.finish?.(result),
    }),
  }
  return worker
}

export interface HuntOptions {
  readonly first: number
  readonly count: number
  readonly workers: number
  readonly level?: Level | undefined
  readonly found: (outcome: Outcome) => void
}

export interface HuntReport {
  readonly seeds: number
  readonly simulatedHours: number
  readonly cpuMinutes: number
  readonly operations: number
  readonly faults: number
  readonly elections: number
  readonly crashes: number
  readonly splits: number
  readonly merges: number
  readonly tracesRechecked: number
  readonly violations: number
  readonly firstSeed: number
}

const seedsPerTask = 10
/** Of the world simulator, by a worker. */
const longSeeds = 200
/** One seed of so many is run again, in another process. */
const recheckEvery = 100

/** Runs `count` seeds from `first` on; a trace that differs when run again counts as a violation. */
export async function hunt(options: HuntOptions): Promise<HuntReport> {
  const { first, count, level } = options
  const isLong = level !== "server" && count >= longSeeds * options.workers
  const workers = new Workers(options.workers, { isLong })
  const outcomes: Array<Outcome> = []
  let next = first
  let tracesRechecked = 0
  let violations = 0
  const found = (outcome: Outcome) => {
    violations++
    options.found(outcome)
  }
  const recheck = async (worker: number, outcome: Outcome) => {
    const { seed, traceHash } = outcome
    const [again] = await workers.run(worker, { first: seed, count: 1, mutant: undefined, level })
    tracesRechecked++
    if (again?.traceHash === traceHash) return
    const message = `trace ${traceHash}, and ${again?.traceHash} when run again`
    found({ ...outcome, violation: { invariant: "trace", message } })
  }
  /** Outcomes to run again, by the worker that has not run them. */
  const pending = workers.workers.map((): Array<Outcome> => [])
  const serve = async (worker: number) => {
    for (;;) {
      const again = pending[worker]?.shift()
      if (again !== undefined) {
        await recheck(worker, again)
        continue
      }
      if (next >= first + count) return
      const task = {
        first: next,
        count: Math.min(seedsPerTask, first + count - next),
        mutant: undefined,
        level,
      }
      next += task.count
      for (const outcome of await workers.run(worker, task)) {
        outcomes.push(outcome)
        if (outcome.violation !== undefined) found(outcome)
        if ((outcome.seed - first) % recheckEvery !== 0) continue
        pending[(worker + 1) % workers.workers.length]?.push(outcome)
      }
    }
  }
  await Promise.all(workers.workers.map((_, worker) => serve(worker)))
  // What was handed to a worker that had already left off.
  await Promise.all(workers.workers.map((_, worker) => serve(worker)))
  workers.stop()
  const sum = (of: (outcome: Outcome) => number) =>
    outcomes.reduce((total, outcome) => total + of(outcome), 0)
  return {
    seeds: outcomes.length,
    simulatedHours: round(sum((outcome) => outcome.simulatedSeconds) / 3600),
    cpuMinutes: round(workers.cpuSeconds / 60),
    operations: sum((outcome) => outcome.operations),
    faults: sum((outcome) => outcome.faults),
    elections: sum((outcome) => outcome.elections),
    crashes: sum((outcome) => outcome.crashes),
    splits: sum((outcome) => outcome.splits),
    merges: sum((outcome) => outcome.merges),
    tracesRechecked,
    violations,
    firstSeed: first,
  }
}

function round(value: number): number {
  return Math.round(value * 10_000) / 10_000
}

/** A range of seeds that nobody has run before. */
export function freshSeed(): number {
  return Math.floor(Math.random() * 2 ** 40)
}
