import { afterEach, describe, expect, test } from "bun:test"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { Directory } from "./fixture.ts"

let directory: Directory

afterEach(() => directory.remove())

/** Every file with its content and its time of change. */
function contents(): ReadonlyArray<string> {
  return readdirSync(directory.root, { recursive: true, encoding: "utf8" })
    .filter((name) => statSync(join(directory.root, name)).isFile())
    .map((name) => {
      const path = join(directory.root, name)
      return `${name} ${statSync(path).mtimeMs} ${Bun.hash(readFileSync(path))}`
    })
}

describe("a flipped byte in the engine's files", () => {
  const files = [
    "CURRENT",
    "00000004.manifest",
    "00000002.table",
    "00000003.table",
    "00000005.table",
  ]
  test.each(files)("%s: every place is found, and named within a block of it", (name) => {
    directory = new Directory()
    const path = `engine/${name}`
    const { size } = statSync(join(directory.root, path))
    const step = name.endsWith(".table") ? 13 : 5
    for (let offset = 0; offset < size; offset += step) {
      directory.flip(path, offset)
      const { damages } = directory.examine()
      const places = damages.filter((damage) => damage.path === path)
      // The last sector of the last edit may be torn: its end is what tells.
      const isTail = name.endsWith(".manifest") && offset >= size - 512
      if (!isTail || damages.length > 0) {
        expect(places.length, `byte ${offset}`).toBeGreaterThan(0)
        const nearest = Math.min(...places.map((place) => Math.abs(place.offset - offset)))
        expect(nearest, `byte ${offset}`).toBeLessThanOrEqual(1100)
      }
      directory.flip(path, offset)
    }
    expect(directory.examine().damages).toEqual([])
  })

  test("an examination changes nothing, sound or damaged", () => {
    directory = new Directory()
    const before = contents()
    directory.examine()
    expect(contents()).toEqual(before)
    for (const path of ["engine/CURRENT", "engine/00000002.table", "journal/00000001.log"]) {
      directory.flip(path, 10)
    }
    const damaged = contents()
    expect(directory.examine().damages).toHaveLength(3)
    expect(contents()).toEqual(damaged)
  })
})
