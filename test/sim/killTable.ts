import { readFileSync, writeFileSync } from "node:fs"
import { type KillRecord, kills } from "./kills.ts"
import type { Mutant } from "./mutants/mutant.ts"

/** One mutant's part of the report that `npm run mutants -- --json` prints. */
export interface Kill {
  readonly mutant: string
  readonly seed: number | undefined
  readonly seedsTried: number
  readonly invariant: string | undefined
}

const begin = "<!-- kills: begin -->"
const end = "<!-- kills: end -->"

/**
 * Writes what a search has found beside what earlier ones did: into kills.ts, from which the tests take their seeds, and as a table into README.md.
 */
export function writeKills(mutants: ReadonlyArray<Mutant>, found: ReadonlyArray<Kill>): void {
  const records = new Map(Object.entries(kills))
  for (const { mutant, seed, seedsTried, invariant } of found) {
    records.set(mutant, { seed, seedsTried, invariant })
  }
  const present = mutants.flatMap((mutant) => {
    const record = records.get(mutant.name)
    return record === undefined ? [] : [{ mutant, record }]
  })
  const lines = present.map(({ mutant, record }) => `  ${mutant.name}: ${literalOf(record)},`)
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
  const readme = `${import.meta.dir}/README.md`
  const text = readFileSync(readme, "utf8")
  const [before, rest] = text.split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error("README.md has no kill table")
  const rows = present.map(({ mutant, record }) => rowOf(mutant, record))
  const killed = present.filter(({ record }) => record.seed !== undefined).length
  const table = [
    `${killed} of ${present.length} killed by blind search.`,
    "",
    "| mutant | what is wrong | killed by seed | seeds tried | invariant |",
    "|---|---|---|---|---|",
    ...rows,
  ]
  writeFileSync(readme, `${before}${begin}\n${table.join("\n")}\n${end}${after}`)
}

function literalOf({ seed, seedsTried, invariant }: KillRecord): string {
  const name = invariant === undefined ? "undefined" : JSON.stringify(invariant)
  return `{ seed: ${seed}, seedsTried: ${seedsTried}, invariant: ${name} }`
}

function rowOf({ name, title }: Mutant, { seed, seedsTried, invariant }: KillRecord): string {
  return `| ${name} | ${title} | ${seed ?? "survives"} | ${seedsTried} | ${invariant ?? ""} |`
}
