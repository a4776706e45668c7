import { expect, test } from "bun:test"
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { root } from "./sources.ts"

function run(tool: string, ...options: ReadonlyArray<string>) {
  const path = join(root, "node_modules/.bin", tool)
  const { exitCode, stdout, stderr } = Bun.spawnSync([path, ...options], { cwd: root })
  return { exitCode, output: `${stdout}${stderr}` }
}

test("types check", () => {
  expect(run("tsc", "--noEmit")).toEqual({ exitCode: 0, output: "" })
}, 120_000)

test("biome finds nothing to format or to fix", () => {
  const { exitCode, output } = run("biome", "check", "--colors=off", "--error-on-warnings")
  expect(exitCode, output).toBe(0)
}, 120_000)

test("the command can be run as a program", () => {
  const path = join(root, "src/main.ts")
  expect(statSync(path).mode & 0o777).toBe(0o755)
  expect(readFileSync(path, "utf8").startsWith("#!/usr/bin/env bun\n")).toBe(true)
})

test("package-lock.json is the one lock file", () => {
  expect(existsSync(join(root, "package-lock.json"))).toBe(true)
  for (const name of ["bun.lock", "bun.lockb", "yarn.lock", "pnpm-lock.yaml"]) {
    expect(existsSync(join(root, name)), name).toBe(false)
  }
})

test("every dependency is pinned to one version", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
  const versions = Object.values({ ...manifest.dependencies, ...manifest.devDependencies })
  for (const version of versions) expect(version).toMatch(/^\d+\.\d+\.\d+$/)
})
