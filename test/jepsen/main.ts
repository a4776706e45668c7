import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { violationsOf } from "./check.ts"
import { NotExportable, toListAppendEdn, toRegisterEdn, toRwRegisterEdn } from "./exports.ts"
import { fromJsonLines, type HistoryEvent } from "./history.ts"

/**
 * `npm run jepsen -- HISTORY.jsonl [--to DIR]`: checks a recorded history, and writes it in every form that it has for outside checkers. Histories come from
 * `npm run sim -- SEED --history` (its last lines are no events and are left out) and from `npm run bench -- failover --histories DIR`.
 *
 * Exit code 0: linearizable. 1: not, or undecided. 2: usage, or no history.
 */
function usage(problem: string): never {
  console.error(`${problem}\nusage: npm run jepsen -- HISTORY.jsonl [--to DIR]`)
  process.exit(2)
}

function read(path: string): ReadonlyArray<HistoryEvent> {
  try {
    const lines = readFileSync(path, "utf8").split("\n")
    return fromJsonLines(lines.filter((line) => line.startsWith('{"index"')).join("\n"))
  } catch (error) {
    return usage(error instanceof Error ? error.message : String(error))
  }
}

/** A history of lists and registers has each form for the part that fits it. */
function write(events: ReadonlyArray<HistoryEvent>, directory: string): void {
  mkdirSync(directory, { recursive: true })
  const isList = ({ f, process }: HistoryEvent) => f === "txn" || process === "nemesis"
  const lists = events.filter(isList)
  const registers = events.filter(({ f }) => f !== "txn")
  const forms: Array<[string, () => string]> = [
    ["list-append.edn", () => toListAppendEdn(lists)],
    ["rw-register.edn", () => toRwRegisterEdn(registers)],
    ...[...toRegisterEdn(registers)].map(([key, text]): [string, () => string] => [
      `register.${key}.edn`,
      () => text,
    ]),
  ]
  for (const [name, make] of forms) {
    try {
      const text = make()
      if (text !== "") writeFileSync(join(directory, name), text)
    } catch (error) {
      if (!(error instanceof NotExportable)) throw error
      console.error(`${name} is left out: ${error.message}`)
    }
  }
}

const [path, ...rest] = process.argv.slice(2)
if (path === undefined) usage("Which history?")
const directory = rest[0] === "--to" ? rest[1] : undefined
if (rest.length > 0 && (directory === undefined || rest.length > 2)) usage("What is meant?")
const events = read(path)
if (directory !== undefined) write(events, directory)
const violations = violationsOf(events)
for (const line of violations) console.log(line)
console.log(`${events.length} events: ${violations.length === 0 ? "linearizable" : "NOT fine"}`)
process.exitCode = violations.length === 0 ? 0 : 1
