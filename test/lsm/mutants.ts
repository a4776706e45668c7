import { spawn } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { type EngineMutant, engineMutants } from "./mutantsList.ts"

export interface EngineKill {
  readonly mutant: string
  /** The test that noticed and, where it draws, its seed; `undefined` = the mutant survives. */
  readonly killedBy: string | undefined
  readonly detail: string
}

const root = resolve(import.meta.dir, "../..")
/** Those that draw, in the order in which they are tried. */
const killers = ["metamorphic", "crashSweep", "storeSweep", "bitFlips", "fuzz"]
/** What is tried when no harness notices. */
const namedTests = [
  "codecs",
  "caches",
  "compression",
  "maintenance",
  "damage",
  "tableDamage",
  "engine",
]
const timeoutMs = 90_000

/** A copy of what the harnesses need, to plant mutants in. */
export class MutantTree {
  /** The file in which the mutant is, without it. */
  private healthy = ""
  private readonly directory = mkdtempSync(join(tmpdir(), "kvorum-mutants-"))

  constructor() {
    for (const name of ["src", "test", "package.json", "tsconfig.json"]) {
      cpSync(join(root, name), join(this.directory, name), { recursive: true })
    }
    symlinkSync(join(root, "node_modules"), join(this.directory, "node_modules"))
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }

  plant(mutant: EngineMutant): void {
    const path = join(this.directory, mutant.file)
    this.healthy = readFileSync(path, "utf8")
    writeFileSync(path, mutated(mutant, this.healthy))
  }

  heal(mutant: EngineMutant): void {
    writeFileSync(join(this.directory, mutant.file), this.healthy)
  }

  /** Runs one harness with one seed. */
  async try(killer: string, seed: number): Promise<{ killed: boolean; detail: string }> {
    const script = join(this.directory, "test/lsm/mutantsKiller.ts")
    const { output, isHung } = await this.run([script, killer, String(seed)])
    if (isHung) return { killed: true, detail: `over ${timeoutMs} ms` }
    const line = output.split("\n").findLast((each) => each.startsWith('{"killed"'))
    // A mutant that cannot be loaded is none.
    if (line === undefined) throw new Error(`${killer} did not run: ${output.slice(-2000)}`)
    return JSON.parse(line)
  }

  /** The first named test that fails. */
  async tryTests(): Promise<string | undefined> {
    const files = namedTests.map((name) => join("test/lsm", `${name}.test.ts`))
    const { output, isHung } = await this.run(["test", "--timeout", "60000", ...files])
    if (isHung) return "hang"
    return /^\(fail\) (.*)$/m.exec(output)?.[1]
  }

  private run(words: ReadonlyArray<string>): Promise<{ output: string; isHung: boolean }> {
    return new Promise((done) => {
      const child = spawn(process.execPath, words, { cwd: this.directory })
      let output = ""
      let isHung = false
      const timer = setTimeout(() => {
        isHung = true
        child.kill("SIGKILL")
      }, timeoutMs)
      child.stdout.on("data", (bytes) => (output += bytes))
      child.stderr.on("data", (bytes) => (output += bytes))
      child.on("close", () => {
        clearTimeout(timer)
        done({ output, isHung })
      })
    })
  }
}

/** The text of a file with the mutant in it; throws when its place is not there, once. */
function mutated(mutant: EngineMutant, text: string): string {
  const parts = text.split(mutant.before)
  if (parts.length !== 2) {
    const found = `${parts.length - 1} places in ${mutant.file}`
    throw new Error(`${mutant.name}: ${found}: ${mutant.before}`)
  }
  return parts.join(mutant.after)
}

/** Mutants whose place has moved: they would be planted nowhere. */
export function misplacedMutants(): ReadonlyArray<string> {
  return engineMutants.flatMap((mutant) => {
    try {
      mutated(mutant, readFileSync(join(root, mutant.file), "utf8"))
      return []
    } catch (error) {
      return [String(error)]
    }
  })
}

async function hunt(tree: MutantTree, mutant: EngineMutant, first: number, seeds: number) {
  tree.plant(mutant)
  try {
    for (let seed = first; seed < first + seeds; seed++) {
      for (const killer of killers) {
        const { killed, detail } = await tree.try(killer, seed)
        if (killed) return { mutant: mutant.name, killedBy: `${killer} ${seed}`, detail }
      }
    }
    const failed = await tree.tryTests()
    const killedBy = failed === undefined ? undefined : "named test"
    return { mutant: mutant.name, killedBy, detail: failed ?? "" }
  } finally {
    tree.heal(mutant)
  }
}

/** Looks for a killer of every mutant, blindly, from a seed on; then that the build as it ships is killed by none. */
export async function runEngineMutants(options: {
  readonly first: number
  readonly seeds: number
  readonly only: string | undefined
}): Promise<{ total: number; killed: number; table: ReadonlyArray<EngineKill> }> {
  const { first, seeds, only } = options
  const chosen = engineMutants.filter(({ name }) => only === undefined || name.includes(only))
  const table: Array<EngineKill> = []
  const left = [...chosen]
  const serve = async () => {
    const tree = new MutantTree()
    try {
      for (let mutant = left.shift(); mutant !== undefined; mutant = left.shift()) {
        const kill = await hunt(tree, mutant, first, seeds)
        table.push(kill)
        console.error(`${kill.mutant}: ${kill.killedBy ?? "SURVIVES"} ${kill.detail}`)
      }
    } finally {
      tree.remove()
    }
  }
  await Promise.all([serve(), serve()])
  const order = new Map(chosen.map(({ name }, i) => [name, i]))
  table.sort((a, b) => (order.get(a.mutant) ?? 0) - (order.get(b.mutant) ?? 0))
  await checkClean(first, seeds)
  const killed = table.filter(({ killedBy }) => killedBy !== undefined).length
  return { total: table.length, killed, table }
}

/** A harness that cries without a mutant kills nothing. */
async function checkClean(first: number, seeds: number): Promise<void> {
  const tree = new MutantTree()
  try {
    for (let seed = first; seed < first + seeds; seed++) {
      for (const killer of killers) {
        const { killed, detail } = await tree.try(killer, seed)
        if (killed) throw new Error(`${killer} ${seed} fails without a mutant: ${detail}`)
      }
    }
  } finally {
    tree.remove()
  }
}
