import { expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** The known mistakes of Raft implementations that a core can make, by their numbers in the list of this project. */
const ofTheCore = Array.from({ length: 29 }, (_, i) => i + 1)

test("each of the pitfalls of a core has a golden script or a test that names it", () => {
  const golden = join(import.meta.dir, "golden")
  const texts = [
    ...readdirSync(golden).map(
      (file) => readFileSync(join(golden, file), "utf8").split("\n---")[0],
    ),
    ...readdirSync(import.meta.dir)
      .filter((file) => file.endsWith(".test.ts") || file.endsWith("Rules.ts"))
      .map((file) => readFileSync(join(import.meta.dir, file), "utf8")),
  ]
  const named = new Set<number>()
  for (const text of texts) {
    for (const [, numbers] of (text ?? "").matchAll(/pitfalls? ([0-9]+(?:, [0-9]+)*)/g)) {
      for (const number of (numbers as string).split(", ")) named.add(Number(number))
    }
  }
  expect(ofTheCore.filter((number) => !named.has(number))).toEqual([])
})
