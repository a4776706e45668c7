import { describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

/**
 * Golden scripts: text files that tell a story (comment), give commands, and after `---` hold the whole trace that the commands must
 * leave. With KVORUM_REWRITE=1 the traces are written anew: only for changes of which every line can be explained.
 */
export interface GoldenOptions {
  readonly of: string
  readonly directory: string
  /** At least so many scripts must be there, so that a folder that went missing is noticed. */
  readonly atLeast: number
  readonly run: (commands: ReadonlyArray<string>) => ReadonlyArray<string>
}

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

export function goldenScripts({ of, directory, atLeast, run }: GoldenOptions): void {
  const rewrite = process.env.KVORUM_REWRITE === "1"
  describe(`golden scripts of ${of}`, () => {
    const files = readdirSync(directory).filter((name) => name.endsWith(".txt"))

    test("there are scripts, and each tells its story first", () => {
      expect(files.length).toBeGreaterThanOrEqual(atLeast)
      for (const file of files) {
        expect(readFileSync(join(directory, file), "utf8")).toStartWith("# ")
      }
    })

    for (const file of files.sort()) {
      const path = join(directory, file)
      const script = parse(readFileSync(path, "utf8"))
      test(`${file}: ${script.title}`, () => {
        const trace = `${run(script.commands).join("\n")}\n`
        if (rewrite) writeFileSync(path, `${script.head}\n---\n${trace}`)
        else expect(trace).toBe(script.trace)
      })
    }
  })
}
