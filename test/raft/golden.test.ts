import { describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { runScript } from "./script.ts"

/**
 * Runs every script of golden/ (script.ts tells the language) and compares its trace. With
 * KVORUM_REWRITE=1 the traces are written anew: only for changes of which every line can be
 * explained.
 */
const directory = join(import.meta.dir, "golden")
const rewrite = process.env.KVORUM_REWRITE === "1"

interface Script {
  readonly head: string
  readonly title: string
  readonly commands: ReadonlyArray<string>
  readonly trace: string
}

function parse(text: string): Script {
  const separator = text.indexOf("\n---\n")
  const head = separator < 0 ? text.trimEnd() : text.slice(0, separator)
  const trace = separator < 0 ? "" : text.slice(separator + 5)
  const lines = head.split("\n").map((line) => line.trim())
  const title = lines.filter((line) => line.startsWith("#")).map((line) => line.slice(1).trim())
  return {
    head,
    title: title.join(" "),
    commands: lines.filter((line) => line !== "" && !line.startsWith("#")),
    trace,
  }
}

describe("golden scripts of the raft core", () => {
  const files = readdirSync(directory).filter((name) => name.endsWith(".txt"))

  test("there are scripts, and each tells its story first", () => {
    expect(files.length).toBeGreaterThanOrEqual(15)
    for (const file of files) {
      expect(readFileSync(join(directory, file), "utf8")).toStartWith("# ")
    }
  })

  for (const file of files.sort()) {
    const path = join(directory, file)
    const script = parse(readFileSync(path, "utf8"))
    test(`${file}: ${script.title}`, () => {
      const trace = `${runScript(script.commands).join("\n")}\n`
      if (rewrite) writeFileSync(path, `${script.head}\n---\n${trace}`)
      else expect(trace).toBe(script.trace)
    })
  }
})
