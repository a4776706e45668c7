import { describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import {
  caseProblems,
  directionProblems,
  hasUnstableHeader,
  isUnstableModule,
  namedEffectModules,
  purityProblems,
  roomOf,
} from "./rules.ts"
import {
  importsOf,
  readSource,
  root,
  type SourceFile,
  typescriptFiles,
  withoutComments,
} from "./sources.ts"

const sources = typescriptFiles("src").map(readSource)
const cores = ["raft", "journal", "lsm", "dynamo", "topology"]

function fileOf(path: string, source: string): SourceFile {
  const code = withoutComments(source)
  return { path, source, code, imports: importsOf(path, code) }
}

describe("the house", () => {
  test("has sources to look at", () => {
    expect(sources.length).toBeGreaterThan(10)
    expect(sources.some((file) => file.imports.length > 0)).toBe(true)
  })

  test("imports go down only: cli, doors, server, cores, disk, lib", () => {
    expect(sources.flatMap(directionProblems)).toEqual([])
  })

  test("cores never import each other", () => {
    const crossings = sources
      .filter((file) => cores.includes(roomOf(file.path)))
      .flatMap((file) =>
        file.imports
          .filter(({ target }) => target.startsWith("src/"))
          .filter(({ target }) => cores.includes(roomOf(target)))
          .filter(({ target }) => roomOf(target) !== roomOf(file.path))
          .map(({ target, line }) => `${file.path}:${line} imports ${target}`),
      )
    expect(crossings).toEqual([])
  })

  test("src never imports test", () => {
    const found = sources.flatMap((file) =>
      file.imports
        .filter(({ target }) => target.startsWith("test/"))
        .map(({ target, line }) => `${file.path}:${line} imports ${target}`),
    )
    expect(found).toEqual([])
  })

  test("camelCase files are pure", () => {
    expect(sources.flatMap(purityProblems)).toEqual([])
  })

  test("PascalCase files touch Effect or IO", () => {
    expect(sources.flatMap(caseProblems)).toEqual([])
  })

  test("a module of Effect that is marked unstable is imported by one file", () => {
    const importers = new Map<string, Set<string>>()
    for (const file of sources) {
      const named = namedEffectModules(file.code).filter(isUnstableByHeader)
      const whole = file.imports.map(({ specifier }) => specifier).filter(isUnstableModule)
      for (const module of [...whole, ...named.map((name) => `effect/${name}`)]) {
        const files = importers.get(module) ?? new Set()
        importers.set(module, files.add(file.path))
      }
    }
    const spread = [...importers].filter(([, files]) => files.size > 1)
    expect(spread.map(([specifier, files]) => `${specifier}: ${[...files].join(", ")}`)).toEqual([])
  })

  test("every folder of src but lib opens with an essay", () => {
    const folders = new Set(
      sources.map((file) => roomOf(file.path)).filter((room) => !room.endsWith(".ts")),
    )
    folders.delete("lib")
    const silent = [...folders].filter(
      (folder) =>
        !sources.some((file) => roomOf(file.path) === folder && longestComment(file) >= 10),
    )
    expect(silent).toEqual([])
  })
})

function isUnstableByHeader(name: string): boolean {
  const path = join(root, "node_modules/effect/src", `${name}.ts`)
  return existsSync(path) && hasUnstableHeader(readFileSync(path, "utf8"))
}

function longestComment(file: SourceFile): number {
  const blocks = file.source.match(/\/\*\*[\s\S]*?\*\//g) ?? []
  return Math.max(0, ...blocks.map((block) => block.split("\n").length))
}

/** The rules are seen to fail: each line below is a violation that must be reported. */
describe("the rules themselves", () => {
  test("a type import counts as an import", () => {
    const file = fileOf("src/raft/x.ts", 'import type { Journal } from "../journal/journal.ts"')
    expect(directionProblems(file)).toHaveLength(1)
  })

  test("an import over several lines, an export from and an import() are seen", () => {
    const source = [
      "import {\n  a,\n  type B,\n} from '../server/apply.ts'",
      'export { c } from "../cli/addresses.ts"',
      'type D = import("../doors/native/Door.ts").Door',
      'import "../client/routes.ts"',
    ].join("\n")
    expect(directionProblems(fileOf("src/lsm/x.ts", source)).length).toBeGreaterThanOrEqual(4)
  })

  test("what stands in a comment or a string is not seen", () => {
    const source = [
      '// import { a } from "../server/apply.ts"',
      "/* Date.now() and Math.random() */",
      'const text = "await a Promise, says console.log"',
      "const pattern = /[\"']Date/g",
      "const after = 1 / 2 // Date",
    ].join("\n")
    expect(directionProblems(fileOf("src/lsm/x.ts", source))).toEqual([])
    expect(purityProblems(fileOf("src/lsm/x.ts", source)).map((p) => p.split(": ")[1])).toEqual([
      '"Date" in a pure file; use a monotonic or wall reading passed in with the input',
    ])
  })

  const impure = [
    "const now = Date.now()",
    "const draw = Math.random()",
    "setTimeout(() => {}, 5)",
    "const home = process.env.HOME",
    "console.log(1)",
    "const later = Promise.resolve(1)",
    "async function read() {}",
    ["const text = `at $", "{performance.now()}`"].join(""),
    'import { readFileSync } from "node:fs"',
    'import { Effect } from "effect"',
    'import { Disk } from "../disk/FileDisk.ts"',
    "const file = Bun.file(path)",
  ]
  test.each(impure)("a pure file must not hold: %s", (line) => {
    const file = fileOf("src/lsm/x.ts", line)
    expect([...purityProblems(file), ...directionProblems(file)].length).toBeGreaterThan(0)
  })

  test("unstable modules are known by their header, however they are imported", () => {
    const code = 'import { Effect, type FileSystem, Stdio as Io } from "effect"'
    expect(namedEffectModules(code)).toEqual(["Effect", "FileSystem", "Stdio"])
    expect(namedEffectModules(code).filter(isUnstableByHeader)).toEqual(["FileSystem", "Stdio"])
    expect(isUnstableModule("effect/cli")).toBe(true)
    expect(isUnstableModule("effect/Effect")).toBe(false)
  })

  test("a PascalCase name without a reason is reported", () => {
    expect(caseProblems(fileOf("src/lsm/Table.ts", "export const a = 1"))).toHaveLength(1)
  })

  test("src importing test is reported", () => {
    const file = fileOf("src/server/Store.ts", 'import { x } from "../sim/world.ts"')
    expect(directionProblems(file)).toHaveLength(1)
  })
})
