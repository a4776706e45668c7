import { readdirSync, readFileSync } from "node:fs"
import { join, relative, resolve } from "node:path"

/** The source tree as the house rules see it: files, their text without comments, and what they import. */
export const root = resolve(import.meta.dir, "../..")

export interface SourceFile {
  /** Relative to the repository: "src/raft/node.ts". */
  readonly path: string
  readonly source: string
  /** Strings kept, comments blanked out, lines where they were. */
  readonly code: string
  readonly imports: ReadonlyArray<ImportedModule>
}

export interface ImportedModule {
  /** As written. */
  readonly specifier: string
  /** Relative to the repository for a relative specifier, else as written. */
  readonly target: string
  readonly line: number
}

export function typescriptFiles(folder: string): ReadonlyArray<string> {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.startsWith("bench/peers/"))
    .map((name) => `${folder}/${name}`)
    .sort()
}

export function readSource(path: string): SourceFile {
  const source = readFileSync(join(root, path), "utf8")
  const code = withoutComments(source)
  return { path, source, code, imports: importsOf(path, code) }
}

/**
 * Comments become spaces; strings and templates stay as they are. Regular expressions are told from divisions by what precedes them, so
 * that a quote inside one does not open a string.
 */
export function withoutComments(source: string): string {
  let result = ""
  let at = 0
  while (at < source.length) {
    const end = tokenEnd(source, at, result)
    const token = source.slice(at, end)
    const comment = token.startsWith("//") || token.startsWith("/*")
    result += comment ? token.replace(/[^\n]/g, " ") : token
    at = end
  }
  return result
}

function tokenEnd(source: string, at: number, before: string): number {
  const two = source.slice(at, at + 2)
  if (two === "//") return endAt(source.indexOf("\n", at), source)
  if (two === "/*") return endAt(source.indexOf("*/", at + 2), source, 2)
  const first = source[at] as string
  if (first === '"' || first === "'" || first === "`") return stringEnd(source, at, first)
  if (first === "/" && /(^|[=(,:;!&|?{}[\n>]|return|typeof)\s*$/.test(before)) {
    return regexEnd(source, at)
  }
  return at + 1
}

function endAt(index: number, source: string, width = 0): number {
  return index < 0 ? source.length : index + width
}

function stringEnd(source: string, start: number, quote: string): number {
  for (let at = start + 1; at < source.length; at++) {
    if (source[at] === "\\") at++
    else if (source[at] === quote) return at + 1
  }
  return source.length
}

function regexEnd(source: string, start: number): number {
  let inClass = false
  for (let at = start + 1; at < source.length; at++) {
    const character = source[at]
    if (character === "\n") return start + 1
    if (character === "\\") at++
    else if (character === "[") inClass = true
    else if (character === "]") inClass = false
    else if (character === "/" && !inClass) return at + 1
  }
  return start + 1
}

/**
 * Static imports and exports from a module, type imports and `import("...")` included. `Bun.Transpiler.scanImports` drops type imports, and a
 * type import is a direction as much as any other.
 */
export function importsOf(path: string, code: string): ReadonlyArray<ImportedModule> {
  const pattern =
    /(?:(?<!["'])\bfrom\s*|\bimport\s*|\bimport\s*\(\s*|\brequire\s*\(\s*|\bnew\s+URL\s*\(\s*)(["'])([^"'\n]+)\1/g
  const found: Array<ImportedModule> = []
  for (const match of code.matchAll(pattern)) {
    const specifier = match[2] as string
    const line = code.slice(0, match.index).split("\n").length
    const target = specifier.startsWith(".")
      ? relative(root, resolve(root, path, "..", specifier))
      : specifier
    found.push({ specifier, target, line })
  }
  return found
}

/** Names of files begin with their case: PascalCase touches Effect or IO, camelCase is pure. */
export function isPascalCase(path: string): boolean {
  return /^[A-Z]/.test(path.split("/").at(-1) as string)
}
