import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** One of the ways in which others have failed, by its number in its list, and the tests that fail when we do so too: a file of this folder, and words of the title. */
export interface Pitfall {
  readonly number: number
  readonly pitfall: string
  readonly tests: ReadonlyArray<readonly [file: string, title: string]>
}

/** Tests that are named and do not exist, a line each. `isIt` says of a title whether it is the one with these words and this number. */
export function missingTests(
  pitfalls: ReadonlyArray<Pitfall>,
  isIt: (found: string, number: number, words: string) => boolean,
): ReadonlyArray<string> {
  const missing: Array<string> = []
  for (const { number, tests } of pitfalls) {
    for (const [file, title] of tests) {
      const path = join(import.meta.dir, file)
      const text = existsSync(path) ? readFileSync(path, "utf8") : ""
      if (!titlesOf(file, text).some((found) => isIt(found, number, title))) {
        missing.push(`${number} ${file}: ${title}`)
      }
    }
  }
  return missing
}

/** What a file's tests are called: the head of a script, or the strings of a source, which a comment is not. */
export function titlesOf(file: string, text: string): ReadonlyArray<string> {
  if (file.endsWith(".txt")) return [text.split("\n---")[0] as string]
  return [...text.matchAll(/(["`])((?:(?!\1)[^\n])*)\1/g)].map(([, , title]) => title as string)
}
