import { readFileSync, writeFileSync } from "node:fs"
import { eventualMutants } from "./eventual/mutants.ts"
import { type KillRecord, kills } from "./kills.ts"
import type { Mutant } from "./mutants/mutant.ts"
import { mutants } from "./mutants/registry.ts"

/** One mutant's part of the report that `npm run mutants -- --json` prints. */
export interface Kill {
  readonly mutant: string
  readonly seed: number | undefined
  readonly seedsTried: number
  readonly invariant: string | undefined
}

/** Each has a table of its own in README.md, between two comments of this name. */
const tables: ReadonlyArray<{ readonly name: string; readonly mutants: ReadonlyArray<Mutant> }> = [
  { name: "kills", mutants },
  { name: "eventual kills", mutants: eventualMutants },
]

/**
 * Writes what a search has found beside what earlier ones did: into kills.ts, from which the tests take their seeds, and as tables into README.md.
 */
export function writeKills(found: ReadonlyArray<Kill>): void {
  const records = new Map(Object.entries(kills))
  for (const { mutant, seed, seedsTried, invariant } of found) {
    records.set(mutant, { seed, seedsTried, invariant })
  }
  const lines: Array<string> = []
  const readme = `${import.meta.dir}/README.md`
  let text = readFileSync(readme, "utf8")
  for (const { name, mutants: own } of tables) {
    const present = own.flatMap((mutant) => {
      const record = records.get(mutant.name)
      return record === undefined ? [] : [{ mutant, record }]
    })
    for (const { mutant, record } of present) lines.push(`  ${mutant.name}: ${literalOf(record)},`)
    text = withTable(text, name, present)
  }
  writeFileSync(readme, text)
  writeFileSync(
    `${import.meta.dir}/kills.ts`,
    `/** What the last search for a seed that kills a mutant came to. */
export interface KillRecord {
  /** \`undefined\`: it survived. */
  readonly seed: number | undefined
  readonly seedsTried: number
  readonly invariant: string | undefined
}

/** Written by \`npm run mutants\`, which searches blind; to be found anew when the simulator draws differently. */
export const kills: Readonly<Record<string, KillRecord>> = {
${lines.join("\n")}
}
`,
  )
}

function withTable(
  text: string,
  name: string,
  present: ReadonlyArray<{ readonly mutant: Mutant; readonly record: KillRecord }>,
): string {
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`]
  const [before, rest] = text.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`README.md has no ${name}`)
  const rows = present.map(({ mutant, record }) => rowOf(mutant, record))
  const killed = present.filter(({ record }) => record.seed !== undefined).length
  const table = [
    `${killed} of ${present.length} killed by blind search.`,
    "",
    "| mutant | what is wrong | killed by seed | seeds tried | invariant |",
    "|---|---|---|---|---|",
    ...rows,
  ]
  return `${before}${begin}\n${table.join("\n")}\n${end}${after}`
}

function literalOf({ seed, seedsTried, invariant }: KillRecord): string {
  const name = invariant === undefined ? "undefined" : JSON.stringify(invariant)
  return `{ seed: ${seed}, seedsTried: ${seedsTried}, invariant: ${name} }`
}

function rowOf({ name, title }: Mutant, { seed, seedsTried, invariant }: KillRecord): string {
  return `| ${name} | ${title} | ${seed ?? "survives"} | ${seedsTried} | ${invariant ?? ""} |`
}
