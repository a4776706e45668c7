/**
 * `npm run sim -- SEED [--mutant A] [--trace] [--history]` replays one seed: prints what came of it and the hash of its trace.
 * `npm run sim -- --hunt N [--from S] [--workers W] [--json]` runs N seeds.
 * `--server` with either: seeds of the server simulator (server/ServerWorld.ts), which has no mutants. `--eventual`: of the simulator of eventual mode (eventual/world.ts).
 * Exit code 0: no violation. 1: a violation, with the command that replays it. 2: usage.
 */
import { parseArgs } from "node:util"
import { eventualMutants } from "./eventual/mutants.ts"
import { EventualWorld } from "./eventual/world.ts"
import { freshSeed, hunt, type Level, serveTasks } from "./hunt.ts"
import { mutantNamed } from "./mutants/registry.ts"
import { ServerWorld } from "./server/ServerWorld.ts"
import { World } from "./world.ts"

function usage(message: string): never {
  console.error(message)
  console.error("usage: npm run sim -- SEED [--mutant A] [--trace] [--history]")
  console.error("       npm run sim -- --hunt N [--from S] [--workers W] [--json]")
  console.error("       npm run sim -- --server SEED [--trace] [--history]")
  console.error("       npm run sim -- --server --hunt N [--from S] [--workers W] [--json]")
  console.error("       npm run sim -- --eventual SEED [--mutant EA] [--trace]")
  console.error("       npm run sim -- --eventual --hunt N [--from S] [--workers W] [--json]")
  process.exit(2)
}

function number(text: string, what: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 0) return value
  return usage(`${what} ${text} is not a whole number from 0 to 2^53 - 1`)
}

function replay(
  seed: number,
  options: { mutant?: string; trace?: boolean; history?: boolean; level: Level | undefined },
): number {
  const { level } = options
  const mutant =
    level === "eventual"
      ? eventualMutants.find(({ name }) => name === options.mutant)
      : mutantNamed(options.mutant)
  if (options.mutant !== undefined && mutant === undefined) return usage("there is no such mutant")
  if (level === "server" && mutant !== undefined) return usage("--server has no mutants")
  const write = options.trace ? (line: string) => console.log(line) : undefined
  const world =
    level === "server"
      ? new ServerWorld({ seed, ...(write && { write }) })
      : level === "eventual"
        ? new EventualWorld({ seed, mutant, ...(write && { write }) })
        : new World({ seed, mutant, ...(write && { write }) })
  const outcome = world.run()
  if (options.history) {
    if (world instanceof EventualWorld) return usage("--eventual has no history")
    console.log(world.workload?.history.jsonLines())
  }
  const { violation, traceHash, ...counts } = outcome
  console.log(JSON.stringify({ ...counts, ...world.describe() }))
  console.log(`trace ${traceHash}`)
  if (violation === undefined) {
    console.log(`seed ${seed}: no violation`)
    return 0
  }
  console.log(`seed ${seed}: violation of ${violation.invariant}: ${violation.message}`)
  console.log(
    `replay: npm run sim -- ${flagOf(level)}${seed}${mutant === undefined ? "" : ` --mutant ${mutant.name}`}`,
  )
  return 1
}

function flagOf(level: Level | undefined): string {
  return level === undefined ? "" : `--${level} `
}

async function main(): Promise<number> {
  const { values, positionals } = parse()
  const level =
    values.server === true ? "server" : values.eventual === true ? "eventual" : undefined
  if (values.worker) {
    serveTasks()
    return new Promise(() => {})
  }
  if (values.hunt === undefined) {
    const [seed] = positionals
    if (seed === undefined || positionals.length > 1) return usage("one seed, or --hunt")
    return replay(number(seed, "seed"), { ...values, level } as Parameters<typeof replay>[1])
  }
  const count = number(values.hunt, "--hunt")
  const first = values.from === undefined ? freshSeed() : number(values.from, "--from")
  const workers = number(values.workers ?? "2", "--workers")
  console.error(`${count} seeds from ${first}`)
  const report = await hunt({
    first,
    count,
    workers,
    level,
    found: ({ seed, violation }) => {
      console.error(`seed ${seed}: violation of ${violation?.invariant}: ${violation?.message}`)
      console.error(`replay: npm run sim -- ${flagOf(level)}${seed}`)
    },
  })
  if (values.json) console.log(JSON.stringify(report))
  else for (const [name, value] of Object.entries(report)) console.log(`${name} ${value}`)
  return report.violations === 0 ? 0 : 1
}

function parse() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        mutant: { type: "string" },
        trace: { type: "boolean" },
        history: { type: "boolean" },
        hunt: { type: "string" },
        from: { type: "string" },
        workers: { type: "string" },
        json: { type: "boolean" },
        server: { type: "boolean" },
        eventual: { type: "boolean" },
        worker: { type: "boolean" },
      },
    })
  } catch (error) {
    return usage(error instanceof Error ? error.message : `${error}`)
  }
}

if (import.meta.main) process.exit(await main())
