import { isPascalCase, type SourceFile } from "./sources.ts"

/** The house rules of imports and purity, as functions from a file to what is wrong with it. */

/** What the files of each folder of `src` may import, besides their own folder. `lib`, `types` and `Errors` are named where allowed. */
const directions: Readonly<Record<string, ReadonlyArray<string>>> = {
  "main.ts": ["cli"],
  cli: [
    "Node.ts",
    "admin",
    "doors",
    "doctor",
    "server",
    "client",
    "wire",
    "dynamo",
    "disk",
    "lib",
    "types.ts",
    "Errors.ts",

    "main.ts",
    "Node.ts",
  ],
  "Node.ts": ["admin", "doors", "server", "wire", "lib", "types.ts", "Errors.ts"],
  admin: ["client", "server", "dynamo", "topology", "disk", "wire", "lib", "types.ts", "Errors.ts"],
  doctor: ["server", "journal", "lsm", "disk", "lib", "types.ts"],
  doors: ["server", "wire", "dynamo", "lib", "types.ts", "Errors.ts", "Metrics.ts"],
  server: [
    "raft",
    "journal",
    "lsm",
    "dynamo",
    "topology",
    "disk",
    "wire",
    "lib",
    "types.ts",
    "Errors.ts",

    "Metrics.ts",
  ],
  client: ["wire", "dynamo", "topology", "lib", "types.ts", "Errors.ts"],
  raft: ["lib", "types.ts"],
  journal: ["disk", "lib", "types.ts"],
  lsm: ["disk", "lib", "types.ts"],
  topology: ["lib", "types.ts"],
  dynamo: ["lib", "types.ts"],
  disk: ["lib", "types.ts"],
  wire: ["dynamo", "lib", "types.ts", "Errors.ts"],
  lib: ["types.ts"],
  "types.ts": [],
  "Errors.ts": ["types.ts"],
  "Metrics.ts": ["types.ts"],
}

/** The root of a file in `src`: its folder, or its own name at the top. */
export function roomOf(path: string): string {
  return path.split("/")[1] as string
}

export function directionProblems(file: SourceFile): ReadonlyArray<string> {
  const room = roomOf(file.path)
  const allowed = directions[room]
  if (allowed === undefined)
    return [`${file.path}: the folder ${room} has no place in the directions`]
  const problems: Array<string> = []
  for (const { target, line, specifier } of file.imports) {
    if (!specifier.startsWith(".")) continue
    const where = `${file.path}:${line}`
    if (!target.startsWith("src/")) {
      if (target !== "package.json") problems.push(`${where}: src must not import ${target}`)
      continue
    }
    const targetRoom = roomOf(target)
    if (targetRoom !== room && !allowed.includes(targetRoom)) {
      problems.push(`${where}: ${room} must not import ${targetRoom} (${target})`)
    }
    if (!isPascalCase(file.path) && file.path !== "src/main.ts" && isPascalCase(target)) {
      problems.push(`${where}: a pure file must not import ${target}`)
    }
  }
  return problems
}

/** What a pure file must not touch, and what it uses in its place. */
const banned: ReadonlyArray<{ readonly pattern: RegExp; readonly instead: string }> = [
  { pattern: /\bDate\b/, instead: "a monotonic or wall reading passed in with the input" },
  { pattern: /\bperformance\s*\./, instead: "a monotonic reading passed in with the input" },
  { pattern: /\bMath\s*\.\s*random\b/, instead: "a Prng argument" },
  { pattern: /\bcrypto\b/, instead: "a Prng argument, or an id made by the driver" },
  { pattern: /\b(?:setTimeout|setInterval|setImmediate|queueMicrotask)\b/, instead: "ticks" },
  { pattern: /\bprocess\s*\./, instead: "an option passed in by the driver" },
  { pattern: /\bconsole\s*\./, instead: "data in the output, logged by the driver" },
  { pattern: /\bPromise\b/, instead: "data in the output that the driver acts on" },
  { pattern: /\basync\b/, instead: "data in the output that the driver acts on" },
  { pattern: /\bawait\b/, instead: "data in the output that the driver acts on" },
  { pattern: /\bfetch\s*\(/, instead: "data in the output that the driver acts on" },
  { pattern: /\bglobalThis\b/, instead: "an argument" },
  { pattern: /\bAtomics\s*\.\s*wait/, instead: "data in the output that the driver acts on" },
  { pattern: /\bnew\s+Worker\b/, instead: "a job in the output" },
  {
    pattern: /\bBun\s*\.\s*(?!hash\b|zstd(?:Compress|Decompress)Sync\b)/,
    instead: "lib, or a port that the driver implements",
  },
]

/** Modules of the runtime that are pure functions. */
const pureModules = new Set(["node:zlib", "msgpackr", "lz4-napi", "snappyjs"])

export function purityProblems(file: SourceFile): ReadonlyArray<string> {
  if (isPascalCase(file.path) || file.path === "src/main.ts") return []
  const problems: Array<string> = []
  for (const { specifier, line } of file.imports) {
    if (specifier.startsWith(".") || pureModules.has(specifier)) continue
    const instead = specifier.startsWith("effect") ? "a PascalCase file" : "a port"
    problems.push(`${file.path}:${line}: a pure file imports ${specifier}; use ${instead}`)
  }
  const lines = withoutStrings(file.code).split("\n")
  for (const [index, line] of lines.entries()) {
    for (const { pattern, instead } of banned) {
      const found = pattern.exec(line)
      if (found !== null) {
        problems.push(
          `${file.path}:${index + 1}: "${found[0].trim()}" in a pure file; use ${instead}`,
        )
      }
    }
  }
  return problems
}

/** Texts of strings become empty, so that a word in a message is not taken for code. Templates keep what is in `${}`. */
function withoutStrings(code: string): string {
  return code
    .replace(/"(?:[^"\\\n]|\\.)*"/g, '""')
    .replace(/'(?:[^'\\\n]|\\.)*'/g, "''")
    .replace(/`(?:[^`\\]|\\.)*`/g, (template) => {
      const parts = [...template.matchAll(/\$\{([^}]*)\}/g)].map((match) => match[1])
      const newlines = template.split("\n").length - 1
      return `\`${parts.join(" ")}\`${"\n".repeat(newlines)}`
    })
}

/** A PascalCase file has a reason to be one. */
export function caseProblems(file: SourceFile): ReadonlyArray<string> {
  if (!isPascalCase(file.path)) return []
  const touches = file.imports.some(
    ({ specifier, target }) =>
      /^(?:effect|@effect|node:|bun:|bun$)/.test(specifier) ||
      (target.startsWith("src/") && isPascalCase(target)),
  )
  const impure = banned.some(({ pattern }) => pattern.test(file.code)) || /\bBun\./.test(file.code)
  return touches || impure
    ? []
    : [`${file.path}: touches neither Effect nor IO; give it a camelCase name`]
}

/** Modules of Effect that its authors mark unstable: imported by one file each, which exports what others use. */
export function isUnstableModule(specifier: string): boolean {
  if (specifier.startsWith("@effect/")) return true
  return /^effect\/(?:ai|cli|cluster|crypto|devtools|encoding|eventlog|http|http-api|net|observability|persistence|process|reactivity|graphql|rpc|schema|socket|sql|testing|workflow|workers|Arbitrary|FileSystem|Stdio|Terminal)\b/.test(
    specifier,
  )
}

/** Modules taken by name from `effect` itself: `import { Effect, Logger as Log } from "effect"`. */
export function namedEffectModules(code: string): ReadonlyArray<string> {
  const names: Array<string> = []
  for (const match of code.matchAll(
    /\b(?:import|export)\s+(?:type\s+)?\{([^}]*)\}\s*from\s*"effect"/g,
  )) {
    for (const part of (match[1] as string).split(",")) {
      const name = /^\s*(?:type\s+)?(\w+)/.exec(part)?.[1]
      if (name !== undefined) names.push(name)
    }
  }
  return names
}

/** True when the first comment of a module of `effect` marks the whole module unstable. */
export function hasUnstableHeader(source: string): boolean {
  const header = /^\s*\/\*\*[\s\S]*?\*\//.exec(source)?.[0] ?? ""
  return header.includes("@stability unstable")
}
